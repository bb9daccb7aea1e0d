//! Reason why a call to a plugin failed.

use std::time::Duration;

use crate::plugin::PluginError;

/// Reason why a call to a plugin failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The plugin answered with an error of its own: a retry gives the same answer.
    #[error("{0}")]
    Refused(PluginError),
    /// The plugin crashed.
    #[error("the plugin crashed: {0}")]
    Trapped(String),
    /// The plugin did not answer in time.
    #[error("the plugin did not answer within {after:?}")]
    TimedOut {
        /// The limit.
        after: Duration,
    },
    /// The plugin exceeded its memory limit.
    #[error("the plugin asked for more than {limit} bytes of memory")]
    OutOfMemory {
        /// The limit.
        limit: usize,
    },
    /// The plugin exceeded another limit.
    #[error("the plugin reached a limit: {0}")]
    LimitReached(String),
    /// The plugin's answer is too large, or has a value that is not allowed.
    #[error("the plugin's answer is rejected: {0}")]
    AnswerRejected(String),
    /// The plugin failed several times in a row and is paused.
    #[error(
        "the plugin failed several times in a row and is not called for another {} s",
        left.as_secs()
    )]
    Unavailable {
        /// The rest of the pause.
        left: Duration,
    },
}

impl CallError {
    /// Returns true if the plugin answered with an error, as opposed to failing to answer.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}
