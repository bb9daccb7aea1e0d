//! Header of an MCUboot image (MCUboot's design, "Image format"): its version and its size. It
//! does not name the chip. No I/O.

use std::fmt;

use flashjob_plugin_sdk::{FirmwareFile, Inspection};

/// First four bytes of an image.
const MAGIC: u32 = 0x96f3_b83d;
/// Size of the header, in bytes.
const HEADER_BYTES: usize = 32;

/// Header of an image.
struct Header {
    /// Size of everything before the image itself, including this header, in bytes.
    header_size: u16,
    /// Size of the entries after the image that its hash covers, in bytes.
    protected_size: u16,
    /// Size of the image itself, in bytes.
    image_size: u32,
    version: Version,
}

/// Version of an image, as imgtool accepts it.
struct Version {
    major: u8,
    minor: u8,
    revision: u16,
    build: u32,
}

impl Version {
    /// Formats the version with a separator before the build, which is omitted if it is 0.
    fn written(&self, separator: char) -> String {
        let Self { major, minor, revision, build } = self;
        match build {
            0 => format!("{major}.{minor}.{revision}"),
            build => format!("{major}.{minor}.{revision}{separator}{build}"),
        }
    }
}

/// Formats the version as devices report it.
impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.written('.'))
    }
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        // `struct image_header` of MCUboot, in little-endian order: magic, load address, size of
        // the header, of the protected entries and of the image, flags, version, padding.
        (word(0) == MAGIC).then(|| Self {
            header_size: half(8),
            protected_size: half(10),
            image_size: word(12),
            version: Version {
                major: header[20],
                minor: header[21],
                revision: half(22),
                build: word(24),
            },
        })
    }

    /// Returns the minimum size of a file with this header; signatures add to it.
    fn file_size(&self) -> u64 {
        // The unprotected entries, such as hash and signature, begin with their own size behind
        // the image, which a plugin does not get. Their size is therefore unknown.
        u64::from(self.header_size) + u64::from(self.image_size) + u64::from(self.protected_size)
    }
}

/// Returns the version of an image, and refuses one that no boot loader would accept.
pub fn inspect(file: &FirmwareFile) -> Inspection {
    let FirmwareFile { name, size, version, .. } = file;
    let Some(header) = Header::read(&file.beginning) else {
        let refusal = format!(
            "{name} is not an image for MCUboot, which begins with 0x96f3b83d, so it cannot be \
             flashed to device type {}; publish the file that imgtool signed",
            file.device_type
        );
        return Inspection { refusal: Some(refusal), ..Inspection::new() };
    };
    // imgtool and people write the build after a plus sign.
    let is_asked = header.version.written('+') == *version;
    let reported_version = if is_asked { version.clone() } else { header.version.to_string() };
    let least = header.file_size();
    let refusal = (*size < least).then(|| {
        format!(
            "{name} has {size} bytes, but its header requires at least {least}: it is truncated; \
             publish the complete file"
        )
    });
    Inspection { version: Some(reported_version), refusal, ..Inspection::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a header as imgtool writes it: version 1.2.3, and a build.
    fn header(build: u32) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..4].copy_from_slice(&[0x3d, 0xb8, 0xf3, 0x96]);
        // 512 bytes of header, 40 of protected entries, an image of 4096 bytes.
        bytes[8..16].copy_from_slice(&[0, 2, 40, 0, 0, 16, 0, 0]);
        bytes[20..24].copy_from_slice(&[1, 2, 3, 0]);
        bytes[24..28].copy_from_slice(&build.to_le_bytes());
        bytes
    }

    fn inspected(beginning: &[u8], size: u64, version: &str) -> Inspection {
        inspect(&FirmwareFile {
            device_type: "nrf52840".into(),
            firmware: "registry.example/firmware:2".into(),
            version: version.into(),
            settings: "{}".into(),
            name: "firmware/app.signed.bin".into(),
            size,
            beginning: beginning.to_vec(),
        })
    }

    #[test]
    fn the_version_is_the_headers_and_a_build_is_behind_a_dot_or_as_it_was_asked_for() {
        for (build, requested_version, expected) in [
            (0, "1.2.3", "1.2.3"),
            (0, "2.0.0", "1.2.3"),
            (4, "1.2.3", "1.2.3.4"),
            (4, "1.2.3.4", "1.2.3.4"),
            (4, "1.2.3+4", "1.2.3+4"),
        ] {
            let inspection = inspected(&header(build), 8192, requested_version);
            assert_eq!(
                (inspection.version.as_deref(), inspection.refusal),
                (Some(expected), None)
            );
        }
    }

    #[test]
    fn what_is_no_image_or_is_cut_off_is_refused_in_words() {
        let least = 512 + 4096 + 40;
        assert_eq!(inspected(&header(0), least, "1.2.3").refusal, None);
        let cut = inspected(&header(0), least - 1, "1.2.3").refusal;
        assert!(cut.is_some_and(|text| text.contains("at least 4648: it is truncated")));
        for bytes in [&header(0)[1..], &header(0)[..31], b"\xe9\x01", b""] {
            let refusal = inspected(bytes, 8192, "1.2.3").refusal;
            assert!(refusal.is_some_and(|text| text.contains("device type nrf52840")));
        }
    }
}
