//! Extracts the firmware from a layer of its image: a tar archive, optionally compressed with
//! gzip, with the file below `/firmware`. Works on bytes in memory; no other I/O.

use std::collections::VecDeque;
use std::io::{self, BufRead, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::LAYER_BYTES;

/// Maximum number of unpacked bytes of a layer that are searched: a small layer can unpack without
/// end.
const UNPACKED_BYTES: u64 = 1 << 30;
/// Folder in the image that has the firmware.
const FOLDER: &str = "firmware";
/// First bytes of gzip (RFC 1952, section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// First bytes of Zstandard (RFC 8878, section 3.1.1).
const ZSTANDARD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Number of bytes by which the compression is recognized.
const MAGIC_BYTES: u64 = 4;
/// Size of the parts of a layer that are freed one by one while it is unpacked, in bytes.
const PART_BYTES: usize = 1 << 20;

/// The firmware file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path in the image.
    pub name: String,
    /// All its bytes.
    pub bytes: Vec<u8>,
}

/// The firmware file, with its first bytes only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its path in the image.
    pub name: String,
    /// Its size, in bytes.
    pub size: u64,
    /// Its first bytes, up to the requested number.
    pub beginning: Vec<u8>,
}

/// Reason why a layer cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableLayer {
    /// The layer is compressed with an unsupported algorithm.
    #[error(
        "its layers are compressed with Zstandard, which is not supported; build it with gzip"
    )]
    Zstandard,
    /// The file is larger than any device accepts.
    #[error("its file {name} has {size} bytes; the limit is {LAYER_BYTES}")]
    TooLarge {
        /// Path of the file.
        name: String,
        /// Its size, in bytes.
        size: u64,
    },
    /// The layer is not an archive, or is truncated.
    #[error("one of its layers cannot be unpacked")]
    Archive(#[source] io::Error),
}

/// Unpacks the firmware in a layer. If there are several files, the first one by name is the
/// firmware. The layer is freed meanwhile, so that layer and file are never both in memory
/// completely.
///
/// # Errors
/// The layer cannot be read to its end, or the file is too large.
pub fn extract(layer: Vec<u8>) -> Result<Option<File>, UnreadableLayer> {
    let (mut firmware_file, mut too_large) = (None, None);
    let layer = unpacked(Draining::new(layer))?;
    let walked = walk(layer, |name, file| {
        // The previous file is not the first one by name; free it before reading the next.
        firmware_file = None;
        let size = file.size();
        // Another file may still precede this one by name.
        if size > LAYER_BYTES as u64 {
            too_large = Some(UnreadableLayer::TooLarge { name, size });
            return Ok(());
        }
        too_large = None;
        // The exact size is known; a growing buffer would temporarily need twice the memory.
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        file.read_to_end(&mut bytes)?;
        firmware_file = Some(File { name, bytes });
        Ok(())
    });
    match (walked, too_large) {
        (Err(error), _) => Err(UnreadableLayer::Archive(error)),
        (Ok(()), Some(error)) => Err(error),
        (Ok(()), None) => Ok(firmware_file),
    }
}

/// Finds the same file in a layer that may be truncated, and returns its first bytes, and how the
/// layer ended.
pub(super) fn find_beginning(
    layer: impl BufRead,
    most: usize,
) -> (Option<Found>, Result<(), UnreadableLayer>) {
    let mut firmware_file = None;
    let end = unpacked(layer).and_then(|layer| {
        let walked = walk(layer, |name, file| {
            let size = file.size();
            let mut beginning = vec![0; most.min(usize::try_from(size).unwrap_or(usize::MAX))];
            file.read_exact(&mut beginning)?;
            firmware_file = Some(Found { name, size, beginning });
            Ok(())
        });
        walked.map_err(UnreadableLayer::Archive)
    });
    (firmware_file, end)
}

/// Calls `take` for each file whose name sorts before all names so far: the last call gives the
/// firmware.
fn walk<R: Read>(
    layer: R,
    mut take: impl FnMut(String, &mut tar::Entry<'_, R>) -> io::Result<()>,
) -> io::Result<()> {
    let mut first: Option<String> = None;
    for file in tar::Archive::new(layer).entries()? {
        let mut file = file?;
        let path = file.path()?;
        let name = path.display().to_string();
        // A link could point to a file in another layer, so only regular files are firmware.
        let is_candidate = is_firmware(&path) && file.header().entry_type().is_file();
        if is_candidate && first.as_ref().is_none_or(|first| name < *first) {
            take(name.clone(), &mut file)?;
            first = Some(name);
        }
    }
    Ok(())
}

/// Returns true if a layer's path is below `/firmware`. A whiteout, which marks a removed file, is
/// not a file (OCI image specification, "Whiteouts").
fn is_firmware(path: &Path) -> bool {
    // Builders write /firmware, ./firmware or firmware for the same file.
    let path = path.strip_prefix("/").unwrap_or(path);
    let path = path.strip_prefix(".").unwrap_or(path);
    let is_marker =
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".wh."));
    path.starts_with(FOLDER) && !is_marker
}

/// Unpacks a layer while it is read. Builders of lazily pullable images write several gzip members
/// in a row (RFC 1952, section 2.2).
fn unpacked<'a>(mut layer: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>, UnreadableLayer> {
    let mut magic = Vec::new();
    let read = layer.by_ref().take(MAGIC_BYTES).read_to_end(&mut magic);
    read.map_err(UnreadableLayer::Archive)?;
    // BuildKit can write Zstandard on request; without this the archive would only seem malformed.
    if magic == ZSTANDARD {
        return Err(UnreadableLayer::Zstandard);
    }
    let is_compressed = magic.starts_with(&GZIP);
    let layer = Cursor::new(magic).chain(layer);
    Ok(match is_compressed {
        true => Box::new(Bounded { reader: MultiGzDecoder::new(layer), left: UNPACKED_BYTES }),
        false => Box::new(layer),
    })
}

/// Reader that fails where a limit on its bytes is exceeded. An end of file there would be taken
/// for the end of the archive, or for a truncated one.
struct Bounded<R> {
    reader: R,
    /// Number of bytes that may still be read.
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !buffer.is_empty() {
            return match self.reader.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(io::Error::other(format!(
                    "it unpacks to more than {} MiB",
                    UNPACKED_BYTES >> 20
                ))),
            };
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.reader.read(&mut buffer[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

/// Byte buffer whose memory is freed while it is read.
struct Draining {
    parts: VecDeque<Vec<u8>>,
    /// Number of bytes of the first part that were already read.
    read: usize,
}

impl Draining {
    fn new(mut bytes: Vec<u8>) -> Self {
        let mut parts = VecDeque::new();
        while bytes.len() > PART_BYTES {
            // Splitting from the end copies one part at a time, so the peak is one part above the
            // layer.
            parts.push_front(bytes.split_off((bytes.len() - 1) / PART_BYTES * PART_BYTES));
            bytes.shrink_to_fit();
        }
        parts.push_front(bytes);
        Self { parts, read: 0 }
    }
}

impl BufRead for Draining {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.parts.front().map_or(&[], |part| &part[self.read..]))
    }

    fn consume(&mut self, count: usize) {
        self.read += count;
        if self.parts.front().is_some_and(|part| self.read >= part.len()) {
            self.parts.pop_front();
            self.read = 0;
        }
    }
}

impl Read for Draining {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_may_be_read_is_an_error_unless_nothing_follows() {
        let read = |left: u64| {
            let mut bytes = Vec::new();
            let mut bounded = Bounded { reader: b"abc".as_slice(), left };
            bounded.read_to_end(&mut bytes).map(|_| bytes)
        };
        for left in [3, 4] {
            assert_eq!(read(left).expect("read"), b"abc");
        }
        for left in [0, 2] {
            let error = read(left).expect_err("refused").to_string();
            assert!(error.contains("more than 1024 MiB"), "{error}");
        }
    }
}
