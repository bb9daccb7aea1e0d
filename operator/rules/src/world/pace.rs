//! Pace of status writes: often enough for whoever looks, seldom enough for the API server.

use std::time::{Duration, Instant};

/// A status is written about this often, unless something waits for it.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// The same where something does: enough to gather what happens in one moment.
const URGENT_WRITE_INTERVAL: Duration = Duration::from_millis(100);

/// Rest between two status writes for which nothing waits: longer where a write takes long. With
/// the status of 4,000 devices the API server is busy for half a second, and it is what the devices
/// wait for.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    /// How many times as long as a write took.
    per_write: u32,
    /// The longest time that a status is behind.
    longest: Duration,
}

impl Rest {
    /// Of a FlashJob: a device that was recorded ahead of its turn starts without a wait once that
    /// is stored.
    pub const OF_FLASH_JOB: Self = Self { per_write: 8, longest: Duration::from_secs(3) };
    /// Of a FlashRollout: its FlashJobs have all that is not stored yet, and say it.
    pub const OF_ROLLOUT: Self = Self { per_write: 30, longest: Duration::from_secs(10) };

    fn after(self, took: Duration) -> Duration {
        (took * self.per_write).clamp(WRITE_INTERVAL, self.longest)
    }
}

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
    pub fn turn(&self, began: Instant, rest: Rest) -> Turn {
        Turn {
            writing: self.writing,
            due: self.until_write(began, rest.after(self.took)),
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

    /// Returns true if the status may be written now. False: there is a time at which it is due, or
    /// the write that is under way has the object looked at when it ends.
    #[must_use]
    pub fn may_write(&self, urgent: bool) -> bool {
        !self.writing && self.due(urgent).is_zero()
    }
}

#[cfg(test)]
mod tests;
