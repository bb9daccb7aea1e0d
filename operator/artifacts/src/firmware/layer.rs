//! The firmware in a layer of its image: a tar archive, compressed with gzip or not, and in it the
//! file below `/firmware`. No I/O but on bytes that are here.

use std::io::{self, Read};
use std::path::Path;

use flate2::read::GzDecoder;

/// Most bytes of an unpacked layer that are looked through: a small one can unpack without end.
const UNPACKED_BYTES: u64 = 1 << 30;
/// Folder in the image that has the firmware.
const FOLDER: &str = "firmware";
/// First bytes of gzip (RFC 1952, section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// First bytes of Zstandard (RFC 8878, section 3.1.1).
const ZSTANDARD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Bytes by which either is recognized.
const MAGIC_BYTES: u64 = 4;

/// A file in an unpacked layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its path in the image.
    pub name: String,
    /// Place of its first byte in the unpacked layer.
    pub at: u64,
    /// Its size, in bytes.
    pub size: u64,
    /// Its first bytes, as many as were asked for.
    pub beginning: Vec<u8>,
}

/// Reason why a layer cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableLayer {
    /// It is compressed in a way that is not known here.
    #[error("its layers are compressed with Zstandard, which is not read here; build it with gzip")]
    Zstandard,
    /// It is no archive, or ends early.
    #[error("a layer of it cannot be unpacked")]
    Archive(#[source] io::Error),
}

/// The firmware in a layer: of several files the first by name.
///
/// # Errors
/// The layer cannot be read to its end.
pub fn find(layer: &[u8]) -> Result<Option<Found>, UnreadableLayer> {
    let (found, end) = look(layer, 0);
    end.map(|()| found)
}

/// The same of a layer of which the end may be missing, with the first bytes of the file; and how
/// the layer ended.
pub(super) fn look(
    mut layer: impl Read,
    most: usize,
) -> (Option<Found>, Result<(), UnreadableLayer>) {
    let (mut magic, mut found) = (Vec::new(), None);
    if let Err(error) = layer.by_ref().take(MAGIC_BYTES).read_to_end(&mut magic) {
        return (None, Err(UnreadableLayer::Archive(error)));
    }
    if magic == ZSTANDARD {
        return (None, Err(UnreadableLayer::Zstandard));
    }
    let unpacked = unpacked_by(&magic, magic.as_slice().chain(layer));
    let end = walk(unpacked, most, &mut found).map_err(UnreadableLayer::Archive);
    (found, end)
}

fn walk(unpacked: impl Read, most: usize, found: &mut Option<Found>) -> io::Result<()> {
    let mut archive = tar::Archive::new(unpacked);
    for file in archive.entries()? {
        let mut file = file?;
        let path = file.path()?.into_owned();
        let (at, size) = (file.raw_file_position(), file.size());
        if !(is_firmware(&path) && file.header().entry_type().is_file()) {
            continue;
        }
        let name = path.display().to_string();
        if found.as_ref().is_some_and(|found| name >= found.name) {
            continue;
        }
        let mut beginning = vec![0; most.min(usize::try_from(size).unwrap_or(usize::MAX))];
        file.read_exact(&mut beginning)?;
        *found = Some(Found { name, at, size, beginning });
    }
    Ok(())
}

/// Returns true for a path of a layer below `/firmware`; a marker of a removed file is no file (OCI
/// image specification, "Whiteouts").
fn is_firmware(path: &Path) -> bool {
    let path = path.strip_prefix("/").unwrap_or(path);
    let path = path.strip_prefix(".").unwrap_or(path);
    let is_marker = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".wh."));
    path.starts_with(FOLDER) && !is_marker
}

/// The bytes of a layer, unpacked while they are read.
pub fn unpacked(layer: &[u8]) -> Box<dyn Read + '_> {
    unpacked_by(layer, layer)
}

/// The same of a layer that begins with these bytes.
fn unpacked_by<'a>(magic: &[u8], layer: impl Read + 'a) -> Box<dyn Read + 'a> {
    match magic.starts_with(&GZIP) {
        true => Box::new(GzDecoder::new(layer).take(UNPACKED_BYTES)),
        false => Box::new(layer),
    }
}
