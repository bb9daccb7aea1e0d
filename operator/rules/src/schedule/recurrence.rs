//! One recurring period: a cron pattern in a time zone, and a duration. Finds the starts before
//! and after an instant.
//!
//! croner searches local times, and each is converted to an instant here. It can search zoned
//! times too, but then moves a skipped start, and omits the repetition of one, only for a pattern
//! with a single hour and a single minute: `30 2,14 * * *` would lose a start in spring and start
//! twice in autumn.

use super::window::{DURATION_SECONDS, WindowSpec};
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, CronDateTime};
use jiff::civil::{DateTime, date};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, ToSpan};
use std::sync::LazyLock;

/// Time zone data of the binary, not of the machine: all replicas of the operator, and the command
/// line, must agree on when a window opens, and a container has no /usr/share/zoneinfo.
static TIME_ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// croner searches the years 1 to 4999; it would step through the years before them one by one.
const BEFORE_SEARCH: DateTime = DateTime::constant(0, 12, 31, 23, 59, 59, 0);
const LAST_YEAR: i16 = 4999;

const EXPECTED: &str = "write five fields, minute, hour, day of month, month and day of week, \
    such as 0 22 * * MON-FRI";

const FIELDS: [&str; 5] = ["minute", "hour", "day of month", "month", "day of week"];

/// Names and modifiers that croner reads correctly in each of the fields.
const NAMES: [&[&str]; 5] = [
    &[],
    &[],
    &["L", "W", "LW"],
    &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "L"],
];

/// Field of the specification that is invalid, and the reason.
type Invalid = (&'static str, String);

#[derive(Debug, Clone)]
pub(super) struct Recurrence {
    pattern: Cron,
    zone: TimeZone,
    duration: SignedDuration,
}

impl Recurrence {
    /// Returns None for a pattern that matches no date, such as 30 February. It is valid, but each
    /// search for it would take milliseconds, up to the year 5000.
    pub(super) fn read(spec: &WindowSpec) -> Result<Option<Self>, Invalid> {
        let pattern = read_pattern(spec.start).map_err(|message| ("start", message))?;
        if !DURATION_SECONDS.contains(&spec.duration_seconds) {
            let (least, most) = (DURATION_SECONDS.start(), DURATION_SECONDS.end());
            let seconds = spec.duration_seconds;
            let message = format!("{seconds} is not between {least} and {most} (31 days)");
            return Err(("durationSeconds", format!("{message}; write 14400 for four hours")));
        }
        let zone = read_zone(spec.time_zone).map_err(|message| ("timeZone", message))?;
        let duration = SignedDuration::from_secs(spec.duration_seconds);
        Ok(matches_some_date(&pattern).then_some(Self { pattern, zone, duration }))
    }

    pub(super) fn duration(&self) -> SignedDuration {
        self.duration
    }

    /// Returns the end of the period that begins at `start`.
    pub(super) fn end(&self, start: Timestamp) -> Timestamp {
        start.checked_add(self.duration).unwrap_or(Timestamp::MAX)
    }

    /// Returns the last start that is not later than `at`.
    pub(super) fn latest_start(&self, at: Timestamp) -> Option<Timestamp> {
        let local = self.pattern.find_previous_occurrence(&self.elapsed(at)?, true).ok()?;
        self.instant(local)
    }

    /// Returns the first start later than `after`.
    pub(super) fn next_start(&self, after: Timestamp) -> Option<Timestamp> {
        let local = self.pattern.find_next_occurrence(&self.elapsed(after)?, false).ok()?;
        self.instant(local)
    }

    /// Returns the latest local time that has been reached by `at`.
    ///
    /// That is the local time of `at`, except in an hour that is repeated: all of that hour was
    /// reached the first time.
    fn elapsed(&self, at: Timestamp) -> Option<DateTime> {
        let local = self.zone.to_datetime(at).max(BEFORE_SEARCH);
        if local.year() > LAST_YEAR {
            return None;
        }
        match self.zone.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Fold { before, after } if self.zone.to_offset(at) == after => {
                let next_second = at.checked_add(SignedDuration::from_secs(1)).ok()?;
                let set_back = self.zone.preceding(next_second).next()?.timestamp();
                before.to_datetime(set_back).checked_sub(1.second()).ok()
            }
            _ => Some(local),
        }
    }

    /// Returns the instant at which a start at the local time `local` takes place.
    fn instant(&self, local: DateTime) -> Option<Timestamp> {
        let ambiguous = self.zone.to_ambiguous_timestamp(local);
        let AmbiguousOffset::Gap { .. } = ambiguous.offset() else {
            return ambiguous.earlier().ok();
        };
        // For a skipped time, "earlier" lies just before the clock is set forward.
        let before = ambiguous.earlier().ok()?;
        Some(self.zone.following(before).next()?.timestamp())
    }
}

fn read_zone(name: Option<&str>) -> Result<TimeZone, String> {
    let Some(name) = name else { return Ok(TimeZone::UTC) };
    // jiff resolves Etc/Unknown, the name for a zone that could not be determined, as UTC.
    TIME_ZONES.get(name).ok().filter(|zone| !zone.is_unknown()).ok_or_else(|| {
        format!("{name:?} is not an IANA time zone; write a name such as Europe/Berlin or UTC")
    })
}

fn read_pattern(start: &str) -> Result<Cron, String> {
    if start.trim_start().starts_with('@') {
        return Err(format!("{start:?}: macros are not supported; {EXPECTED}"));
    }
    let fields: Vec<&str> = start.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("{start:?}: number of fields is {}; {EXPECTED}", fields.len()));
    }
    let wrong = |cause: String| format!("{start:?}: {cause}; {EXPECTED}");
    for (index, field) in fields.iter().enumerate() {
        reject_misread(index, &field.to_uppercase()).map_err(wrong)?;
    }
    parse(start).map_err(|error| wrong(locate(&fields).unwrap_or_else(|| error.to_string())))
}

fn parse(pattern: &str) -> Result<Cron, CronError> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed);
    parser.build().parse(pattern)
}

/// Rejects a field that croner would accept with another meaning.
///
/// croner replaces names before it splits the fields, so that a day of the week in the field of
/// months is read as a month. It ignores an empty part of a list, so that `,` matches nothing, and
/// a search for it goes through every hour up to the year 5000.
fn reject_misread(index: usize, field: &str) -> Result<(), String> {
    let name = FIELDS[index];
    let mut parts = field.strip_prefix('+').unwrap_or(field).split(',');
    if parts.clone().any(str::is_empty) {
        return Err(format!("{name} {field:?} has an empty part"));
    }
    // croner reads a lone `L` as a day of the week that does not exist.
    if name == "day of week" && parts.any(|part| part == "L") {
        return Err(format!(
            "{name} {field:?}: L must follow a day, such as SUN#L for the last Sunday"
        ));
    }
    let mut words = field.split(|letter: char| !letter.is_alphabetic());
    match words.find(|word| !word.is_empty() && !NAMES[index].contains(word)) {
        Some(word) => Err(format!("{name} {field:?}: {word} is not valid in this field")),
        None => Ok(()),
    }
}

/// Returns the first field that croner rejects, with its reason, which names no field.
fn locate(fields: &[&str]) -> Option<String> {
    fields.iter().enumerate().find_map(|(index, field)| {
        let mut alone = ["*"; FIELDS.len()];
        alone[index] = field;
        let reason = match parse(&alone.join(" ")).err()? {
            CronError::ComponentError(reason) | CronError::IllegalCharacters(reason) => reason,
            other => other.to_string(),
        };
        let reason = reason.trim_end_matches('.');
        Some(format!("{} {field:?}: {reason}", FIELDS[index]))
    })
}

/// Returns true if the pattern matches a date. Tries each calendar: 28 consecutive years contain
/// all 14, which differ in the day of the week of 1 January and in the leap day, and a pattern has
/// no field for the year.
fn matches_some_date(pattern: &Cron) -> bool {
    date(2001, 1, 1)
        .series(1.day())
        .take_while(|day| day.year() <= 2028)
        .any(|day| matches_date(pattern, day.at(0, 0, 0, 0)).unwrap_or(false))
}

fn matches_date(pattern: &Cron, day: DateTime) -> Result<bool, CronError> {
    let (local, pattern) = (day.to_civil(), &pattern.pattern);
    let (year, month, date) = (local.year(), local.month(), local.day());
    Ok(pattern.month_match(month)? && pattern.day_match(year, month, date, day.civil_weekday())?)
}
