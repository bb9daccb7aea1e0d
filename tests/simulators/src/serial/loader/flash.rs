//! The flash memory of a chip, and the write in progress, if any. No I/O.

use std::io::Write as _;
use std::time::{Duration, Instant};

use flate2::write::ZlibDecoder;
use md5::Md5;
use sha2::{Digest, Sha256};

use super::error::{BAD_COMPRESSION, INVALID};

/// Silence after which a flasher counts as gone, such as one that was killed during a write.
const SILENCE: Duration = Duration::from_secs(1);
/// Size of a sector, the smallest part that can be erased, in bytes.
const SECTOR_BYTES: usize = 0x1000;
/// Value of an erased byte.
const ERASED: u8 = 0xff;
/// Identity of a Winbond flash, without its size.
const WINBOND: u32 = 0x40ef;

/// Formats of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Bytes as they are in the flash.
    Raw,
    /// Compressed with zlib, as one stream.
    Compressed,
}

/// A flash with its content.
pub(super) struct Flash {
    bytes: Vec<u8>,
    is_worn: bool,
    write: Option<Write>,
}

/// Extent of a write, from the command that begins it. Sizes are in bytes.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    pub offset: usize,
    pub size: usize,
    pub blocks: usize,
    pub block_bytes: usize,
}

struct Write {
    extent: Extent,
    next: usize,
    /// Number of bytes written.
    written: usize,
    unpacked: Option<ZlibDecoder<Vec<u8>>>,
    last_seen: Instant,
}

impl Flash {
    pub fn new(size: usize, is_worn: bool) -> Self {
        Self { bytes: vec![ERASED; size], is_worn, write: None }
    }

    /// Returns the answer to the command 0x9f: manufacturer, type, and the size as a power of two.
    pub fn identity(&self) -> u32 {
        self.bytes.len().trailing_zeros() << 16 | WINBOND
    }

    pub fn content(&self, offset: usize, size: usize) -> Option<&[u8]> {
        self.bytes.get(offset..offset.checked_add(size)?)
    }

    /// Erases the extent of a new write, and returns true if another write was in progress.
    pub fn begin(&mut self, format: Format, extent: Extent) -> Result<bool, u8> {
        let Extent { offset, size, blocks, block_bytes } = extent;
        let end = offset.checked_add(size.next_multiple_of(SECTOR_BYTES)).ok_or(INVALID)?;
        let room = blocks.checked_mul(block_bytes).ok_or(INVALID)?;
        // FLASH_BEGIN gives the size to erase; the last block may end before it.
        let is_short = format == Format::Raw && room.next_multiple_of(SECTOR_BYTES) < size;
        if !offset.is_multiple_of(SECTOR_BYTES) || is_short {
            return Err(INVALID);
        }
        self.bytes.get_mut(offset..end).ok_or(INVALID)?.fill(ERASED);
        let was_under_way = self.write.as_ref().is_some_and(|write| {
            write.next < write.extent.blocks && write.last_seen.elapsed() < SILENCE
        });
        let unpacked = (format == Format::Compressed).then(|| ZlibDecoder::new(Vec::new()));
        self.write =
            Some(Write { extent, next: 0, written: 0, unpacked, last_seen: Instant::now() });
        Ok(was_under_way)
    }

    /// Stores the next block. The last one may be padded beyond the size that was announced.
    pub fn store(&mut self, format: Format, number: usize, block: &[u8]) -> Result<(), u8> {
        let write = self.write.as_mut().filter(|write| {
            let is_compressed = write.unpacked.is_some();
            write.next == number
                && number < write.extent.blocks
                && block.len() <= write.extent.block_bytes
                && is_compressed == (format == Format::Compressed)
        });
        let write = write.ok_or(INVALID)?;
        let unpacked = match &mut write.unpacked {
            None => block.to_vec(),
            Some(decoder) => {
                let fed = decoder.write_all(block).and_then(|()| decoder.flush());
                fed.map_err(|_| BAD_COMPRESSION)?;
                std::mem::take(decoder.get_mut())
            }
        };
        let Extent { offset, size, .. } = write.extent;
        let start = offset + write.written;
        let end = (start + unpacked.len()).min(offset + size);
        if let Some(room) = self.bytes.get_mut(start..end) {
            room.copy_from_slice(&unpacked[..room.len()]);
            if self.is_worn && !room.is_empty() {
                room[0] ^= 1;
            }
        }
        write.written += unpacked.len();
        write.next += 1;
        write.last_seen = Instant::now();
        Ok(())
    }

    /// Ends the write, if there is one.
    pub fn end(&mut self) {
        self.write = None;
    }

    pub fn md5(&self, offset: usize, size: usize) -> Result<Vec<u8>, u8> {
        let part = self.content(offset, size).ok_or(INVALID)?;
        Ok(Md5::digest(part).to_vec())
    }

    /// Ends a write of exactly this part if it has all its blocks, and returns the part's SHA-256.
    pub fn completed(&mut self, offset: usize, size: usize) -> Option<Vec<u8>> {
        let is_whole = |write: &mut Write| {
            write.next == write.extent.blocks
                && write.extent.offset == offset
                && size <= write.extent.size.next_multiple_of(4)
        };
        self.write.take_if(is_whole)?;
        Some(Sha256::digest(self.content(offset, size)?).to_vec())
    }
}
