//! Arithmetic of instants.

use jiff::{SignedDuration, Timestamp};

/// `instant` plus whole seconds, limited to [`Timestamp::MAX`].
#[must_use]
pub fn after(instant: Timestamp, seconds: i64) -> Timestamp {
    instant.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}
