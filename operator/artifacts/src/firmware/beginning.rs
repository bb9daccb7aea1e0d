//! Fetches the beginning of an image's firmware without the rest of it. Talks to registries.

use std::collections::HashMap;

use oci_client::manifest::OciImageManifest;

use super::layer::{Found, look};
use super::{Firmware, LAYER_BYTES, MANIFEST_BYTES};
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

/// Beginning of the file that is the firmware.
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

/// Reads beginnings of firmware, and keeps those whose layers were hashed: what is refused is asked
/// about again and again, and fetched once.
#[derive(Debug)]
pub struct Beginnings {
    /// Most bytes of a file.
    most: usize,
    /// What a layer has, by the digest of its manifest; None: no firmware.
    hashed: HashMap<Digest, Option<Beginning>>,
}

impl Beginnings {
    /// None yet; of each file at most so many bytes.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, hashed: HashMap::new() }
    }

    /// Forgets what other firmware had, as under the same tag.
    pub fn keep_those_of(&mut self, firmware: &Firmware) {
        let is_platform = |digest: &Digest| firmware.platforms.iter().any(|(_, of)| of == digest);
        self.hashed.retain(|digest, _| firmware.digest == *digest || is_platform(digest));
    }

    /// Reads the first bytes of the firmware of a manifest; of several layers with firmware the
    /// last one counts, as in any image. None where there is no such file, or none that is found
    /// this way.
    ///
    /// # Errors
    /// The registry does not have the manifest or the layer, or does not answer.
    pub async fn read(
        &mut self,
        source: &mut Source<'_>,
        digest: &Digest,
        part: Part,
    ) -> Result<Option<Beginning>, RegistryError> {
        if let Some(hashed) = self.hashed.get(digest) {
            return Ok(hashed.clone());
        }
        let file = beginning(source, digest, part, self.most).await?;
        if part == Part::Whole || file.as_ref().is_some_and(|file| file.is_certain) {
            self.hashed.insert(digest.clone(), file.clone());
        }
        Ok(file)
    }
}

async fn beginning(
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::fake_registry::{Fake, answer};
    use crate::{Logins, Reference};

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, *content).expect("written");
        }
        archive.into_inner().expect("written")
    }

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("written");
        encoder.finish().expect("written")
    }

    /// Bytes that do not become fewer when they are compressed.
    fn noise(first: u8, length: usize) -> Vec<u8> {
        let mut state = u32::from(first) | 1;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        std::iter::once(first).chain((1..length).map(next)).collect()
    }

    /// A registry that has an image with these layers, and the digest of its manifest.
    async fn serve(layers: &[Vec<u8>]) -> (Fake, Digest) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let descriptors: Vec<_> = layers
            .iter()
            .map(|layer| {
                let (digest, size) = (Digest::of(layer), layer.len());
                serde_json::json!({"mediaType": "layer", "digest": digest, "size": size})
            })
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "x", "digest": Digest::of(b"{}"), "size": 2},
            "layers": descriptors,
        })
        .to_string();
        let digest = Digest::of(manifest.as_bytes());
        let mut files = HashMap::from([(format!("manifests/{digest}"), manifest.into_bytes())]);
        for layer in layers {
            files.insert(format!("blobs/{}", Digest::of(layer)), layer.clone());
        }
        let fake = Fake::start(move |_, path, _| {
            let file = path.strip_prefix("/v2/a/b/").and_then(|path| files.get(path));
            file.map_or_else(|| answer(404, ""), |file| answer(200, file.clone()))
        })
        .await;
        (fake, digest)
    }

    /// Reads the first four bytes of the firmware there.
    async fn read_from(
        fake: &Fake,
        digest: &Digest,
        part: Part,
        beginnings: &mut Beginnings,
    ) -> Result<Option<Beginning>, RegistryError> {
        let reference: Reference = format!("{}/a/b:1", fake.host).parse().expect("a reference");
        let (registries, logins) = ([fake.config()], Logins::none());
        let source = Source::of(&reference, &registries, &logins).expect("a client");
        beginnings.read(&mut source.expect("a registry"), digest, part).await
    }

    /// The same of an image with these layers.
    async fn read(layers: &[Vec<u8>], part: Part) -> Result<Option<Beginning>, RegistryError> {
        let (fake, digest) = serve(layers).await;
        read_from(&fake, &digest, part, &mut Beginnings::new(4)).await
    }

    #[tokio::test]
    async fn a_layer_that_was_hashed_is_fetched_again_only_after_other_firmware() {
        let layer = archive(&[("firmware/a.bin", &noise(7, 200 << 10))]);
        let (fake, digest) = serve(&[layer]).await;
        let fetched = || fake.asked().iter().filter(|(path, _)| path.contains("/blobs/")).count();
        let mut beginnings = Beginnings::new(4);
        for (part, expected) in
            [(Part::Start, 1), (Part::Whole, 2), (Part::Start, 2), (Part::Whole, 2)]
        {
            let file = read_from(&fake, &digest, part, &mut beginnings).await.expect("read");
            assert_eq!(file.map(|file| file.name).as_deref(), Some("firmware/a.bin"));
            assert_eq!(fetched(), expected, "{part:?}");
        }
        let firmware = |digest: &Digest| Firmware { digest: digest.clone(), platforms: Vec::new() };
        for (now, expected) in [(&digest, 2), (&Digest::of(b"what the tag has now"), 3)] {
            beginnings.keep_those_of(&firmware(now));
            read_from(&fake, &digest, Part::Whole, &mut beginnings).await.expect("read");
            assert_eq!(fetched(), expected, "{now}");
        }
    }

    #[tokio::test]
    async fn the_firmware_is_the_file_of_the_last_layer_that_has_one() {
        let layers = [
            compressed(&archive(&[("firmware/a.bin", b"old one")])),
            archive(&[("firmware/b.bin", b"other"), ("firmware/a.bin", b"new")]),
            compressed(&archive(&[("etc/readme", b"firmware")])),
        ];
        for part in [Part::Start, Part::Whole] {
            let found = read(&layers, part).await.expect("read").expect("found");
            let expected = Beginning {
                name: "firmware/a.bin".into(),
                size: 3,
                bytes: b"new".into(),
                is_certain: true,
            };
            assert_eq!(found, expected);
        }
        let none = read(&layers[2..], Part::Start).await.expect("read");
        assert_eq!(none, None);
    }

    #[tokio::test]
    async fn of_a_large_layer_the_start_suffices_and_what_comes_later_is_seen_in_the_whole() {
        let (first, later) = (noise(7, 200 << 10), noise(9, 200 << 10));
        let plain = archive(&[("firmware/b.bin", &first), ("firmware/a.bin", &later)]);
        for layer in [compressed(&plain), plain] {
            let layers = [layer];
            let start = read(&layers, Part::Start).await.expect("read").expect("found");
            assert_eq!((start.name.as_str(), start.size), ("firmware/b.bin", 200 << 10));
            assert_eq!((start.bytes.as_slice(), start.is_certain), (&first[..4], false));
            let whole = read(&layers, Part::Whole).await.expect("read").expect("found");
            assert_eq!((whole.name.as_str(), whole.is_certain), ("firmware/a.bin", true));
            assert_eq!(whole.bytes, later[..4]);
        }
        let hidden = archive(&[("etc/large", &first), ("firmware/a.bin", &later)]);
        let layers = [compressed(&hidden)];
        assert_eq!(read(&layers, Part::Start).await.expect("read"), None);
    }

    #[tokio::test]
    async fn what_nobody_could_flash_is_left_to_who_flashes_it() {
        let mut cut = archive(&[("firmware/a.bin", &[7; 2000])]);
        cut.truncate(1000);
        for layer in [cut, b"\x28\xb5\x2f\xfd".to_vec(), b"no archive".to_vec()] {
            assert_eq!(read(&[layer], Part::Start).await.expect("read"), None);
        }
    }
}
