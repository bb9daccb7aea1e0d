//! Handling of answers from a place that holds artifacts: absent objects, and invalid JSON.

use serde::Deserialize;

use super::error::RegistryError;

/// Turns the error that the object does not exist into `None`.
pub(crate) fn none_if_absent<T>(
    answer: Result<T, RegistryError>,
) -> Result<Option<T>, RegistryError> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_absence() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Parses JSON; an error names the object that it is about.
pub(crate) fn read<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    what: &str,
) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes).map_err(|error| RegistryError::Form {
        what: what.to_owned(),
        message: format!("it cannot be read: {error}"),
    })
}
