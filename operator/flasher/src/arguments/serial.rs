//! Options of the subcommand for serial ports.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use espflash::flasher::FlashSize;

use super::pull::Pull;
use super::values::duration;

/// Size of an erasable sector, in bytes.
const SECTOR: u32 = 0x1000;

/// Options of `serial`.
#[derive(Clone, Debug, Args)]
pub struct Serial {
    /// Source of the firmware. A device type that begins with the name of a chip, such as esp32c3,
    /// is the chip that must be on the port.
    #[command(flatten)]
    pub pull: Pull,
    /// Serial port of the chip, as /dev/ttyUSB0.
    #[arg(long, env = "UDEV_DEVNODE", value_name = "FILE")]
    pub port: PathBuf,
    /// Speed of the transfer, in bits a second; the ROM loader is asked at 115200 first.
    #[arg(
        long,
        env = "FLASHER_BAUD",
        value_name = "BAUD",
        default_value_t = 460_800,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub baud: u32,
    /// Address in the flash memory that the firmware is written to, a multiple of 0x1000.
    #[arg(
        long,
        env = "FLASHER_OFFSET",
        value_name = "ADDRESS",
        default_value = "0x0",
        value_parser = offset
    )]
    pub offset: u32,
    /// Way in which the chip gets into its ROM loader.
    #[arg(long, env = "FLASHER_BEFORE", value_enum, default_value = "default-reset")]
    pub before: Before,
    /// Way in which the chip leaves it.
    #[arg(long, env = "FLASHER_AFTER", value_enum, default_value = "hard-reset")]
    pub after: After,
    /// Use the ROM loader alone, without the faster program that is loaded into the chip's memory.
    #[arg(long, env = "FLASHER_NO_STUB")]
    pub no_stub: bool,
    /// The image is encrypted for this chip, which encrypts its flash memory. Without this such a
    /// chip is left as it is.
    #[arg(long, env = "FLASHER_ENCRYPTED")]
    pub encrypted: bool,
    /// Longest time until chip and flash memory are detected.
    #[arg(
        long,
        env = "FLASHER_CONNECT_TIMEOUT",
        value_name = "TIME",
        default_value = "60s",
        value_parser = duration
    )]
    pub connect_timeout: Duration,
    /// Longest time in which the chip takes no block: it erases flash memory meanwhile.
    #[arg(
        long,
        env = "FLASHER_STALL_TIMEOUT",
        value_name = "TIME",
        default_value = "60s",
        value_parser = duration
    )]
    pub stall_timeout: Duration,
    /// Do everything up to the first byte that is written, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Ways in which a chip gets into its ROM loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Before {
    /// By the control lines DTR and RTS, as development boards connect them.
    DefaultReset,
    /// By the sequence for the USB peripheral of the chip itself. Taken in place of default-reset
    /// where the port is one.
    UsbReset,
    /// It is there already, as when somebody holds its boot button.
    NoReset,
}

/// Ways in which a chip leaves its ROM loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum After {
    /// By the control line RTS: it starts its firmware.
    HardReset,
    /// It stays, and somebody else restarts it.
    NoReset,
}

/// Parses an address in flash memory, in decimal, or in hexadecimal after 0x.
fn offset(text: &str) -> Result<u32, String> {
    let expected =
        || format!("{text:?} is not an address; expected a multiple of 0x1000 such as 0x10000");
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    let number = number.map_err(|_| expected())?;
    // Flash memory is erased in sectors of this size, and no chip has a larger memory.
    let is_one = number.is_multiple_of(SECTOR) && number < FlashSize::_256Mb.size();
    if is_one { Ok(number) } else { Err(expected()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_of_a_sector() {
        assert_eq!(offset("0x10000"), Ok(0x10000));
        assert_eq!(offset("4096"), Ok(0x1000));
        for text in ["", "0x", "0x10", "-4096", "0x100000000", "0x10000000", "+0x1000"] {
            assert!(offset(text).is_err(), "{text}");
        }
    }
}
