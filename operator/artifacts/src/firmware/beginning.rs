//! How the firmware of an image begins, without the rest of it. Talks to registries.

use oci_client::manifest::OciImageManifest;

use super::layer::{Found, look};
use super::{LAYER_BYTES, MANIFEST_BYTES};
use crate::{Digest, RegistryError, Source, image_manifest, layer_of};

/// Bytes of a layer that are fetched first: headers of the archive, and the beginning of a file.
const START_BYTES: usize = 64 << 10;

/// Part of each layer that is looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The start of it, whose digest nobody can check. A file that comes later in its layer than
    /// another one is not seen.
    Start,
    /// All of it, hashed.
    Whole,
}

/// How the file begins that is the firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// Its path in the image.
    pub name: String,
    /// Its whole size, in bytes.
    pub size: u64,
    /// Its first bytes.
    pub bytes: Vec<u8>,
    /// True if its whole layer was looked through, and hashed.
    pub is_certain: bool,
}

/// Reads the first bytes, at most so many, of the firmware of a manifest; of several layers with
/// firmware the last one counts, as in any image. None where there is no such file, or none that is
/// found this way.
///
/// # Errors
/// The registry does not have the manifest or the layer, or does not answer.
pub async fn beginning(
    source: &mut Source<'_>,
    digest: &Digest,
    part: Part,
    most: usize,
) -> Result<Option<Beginning>, RegistryError> {
    let what = source.what(&digest.to_string());
    let (_, bytes) =
        source.manifest_bytes(&digest.to_string(), Some(digest), MANIFEST_BYTES).await?;
    let OciImageManifest { layers, .. } = image_manifest(&bytes, &what)?;
    for layer in layers.iter().rev() {
        let layer = match layer_of(layer, &what, LAYER_BYTES) {
            // Nobody flashes that.
            Err(RegistryError::TooLarge { .. }) => return Ok(None),
            layer => layer?,
        };
        let is_certain = part == Part::Whole || layer.size <= START_BYTES;
        let bytes = match is_certain {
            true => source.blob(&layer).await?,
            false => source.blob_start(&layer, START_BYTES).await?,
        };
        let (found, end) = look(&bytes, most);
        if is_certain && end.is_err() {
            return Ok(None);
        }
        match found {
            Some(Found { name, size, beginning: bytes, .. }) => {
                return Ok(Some(Beginning { name, size, bytes, is_certain }));
            }
            None if !is_certain => return Ok(None),
            None => {}
        }
    }
    Ok(None)
}
