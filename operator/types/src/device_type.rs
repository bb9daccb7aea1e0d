//! Device types in their canonical spelling, and the types that a plugin serves.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A device type in lower case without dashes, underscores and blanks: `ESP32-S2` and `esp32_s2`
/// are `esp32s2`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceType(String);

/// Error for text that is not a device type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a device type; expected 1 to 63 letters, digits and dots, optionally separated \
     by dashes, underscores or spaces"
)]
pub struct InvalidDeviceType(String);

impl FromStr for DeviceType {
    type Err = InvalidDeviceType;

    fn from_str(text: &str) -> Result<Self, InvalidDeviceType> {
        let name: String = text
            .chars()
            .filter(|letter| !matches!(letter, '-' | '_' | ' '))
            .map(|letter| letter.to_ascii_lowercase())
            .collect();
        let good = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
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

/// Device types that a plugin serves: one type, or, with a `*` at the end, all types with that
/// prefix: `esp32*` are `esp32`, `esp32c6` and `esp32s3r8`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServedTypes {
    first: DeviceType,
    /// True if all types that start with `first` match.
    open: bool,
}

impl ServedTypes {
    /// Returns how specifically this matches a type; None if it does not match. The highest of
    /// several wins.
    #[must_use]
    pub fn names(&self, kind: &DeviceType) -> Option<usize> {
        match self.open {
            true => kind.0.starts_with(&self.first.0).then_some(self.first.0.len()),
            false => (self.first == *kind).then_some(usize::MAX),
        }
    }

    /// Returns the shortest of these types.
    #[must_use]
    pub fn first(&self) -> &DeviceType {
        &self.first
    }

    /// Returns true if this matches exactly one type.
    #[must_use]
    pub fn is_one(&self) -> bool {
        !self.open
    }
}

impl FromStr for ServedTypes {
    type Err = InvalidDeviceType;

    fn from_str(text: &str) -> Result<Self, InvalidDeviceType> {
        let (first, open) = match text.strip_suffix('*') {
            Some(first) => (first, true),
            None => (text, false),
        };
        let first = first.parse().map_err(|_| InvalidDeviceType(text.to_owned()))?;
        Ok(Self { first, open })
    }
}

impl TryFrom<String> for ServedTypes {
    type Error = InvalidDeviceType;

    fn try_from(text: String) -> Result<Self, InvalidDeviceType> {
        text.parse()
    }
}

impl From<ServedTypes> for String {
    fn from(types: ServedTypes) -> Self {
        types.to_string()
    }
}

impl fmt::Display for ServedTypes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.first, if self.open { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_type_has_one_name_however_it_is_spelled() {
        for text in ["ESP32-H2", "esp32_h2", "Esp32 H2", " esp32h2 "] {
            assert_eq!(text.parse::<DeviceType>().expect(text).as_ref(), "esp32h2");
        }
        for text in ["", " - ", "esp32*", "esp/32", "esp\n32"] {
            assert!(text.parse::<DeviceType>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_star_at_the_end_names_all_that_begin_so_and_the_longer_name_is_the_more_exact() {
        let names = |served: &str, kind: &str| {
            let served: ServedTypes = served.parse().expect(served);
            served.names(&kind.parse().expect(kind))
        };
        assert_eq!(names("nRF-52*", "nrf52840"), Some(5));
        assert!(names("nrf52*", "nrf52840") < names("nrf528*", "nrf52840"));
        assert!(names("nrf528*", "nrf52840") < names("nrf52840", "nrf52840"));
        assert_eq!(names("nrf52840", "nrf52840x"), None);
        for text in ["*", "", "nrf*52", "nrf**"] {
            assert!(text.parse::<ServedTypes>().is_err(), "{text:?}");
        }
        assert_eq!("nrf52*".parse::<ServedTypes>().expect("types").to_string(), "nrf52*");
    }
}
