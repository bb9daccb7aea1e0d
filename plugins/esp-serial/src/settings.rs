//! Parses the settings of the plugin: from JSON to a value, or to all invalid fields with their
//! JSON pointers. No I/O.

use flashjob_plugin_sdk::{FieldError, PluginError};
use serde_json::Value;

/// Maximum baud rate of the USB bridges on development boards.
const FASTEST: u64 = 5_000_000;

/// Group that owns serial ports: dialout, on Debian and its derivatives.
const DIALOUT: u32 = 20;
/// Names of the settings.
const KNOWN: &str = "unknown setting; supported are program, image, path, chip, baud, offset, \
                     group, registryAccess, args, runAsRoot, compareVersion";

/// Programs that a flash image may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `flashjob-flasher`, of this project.
    Flasher,
    /// esptool, as the entry point of an image that also has the firmware.
    Esptool,
}

/// Options for the flashing program, and its image.
pub struct Settings {
    pub program: Option<Program>,
    pub image: Option<String>,
    pub path: String,
    pub chip: String,
    pub baud: u64,
    pub offset: String,
    pub group: u32,
    pub registry_access: bool,
    pub args: Vec<String>,
    pub run_as_root: bool,
    pub compare_version: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            program: None,
            image: None,
            path: "/firmware/firmware.bin".to_owned(),
            chip: "auto".to_owned(),
            baud: 460_800,
            offset: "0x0".to_owned(),
            group: DIALOUT,
            registry_access: false,
            args: Vec::new(),
            run_as_root: false,
            compare_version: true,
        }
    }
}

impl Settings {
    /// Parses one JSON object.
    pub fn read(text: &str) -> Result<Self, PluginError> {
        let fault = |path: String, message: &str| FieldError { path, message: message.to_owned() };
        let Ok(Value::Object(object)) = serde_json::from_str(text) else {
            return Err(PluginError::InvalidSettings(vec![fault(
                String::new(),
                "expected one JSON object",
            )]));
        };
        let mut settings = Self::default();
        let mut faults = Vec::new();
        for (name, value) in object {
            if let Err(message) = settings.set(&name, &value) {
                // A JSON pointer (RFC 6901, section 3): `~` is escaped before `/`.
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
            "program" => {
                self.program = Some(match value.as_str() {
                    Some("flashjob-flasher") => Program::Flasher,
                    Some("esptool") => Program::Esptool,
                    _ => return Err("expected flashjob-flasher or esptool"),
                });
            }
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
                self.chip = text(is_chip).ok_or("expected auto or a chip such as esp32c3")?
            }
            "offset" => {
                self.offset = text(is_offset).ok_or(
                    "expected an address in flash as text, such as \"0x10000\", at most \
                     0xffffffff",
                )?
            }
            "baud" => {
                let baud = value.as_u64().filter(|baud| (1..=FASTEST).contains(baud));
                self.baud = baud.ok_or("expected a number from 1 to 5000000")?;
            }
            "group" => {
                let group = value.as_u64().and_then(|group| u32::try_from(group).ok());
                // The group root would grant more rights than needed.
                self.group =
                    group.filter(|group| *group > 0).ok_or("expected the number of a group")?;
            }
            "registryAccess" => {
                self.registry_access = value.as_bool().ok_or("expected true or false")?;
            }
            "args" => self.args = words(value).ok_or("expected a list of strings")?,
            "runAsRoot" => self.run_as_root = value.as_bool().ok_or("expected true or false")?,
            "compareVersion" => {
                self.compare_version = value.as_bool().ok_or("expected true or false")?;
            }
            _ => return Err(KNOWN),
        }
        Ok(())
    }
}

fn words(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect()
}

fn is_absolute(text: &str) -> bool {
    text.starts_with('/') && !text.ends_with('/') && !text.contains(char::is_control)
}

fn is_chip(text: &str) -> bool {
    // The text becomes an argument of esptool, so it must not look like an option.
    let is_name_letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    text == "auto" || text.starts_with("esp") && text.chars().all(is_name_letter)
}

fn is_offset(text: &str) -> bool {
    // `from_str_radix` accepts a sign, which esptool does not.
    text.strip_prefix("0x")
        .is_some_and(|digits| !digits.starts_with('+') && u32::from_str_radix(digits, 16).is_ok())
}
