//! Results of the checks.

use serde::Serialize;

/// State of one part of the installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// No problem was found.
    Ok,
    /// Nothing in the cluster shows the state.
    Unknown,
    /// The user may not read it.
    Denied,
    /// Nothing is broken, but it is possible that devices cannot be flashed.
    Warning,
    /// Somebody has to act.
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
