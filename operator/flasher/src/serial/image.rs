//! Image that is written to a chip's flash memory: raw bytes, in segments. No I/O.

use espflash::image_format::Segment;
use espflash::target::Chip;
use flashjob_artifacts::Digest;

use crate::arguments::Serial;
use crate::firmware::Firmware;
use crate::outcome::{AttemptFailure, Code};

/// Size of a segment, in bytes. Each segment is compressed, erased, written and compared
/// separately: this bounds memory use and the duration of each step, and a segment that is already
/// present is not written again.
pub(super) const SEGMENT_BYTES: usize = 1 << 20;
/// Value of an erased byte of flash memory.
const ERASED: u8 = 0xff;
/// First bytes of an ELF file.
const ELF: [u8; 4] = *b"\x7fELF";
/// First byte of an image for a chip's boot loader (esptool's documentation, "Firmware Image
/// Format").
const MAGIC: u8 = 0xe9;
/// Maximum number of segments of such an image.
const MOST_SEGMENTS: u8 = 16;
/// Size of its header including the extended header, in bytes.
const HEADER_BYTES: usize = 24;
/// Offset of the chip number in the header, two bytes.
const CHIP: usize = 12;
/// Offset of the chip's minimum revision, two bytes.
const REVISION: usize = 15;
/// Chip number of an image for any chip.
const ANY_CHIP: u16 = 0xffff;

/// Bytes for a chip's flash memory.
pub(super) struct Image {
    /// Name of the file in the firmware.
    pub name: String,
    /// Digest of the manifest that the image was fetched by.
    pub digest: Digest,
    /// Its size, in bytes.
    pub size: u64,
    reference: String,
    /// Content of the file, padded to the four bytes that loaders write at once.
    bytes: Vec<u8>,
}

impl Image {
    /// Creates an image from the firmware.
    ///
    /// # Errors
    /// The firmware is not a raw image.
    pub fn read(firmware: Firmware, options: &Serial) -> Result<Self, AttemptFailure> {
        let reference = options.pull.firmware.clone();
        let broken = |words: &str| {
            AttemptFailure::new(
                Code::FirmwareUnavailable,
                format!("firmware {reference}: {words}"),
            )
        };
        let size = firmware.size();
        let Firmware { name, digest, bytes, .. } = firmware;
        let mut bytes = Vec::from(bytes);
        if bytes.starts_with(&ELF) {
            return Err(broken(
                "its file is an ELF file, which cannot be written to flash memory; convert it to \
                 an image with boot loader and partition table: idf.py merge-bin, or espflash \
                 save-image --merge",
            ));
        }
        // Padding with the erased value changes no bit of the flash memory.
        bytes.resize(bytes.len().next_multiple_of(4), ERASED);
        Ok(Self { name, digest, size, reference, bytes })
    }

    /// Returns the segments of the image, each with its address.
    pub fn segments(&self, offset: u32) -> Vec<Segment<'_>> {
        let parts = self.bytes.chunks(SEGMENT_BYTES);
        let addresses = (offset..).step_by(SEGMENT_BYTES);
        addresses.zip(parts).map(|(address, part)| Segment::new(address, part)).collect()
    }

    /// Returns the header of the image for a chip and an offset in its flash memory: the header at
    /// the beginning, or, in a merged image, the boot loader's header. None for raw data.
    pub fn header(&self, chip: Chip, offset: u32) -> Option<Header> {
        Header::find(&self.bytes, chip, offset)
    }
}

/// Properties of the chips that an image is for, from its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Number of the chip.
    chip: u16,
    /// Minimum revision of the chip, as 100 × major + minor number.
    revision: u16,
}

impl Header {
    fn find(bytes: &[u8], chip: Chip, offset: u32) -> Option<Self> {
        // A merged image begins at offset 0, but the boot loader of an ESP32 is at 0x1000.
        let boot_loader = chip.boot_address().saturating_sub(offset);
        let places = [0, usize::try_from(boot_loader).unwrap_or_default()];
        let header = places.into_iter().find_map(|at| {
            let header = bytes.get(at..)?.get(..HEADER_BYTES)?;
            // One byte is a weak sign, so the number of segments must be plausible, too.
            (header[0] == MAGIC && (1..=MOST_SEGMENTS).contains(&header[1])).then_some(header)
        })?;
        let number = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        Some(Self { chip: number(CHIP), revision: number(REVISION) })
    }

    /// Returns the minimum revision of the chip that the image starts on; 0 for any.
    pub fn revision(self) -> u16 {
        self.revision
    }

    /// Checks that the image is for this chip.
    ///
    /// # Errors
    /// The image is for another chip.
    pub fn check_chip(self, chip: Chip, image: &Image) -> Result<(), AttemptFailure> {
        if [chip.id(), ANY_CHIP].contains(&self.chip) {
            return Ok(());
        }
        let target = Chip::try_from(self.chip)
            .map_or_else(|_| format!("chip number {}", self.chip), |chip| chip.to_string());
        let message = format!(
            "firmware {} is for {target}, but the chip is {chip}; connect the right chip, or \
             build the firmware for this one",
            image.reference
        );
        Err(AttemptFailure::new(Code::WrongChip, message))
    }
}

/// Returns the chip whose name a device type begins with, in any spelling: `ESP32-C3-Mini` is an
/// esp32c3. None if it names no chip.
pub(super) fn chip_of(device: &str) -> Option<Chip> {
    let name = device.to_ascii_lowercase().replace(['-', '_'], "");
    // The longest name wins, because esp32 is the beginning of esp32s3.
    (0..=name.len()).rev().find_map(|end| name.get(..end)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_type_names_the_longest_chip_that_it_begins_with() {
        for (device, expected) in [
            ("esp32", Some(Chip::Esp32)),
            ("ESP32-S3", Some(Chip::Esp32s3)),
            ("esp32c3mini", Some(Chip::Esp32c3)),
            ("esp32c61", Some(Chip::Esp32c61)),
            ("espserial", None),
            ("", None),
        ] {
            assert_eq!(chip_of(device), expected, "{device}");
        }
    }

    #[test]
    fn the_header_of_an_image_is_at_its_beginning_or_that_of_its_boot_loader() {
        let mut header = [0; HEADER_BYTES];
        (header[0], header[1], header[CHIP], header[REVISION]) = (MAGIC, 3, 5, 101);
        let expected = Some(Header { chip: 5, revision: 101 });
        assert_eq!(Header::find(&header, Chip::Esp32, 0x10000), expected);
        let merged = [vec![ERASED; 0x1000], header.to_vec()].concat();
        assert_eq!(Header::find(&merged, Chip::Esp32, 0), expected);
        assert_eq!(Header::find(&merged, Chip::Esp32c3, 0), None);
        assert_eq!(Header::find(b"\xe9\x03", Chip::Esp32, 0), None);
        assert_eq!(Header::find(&[ERASED; 64], Chip::Esp32, 0), None);
    }
}
