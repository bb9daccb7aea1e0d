//! Models of chips, by their differences on the wire (their technical reference manuals, and
//! esptool's targets).

/// A model of chip.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Register that identifies the chip, and its value.
    pub magic: (u32, u32),
    /// Number of the chip, for models that answer GET_SECURITY_INFO.
    pub number: Option<u32>,
    /// Register that shows flash encryption, and its value if the flash is encrypted; for the
    /// other models.
    pub encryption: Option<(u32, u32)>,
    /// Registers of the flash's SPI controller.
    pub spi: Spi,
}

/// Registers of an SPI controller.
#[derive(Clone, Copy, Debug)]
pub struct Spi {
    /// Register that starts a flash command.
    pub command: u32,
    /// Register with the flash command.
    pub user2: u32,
    /// Register with the first word of the answer.
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
