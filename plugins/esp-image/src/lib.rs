//! Header of images for Espressif chips (ESP-IDF's documentation, "App Image Format"): the chip
//! that an image is for, and the descriptor of the application in it. No I/O.
//!
//! ```text
//! header, 24 bytes | header of the first segment, 8 bytes | application descriptor, 256 bytes
//! ```

use flashjob_plugin_sdk::{FirmwareFile, Inspection, log};

/// First byte of an image.
const MAGIC: u8 = 0xe9;
/// Maximum number of segments of an image.
const MOST_SEGMENTS: u8 = 16;
/// Size of the header, in bytes.
const HEADER_BYTES: usize = 24;
/// Size of the header of each segment, in bytes.
const SEGMENT_HEADER_BYTES: usize = 8;
/// Chip number of an image for any chip.
const ANY_CHIP: u16 = 0xffff;
/// Offset of the chip number in the header.
const CHIP: usize = 12;
/// Offset of the minimum chip revision in the header.
const MIN_REVISION: usize = 15;
/// Offset of the maximum chip revision in the header.
const MAX_REVISION: usize = 17;
/// Offset of the flash memory size in the header, in the upper four bits.
const FLASH_SIZE: usize = 3;
/// Largest code for a flash memory size, 128 MiB.
const LARGEST_FLASH: u8 = 7;
/// First four bytes of an application descriptor.
const DESCRIPTOR_MAGIC: u32 = 0xabcd_5432;
/// Size of an application descriptor, in bytes.
const DESCRIPTOR_BYTES: usize = 256;
/// Size of each text field in it, in bytes.
const TEXT_BYTES: usize = 32;

/// Name of the first chip, which is a prefix of all other names.
const FIRST_CHIP: &str = "ESP32";

/// Chips by their numbers in the header (`esp_chip_id_t` of ESP-IDF).
const CHIPS: [(u16, &str); 13] = [
    (0x0000, "ESP32"),
    (0x0002, "ESP32-S2"),
    (0x0005, "ESP32-C3"),
    (0x0009, "ESP32-S3"),
    (0x000c, "ESP32-C2"),
    (0x000d, "ESP32-C6"),
    (0x0010, "ESP32-H2"),
    (0x0012, "ESP32-P4"),
    (0x0014, "ESP32-C61"),
    (0x0017, "ESP32-C5"),
    (0x0019, "ESP32-H21"),
    (0x001c, "ESP32-H4"),
    (0x0020, "ESP32-S31"),
];

/// Header of an image, and its application descriptor if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Number of the chip.
    chip: u16,
    /// Minimum and maximum revision of the chip, each as 100 × major + minor number.
    revisions: (u16, u16),
    /// Size of the flash memory that the image is built for, in bytes.
    flash_size: Option<u64>,
    /// Offset of the end of the first segment in the file.
    first_segment_end: u64,
    application: Option<Application>,
}

/// Application descriptor (`esp_app_desc_t` of ESP-IDF).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Application {
    secure_version: u32,
    version: String,
    project: String,
}

impl Image {
    /// Parses the header at the beginning of a file; None if the file is not an image.
    #[must_use]
    pub fn read(beginning: &[u8]) -> Option<Self> {
        let header = beginning.get(..HEADER_BYTES)?;
        // One byte is a weak magic number, so the number of segments must be possible too.
        if header[0] != MAGIC || !(1..=MOST_SEGMENTS).contains(&header[1]) {
            return None;
        }
        let number = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        // The lower four bits are the frequency of the flash memory.
        let flash = header[FLASH_SIZE] >> 4;
        let begin = HEADER_BYTES + SEGMENT_HEADER_BYTES;
        // Only the first segment: the headers of the others are behind its data, and a plugin gets
        // no more than the first 4 KiB of a file.
        let length = u64::from(word(beginning, HEADER_BYTES + 4).unwrap_or_default());
        Some(Self {
            chip: number(CHIP),
            revisions: (number(MIN_REVISION), number(MAX_REVISION)),
            flash_size: (flash <= LARGEST_FLASH).then(|| 1 << (20 + flash)),
            // In 64 bits: the length comes from the file, and the sum must not overflow.
            first_segment_end: begin as u64 + length,
            application: beginning.get(begin..).and_then(Application::read),
        })
    }

    /// Returns the name of the chip, as Espressif writes it.
    #[must_use]
    pub fn chip(&self) -> Option<String> {
        if self.chip == ANY_CHIP {
            return None;
        }
        Some(name(self.chip).map_or_else(|| format!("chip {:#06x}", self.chip), str::to_owned))
    }

    /// Returns the image's properties, with a refusal if the image is for another chip, or if its
    /// size contradicts its header. `chip` is the devices' chip, in any spelling; it is not
    /// compared if it does not begin with a known chip's name. Without `is_reported` the version
    /// is omitted, because such devices report a version other than the descriptor's.
    #[must_use]
    pub fn inspect(&self, file: &FirmwareFile, chip: &str, is_reported: bool) -> Inspection {
        let (oldest, newest) = self.revisions;
        let revision = |number: u16| format!("{}.{}", number / 100, number % 100);
        let application = self.application.as_ref();
        let reported = application.filter(|_| is_reported);
        let text = |of: &str| Some(of.to_owned()).filter(|text| !text.is_empty());
        Inspection {
            version: reported.and_then(|application| text(&application.version)),
            project: application.and_then(|application| text(&application.project)),
            secure_version: application.map(|application| application.secure_version),
            chip: self.chip(),
            device_types: name(self.chip)
                .map(|name| format!("{}*", normalized_name(name)))
                .into_iter()
                .collect(),
            min_chip_revision: Some(revision(oldest)),
            // Images of older versions of ESP-IDF have 0 in this field, and 0xffff is no limit
            // either.
            max_chip_revision: (newest != 0 && newest != u16::MAX).then(|| revision(newest)),
            refusal: self.wrong_chip(file, chip).or_else(|| self.wrong_size(file)),
        }
    }

    fn wrong_chip(&self, file: &FirmwareFile, chip: &str) -> Option<String> {
        let (number, device_chip) = match chip_of(chip) {
            Some(Chip::Known(number, device_chip)) => (number, device_chip),
            // No refusal: firmware for a chip that is newer than this table could otherwise never
            // be flashed.
            Some(Chip::Unknown(device_chip)) => {
                log::warn(&format!(
                    "{}: device type {} is {device_chip}, whose chip ID is unknown; the chip is \
                     not checked",
                    file.name, file.device_type
                ));
                return None;
            }
            None => return None,
        };
        let image_chip = self.chip().filter(|_| self.chip != number)?;
        Some(format!(
            "{} is an image for {image_chip}, and device type {} is {device_chip}; publish \
             firmware that is built for {device_chip}, or select other devices",
            file.name, file.device_type
        ))
    }

    fn wrong_size(&self, file: &FirmwareFile) -> Option<String> {
        let FirmwareFile { name, size, .. } = file;
        if *size < self.first_segment_end {
            return Some(format!(
                "{name} has {size} bytes, but its header requires at least {}: it is truncated; \
                 publish the complete file",
                self.first_segment_end
            ));
        }
        let flash = self.flash_size.filter(|flash| size > flash)?;
        Some(format!(
            "{name} has {size} bytes, but its header says that it is built for a flash memory of \
             {flash} bytes; publish only the image, or build it for a larger flash memory"
        ))
    }
}

impl Application {
    fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..DESCRIPTOR_BYTES)?;
        (word(bytes, 0)? == DESCRIPTOR_MAGIC).then_some(())?;
        // The field is padded with NUL, which is missing if the text fills it.
        let text = |at: usize| {
            let field = &bytes[at..at + TEXT_BYTES];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(TEXT_BYTES);
            String::from_utf8_lossy(&field[..end]).into_owned()
        };
        // `esp_app_desc_t`: magic, secure version, 8 reserved bytes, version, project name.
        let (version, project) = (text(16), text(16 + TEXT_BYTES));
        Some(Self { secure_version: word(bytes, 4)?, version, project })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}

fn name(number: u16) -> Option<&'static str> {
    CHIPS.iter().find(|(id, _)| *id == number).map(|(_, name)| *name)
}

fn normalized_name(text: &str) -> String {
    text.to_ascii_lowercase().replace(['-', '_'], "")
}

/// Chip that a device type names.
#[derive(Debug, PartialEq, Eq)]
enum Chip {
    /// Number of a known chip in the header, and its name.
    Known(u16, &'static str),
    /// Name of an unknown chip, such as one that is newer than this table.
    Unknown(String),
}

/// Returns the chip whose name a device type begins with, in any spelling: `ESP32-C3-Mini` is an
/// ESP32-C3. Chips of one family differ only in a letter and a number, so both must match
/// completely: `esp32c7` is neither an ESP32 nor another ESP32-C. An `esp32cam` is an ESP32.
fn chip_of(device_type: &str) -> Option<Chip> {
    let device_name = normalized_name(device_type);
    let rest = device_name.strip_prefix(&normalized_name(FIRST_CHIP))?;
    let letter = rest.chars().next().filter(char::is_ascii_alphabetic);
    let number: String = rest.chars().skip(1).take_while(char::is_ascii_digit).collect();
    let name = match letter {
        Some(letter) if !number.is_empty() => {
            format!("{FIRST_CHIP}-{}{number}", letter.to_ascii_uppercase())
        }
        _ => FIRST_CHIP.to_owned(),
    };
    let chip = CHIPS.into_iter().find(|(_, chip_name)| *chip_name == name);
    Some(chip.map_or(Chip::Unknown(name), |(number, name)| Chip::Known(number, name)))
}

#[cfg(test)]
mod tests;
