//! Settings of the plugin: JSON in, every fault with its JSON pointer out. No I/O.

use flashjob_plugin_sdk::{FieldError, PluginError};
use serde_json::Value;

/// Fastest rate that the USB bridges on development boards are made for.
const FASTEST: u64 = 5_000_000;

/// Options for calling esptool, and the image that it is called in.
pub struct Settings {
    pub image: Option<String>,
    pub path: String,
    pub chip: String,
    pub baud: u64,
    pub offset: String,
    pub run_as_root: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            image: None,
            path: "/firmware/firmware.bin".to_owned(),
            chip: "auto".to_owned(),
            baud: 460_800,
            offset: "0x0".to_owned(),
            run_as_root: false,
        }
    }
}

impl Settings {
    /// Reads one JSON object.
    pub fn read(text: &str) -> Result<Self, PluginError> {
        let fault = |path: String, message: &str| FieldError { path, message: message.to_owned() };
        let Ok(Value::Object(given)) = serde_json::from_str(text) else {
            return Err(PluginError::InvalidSettings(vec![fault(
                String::new(),
                "expected one JSON object",
            )]));
        };
        let mut settings = Self::default();
        let mut faults = Vec::new();
        for (name, value) in given {
            if let Err(message) = settings.set(&name, &value) {
                faults.push(fault(
                    format!("/{}", name.replace('~', "~0").replace('/', "~1")),
                    message,
                ));
            }
        }
        if faults.is_empty() { Ok(settings) } else { Err(PluginError::InvalidSettings(faults)) }
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<(), &'static str> {
        let text =
            |valid: fn(&str) -> bool| value.as_str().filter(|text| valid(text)).map(str::to_owned);
        match name {
            "image" => {
                self.image = Some(
                    text(|text| !text.is_empty())
                        .ok_or("expected the reference of a container image")?,
                )
            }
            "path" => {
                self.path =
                    text(is_absolute).ok_or("expected the absolute path of a file in the image")?
            }
            "chip" => {
                self.chip = text(is_chip)
                    .ok_or("expected auto or a chip as esptool names it, as esp32c3")?
            }
            "offset" => {
                self.offset = text(is_offset).ok_or(
                    "expected an address in flash as text, as \"0x10000\", at most 0xffffffff",
                )?
            }
            "baud" => {
                let baud = value.as_u64().filter(|baud| (1..=FASTEST).contains(baud));
                self.baud = baud.ok_or("expected a number from 1 to 5000000")?;
            }
            "runAsRoot" => self.run_as_root = value.as_bool().ok_or("expected true or false")?,
            _ => {
                return Err(
                    "unknown setting; known are image, path, chip, baud, offset, runAsRoot",
                );
            }
        }
        Ok(())
    }
}

fn is_absolute(text: &str) -> bool {
    text.starts_with('/') && !text.ends_with('/') && !text.contains(char::is_control)
}

fn is_chip(text: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    text == "auto" || text.starts_with("esp") && text.chars().all(plain)
}

fn is_offset(text: &str) -> bool {
    text.strip_prefix("0x")
        .is_some_and(|digits| !digits.starts_with('+') && u32::from_str_radix(digits, 16).is_ok())
}
