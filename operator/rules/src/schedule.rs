//! Maintenance windows and blackouts: whether devices may start at a given instant, and when that
//! changes. No I/O and no clock; the time zone data is part of the binary.
//!
//! Windows are combined by union, and a blackout takes precedence over every window. Each of them
//! recurs by one cron pattern in one time zone, and lasts the same number of real seconds each
//! time. Daylight saving time, for every pattern alike:
//! - A start in the skipped hour takes place at the instant at which the clock is set forward.
//! - A start in the repeated hour takes place once, the first time. A pattern that starts every
//!   minute or every hour therefore has no start the second time.

mod cursor;
mod recurrence;
mod window;

#[cfg(test)]
mod tests;

use cursor::Cursor;
use jiff::{SignedDuration, Timestamp};
use recurrence::Recurrence;

pub use window::{DURATION_SECONDS, WindowSpec};

/// Least time for which a [`State`] that names no instant is valid: evaluate it again before it
/// ends.
pub const LOOK_AHEAD: SignedDuration = SignedDuration::from_hours(1);

/// Limit on the periods that are followed to find the next end.
///
/// A period that extends the search begins at least a minute after the last but one, so that 128
/// reach beyond [`LOOK_AHEAD`] for any patterns; for periods of a day they reach beyond 60 days.
/// Without a limit, `* * * * *` for 60 seconds would be followed minute by minute for months, up
/// to the repeated hour in autumn.
const MAX_PERIODS: usize = 128;

/// Same limit for the next opening: where none is found a person is asked to act, so the search
/// goes further. It reaches beyond a day for `* * * * *`, and beyond 60 days for hourly patterns.
const MAX_PERIODS_CLOSED: usize = 1500;

/// Valid windows and blackouts.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// None: no window was specified, so starts are always allowed. An empty list is the opposite:
    /// windows were specified, and none of them ever opens.
    windows: Option<Vec<Recurrence>>,
    blackouts: Vec<Recurrence>,
}

/// State at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Devices may start.
    Open {
        /// First instant at which they no longer may start. None: never, or not within the time
        /// that was searched, which is at least [`LOOK_AHEAD`].
        until: Option<Timestamp>,
    },
    /// No device may start.
    Closed {
        /// First instant at which devices may start. None: never, or not within the time
        /// that was searched, which is at least [`LOOK_AHEAD`].
        opens: Option<Timestamp>,
    },
}

/// Invalid field of a window or a blackout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidSchedule {
    /// Path below `spec`, such as `windows[2].start`.
    pub field: String,
    /// Cause, and a value that would be valid.
    pub message: String,
}

impl Schedule {
    /// Reads `windows` and `blackouts`.
    ///
    /// # Errors
    /// The first field that is invalid, windows before blackouts.
    pub fn read(
        windows: &[WindowSpec],
        blackouts: &[WindowSpec],
    ) -> Result<Self, InvalidSchedule> {
        let read_windows = read_list("windows", windows)?;
        Ok(Self {
            // Judged by what was written: patterns without any date are dropped, and must not turn
            // "never" into "always".
            windows: (!windows.is_empty()).then_some(read_windows),
            blackouts: read_list("blackouts", blackouts)?,
        })
    }

    /// Returns the state at `now`, and when it changes.
    ///
    /// Patterns are followed in the years 1 to 4999; in other years nothing starts.
    pub fn state_at(&self, now: Timestamp) -> State {
        let windows = self.windows.as_ref().map(|list| list.iter().map(Cursor::new).collect());
        let blackouts = self.blackouts.iter().map(Cursor::new).collect();
        let mut search = Search { windows, blackouts };
        if search.is_open(now) {
            State::Open { until: search.closes_after(now) }
        } else {
            State::Closed { opens: search.opens_after(now) }
        }
    }
}

fn read_list(list: &str, specs: &[WindowSpec]) -> Result<Vec<Recurrence>, InvalidSchedule> {
    let mut read = Vec::with_capacity(specs.len());
    for (index, spec) in specs.iter().enumerate() {
        let recurrence = Recurrence::read(spec).map_err(|(field, message)| InvalidSchedule {
            field: format!("{list}[{index}].{field}"),
            message,
        })?;
        read.extend(recurrence);
    }
    Ok(read)
}

/// Search forward in time for the next change of state.
struct Search<'a> {
    windows: Option<Vec<Cursor<'a>>>,
    blackouts: Vec<Cursor<'a>>,
}

impl Search<'_> {
    fn is_open(&mut self, at: Timestamp) -> bool {
        self.is_in_window(at) && longest(&mut self.blackouts, at).is_none()
    }

    fn is_in_window(&mut self, at: Timestamp) -> bool {
        self.windows.as_deref_mut().is_none_or(|windows| longest(windows, at).is_some())
    }

    /// Returns the next instant at which starts are no longer allowed. `open` is an instant at
    /// which they are, so the next blackout to start ends that.
    fn closes_after(&mut self, open: Timestamp) -> Option<Timestamp> {
        let blackout = next_start(&mut self.blackouts, open);
        let Some(windows) = &mut self.windows else { return blackout };
        let (open_to, is_end) = follow(windows, open);
        // Beyond what was followed, the windows may close before the blackout starts.
        let blackout = blackout.filter(|start| *start <= open_to);
        [blackout, is_end.then_some(open_to)].into_iter().flatten().min()
    }

    fn opens_after(&mut self, closed: Timestamp) -> Option<Timestamp> {
        let mut at = closed;
        for _ in 0..MAX_PERIODS_CLOSED {
            if let Some((end, _)) = longest(&mut self.blackouts, at) {
                at = end;
            } else if self.is_in_window(at) {
                return Some(at);
            } else {
                at = next_start(self.windows.as_deref_mut()?, at)?;
            }
        }
        None
    }
}

/// Returns the end of the period that contains `at` and ends last, and its index in the list.
fn longest(cursors: &mut [Cursor], at: Timestamp) -> Option<(Timestamp, usize)> {
    let ends = cursors.iter_mut().enumerate();
    ends.filter_map(|(index, cursor)| Some((cursor.end_at(at)?, index))).max()
}

fn next_start(cursors: &mut [Cursor], after: Timestamp) -> Option<Timestamp> {
    cursors.iter_mut().filter_map(|cursor| cursor.next_start(after)).min()
}

/// Returns the end of the overlapping and adjacent windows that contain `from`, and true; or the
/// instant up to which they were followed, and false.
fn follow(windows: &mut [Cursor], from: Timestamp) -> (Timestamp, bool) {
    let mut open_to = from;
    let mut current = None;
    for _ in 0..MAX_PERIODS {
        // While one window extends itself, the others need not be searched.
        let continues = current.and_then(|index: usize| windows.get_mut(index)?.end_at(open_to));
        if let Some(end) = continues {
            open_to = end;
            continue;
        }
        let Some((end, index)) = longest(windows, open_to) else { return (open_to, true) };
        (open_to, current) = (end, Some(index));
    }
    (open_to, false)
}
