//! Answers of a place that has artifacts: what is absent, and what cannot be read.

use serde::Deserialize;

use super::error::RegistryError;

/// Not being there is an answer.
pub(crate) fn found<T>(answer: Result<T, RegistryError>) -> Result<Option<T>, RegistryError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_absence() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads JSON, and says of what it is not.
pub(crate) fn read<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    what: &str,
) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes).map_err(|error| RegistryError::Form {
        what: what.to_owned(),
        message: format!("it cannot be read: {error}"),
    })
}
