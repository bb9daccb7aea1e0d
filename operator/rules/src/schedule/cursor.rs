//! Position of one recurrence in a forward-only search.

use super::recurrence::Recurrence;
use jiff::Timestamp;

/// Latest period that has begun, and the start that follows it.
///
/// Both remain valid up to that start, and are cached: otherwise a rare pattern, such as a leap
/// day on a Monday, next to a window that recurs every minute, would be searched for through
/// decades at each of those minutes. Measured with 18 such patterns: 2 ms per state instead of 190
/// ms.
pub(super) struct Cursor<'a> {
    recurrence: &'a Recurrence,
    /// None if the latest period was over when the position was computed.
    end: Option<Timestamp>,
    /// None if there is no later start.
    next_start: Option<Timestamp>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(recurrence: &'a Recurrence) -> Self {
        // A start that has passed at any instant, so that the first call computes the position.
        Self { recurrence, end: None, next_start: Some(Timestamp::MIN) }
    }

    /// Returns the end of the period that contains `at`, the latest if there are several. `at`
    /// must not be earlier than in the previous call.
    pub(super) fn end_at(&mut self, at: Timestamp) -> Option<Timestamp> {
        self.move_to(at);
        self.end.filter(|end| *end > at)
    }

    /// Returns the first start later than `after`, which must not be earlier than in the previous
    /// call.
    pub(super) fn next_start(&mut self, after: Timestamp) -> Option<Timestamp> {
        self.move_to(after);
        self.next_start
    }

    fn move_to(&mut self, at: Timestamp) {
        if self.next_start.is_none_or(|start| start > at) {
            return;
        }
        // A period that began at or before `over` has ended, so nothing older has to be searched.
        let over = at.checked_sub(self.recurrence.duration()).unwrap_or(Timestamp::MIN);
        let start = self.recurrence.next_start(over);
        if start.is_some_and(|start| start <= at) {
            self.end = self.recurrence.latest_start(at).map(|start| self.recurrence.end(start));
            self.next_start = self.recurrence.next_start(at);
        } else {
            self.end = None;
            self.next_start = start;
        }
    }
}
