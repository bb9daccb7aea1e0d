//! Error codes with which the loader answers a command (esptool's documentation, "Serial
//! Protocol").

/// The command is wrong.
pub(super) const INVALID: u8 = 0x05;
/// Its checksum is wrong.
pub(super) const BAD_CHECKSUM: u8 = 0x07;
/// The compressed data cannot be unpacked.
pub(super) const BAD_COMPRESSION: u8 = 0x0b;
