//! Reason why a plugin gave no answer.

use std::time::Duration;

use crate::plugin::PluginError;

/// Reason why a call gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The plugin answered with an error of its own: asking again changes nothing.
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
    /// The plugin asked for more memory than it may have.
    #[error("the plugin asked for more than {limit} bytes of memory")]
    OutOfMemory {
        /// The limit.
        limit: usize,
    },
    /// The plugin used more of something than it may.
    #[error("the plugin reached a limit: {0}")]
    LimitReached(String),
    /// The plugin's answer is too large, or has what no answer may have.
    #[error("the plugin's answer is rejected: {0}")]
    AnswerRejected(String),
    /// The plugin broke several times in a row and is not asked for a while.
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
    /// Returns true if the plugin said no, instead of failing to say anything.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}
