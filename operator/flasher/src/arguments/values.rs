//! Parsers for option values.

use std::time::Duration;

use jiff::SignedDuration;

/// Parses a value that must not be empty.
pub fn word(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        word => Ok(word.to_owned()),
    }
}

/// Parses a duration such as `2s`, `500ms` or `10m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected =
        || format!("{text:?} is not a duration; expected a value such as 500ms, 2s or 10m");
    let parsed: SignedDuration = text.trim().parse().map_err(|_| expected())?;
    parsed.try_into().map_err(|_| expected())
}
