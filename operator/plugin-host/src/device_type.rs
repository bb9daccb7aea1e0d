//! The type of a device, in one spelling.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A device type in lower case without dashes: `ESP32-S2` is `esp32s2`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceType(String);

/// Not a device type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a device type; expected 1 to 63 letters, digits, dots and underscores")]
pub struct InvalidDeviceType(String);

impl FromStr for DeviceType {
    type Err = InvalidDeviceType;

    fn from_str(text: &str) -> Result<Self, InvalidDeviceType> {
        let name: String = text
            .trim()
            .chars()
            .filter(|letter| *letter != '-')
            .map(|letter| letter.to_ascii_lowercase())
            .collect();
        let good =
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_');
        if good && !name.is_empty() && name.len() <= 63 {
            Ok(Self(name))
        } else {
            Err(InvalidDeviceType(text.to_owned()))
        }
    }
}

impl TryFrom<String> for DeviceType {
    type Error = InvalidDeviceType;

    fn try_from(text: String) -> Result<Self, InvalidDeviceType> {
        text.parse()
    }
}

impl From<DeviceType> for String {
    fn from(kind: DeviceType) -> Self {
        kind.0
    }
}

impl AsRef<str> for DeviceType {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
