//! Durations on the command line.

use std::time::Duration;

use jiff::SignedDuration;

/// Longest duration on the command line. An unlimited one would not fit into a point in time.
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// Parses a duration: `90s`, `5m`, `1h30m`; a number alone is in seconds.
///
/// # Errors
/// The text is no duration, or is negative or longer than 366 days.
pub fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let expected = || {
        format!(
            "{text:?} is not a duration; expected a value such as 90s, 5m or 1h30m, \
             or a number of seconds"
        )
    };
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return bounded(text.parse().map_or(Duration::MAX, Duration::from_secs), text);
    }
    let parsed: SignedDuration = text.parse().map_err(|_| expected())?;
    bounded(parsed.try_into().map_err(|_| expected())?, text)
}

fn bounded(time: Duration, text: &str) -> Result<Duration, String> {
    let limit = || format!("{text:?} is too long; expected at most {}h (366 days)", 366 * 24);
    if time <= LONGEST { Ok(time) } else { Err(limit()) }
}

/// Returns a duration for people, in its two largest units: `45 s`, `4 min`, `1 h 30 min`.
#[must_use]
pub fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 if seconds < 600 && !seconds.is_multiple_of(60) => {
            format!("{} min {} s", seconds / 60, seconds % 60)
        }
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_of_seconds_or_has_units() {
        for (text, seconds) in [("0", 0), ("90", 90), ("90s", 90), ("1h30m", 5400), ("2m", 120)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "-5s", "-5", "soon", "5 bananas"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("8784h"), Ok(LONGEST));
        for text in
            ["8785h", "31622401", "18446744073709551615", "99999999999999999999", "9999999h"]
        {
            assert!(parse(text).is_err_and(|error| error.contains("366 days")), "{text}");
        }
    }

    #[test]
    fn a_time_is_shown_in_its_two_largest_units() {
        for (seconds, text) in [
            (7, "7 s"),
            (119, "1 min 59 s"),
            (900, "15 min"),
            (5400, "1 h 30 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), text);
        }
    }
}
