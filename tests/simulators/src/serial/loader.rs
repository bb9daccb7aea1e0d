//! The ESP ROM loader of an ESP32, as far as flashing without a stub needs it: frames in, frames
//! out, and a flash of 4 MiB. No I/O.

use std::time::{Duration, Instant};

use md5::Md5;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Size of the flash, in bytes.
const FLASH_BYTES: usize = 4 << 20;
/// Register that tells which chip this is, and what an ESP32 has there.
const CHIP: (u32, u32) = (0x4000_1000, 0x00f0_1d83);
/// Register in which the answer to a flash command stands; here always the flash's own identity: 4
/// MiB.
const FLASH_IDENTITY: (u32, u32) = (0x3ff4_2080, 0x0016_40ef);
/// Any other value than 0 says that the ROM answers, and no stub.
const SYNC_VALUE: u32 = 0x2012_0707;
/// Silence after which a flasher counts as gone, killed half-way.
const SILENCE: Duration = Duration::from_secs(1);
/// Error of a command: what it says is wrong.
const INVALID: u8 = 0x05;
/// Error of a command: its checksum is wrong.
const BAD_CHECKSUM: u8 = 0x07;

/// Commands of the loader.
pub mod command {
    /// Starts to write: size, blocks, bytes a block, offset.
    pub const FLASH_BEGIN: u8 = 0x02;
    /// One block: its size, its number, two zeros, its bytes.
    pub const FLASH_DATA: u8 = 0x03;
    /// No more blocks; 0 asks for a reboot.
    pub const FLASH_END: u8 = 0x04;
    /// Is anybody there?
    pub const SYNC: u8 = 0x08;
    /// Writes a register.
    pub const WRITE_REG: u8 = 0x09;
    /// Reads a register.
    pub const READ_REG: u8 = 0x0a;
    /// Says how large the flash is.
    pub const SPI_SET_PARAMS: u8 = 0x0b;
    /// Connects the flash.
    pub const SPI_ATTACH: u8 = 0x0d;
    /// Changes the rate of the port.
    pub const CHANGE_BAUDRATE: u8 = 0x0f;
    /// The MD5 of a part of the flash: offset, size, two zeros.
    pub const SPI_FLASH_MD5: u8 = 0x13;
}

/// Report of a chip about itself, for tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Writes that began.
    pub begun: u32,
    /// Writes that came to their end and whose hash the flasher asked for.
    pub flashed: u32,
    /// Writes that began while another was under way: two flashers at once.
    pub conflicts: u32,
    /// Blocks that were refused.
    pub refused: u32,
    /// Offset of the last write in the flash.
    pub offset: u32,
    /// SHA-256 of what the flash holds there, in hexadecimal, once it was flashed.
    pub sha256: String,
}

/// A loader with its flash.
pub struct Loader {
    flash: Vec<u8>,
    write: Option<Write>,
    report: Report,
}

struct Write {
    offset: usize,
    size: usize,
    blocks: usize,
    block_bytes: usize,
    next: usize,
    last_seen: Instant,
}

impl Default for Loader {
    fn default() -> Self {
        Self { flash: vec![0xff; FLASH_BYTES], write: None, report: Report::default() }
    }
}

/// A request as the loader takes it.
#[must_use]
pub fn request(command: u8, data: &[u8], checksum: u8) -> Vec<u8> {
    let size = u16::try_from(data.len()).unwrap_or(u16::MAX).to_le_bytes();
    [&[0, command], size.as_slice(), &u32::from(checksum).to_le_bytes(), data].concat()
}

/// The checksum of a block.
#[must_use]
pub fn checksum(block: &[u8]) -> u8 {
    block.iter().fold(0xef, |sum, byte| sum ^ byte)
}

/// The number at this place of a frame, counted in fours.
#[must_use]
pub fn word(data: &[u8], index: usize) -> Option<u32> {
    let bytes = data.get(index * 4..index * 4 + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn size(data: &[u8], index: usize) -> Option<usize> {
    usize::try_from(word(data, index)?).ok()
}

impl Loader {
    /// Returns the report of the chip about itself.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report.clone()
    }

    /// Answers one frame; noise gets no answer.
    pub fn answer(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        let ([0, command, _, _, sum, _, _, _], Some(data)) =
            (frame.get(..8).unwrap_or_default(), frame.get(8..))
        else {
            return Vec::new();
        };
        let done = self.obey(*command, data, *sum);
        let (value, mut payload, status) = match done {
            Ok((value, payload)) => (value, payload, [0, 0, 0, 0]),
            Err(code) => (0, Vec::new(), [1, code, 0, 0]),
        };
        payload.extend(status);
        let length = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_le_bytes();
        let answer = [&[1, *command], length.as_slice(), &value.to_le_bytes(), &payload].concat();
        // The ROM answers a sync eight times.
        vec![answer; if *command == command::SYNC { 8 } else { 1 }]
    }

    fn obey(&mut self, command: u8, data: &[u8], sum: u8) -> Result<(u32, Vec<u8>), u8> {
        match command {
            command::SYNC => return Ok((SYNC_VALUE, Vec::new())),
            command::READ_REG => {
                let register = word(data, 0).ok_or(INVALID)?;
                let known =
                    [CHIP, FLASH_IDENTITY].into_iter().find(|(address, _)| *address == register);
                return Ok((known.map_or(0, |(_, value)| value), Vec::new()));
            }
            command::FLASH_BEGIN => self.begin(data)?,
            command::FLASH_DATA => {
                let stored = self.store(data, sum);
                self.report.refused += u32::from(stored.is_err());
                stored?;
            }
            command::SPI_FLASH_MD5 => return Ok((0, self.hash(data)?)),
            command::FLASH_END => self.write = None,
            command::WRITE_REG
            | command::SPI_SET_PARAMS
            | command::SPI_ATTACH
            | command::CHANGE_BAUDRATE => {}
            _ => return Err(INVALID),
        }
        Ok((0, Vec::new()))
    }

    fn begin(&mut self, data: &[u8]) -> Result<(), u8> {
        let number = |index| size(data, index).ok_or(INVALID);
        let (size, blocks, block_bytes, offset) = (number(0)?, number(1)?, number(2)?, number(3)?);
        if offset.checked_add(size).is_none_or(|end| end > FLASH_BYTES)
            || blocks.checked_mul(block_bytes).is_none_or(|room| room < size)
        {
            return Err(INVALID);
        }
        let under_way =
            self.write.as_ref().is_some_and(|write| write.last_seen.elapsed() < SILENCE);
        self.report.conflicts += u32::from(under_way);
        self.report.begun += 1;
        self.report.offset = u32::try_from(offset).unwrap_or(u32::MAX);
        self.flash[offset..offset + size].fill(0xff);
        self.write =
            Some(Write { offset, size, blocks, block_bytes, next: 0, last_seen: Instant::now() });
        Ok(())
    }

    fn store(&mut self, data: &[u8], sum: u8) -> Result<(), u8> {
        let (length, number) = (size(data, 0).ok_or(INVALID)?, size(data, 1).ok_or(INVALID)?);
        let block = data.get(16..).filter(|block| block.len() == length).ok_or(INVALID)?;
        let write = self.write.as_mut().filter(|write| {
            write.next == number && number < write.blocks && length <= write.block_bytes
        });
        let write = write.ok_or(INVALID)?;
        if checksum(block) != sum {
            return Err(BAD_CHECKSUM);
        }
        let start = write.offset + number * write.block_bytes;
        // The last block is filled up beyond the size that was announced.
        let end = (start + length).min(FLASH_BYTES);
        if let Some(room) = self.flash.get_mut(start..end) {
            room.copy_from_slice(&block[..room.len()]);
        }
        write.next += 1;
        write.last_seen = Instant::now();
        Ok(())
    }

    fn hash(&mut self, data: &[u8]) -> Result<Vec<u8>, u8> {
        let (offset, size) = (size(data, 0).ok_or(INVALID)?, size(data, 1).ok_or(INVALID)?);
        let end = offset.checked_add(size).ok_or(INVALID)?;
        let part = self.flash.get(offset..end).ok_or(INVALID)?;
        let whole = |write: &Write| {
            write.next == write.blocks
                && write.offset == offset
                && size <= write.size.next_multiple_of(4)
        };
        if self.write.take_if(|write| whole(write)).is_some() {
            self.report.flashed += 1;
            self.report.sha256 = hexadecimal(&Sha256::digest(part));
        }
        // The ROM writes it in hexadecimal, a stub would not.
        Ok(hexadecimal(&Md5::digest(part)).into_bytes())
    }
}

/// Bytes as people and the ROM write them.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(loader: &mut Loader, command: u8, words: &[u32], block: &[u8]) -> Vec<u8> {
        let data: Vec<u8> =
            words.iter().flat_map(|word| word.to_le_bytes()).chain(block.iter().copied()).collect();
        loader.answer(&request(command, &data, checksum(block))).remove(0)
    }

    fn succeeded(answer: &[u8]) -> bool {
        answer[answer.len() - 4] == 0
    }

    #[test]
    fn what_is_written_whole_and_hashed_counts_as_flashed() {
        let mut loader = Loader::default();
        assert!(succeeded(&say(&mut loader, command::FLASH_BEGIN, &[6, 2, 4, 0x1000], &[])));
        assert!(succeeded(&say(&mut loader, command::FLASH_DATA, &[4, 0, 0, 0], b"firm")));
        assert!(succeeded(&say(&mut loader, command::SPI_FLASH_MD5, &[0x1000, 6, 0, 0], &[])));
        assert_eq!(loader.report().flashed, 0);
        assert!(succeeded(&say(&mut loader, command::FLASH_DATA, &[4, 1, 0, 0], b"wa\xff\xff")));
        let answer = say(&mut loader, command::SPI_FLASH_MD5, &[0x1000, 6, 0, 0], &[]);
        assert_eq!(&answer[8..40], hexadecimal(&Md5::digest(b"firmwa")).as_bytes());
        let report = loader.report();
        assert_eq!((report.flashed, report.begun, report.conflicts), (1, 1, 0));
        assert_eq!(report.sha256, hexadecimal(&Sha256::digest(b"firmwa")));
    }

    #[test]
    fn a_second_flasher_and_a_broken_block_are_noticed() {
        let mut loader = Loader::default();
        for _ in 0..2 {
            assert!(succeeded(&say(&mut loader, command::FLASH_BEGIN, &[4, 1, 4, 0], &[])));
        }
        let broken = [4u32, 0, 0, 0]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .chain(*b"firm")
            .collect::<Vec<u8>>();
        let answer = loader.answer(&request(command::FLASH_DATA, &broken, 1)).remove(0);
        assert_eq!(&answer[8..], [1, BAD_CHECKSUM, 0, 0]);
        assert!(!succeeded(&say(&mut loader, command::FLASH_BEGIN, &[u32::MAX, 1, 4, 0], &[])));
        assert_eq!((loader.report().conflicts, loader.report().refused), (1, 1));
    }
}
