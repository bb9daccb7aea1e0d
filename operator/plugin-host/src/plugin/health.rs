//! Counts consecutive failures of a plugin, and computes the pause after them. Pure: the caller
//! passes in the time.

use std::time::{Duration, Instant};

/// Number of consecutive failures after which a plugin is paused.
const FAILURES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Consecutive failures of a plugin, and the end of its pause.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures: u32,
    paused_until: Option<Instant>,
}

impl Health {
    /// Returns the rest of the pause, if the plugin is paused.
    pub fn pause(&self, now: Instant) -> Option<Duration> {
        self.paused_until
            .and_then(|until| until.checked_duration_since(now))
            .filter(|rest| !rest.is_zero())
    }

    /// Records an answer of any kind.
    pub fn answered(&mut self) {
        // Only consecutive failures count: one bad request among good ones must not pause a
        // plugin.
        *self = Self::default();
    }

    /// Records a failure. After a pause, one more failure is enough for the next pause, which is
    /// twice as long.
    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES {
            // The exponent is bounded, because a shift by 32 or more overflows; 2^5 already
            // exceeds the limit.
            let doubled = FIRST_PAUSE.saturating_mul(1 << (self.failures - FAILURES).min(10));
            self.paused_until = Some(now + doubled.min(LONGEST_PAUSE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_pause_and_each_further_one_doubles_the_pause_up_to_a_limit() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        for _ in 0..2 {
            health.failed(now);
            assert_eq!(health.pause(now), None);
        }
        let mut pauses = Vec::new();
        for _ in 0..7 {
            health.failed(now);
            let pause = health.pause(now).expect("paused");
            now += pause;
            assert_eq!(health.pause(now), None, "the pause is over");
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn an_answer_between_failures_begins_the_count_anew() {
        let (mut health, now) = (Health::default(), Instant::now());
        for _ in 0..5 {
            health.failed(now);
            health.failed(now);
            health.answered();
        }
        assert_eq!(health.pause(now), None);
    }
}
