//! A window or a blackout as written in a manifest, and the limits of its length.

/// Shortest and longest `durationSeconds`: 1 second and 31 days.
pub const DURATION_SECONDS: std::ops::RangeInclusive<i64> = 1..=31 * 24 * 60 * 60;

/// A window or a blackout as specified in a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSpec<'a> {
    /// Start, as a cron pattern of five fields: minute, hour, day of month, month, day of week.
    ///
    /// Names (`MON`, `JAN`), ranges, steps and lists are accepted, and `L`, `W` and `#` in the
    /// fields for days: `0 2 * * SUN#1` is the first Sunday of each month. Where day of month and
    /// day of week are both set, one of them has to match, unless the day of week begins with `+`,
    /// which requires both. Set means other than `*` or `?`: `*/2` is set.
    pub start: &'a str,
    /// Length in real seconds, 1 to 2678400 (31 days).
    pub duration_seconds: i64,
    /// IANA name such as `Europe/Berlin`. Default: UTC.
    pub time_zone: Option<&'a str>,
}
