//! Images for MCUboot (its documentation, "Image format").

use sha2::{Digest, Sha256};

/// First bytes of an image.
const MAGIC: u32 = 0x96f3_b83d;
const HEADER_BYTES: u16 = 32;
const TLV_MAGIC: u16 = 0x6907;
const TLV_SHA256: u16 = 0x10;

/// Returns an image of this version, as imgtool creates it: a header, a body of this size, and the
/// hash of both.
#[must_use]
pub fn mcuboot_image(version: [u8; 3], size: u32) -> Vec<u8> {
    let mut image = Vec::new();
    image.extend(MAGIC.to_le_bytes());
    image.extend(0_u32.to_le_bytes());
    image.extend(HEADER_BYTES.to_le_bytes());
    image.extend(0_u16.to_le_bytes());
    image.extend(size.to_le_bytes());
    image.extend(0_u32.to_le_bytes());
    image.extend([version[0], version[1]]);
    image.extend(u16::from(version[2]).to_le_bytes());
    image.extend([0; 8]);
    image.extend((0..size).map(|at| (at % 251) as u8 ^ version[0]));
    let hash = Sha256::digest(&image);
    image.extend(TLV_MAGIC.to_le_bytes());
    image.extend(40_u16.to_le_bytes());
    image.extend(TLV_SHA256.to_le_bytes());
    image.extend(32_u16.to_le_bytes());
    image.extend(hash);
    image
}

/// Returns the version and hash of an image, if its hash is right.
pub(super) fn read(image: &[u8]) -> Option<(String, Vec<u8>)> {
    let number = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?));
    let size = usize::try_from(number(12)?).ok()? + usize::from(HEADER_BYTES);
    let hash = image.get(size + 8..size + 40)?;
    let is_good = number(0)? == MAGIC && Sha256::digest(image.get(..size)?)[..] == *hash;
    let revision = u16::from_le_bytes([image[22], image[23]]);
    is_good.then(|| (format!("{}.{}.{revision}", image[20], image[21]), hash.to_vec()))
}
