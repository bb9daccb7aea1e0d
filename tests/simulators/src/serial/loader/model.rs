//! Kinds of chips, by what tells them apart on the wire (their technical reference manuals, and
//! esptool's targets).

/// A kind of chip.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Register whose value tells the chip, and its value.
    pub magic: (u32, u32),
    /// Number of the chip, on those that answer GET_SECURITY_INFO.
    pub number: Option<u32>,
    /// Register that tells whether the flash is encrypted, and its value then, on the others.
    pub encryption: Option<(u32, u32)>,
    /// Registers of the controller of the flash.
    pub spi: Spi,
}

/// Registers of an SPI controller.
#[derive(Clone, Copy, Debug)]
pub struct Spi {
    /// Starts a command of the flash.
    pub command: u32,
    /// The command.
    pub user2: u32,
    /// First word of the answer.
    pub data: u32,
}

/// ESP32, revision 1.
pub const ESP32: Model = Model {
    magic: (0x4000_1000, 0x00f0_1d83),
    number: None,
    encryption: Some((0x3ff5_a000, 1 << 20)),
    spi: Spi { command: 0x3ff4_2000, user2: 0x3ff4_2024, data: 0x3ff4_2080 },
};

/// ESP32-C3.
pub const ESP32C3: Model = Model {
    magic: (0x4000_1000, 0x1b31_506f),
    number: Some(5),
    encryption: None,
    spi: Spi { command: 0x6000_2000, user2: 0x6000_2020, data: 0x6000_2058 },
};
