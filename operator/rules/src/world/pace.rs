//! Pace of status writes: often enough for whoever looks, seldom enough for the API server.

use std::time::{Duration, Instant};

use crate::flashjob::observed::Report;

/// A status is written about this often, unless something waits for it.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// But less often where a write takes long: with the status of 4,000 devices the API server is
/// busy for half a second, and it is what the devices wait for.
const RESTS_PER_WRITE: u32 = 8;
/// The longest time that a status is behind, where nothing waits for it.
const LONGEST_WRITE_INTERVAL: Duration = Duration::from_secs(3);
/// The same where something does: enough to gather what happens in one moment.
const URGENT_WRITE_INTERVAL: Duration = Duration::from_millis(100);

/// Writes of one object's status.
#[derive(Debug, Default)]
pub struct Pace {
    /// True if a write is under way.
    pub writing: bool,
    /// Time at which the status was written last.
    written: Option<Instant>,
    /// Duration of that write.
    took: Duration,
}

impl Pace {
    /// A write that took so long is over.
    pub fn wrote(&mut self, now: Instant, took: Duration) {
        *self = Self { writing: false, written: Some(now), took };
    }

    /// Says what a plan that begins now may do with the status. The clock is read once for a plan:
    /// one that words no status, because its turn has not come, always has a time to look again.
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

/// The turn of one plan to write the status.
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

    /// Statuses that a plan of this turn is to word.
    #[must_use]
    pub fn report(&self) -> Report {
        match () {
            () if self.may_write(false) => Report::Now,
            () if self.may_write(true) => Report::Urgent,
            () => Report::Never,
        }
    }

    /// Returns true if the status may be written now. False: there is a time at which it is due,
    /// or the write that is under way has the object looked at when it ends.
    #[must_use]
    pub fn may_write(&self, urgent: bool) -> bool {
        !self.writing && self.due(urgent).is_zero()
    }
}

#[cfg(test)]
mod tests;
