//! Tests of invalid fields, and of the error messages.

use super::*;

#[track_caller]
fn refused(windows: &[WindowSpec], blackouts: &[WindowSpec]) -> String {
    Schedule::read(windows, blackouts).unwrap_err().to_string()
}

#[test]
fn a_zone_that_does_not_exist_is_named() {
    assert_eq!(
        refused(&[utc("0 3 * * *", HOUR)], &[spec("0 3 * * *", HOUR, "Europe/Bonn")]),
        "blackouts[0].timeZone: \"Europe/Bonn\" is not an IANA time zone; write a name such as \
         Europe/Berlin or UTC"
    );
    for zone in
        ["", " ", "+02:00", "CEST", "Etc/Unknown", "local", "../../etc/passwd", "Europe/Berlin\0"]
    {
        let message = refused(&[spec("0 3 * * *", HOUR, zone)], &[]);
        assert!(message.starts_with("windows[0].timeZone: "), "{message}");
    }
}

#[test]
fn a_duration_is_between_a_second_and_31_days() {
    for duration in [i64::MIN, -1, 0, 31 * DAY + 1, i64::MAX] {
        assert_eq!(
            refused(&[utc("0 3 * * *", HOUR), utc("0 3 * * *", duration)], &[]),
            format!(
                "windows[1].durationSeconds: {duration} is not between 1 and 2678400 (31 days); \
                 write 14400 for four hours"
            )
        );
    }
}

#[test]
fn a_pattern_has_five_fields() {
    assert_eq!(
        refused(&[utc("0 0 3 * * *", HOUR)], &[]),
        "windows[0].start: \"0 0 3 * * *\": number of fields is 6; write five fields, minute, \
         hour, day of month, month and day of week, such as 0 22 * * MON-FRI"
    );
    for start in ["", " ", "0", "0 3 * *", "0 0 3 * * * 2026"] {
        let message = refused(&[utc(start, HOUR)], &[]);
        assert!(message.contains("five fields"), "{message}");
    }
}

#[test]
fn macros_are_refused() {
    for start in ["@daily", " @Hourly", "@reboot", "@every 5m"] {
        let message = refused(&[utc(start, HOUR)], &[]);
        assert!(message.contains("macros are not supported; write five fields"), "{message}");
    }
}

#[test]
fn values_out_of_range_are_refused() {
    for start in [
        "60 3 * * *",
        "0 24 * * *",
        "0 3 0 * *",
        "0 3 32 * *",
        "0 3 * 13 *",
        "0 3 * * 8",
        "0 22-2 * * *",
        "0 3 * * SAT-MON",
        "*/0 3 * * *",
        "0/5 3 * * *",
        "-5 3 * * *",
        "0 3 * * MON#6",
        "x 3 * * *",
        "H 3 * * *",
    ] {
        let message = refused(&[utc(start, HOUR)], &[]);
        let beginning = format!("windows[0].start: {start:?}: ");
        assert!(message.starts_with(&beginning), "{message}");
        assert!(message.ends_with("such as 0 22 * * MON-FRI"), "{message}");
    }
}

#[test]
fn the_field_that_is_wrong_is_named() {
    let message = refused(&[utc("0 3 * * FRI,8", HOUR)], &[]);
    assert!(message.contains("day of week \"FRI,8\": Number out of bounds; write"), "{message}");
    let message = refused(&[utc("0 3 1$ * *", HOUR)], &[]);
    assert!(message.contains("day of month \"1$\": CronPattern contains illegal"), "{message}");
}

#[test]
fn a_name_in_the_wrong_field_is_refused() {
    let message = refused(&[utc("0 3 * MON *", HOUR)], &[]);
    assert!(message.contains("month \"MON\": MON is not valid in this field"), "{message}");
    for start in ["0 3 MON * *", "0 3 * * JAN", "0 FEB * * *", "SUN 3 * * *", "0 3 * * MONDAY"] {
        let message = refused(&[utc(start, HOUR)], &[]);
        assert!(message.contains("is not valid in this field"), "{message}");
    }
}

#[test]
fn a_field_that_matches_nothing_is_refused() {
    for start in [", 3 * * *", "0 , * * *", "0 3 ,, * *", "0 3 * 1, *", "0 3 * * L", "0 3 * * +"] {
        refused(&[utc(start, HOUR)], &[]);
    }
}
