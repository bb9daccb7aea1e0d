//! Reasons for which firmware is not resolved.

use flashjob_artifacts::RegistryError;
use flashjob_rules::firmware::FirmwareState;

/// Reason for which firmware is not resolved.
pub(super) struct FirmwareFailure {
    /// CamelCase name.
    pub reason: &'static str,
    /// Message for people.
    pub message: String,
    /// True if a retry cannot succeed before somebody acts.
    pub permanent: bool,
}

impl FirmwareFailure {
    pub fn unavailable(message: String, permanent: bool) -> Self {
        Self { reason: "FirmwareUnavailable", message, permanent }
    }

    pub fn untrusted(message: String) -> Self {
        Self { reason: "FirmwareUntrusted", message, permanent: true }
    }

    pub fn into_state(self) -> FirmwareState {
        let Self { reason, message, permanent } = self;
        FirmwareState::Failed { reason: reason.to_owned(), message, permanent }
    }
}

impl From<RegistryError> for FirmwareFailure {
    fn from(error: RegistryError) -> Self {
        Self::unavailable(error.to_string(), !error.is_transient())
    }
}
