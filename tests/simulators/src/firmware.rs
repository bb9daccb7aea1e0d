//! The simulated devices' firmware: a line that identifies the format, a line of JSON that
//! describes the firmware, and the payload. For Espressif chips the beginning of an ESP-IDF image
//! precedes it: the image header, the first segment's header, and the application descriptor.

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const MAGIC: &[u8] = b"SIMULATED-FIRMWARE-1\n";

/// Chips with their numbers in the image header (ESP-IDF's documentation, "App Image Format").
const CHIPS: [(&str, u16); 3] = [("esp32", 0), ("esp32s2", 2), ("esp32s3", 9)];
/// First byte of an ESP-IDF image.
const IMAGE: u8 = 0xe9;
/// Size of the image header and the first segment's header, in bytes.
const HEADERS: usize = 24 + 8;
/// Size of the application descriptor, in bytes.
const DESCRIPTOR: usize = 256;

/// A firmware image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    /// Device type that it runs on.
    pub device: String,
    /// Application that it contains.
    pub application: String,
    /// Version that a device with this firmware reports.
    pub version: String,
    /// Bytes that are written to flash.
    pub payload: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    device: String,
    application: String,
    version: String,
    length: usize,
    sha256: String,
}

fn hash(payload: &[u8]) -> String {
    Sha256::digest(payload).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Firmware {
    /// Returns the bytes that a device receives.
    ///
    /// # Errors
    /// The description cannot be encoded.
    pub fn encode(&self) -> anyhow::Result<Vec<u8>> {
        let header = Header {
            device: self.device.clone(),
            application: self.application.clone(),
            version: self.version.clone(),
            length: self.payload.len(),
            sha256: hash(&self.payload),
        };
        let mut bytes = self.beginning();
        bytes.extend(MAGIC);
        bytes.extend(serde_json::to_vec(&header)?);
        bytes.push(b'\n');
        bytes.extend(&self.payload);
        Ok(bytes)
    }

    /// Decodes and checks an image, as a device's bootloader does.
    ///
    /// # Errors
    /// The image is truncated, modified, or not an image.
    pub fn decode(bytes: &[u8]) -> anyhow::Result<Self> {
        let content = match bytes.first() {
            Some(&IMAGE) => bytes.get(HEADERS + DESCRIPTOR..).unwrap_or_default(),
            _ => bytes,
        };
        let Some(rest) = content.strip_prefix(MAGIC) else { bail!("this is no firmware") };
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .context("the firmware's description is cut")?;
        let header: Header = serde_json::from_slice(&rest[..end])?;
        let payload = &rest[end + 1..];
        ensure!(
            payload.len() == header.length,
            "the firmware has {} bytes of {}",
            payload.len(),
            header.length
        );
        ensure!(hash(payload) == header.sha256, "the firmware was changed");
        Ok(Self {
            device: header.device,
            application: header.application,
            version: header.version,
            payload: payload.to_vec(),
        })
    }

    /// Returns the beginning of an ESP-IDF image; empty for devices other than Espressif chips.
    fn beginning(&self) -> Vec<u8> {
        let Some((_, chip)) = CHIPS.iter().find(|(device, _)| self.device == *device) else {
            return Vec::new();
        };
        let mut bytes = vec![0; HEADERS + DESCRIPTOR];
        // One segment, for 16 MiB of flash memory, for every revision of the chip.
        bytes[..4].copy_from_slice(&[IMAGE, 1, 2, 0x4f]);
        bytes[12..14].copy_from_slice(&chip.to_le_bytes());
        bytes[17..19].copy_from_slice(&u16::MAX.to_le_bytes());
        bytes[28..30].copy_from_slice(&256_u16.to_le_bytes());
        bytes[32..36].copy_from_slice(&0xabcd_5432_u32.to_le_bytes());
        for (at, text) in [(48, &self.version), (80, &self.application)] {
            // Text fields are zero-terminated.
            let text = &text.as_bytes()[..text.len().min(31)];
            bytes[at..at + text.len()].copy_from_slice(text);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_or_changed_firmware_is_refused() {
        let firmware = Firmware {
            device: "esp32".into(),
            application: "thermo".into(),
            version: "2".into(),
            payload: vec![7; 1000],
        };
        let bytes = firmware.encode().expect("encoded");
        assert_eq!(Firmware::decode(&bytes).expect("decoded"), firmware);
        assert!(Firmware::decode(&bytes[..bytes.len() - 1]).is_err());
        let mut changed = bytes.clone();
        *changed.last_mut().expect("not empty") ^= 1;
        assert!(Firmware::decode(&changed).is_err());
        assert!(Firmware::decode(b"x").is_err());
    }
}
