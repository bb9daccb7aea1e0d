//! Error codes in the loader's answers (esptool's documentation, "Serial Protocol").

/// The command is invalid.
pub(super) const INVALID: u8 = 0x05;
/// The checksum is wrong.
pub(super) const BAD_CHECKSUM: u8 = 0x07;
/// The compressed data cannot be decompressed.
pub(super) const BAD_COMPRESSION: u8 = 0x0b;
