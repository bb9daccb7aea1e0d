//! Windows and blackouts of the command line: `0 2 * * */4h@Europe/Athens`.

use flashjob_api::RolloutWindow;
use flashjob_rules::schedule::{DURATION_SECONDS, Schedule, WindowSpec};

use crate::duration;

/// Parses a recurring time: a cron pattern of five fields, a slash and a duration with its unit;
/// for a time zone other than UTC, also an at sign and its name.
///
/// # Errors
/// A part is missing or invalid.
pub fn parse(text: &str) -> Result<RolloutWindow, String> {
    let expected = |fault: &str| {
        format!(
            "{text:?}: {fault}; expected START/DURATION@ZONE with five fields of cron as START, \
             such as {:?}",
            "0 2 * * */4h@Europe/Athens"
        )
    };
    // Names of time zones contain slashes too.
    let (recurring, zone) = match text.rsplit_once('@') {
        Some((_, "")) => return Err(expected("the time zone is missing after @")),
        Some((recurring, zone)) => (recurring, Some(zone.trim().to_owned())),
        None => (text, None),
    };
    let (start, length) =
        recurring.rsplit_once('/').ok_or_else(|| expected("the duration is missing"))?;
    // The slash belongs to a step of cron, as more of the pattern follows it.
    if length.trim().contains(' ') {
        return Err(expected("the duration is missing"));
    }
    let fields: Vec<&str> = start.split_whitespace().collect();
    if fields.len() != 5 {
        let fault = format!("{start:?} has {} fields", fields.len());
        return Err(expected(&fault));
    }
    // A number without a unit after a slash is a step of cron.
    if length.trim().bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(expected("the duration has no unit"));
    }
    let length = duration::parse(length)?;
    let seconds = i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
    if !DURATION_SECONDS.contains(&seconds) {
        let longest = DURATION_SECONDS.end() / 3600;
        return Err(expected(&format!("the duration is not from 1s to {longest}h")));
    }
    let start = fields.join(" ");
    let window =
        WindowSpec { start: &start, duration_seconds: seconds, time_zone: zone.as_deref() };
    // The operator parses it with the same code.
    Schedule::read(&[window], &[]).map_err(|invalid| format!("{text:?}: {}", invalid.message))?;
    Ok(RolloutWindow { start, duration_seconds: seconds, time_zone: zone })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_a_start_a_duration_and_maybe_a_time_zone() {
        let window = |start: &str, duration_seconds, zone: Option<&str>| RolloutWindow {
            start: start.to_owned(),
            duration_seconds,
            time_zone: zone.map(str::to_owned),
        };
        for (text, expected) in [
            ("0 2 * * */4h@Europe/Athens", window("0 2 * * *", 14_400, Some("Europe/Athens"))),
            ("*/15  1-5 * * mon-fri/10m", window("*/15 1-5 * * mon-fri", 600, None)),
            ("0 0 1 */3 */36h@UTC", window("0 0 1 */3 *", 129_600, Some("UTC"))),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_window_that_lacks_a_part_is_refused_with_the_part_and_an_example() {
        for (text, fault) in [
            ("0 2 * * 1", "the duration is missing"),
            ("*/15 2 * * *", "the duration is missing"),
            ("0 2 * * */2", "the duration has no unit"),
            ("0 2 * */4h", "has 4 fields"),
            ("0 0 2 * * */4h", "has 6 fields"),
            ("0 2 * * */4h@", "the time zone is missing"),
            ("0 2 * * */800h", "from 1s to 744h"),
            ("0 2 * * */soon", "is not a duration"),
            ("99 2 * * */4h", "99"),
            ("0 2 * * */4h@Europe/Nowhere", "Europe/Nowhere"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(fault), "{text}: {error}");
        }
    }
}
