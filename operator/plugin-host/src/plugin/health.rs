//! Counts failures in a row, and says for how long a plugin is left alone after them. Pure: the
//! time is brought along.

use std::time::{Duration, Instant};

/// Failures in a row that take a plugin out of service.
const FAILURES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Failures of a plugin in a row, and the end of its pause.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures: u32,
    paused_until: Option<Instant>,
}

impl Health {
    /// The rest of the pause, if there is one.
    pub fn pause(&self, now: Instant) -> Option<Duration> {
        self.paused_until
            .and_then(|until| until.checked_duration_since(now))
            .filter(|left| !left.is_zero())
    }

    /// It answered, with whatever it was.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// It broke. After a pause one more failure is enough for the next, twice as long.
    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES {
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
