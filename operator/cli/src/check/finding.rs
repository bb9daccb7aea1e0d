//! Results of the checks.

use serde::Serialize;

/// State of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// Nothing in the cluster shows it.
    Unknown,
    /// The user may not see it.
    Denied,
    /// Nothing is broken, and yet nothing may be flashed.
    Warning,
    /// Somebody has to do something.
    Failed,
}

/// Result of the check of one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub check: String,
    pub status: Status,
    pub message: String,
    /// Action to take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
