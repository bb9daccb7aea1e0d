//! Rate of status writes: often enough for people, rarely enough for the API server.

use std::time::{Duration, Instant};

use crate::flashjob::observed::Report;

/// Usual interval between status writes, unless something waits for the status.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// Interval as a multiple of the duration of the last write: with the status of 4,000 devices the
/// API server is busy for half a second, and the devices wait for the API server.
const RESTS_PER_WRITE: u32 = 8;
/// Longest interval between status writes, unless something waits for the status.
const LONGEST_WRITE_INTERVAL: Duration = Duration::from_secs(3);
/// Interval if something waits for the status: enough to combine changes that happen at once.
const URGENT_WRITE_INTERVAL: Duration = Duration::from_millis(100);

/// Writes of one object's status.
#[derive(Debug, Default)]
pub struct Pace {
    /// True if a write is in flight.
    pub writing: bool,
    /// Time at which the last write ended.
    written: Option<Instant>,
    /// Duration of that write.
    took: Duration,
}

impl Pace {
    /// Records that a write which took that long has ended.
    pub fn wrote(&mut self, now: Instant, took: Duration) {
        *self = Self { writing: false, written: Some(now), took };
    }

    /// Returns what a plan that begins now may do with the status. The clock is read once per
    /// plan, so that a plan that composes no status because it is too early always has a time at
    /// which to retry.
    #[must_use]
    pub fn turn(&self, began: Instant) -> Turn {
        let rest = (self.took * RESTS_PER_WRITE).clamp(WRITE_INTERVAL, LONGEST_WRITE_INTERVAL);
        Turn {
            writing: self.writing,
            due: self.until_write(began, rest),
            due_if_urgent: self.until_write(began, URGENT_WRITE_INTERVAL),
        }
    }

    fn until_write(&self, now: Instant, interval: Duration) -> Duration {
        self.written.map_or(Duration::ZERO, |last| {
            interval.saturating_sub(now.saturating_duration_since(last))
        })
    }
}

/// Time until one plan may write the status.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    writing: bool,
    due: Duration,
    due_if_urgent: Duration,
}

impl Turn {
    /// Time until the status may be written again.
    #[must_use]
    pub fn due(&self, urgent: bool) -> Duration {
        if urgent { self.due_if_urgent } else { self.due }
    }

    /// Statuses that a plan of this turn has to compose.
    #[must_use]
    pub fn report(&self) -> Report {
        match () {
            () if self.may_write(false) => Report::Now,
            () if self.may_write(true) => Report::Urgent,
            () => Report::Never,
        }
    }

    /// Returns true if the status may be written now. False: there is a time at which it is due,
    /// or a write is in flight and the object is planned again when it ends.
    #[must_use]
    pub fn may_write(&self, urgent: bool) -> bool {
        !self.writing && self.due(urgent).is_zero()
    }
}

#[cfg(test)]
mod tests;
