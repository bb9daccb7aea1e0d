//! The ROM loader of an ESP chip and the stub that is loaded over it, with the protocol that
//! Espressif documents (esptool's documentation, "Serial Protocol"): frames in, frames out, and a
//! flash. Any program that is loaded into memory and started counts as the stub; it is not
//! executed. No I/O.

mod error;
mod flash;
pub mod model;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use error::{BAD_CHECKSUM, INVALID};
use flash::{Extent, Flash, Format};
use model::Model;

/// Value in the answer to a sync; any value other than 0 says that the ROM answers, not a stub.
const SYNC_VALUE: u32 = 0x2012_0707;
/// First frame of a running stub.
const STUB_RUNS: &[u8] = b"OHAI";
/// Flag of a chip in Secure Download Mode.
const SECURE_DOWNLOAD: u32 = 1 << 2;
/// Bit of the SPI controller's command register that starts a flash command.
const SPI_START: u32 = 1 << 18;
/// Flash command that reads the identity of the flash.
const READ_IDENTITY: u32 = 0x9f;

/// Commands of the loader.
pub mod command {
    /// Begins a write: size, blocks, bytes per block, offset.
    pub const FLASH_BEGIN: u8 = 0x02;
    /// One block: its size, its number, two zeros, its bytes.
    pub const FLASH_DATA: u8 = 0x03;
    /// Ends a write; 0 requests a reboot.
    pub const FLASH_END: u8 = 0x04;
    /// Begins a load into memory: size, blocks, bytes per block, address.
    pub const MEM_BEGIN: u8 = 0x05;
    /// Starts the loaded program: 0, its address.
    pub const MEM_END: u8 = 0x06;
    /// One block of the program, in the same format as a flash block.
    pub const MEM_DATA: u8 = 0x07;
    /// Checks the connection.
    pub const SYNC: u8 = 0x08;
    /// Writes a register: address, value, mask, delay.
    pub const WRITE_REG: u8 = 0x09;
    /// Reads a register.
    pub const READ_REG: u8 = 0x0a;
    /// Sets the size of the flash.
    pub const SPI_SET_PARAMS: u8 = 0x0b;
    /// Attaches the flash.
    pub const SPI_ATTACH: u8 = 0x0d;
    /// Changes the baud rate of the port.
    pub const CHANGE_BAUDRATE: u8 = 0x0f;
    /// Begins a write of data compressed with zlib: uncompressed size, blocks, bytes per block,
    /// offset.
    pub const FLASH_DEFL_BEGIN: u8 = 0x10;
    /// One compressed block.
    pub const FLASH_DEFL_DATA: u8 = 0x11;
    /// Ends a compressed write; 0 requests a reboot.
    pub const FLASH_DEFL_END: u8 = 0x12;
    /// Returns the MD5 of a part of the flash: offset, size, two zeros.
    pub const SPI_FLASH_MD5: u8 = 0x13;
    /// Returns flags, key purposes, and the chip's number; older chips do not have it.
    pub const GET_SECURITY_INFO: u8 = 0x14;
}

/// Report of a chip about itself, for tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Number of requests.
    pub requests: u32,
    /// Number of writes that began.
    pub begun: u32,
    /// Number of blocks accepted.
    pub blocks: u32,
    /// Number of writes that completed and whose hash the flasher requested.
    pub flashed: u32,
    /// Number of writes that began during another: two flashers at once.
    pub conflicts: u32,
    /// Number of blocks refused.
    pub refused: u32,
    /// Offset of the last write in the flash.
    pub offset: u32,
    /// SHA-256 of the flash content there, in hexadecimal, once it was flashed.
    pub sha256: String,
    /// Number of stubs started.
    pub stubs: u32,
    /// Number of restarts, requested by a flasher or done by hand.
    pub reboots: u32,
}

/// Model and state of a chip.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Model of the chip.
    pub model: Model,
    /// Size of its flash, in bytes: a power of two.
    pub flash_bytes: usize,
    /// True if its flash does not keep what is written.
    pub is_worn: bool,
    /// True if it refuses commands that read its memory.
    pub is_locked: bool,
    /// True if it has flash encryption: it decrypts what it reads from its flash.
    pub is_encrypted: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: model::ESP32,
            flash_bytes: 4 << 20,
            is_worn: false,
            is_locked: false,
            is_encrypted: false,
        }
    }
}

/// A loader with its flash.
pub struct Loader {
    settings: Settings,
    flash: Flash,
    registers: HashMap<u32, u32>,
    memory: Memory,
    has_stub: bool,
    report: Report,
}

/// A program that is loaded into the chip's memory.
#[derive(Default)]
struct Memory {
    blocks: usize,
    next: usize,
}

impl Default for Loader {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

/// Encodes a request to the loader.
#[must_use]
pub fn request(command: u8, data: &[u8], checksum: u8) -> Vec<u8> {
    let size = u16::try_from(data.len()).unwrap_or(u16::MAX).to_le_bytes();
    [&[0, command], size.as_slice(), &u32::from(checksum).to_le_bytes(), data].concat()
}

/// Returns the checksum of a block.
#[must_use]
pub fn checksum(block: &[u8]) -> u8 {
    block.iter().fold(0xef, |sum, byte| sum ^ byte)
}

/// Returns the 32-bit number at this index of a frame.
#[must_use]
pub fn word(data: &[u8], index: usize) -> Option<u32> {
    let bytes = data.get(index * 4..index * 4 + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn size(data: &[u8], index: usize) -> Result<usize, u8> {
    word(data, index).and_then(|word| usize::try_from(word).ok()).ok_or(INVALID)
}

/// Returns the number and bytes of a block whose length and checksum are right.
fn block(data: &[u8], sum: u8) -> Result<(usize, &[u8]), u8> {
    let (length, number) = (size(data, 0)?, size(data, 1)?);
    let block = data.get(16..).filter(|block| block.len() == length).ok_or(INVALID)?;
    if checksum(block) != sum {
        return Err(BAD_CHECKSUM);
    }
    Ok((number, block))
}

impl Loader {
    /// Returns the loader of a chip that is switched on, with its flash erased.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            flash: Flash::new(settings.flash_bytes, settings.is_worn),
            settings,
            registers: HashMap::new(),
            memory: Memory::default(),
            has_stub: false,
            report: Report::default(),
        }
    }

    /// Returns the chip's report about itself.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report.clone()
    }

    /// Restarts the chip into its ROM loader, like its reset button while the boot button is held
    /// down.
    pub fn reset(&mut self) {
        (self.has_stub, self.memory) = (false, Memory::default());
        self.flash.end();
        self.report.reboots += 1;
    }

    /// Returns the content of a part of the flash; empty if the flash is smaller.
    #[must_use]
    pub fn content(&self, offset: usize, size: usize) -> Vec<u8> {
        self.flash.content(offset, size).unwrap_or_default().to_vec()
    }

    /// Answers one frame; an invalid frame gets no answer.
    pub fn answer(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        let ([0, command, _, _, sum, _, _, _], Some(data)) =
            (frame.get(..8).unwrap_or_default(), frame.get(8..))
        else {
            return Vec::new();
        };
        self.report.requests += 1;
        // The stub's answer has two status bytes, the ROM's has four.
        let status = if self.has_stub { 2 } else { 4 };
        let stubs = self.report.stubs;
        let (value, mut payload, code) = match self.obey(*command, data, *sum) {
            Ok((value, payload)) => (value, payload, None),
            Err(code) => (0, Vec::new(), Some(code)),
        };
        payload.extend(&[u8::from(code.is_some()), code.unwrap_or_default(), 0, 0][..status]);
        let length = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_le_bytes();
        let answer = [&[1, *command], length.as_slice(), &value.to_le_bytes(), &payload].concat();
        // The ROM answers a sync eight times.
        let mut answers = vec![answer; if *command == command::SYNC { 8 } else { 1 }];
        if self.report.stubs > stubs {
            answers.push(STUB_RUNS.to_vec());
        }
        answers
    }

    fn obey(&mut self, command: u8, data: &[u8], sum: u8) -> Result<(u32, Vec<u8>), u8> {
        let reads_memory = matches!(
            command,
            command::MEM_BEGIN
                | command::MEM_DATA
                | command::MEM_END
                | command::READ_REG
                | command::WRITE_REG
                | command::SPI_FLASH_MD5
        );
        if self.settings.is_locked && reads_memory {
            return Err(INVALID);
        }
        match command {
            command::SYNC => return Ok((SYNC_VALUE, Vec::new())),
            command::READ_REG => {
                let register = word(data, 0).ok_or(INVALID)?;
                return Ok((self.read(register), Vec::new()));
            }
            command::WRITE_REG => self.write(data)?,
            command::GET_SECURITY_INFO => return Ok((0, self.security()?)),
            command::MEM_BEGIN => self.memory = Memory { blocks: size(data, 1)?, next: 0 },
            command::MEM_DATA => {
                let (number, _) = block(data, sum)?;
                if number != self.memory.next || number >= self.memory.blocks {
                    return Err(INVALID);
                }
                self.memory.next += 1;
            }
            command::MEM_END => {
                if self.memory.blocks == 0 || self.memory.next != self.memory.blocks {
                    return Err(INVALID);
                }
                self.has_stub = true;
                self.report.stubs += 1;
            }
            command::FLASH_BEGIN => self.begin(Format::Raw, data)?,
            command::FLASH_DEFL_BEGIN => self.begin(Format::Compressed, data)?,
            command::FLASH_DATA | command::FLASH_DEFL_DATA => {
                let format = match command {
                    command::FLASH_DATA => Format::Raw,
                    _ => Format::Compressed,
                };
                let stored = block(data, sum)
                    .and_then(|(number, block)| self.flash.store(format, number, block));
                self.report.refused += u32::from(stored.is_err());
                self.report.blocks += u32::from(stored.is_ok());
                stored?;
            }
            command::SPI_FLASH_MD5 => return Ok((0, self.hash(data)?)),
            command::FLASH_END | command::FLASH_DEFL_END => {
                self.flash.end();
                if size(data, 0)? == 0 {
                    self.has_stub = false;
                    self.report.reboots += 1;
                }
            }
            command::SPI_SET_PARAMS | command::SPI_ATTACH | command::CHANGE_BAUDRATE => {}
            _ => return Err(INVALID),
        }
        Ok((0, Vec::new()))
    }

    fn read(&self, register: u32) -> u32 {
        let (address, value) = self.settings.model.magic;
        if register == address {
            return value;
        }
        let encryption = self.settings.model.encryption.filter(|_| self.settings.is_encrypted);
        if let Some((_, value)) = encryption.filter(|(address, _)| register == *address) {
            return value;
        }
        self.registers.get(&register).copied().unwrap_or_default()
    }

    /// Writes a register. A write to the SPI controller's command register runs the flash command
    /// at once.
    fn write(&mut self, data: &[u8]) -> Result<(), u8> {
        let number = |index| word(data, index).ok_or(INVALID);
        let (register, value, mask) = (number(0)?, number(1)?, number(2)?);
        let spi = self.settings.model.spi;
        if register == spi.command && value & SPI_START != 0 {
            if self.read(spi.user2) & 0xff == READ_IDENTITY {
                self.registers.insert(spi.data, self.flash.identity());
            }
            return Ok(());
        }
        let kept = self.read(register) & !mask;
        self.registers.insert(register, kept | value & mask);
        Ok(())
    }

    fn security(&self) -> Result<Vec<u8>, u8> {
        let chip = self.settings.model.number.ok_or(INVALID)?;
        let flags = if self.settings.is_locked { SECURE_DOWNLOAD } else { 0 };
        let mut purposes = [0; 8];
        purposes[0] = u8::from(self.settings.is_encrypted);
        Ok([flags.to_le_bytes().as_slice(), &purposes, &chip.to_le_bytes(), &[0; 4]].concat())
    }

    fn begin(&mut self, format: Format, data: &[u8]) -> Result<(), u8> {
        let extent = Extent {
            size: size(data, 0)?,
            blocks: size(data, 1)?,
            block_bytes: size(data, 2)?,
            offset: size(data, 3)?,
        };
        let was_under_way = self.flash.begin(format, extent)?;
        self.report.conflicts += u32::from(was_under_way);
        self.report.begun += 1;
        self.report.offset = u32::try_from(extent.offset).unwrap_or(u32::MAX);
        Ok(())
    }

    fn hash(&mut self, data: &[u8]) -> Result<Vec<u8>, u8> {
        let (offset, bytes) = (size(data, 0)?, size(data, 1)?);
        let md5 = self.flash.md5(offset, bytes)?;
        if let Some(sha256) = self.flash.completed(offset, bytes) {
            self.report.flashed += 1;
            self.report.sha256 = hexadecimal(&sha256);
        }
        // The ROM sends the hash in hexadecimal, the stub in binary.
        Ok(if self.has_stub { md5 } else { hexadecimal(&md5).into_bytes() })
    }
}

/// Formats bytes in hexadecimal, as the ROM does.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
