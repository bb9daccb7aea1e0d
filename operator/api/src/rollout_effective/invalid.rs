//! A fault in the spec of a FlashRollout.

/// A spec that the API server should have refused, as one stored before the rules were.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidRollout {
    /// Path of the field.
    pub field: String,
    /// The fault, and what is expected.
    pub message: String,
}

/// A fault of a field.
pub(super) fn invalid(field: impl Into<String>, message: impl Into<String>) -> InvalidRollout {
    InvalidRollout { field: field.into(), message: message.into() }
}
