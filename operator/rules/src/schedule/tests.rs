mod invalid;
mod properties;

use super::*;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn spec<'a>(start: &'a str, duration_seconds: i64, time_zone: &'a str) -> WindowSpec<'a> {
    WindowSpec { start, duration_seconds, time_zone: Some(time_zone) }
}

fn utc(start: &str, duration_seconds: i64) -> WindowSpec<'_> {
    WindowSpec { start, duration_seconds, time_zone: None }
}

fn instant(text: &str) -> Timestamp {
    text.parse().unwrap()
}

struct Fixture(Schedule);

fn windows(windows: &[WindowSpec]) -> Fixture {
    Fixture(Schedule::read(windows, &[]).unwrap())
}

fn with_blackouts(windows: &[WindowSpec], blackouts: &[WindowSpec]) -> Fixture {
    Fixture(Schedule::read(windows, blackouts).unwrap())
}

impl Fixture {
    #[track_caller]
    fn is_open(&self, now: &str, until: &str) {
        let until = (!until.is_empty()).then(|| instant(until));
        assert_eq!(self.0.state_at(instant(now)), State::Open { until }, "at {now}");
    }

    #[track_caller]
    fn is_closed(&self, now: &str, opens: &str) {
        let opens = (!opens.is_empty()).then(|| instant(opens));
        assert_eq!(self.0.state_at(instant(now)), State::Closed { opens }, "at {now}");
    }
}

#[test]
fn without_windows_starts_are_always_allowed() {
    windows(&[]).is_open("2026-05-01T00:00:00Z", "");
}

#[test]
fn a_window_is_open_from_its_start_to_the_second_before_its_end() {
    let schedule = windows(&[utc("0 22 * * *", 4 * HOUR)]);
    schedule.is_closed("2026-05-01T21:59:59Z", "2026-05-01T22:00:00Z");
    schedule.is_closed("2026-05-01T21:59:59.999999999Z", "2026-05-01T22:00:00Z");
    schedule.is_open("2026-05-01T22:00:00Z", "2026-05-02T02:00:00Z");
    schedule.is_open("2026-05-02T01:59:59.999999999Z", "2026-05-02T02:00:00Z");
    schedule.is_closed("2026-05-02T02:00:00Z", "2026-05-02T22:00:00Z");
}

#[test]
fn a_window_may_last_one_second() {
    let schedule = windows(&[utc("0 22 * * *", 1)]);
    schedule.is_open("2026-05-01T22:00:00.5Z", "2026-05-01T22:00:01Z");
    schedule.is_closed("2026-05-01T22:00:01Z", "2026-05-02T22:00:00Z");
}

#[test]
fn a_window_goes_on_over_the_end_of_a_year() {
    let schedule = windows(&[utc("0 22 31 12 *", 4 * HOUR)]);
    schedule.is_open("2026-12-31T23:59:59Z", "2027-01-01T02:00:00Z");
    schedule.is_open("2027-01-01T00:00:00Z", "2027-01-01T02:00:00Z");
    schedule.is_closed("2027-01-01T02:00:00Z", "2027-12-31T22:00:00Z");
}

#[test]
fn a_window_of_31_days_is_followed_from_its_last_day() {
    let schedule = windows(&[utc("0 0 1 7 *", 31 * DAY)]);
    schedule.is_open("2026-07-31T23:59:59Z", "2026-08-01T00:00:00Z");
    schedule.is_closed("2026-08-01T00:00:00Z", "2027-07-01T00:00:00Z");
}

#[test]
fn a_start_is_local_to_its_zone() {
    windows(&[spec("0 3 * * *", HOUR, "Europe/Berlin")])
        .is_closed("2026-07-01T00:00:00Z", "2026-07-01T01:00:00Z");
    windows(&[spec("0 3 * * *", HOUR, "America/New_York")])
        .is_closed("2026-07-01T00:00:00Z", "2026-07-01T07:00:00Z");
    windows(&[spec("0 3 * * *", HOUR, "Australia/Lord_Howe")])
        .is_closed("2026-07-01T00:00:00Z", "2026-07-01T16:30:00Z");
    windows(&[spec("0 3 * * *", HOUR, "UTC")])
        .is_closed("2026-07-01T00:00:00Z", "2026-07-01T03:00:00Z");
}

#[test]
fn a_day_of_the_week_is_that_of_the_zone() {
    // Monday 00:30 in Auckland is Sunday noon in UTC.
    windows(&[spec("30 0 * * MON", HOUR, "Pacific/Auckland")])
        .is_closed("2026-06-27T00:00:00Z", "2026-06-28T12:30:00Z");
}

// Berlin: 29 March 2026 02:00 becomes 03:00 and 25 October 03:00 becomes 02:00, both at 01:00 UTC.

#[test]
fn a_skipped_start_takes_place_when_the_clock_is_set_forward() {
    let schedule = windows(&[spec("30 2 * * *", 10 * MINUTE, "Europe/Berlin")]);
    schedule.is_closed("2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z");
    schedule.is_open("2026-03-29T01:00:00Z", "2026-03-29T01:10:00Z");
    schedule.is_open("2026-03-29T01:00:01Z", "2026-03-29T01:10:00Z");
    schedule.is_closed("2026-03-29T01:10:00Z", "2026-03-30T00:30:00Z");
}

#[test]
fn starts_that_are_skipped_together_form_one() {
    let schedule = windows(&[spec("*/10 2 * * *", 5 * MINUTE, "Europe/Berlin")]);
    schedule.is_open("2026-03-29T01:00:00Z", "2026-03-29T01:05:00Z");
    schedule.is_closed("2026-03-29T01:05:00Z", "2026-03-30T00:00:00Z");
}

#[test]
fn a_start_just_before_or_after_the_skipped_hour_stays_where_it_is() {
    let before = windows(&[spec("59 1 * * *", MINUTE, "Europe/Berlin")]);
    before.is_open("2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z");
    before.is_closed("2026-03-29T01:00:00Z", "2026-03-29T23:59:00Z");
    let after = windows(&[spec("0 3 * * *", MINUTE, "Europe/Berlin")]);
    after.is_closed("2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z");
    after.is_open("2026-03-29T01:00:00Z", "2026-03-29T01:01:00Z");
}

#[test]
fn a_repeated_start_takes_place_once() {
    let schedule = windows(&[spec("30 2 * * *", 10 * MINUTE, "Europe/Berlin")]);
    schedule.is_closed("2026-10-25T00:29:59Z", "2026-10-25T00:30:00Z");
    schedule.is_open("2026-10-25T00:30:00Z", "2026-10-25T00:40:00Z");
    schedule.is_closed("2026-10-25T00:40:00Z", "2026-10-26T01:30:00Z");
    schedule.is_closed("2026-10-25T01:29:59Z", "2026-10-26T01:30:00Z");
    schedule.is_closed("2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z");
    schedule.is_closed("2026-10-25T01:30:01Z", "2026-10-26T01:30:00Z");
}

#[test]
fn a_start_that_ends_the_repeated_hour_is_not_repeated() {
    let schedule = windows(&[spec("0 2,3 * * *", MINUTE, "Europe/Berlin")]);
    schedule.is_closed("2026-10-24T23:59:59Z", "2026-10-25T00:00:00Z");
    schedule.is_open("2026-10-25T00:00:00Z", "2026-10-25T00:01:00Z");
    schedule.is_closed("2026-10-25T00:59:59Z", "2026-10-25T02:00:00Z");
    schedule.is_closed("2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z");
    schedule.is_open("2026-10-25T02:00:00Z", "2026-10-25T02:01:00Z");
}

#[test]
fn a_pattern_of_every_minute_is_silent_in_the_second_of_two_equal_hours() {
    let schedule = windows(&[spec("* * * * *", MINUTE, "Europe/Berlin")]);
    schedule.is_open("2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z");
    schedule.is_open("2026-10-25T00:59:59Z", "2026-10-25T01:00:00Z");
    schedule.is_closed("2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z");
    schedule.is_closed("2026-10-25T01:59:59Z", "2026-10-25T02:00:00Z");
    schedule.is_open("2026-10-25T02:00:00Z", "");
}

#[test]
fn several_hours_in_a_pattern_follow_the_same_rules_as_one() {
    // New York: 8 March 2026 at 07:00 UTC, 02:00 becomes 03:00; 1 November at 06:00 UTC, back.
    let schedule = windows(&[spec("30 2,14 * * *", MINUTE, "America/New_York")]);
    schedule.is_closed("2026-03-08T06:59:59Z", "2026-03-08T07:00:00Z");
    schedule.is_open("2026-03-08T07:00:00Z", "2026-03-08T07:01:00Z");
    schedule.is_closed("2026-03-08T07:01:00Z", "2026-03-08T18:30:00Z");
    let schedule = windows(&[spec("30 1,13 * * *", MINUTE, "America/New_York")]);
    schedule.is_open("2026-11-01T05:30:00Z", "2026-11-01T05:31:00Z");
    schedule.is_closed("2026-11-01T05:31:00Z", "2026-11-01T18:30:00Z");
    schedule.is_closed("2026-11-01T06:30:00Z", "2026-11-01T18:30:00Z");
}

#[test]
fn a_change_of_half_an_hour_is_followed() {
    // Lord Howe: 5 April 2026 at 15:00 UTC of the 4th, 02:00 becomes 01:30; 4 October at 15:30 UTC
    // of the 3rd, 02:00 becomes 02:30.
    let skipped = windows(&[spec("15 2 * * *", MINUTE, "Australia/Lord_Howe")]);
    skipped.is_closed("2026-10-03T15:29:59Z", "2026-10-03T15:30:00Z");
    skipped.is_open("2026-10-03T15:30:00Z", "2026-10-03T15:31:00Z");
    skipped.is_closed("2026-10-03T15:31:00Z", "2026-10-04T15:15:00Z");
    let repeated = windows(&[spec("45 1 * * *", MINUTE, "Australia/Lord_Howe")]);
    repeated.is_closed("2026-04-04T14:44:59Z", "2026-04-04T14:45:00Z");
    repeated.is_open("2026-04-04T14:45:00Z", "2026-04-04T14:46:00Z");
    repeated.is_closed("2026-04-04T14:46:00Z", "2026-04-05T15:15:00Z");
    repeated.is_closed("2026-04-04T15:15:00Z", "2026-04-05T15:15:00Z");
}

#[test]
fn a_day_that_a_zone_skipped_starts_with_the_next() {
    // Samoa had no 30 December 2011: midnight after the 29th was the 31st, 10:00 UTC.
    let schedule = windows(&[spec("0 3 30 12 *", HOUR, "Pacific/Apia")]);
    schedule.is_closed("2011-12-30T09:59:59Z", "2011-12-30T10:00:00Z");
    schedule.is_open("2011-12-30T10:00:00Z", "2011-12-30T11:00:00Z");
}

#[test]
fn a_duration_counts_real_seconds() {
    let schedule = windows(&[spec("0 1 * * *", 4 * HOUR, "Europe/Berlin")]);
    // 01:00 to 06:00 on the clock in spring, 01:00 to 04:00 in autumn.
    schedule.is_open("2026-03-29T00:00:00Z", "2026-03-29T04:00:00Z");
    schedule.is_open("2026-10-24T23:00:00Z", "2026-10-25T03:00:00Z");
}

#[test]
fn a_window_of_a_whole_day_leaves_an_hour_where_the_day_has_25() {
    let schedule = windows(&[spec("0 0 * * *", DAY, "Europe/Berlin")]);
    schedule.is_open("2026-10-01T12:00:00Z", "2026-10-25T22:00:00Z");
    schedule.is_closed("2026-10-25T22:00:00Z", "2026-10-25T23:00:00Z");
    // 23 hours: the next start comes before the end.
    schedule.is_open("2026-03-29T12:00:00Z", "");
}

#[test]
fn a_leap_day_comes_after_four_or_eight_years() {
    let schedule = windows(&[utc("0 3 29 2 *", HOUR)]);
    schedule.is_closed("2026-05-01T00:00:00Z", "2028-02-29T03:00:00Z");
    schedule.is_open("2028-02-29T03:59:59Z", "2028-02-29T04:00:00Z");
    schedule.is_closed("2028-02-29T04:00:00Z", "2032-02-29T03:00:00Z");
    schedule.is_closed("2096-03-01T00:00:00Z", "2104-02-29T03:00:00Z");
}

#[test]
fn a_leap_day_on_a_weekday_is_found_after_forty_years() {
    windows(&[utc("0 3 29 2 +FRI", HOUR)])
        .is_closed("2188-03-01T00:00:00Z", "2228-02-29T03:00:00Z");
}

#[test]
fn a_date_that_does_not_exist_never_opens() {
    for start in ["0 3 30 2 *", "0 3 31 4,6,9,11 *", "0 0 31W 2 *", "0 3 30 2 +MON"] {
        windows(&[utc(start, HOUR)]).is_closed("2026-05-01T00:00:00Z", "");
        with_blackouts(&[], &[utc(start, HOUR)]).is_open("2026-05-01T00:00:00Z", "");
    }
    let schedule = windows(&[utc("0 3 30 2 *", HOUR), utc("0 4 * * *", HOUR)]);
    schedule.is_closed("2026-05-01T00:00:00Z", "2026-05-01T04:00:00Z");
}

#[test]
fn day_of_month_and_day_of_week_are_alternatives() {
    let schedule = windows(&[utc("0 3 13 * FRI", HOUR)]);
    schedule.is_closed("2026-12-10T12:00:00Z", "2026-12-11T03:00:00Z");
    schedule.is_closed("2026-12-11T12:00:00Z", "2026-12-13T03:00:00Z");
    schedule.is_closed("2026-12-13T12:00:00Z", "2026-12-18T03:00:00Z");
}

#[test]
fn a_plus_requires_both_days() {
    windows(&[utc("0 3 13 * +FRI", HOUR)])
        .is_closed("2026-11-14T00:00:00Z", "2027-08-13T03:00:00Z");
}

#[test]
fn days_can_be_counted_within_a_month() {
    windows(&[utc("0 2 * * SUN#1", HOUR)])
        .is_closed("2026-05-04T00:00:00Z", "2026-06-07T02:00:00Z");
    windows(&[utc("0 2 * * SUN#L", HOUR)])
        .is_closed("2026-05-04T00:00:00Z", "2026-05-31T02:00:00Z");
    windows(&[utc("0 2 L * *", HOUR)]).is_closed("2026-02-04T00:00:00Z", "2026-02-28T02:00:00Z");
    windows(&[utc("0 2 LW * *", HOUR)]).is_closed("2026-05-04T00:00:00Z", "2026-05-29T02:00:00Z");
    windows(&[utc("0 2 ? * sun", HOUR)]).is_closed("2026-05-04T00:00:00Z", "2026-05-10T02:00:00Z");
}

#[test]
fn adjacent_windows_are_one() {
    let schedule = windows(&[utc("0 0 * * *", 6 * HOUR), utc("0 6 * * *", 2 * HOUR)]);
    schedule.is_open("2026-05-01T01:00:00Z", "2026-05-01T08:00:00Z");
    let schedule = windows(&[utc("0 0 * * *", 6 * HOUR - 1), utc("0 6 * * *", 2 * HOUR)]);
    schedule.is_open("2026-05-01T01:00:00Z", "2026-05-01T05:59:59Z");
    schedule.is_closed("2026-05-01T05:59:59Z", "2026-05-01T06:00:00Z");
}

#[test]
fn overlapping_windows_of_several_zones_are_one() {
    let schedule = windows(&[
        spec("0 22 * * *", 4 * HOUR, "Europe/Berlin"),
        spec("0 18 * * *", 4 * HOUR, "America/New_York"),
        utc("0 1 * * *", 30 * MINUTE),
    ]);
    schedule.is_open("2026-07-01T20:00:00Z", "2026-07-02T02:00:00Z");
}

#[test]
fn a_window_longer_than_its_period_does_not_close_between() {
    let schedule = windows(&[utc("0 0-5 * * *", 2 * HOUR)]);
    schedule.is_open("2026-05-01T00:00:00Z", "2026-05-01T07:00:00Z");
    schedule.is_closed("2026-05-01T07:00:00Z", "2026-05-02T00:00:00Z");
    windows(&[utc("0 * * * *", 2 * HOUR)]).is_open("2026-05-01T00:00:00Z", "");
}

#[test]
fn windows_that_take_turns_each_minute_are_followed_for_an_hour() {
    let turns = ["*/2 0 * * *", "1-59/2 0 * * *"];
    let specs: Vec<_> =
        turns.iter().flat_map(|start| (60..80).map(|seconds| utc(start, seconds))).collect();
    windows(&specs).is_open("2026-05-01T00:00:00Z", "2026-05-01T01:00:19Z");
}

#[test]
fn a_blackout_divides_a_window() {
    let schedule = with_blackouts(&[utc("0 0 * * *", 8 * HOUR)], &[utc("0 2 * * *", HOUR)]);
    schedule.is_open("2026-05-01T01:00:00Z", "2026-05-01T02:00:00Z");
    schedule.is_closed("2026-05-01T02:00:00Z", "2026-05-01T03:00:00Z");
    schedule.is_closed("2026-05-01T02:59:59Z", "2026-05-01T03:00:00Z");
    schedule.is_open("2026-05-01T03:00:00Z", "2026-05-01T08:00:00Z");
    schedule.is_closed("2026-05-01T08:00:00Z", "2026-05-02T00:00:00Z");
}

#[test]
fn a_blackout_that_outlasts_a_window_waits_for_the_next_window() {
    let schedule = with_blackouts(&[utc("0 0 * * *", 8 * HOUR)], &[utc("0 2 1 * *", 12 * HOUR)]);
    schedule.is_closed("2026-05-01T02:00:00Z", "2026-05-02T00:00:00Z");
}

#[test]
fn a_blackout_that_begins_where_a_window_ends_changes_nothing() {
    let schedule = with_blackouts(&[utc("0 0 * * *", 8 * HOUR)], &[utc("0 8 * * *", HOUR)]);
    schedule.is_open("2026-05-01T01:00:00Z", "2026-05-01T08:00:00Z");
    schedule.is_closed("2026-05-01T08:00:00Z", "2026-05-02T00:00:00Z");
}

#[test]
fn blackouts_alone_close_what_is_always_open() {
    let blackouts = [utc("0 0 20 12 *", 20 * DAY), utc("0 0 1 1 *", 12 * DAY)];
    let schedule = with_blackouts(&[], &blackouts);
    schedule.is_open("2026-05-01T00:00:00Z", "2026-12-20T00:00:00Z");
    schedule.is_closed("2026-12-24T00:00:00Z", "2027-01-13T00:00:00Z");
}

#[test]
fn windows_inside_blackouts_never_open() {
    let schedule = with_blackouts(&[utc("0 3 * * *", HOUR)], &[utc("0 2 * * *", 3 * HOUR)]);
    schedule.is_closed("2026-05-01T00:00:00Z", "");
}

#[test]
fn a_blackout_beyond_what_was_followed_is_not_taken_for_the_next_change() {
    // The window closes in October when the clock is set back, long before the blackout.
    let window = [spec("* * * * *", MINUTE, "Europe/Berlin")];
    let schedule = with_blackouts(&window, &[utc("0 0 24 12 *", DAY)]);
    schedule.is_open("2026-05-01T00:00:00Z", "");
    schedule.is_open("2026-12-23T23:30:00Z", "2026-12-24T00:00:00Z");
}

#[test]
fn the_ends_of_time_have_a_state() {
    let schedules = [
        windows(&[]),
        windows(&[utc("* * * * *", 31 * DAY), spec("* * * * *", 1, "Pacific/Apia")]),
        with_blackouts(&[], &[spec("0 0 31 12 *", 31 * DAY, "Pacific/Kiritimati")]),
    ];
    for now in [
        Timestamp::MIN,
        Timestamp::MAX,
        Timestamp::UNIX_EPOCH,
        instant("0000-12-31T23:59:59Z"),
        instant("0001-01-01T00:00:00Z"),
        instant("4999-12-31T23:59:59Z"),
        instant("5000-01-01T00:00:00Z"),
        instant("9998-12-31T23:59:59Z"),
    ] {
        for Fixture(schedule) in &schedules {
            schedule.state_at(now);
        }
    }
}
