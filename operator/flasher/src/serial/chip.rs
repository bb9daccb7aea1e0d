//! Checks of a detected chip before it is changed: writing to the wrong chip, or in the wrong
//! form, may damage it beyond repair.

use espflash::Error;
use espflash::flasher::Flasher;
use espflash::target::{Chip, efuse};

use super::image::Image;
use crate::arguments::Serial;
use crate::outcome::{AttemptFailure, Code};

/// End of the flash memory that espflash and esptool reserve for the boot loader.
const BOOT_LOADER_END: u32 = 0x8000;

/// Checks a chip against the image and the options.
///
/// # Errors
/// The image is not for this chip, or the chip stopped answering.
pub(super) fn check(
    flasher: &mut Flasher,
    image: &Image,
    options: &Serial,
) -> Result<(), AttemptFailure> {
    let header = image.header(flasher.chip(), options.offset);
    if let Some(header) = header {
        header.check_chip(flasher.chip(), image)?;
    }
    // The command for security information also works in Secure Download Mode, so encryption is
    // checked in any mode.
    check_encryption(flasher, options)?;
    // A chip in secure download mode reports neither its revision nor the size of its flash
    // memory.
    if flasher.secure_download_mode() {
        return check_locked(options);
    }
    let revision = header.map_or(0, |header| header.revision());
    // A boot loader that is built for a later revision does not start, and leaves the chip dead.
    if revision > 0 {
        flasher.verify_minimum_revision(revision).map_err(|error| failed(options, error))?;
    }
    check_room(flasher, image, options)
}

/// Checks flash encryption: a chip that encrypts its flash memory reads unencrypted data as noise,
/// and does not start.
fn check_encryption(flasher: &mut Flasher, options: &Serial) -> Result<(), AttemptFailure> {
    let count = match flasher.security_info() {
        Ok(information) => u32::from(information.flash_crypt_cnt),
        // The ESP32 does not support the command.
        Err(_) if flasher.chip() == Chip::Esp32 && !flasher.secure_download_mode() => {
            let field = efuse::esp32::FLASH_CRYPT_CNT;
            Chip::Esp32
                .read_efuse_le::<u32>(flasher.connection(), field)
                .map_err(|error| failed(options, error))?
        }
        Err(_) => 0,
    };
    // Encryption is on while an odd number of bits is set (ESP-IDF's documentation, "Flash
    // Encryption").
    if count.count_ones().is_multiple_of(2) || options.encrypted {
        return Ok(());
    }
    let message = format!(
        "the chip on {} has flash encryption enabled, and would not start with an image that is \
         not encrypted for it; set --encrypted if the image is encrypted",
        options.port.display()
    );
    Err(AttemptFailure::new(Code::DeviceRefused, message))
}

fn check_locked(options: &Serial) -> Result<(), AttemptFailure> {
    if options.offset >= BOOT_LOADER_END {
        return Ok(());
    }
    let message = format!(
        "the chip on {} is in Secure Download Mode, in which a wrong boot loader cannot be \
         repaired; write only the application, at offset {BOOT_LOADER_END:#x} or higher",
        options.port.display()
    );
    Err(AttemptFailure::new(Code::DeviceRefused, message))
}

fn check_room(
    flasher: &mut Flasher,
    image: &Image,
    options: &Serial,
) -> Result<(), AttemptFailure> {
    let (offset, port) = (options.offset, options.port.display());
    let detected = flasher.flash_detect().map_err(|error| failed(options, error))?;
    let Some(flash) = detected else { return Err(failed(options, Error::FlashConnect)) };
    // In 64 bits: the sum of an offset and a size can exceed 32 bits.
    let end = u64::from(offset) + image.size;
    if end <= u64::from(flash.size()) {
        tracing::info!(chip = %flasher.chip(), flash = %flash, "chip detected");
        return Ok(());
    }
    let message = format!(
        "firmware {} has {} bytes, and does not fit at offset {offset:#x} in the {flash} flash \
         memory of the chip on {port}; make it smaller, or use another offset",
        options.pull.firmware, image.size
    );
    Err(AttemptFailure::new(Code::BadConfiguration, message))
}

/// Returns the failure for a wrong or undetected chip.
pub(super) fn failed(options: &Serial, error: Error) -> AttemptFailure {
    let port = options.port.display();
    match error {
        Error::ChipMismatch(expected, found) => {
            let message = format!(
                "the chip on {port} is {found}, but the device type {} requires {expected}; \
                 connect such a chip, or set the device type of this one",
                options.pull.device
            );
            AttemptFailure::new(Code::WrongChip, message)
        }
        Error::UnsupportedChipRevision { major, minor, found_major, found_minor } => {
            let message = format!(
                "firmware {} requires chip revision {major}.{minor}, but the chip on {port} has \
                 revision {found_major}.{found_minor}; build the firmware for that revision",
                options.pull.firmware
            );
            AttemptFailure::new(Code::WrongChip, message)
        }
        error @ Error::ChipDetectError(_) => {
            let message = format!("the chip on {port} is not recognized");
            AttemptFailure::new(Code::WrongChip, message).because(error)
        }
        error @ Error::FlashConnect => {
            let message = format!("the chip on {port} does not detect its flash memory");
            AttemptFailure::new(Code::DeviceUnreachable, message).because(error)
        }
        error => {
            let message = format!("the chip on {port} does not answer");
            AttemptFailure::new(Code::DeviceUnreachable, message).because(error)
        }
    }
}
