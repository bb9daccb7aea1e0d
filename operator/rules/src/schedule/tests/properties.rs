//! States compared with a model that advances minute by minute.

use super::*;
use croner::Cron;
use jiff::ToSpan;
use jiff::civil::DateTime;
use jiff::tz::TimeZoneDatabase;
use proptest::prelude::*;

/// Time that the model covers after the instant that is evaluated.
const AFTER: SignedDuration = SignedDuration::from_hours(36);

const LONGEST: i64 = 26 * HOUR;

#[derive(Debug, Clone)]
struct WindowCase {
    start: String,
    duration: i64,
    zone: &'static str,
}

impl WindowCase {
    fn spec(&self) -> WindowSpec<'_> {
        spec(&self.start, self.duration, self.zone)
    }

    /// Periods between two instants, from the local times that each minute reaches first.
    fn periods(&self, from: Timestamp, to: Timestamp) -> Vec<(Timestamp, Timestamp)> {
        let pattern: Cron = self.start.parse().unwrap();
        let zone = TimeZoneDatabase::bundled().get(self.zone).unwrap();
        let duration = SignedDuration::from_secs(self.duration);
        let mut periods = Vec::new();
        let mut reached: Option<DateTime> = None;
        let mut at = whole_minute(from);
        while at <= to {
            let local = zone.to_datetime(at);
            // Several minutes where the clock is set forward, none in an hour that is repeated.
            let mut next = reached.map_or(local, |reached| reached + 1.minute());
            while next <= local {
                if pattern.is_time_matching(&next).unwrap() {
                    periods.push((at, at + duration));
                }
                reached = Some(next);
                next += 1.minute();
            }
            at += SignedDuration::from_mins(1);
        }
        periods
    }
}

fn whole_minute(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second().div_euclid(60) * 60).unwrap()
}

struct Model {
    windows: Option<Vec<(Timestamp, Timestamp)>>,
    blackouts: Vec<(Timestamp, Timestamp)>,
}

impl Model {
    fn new(windows: &[WindowCase], blackouts: &[WindowCase], now: Timestamp) -> Self {
        // Far enough back for a period that began in the first of two equal hours.
        let from = now - SignedDuration::from_secs(LONGEST + 3 * HOUR);
        let periods = |list: &[WindowCase]| -> Vec<_> {
            list.iter().flat_map(|written| written.periods(from, now + AFTER)).collect()
        };
        Self {
            windows: (!windows.is_empty()).then(|| periods(windows)),
            blackouts: periods(blackouts),
        }
    }

    fn is_open(&self, at: Timestamp) -> bool {
        let within = |periods: &[(Timestamp, Timestamp)]| {
            periods.iter().any(|(start, end)| *start <= at && at < *end)
        };
        self.windows.as_deref().is_none_or(within) && !within(&self.blackouts)
    }

    /// First instant after `now` at which the state of the model changes, within the time it
    /// covers.
    fn change_after(&self, now: Timestamp) -> Option<Timestamp> {
        let windows = self.windows.iter().flatten();
        let mut bounds: Vec<_> = windows
            .chain(&self.blackouts)
            .flat_map(|(start, end)| [*start, *end])
            .filter(|bound| now < *bound && *bound <= now + AFTER)
            .collect();
        bounds.sort_unstable();
        bounds.dedup();
        bounds.into_iter().find(|bound| self.is_open(*bound) != self.is_open(now))
    }
}

fn pattern() -> impl Strategy<Value = String> {
    let minute = prop_oneof![
        3 => (0..60u8).prop_map(|minute| minute.to_string()),
        1 => Just("*".to_owned()),
        1 => Just("*/7".to_owned()),
        1 => Just("0,59".to_owned()),
        1 => Just("20-40".to_owned()),
    ];
    let hour = prop_oneof![
        4 => (0..4u8).prop_map(|hour| hour.to_string()),
        1 => (0..24u8).prop_map(|hour| hour.to_string()),
        2 => Just("*".to_owned()),
        1 => Just("1-3".to_owned()),
        1 => Just("2,14,23".to_owned()),
    ];
    let days = prop_oneof![
        4 => Just("* * *"),
        1 => Just("* * SUN"),
        1 => Just("29 * SAT"),
        1 => Just("L * *"),
        1 => Just("29 2 *"),
        1 => Just("30 2 *"),
        1 => Just("* * +SUN#1"),
    ];
    (minute, hour, days).prop_map(|(minute, hour, days)| format!("{minute} {hour} {days}"))
}

/// Instants at which a clock changes, a leap day begins or a year ends, each with the zone in
/// which that happens.
const EVENTS: [(&str, &str); 8] = [
    ("2026-03-08T07:00:00Z", "America/New_York"),
    ("2026-03-29T01:00:00Z", "Europe/Berlin"),
    ("2026-04-04T15:00:00Z", "Australia/Lord_Howe"),
    ("2026-10-03T15:30:00Z", "Australia/Lord_Howe"),
    ("2026-10-25T01:00:00Z", "Europe/Berlin"),
    ("2026-11-01T06:00:00Z", "America/New_York"),
    ("2026-12-31T18:15:00Z", "Asia/Kathmandu"),
    ("2028-02-29T00:00:00Z", "UTC"),
];

fn written(zone: &'static str) -> impl Strategy<Value = WindowCase> {
    let duration =
        prop_oneof![Just(1), Just(MINUTE), Just(HOUR), Just(DAY), 1..2 * HOUR, HOUR..=LONGEST,];
    let zone = prop_oneof![
        3 => Just(zone),
        1 => prop::sample::select(EVENTS.map(|(_, zone)| zone).to_vec()),
    ];
    (pattern(), duration, zone).prop_map(|(start, duration, zone)| WindowCase {
        start,
        duration,
        zone,
    })
}

fn near(event: &'static str) -> impl Strategy<Value = Timestamp> {
    let seconds = prop_oneof![
        1 => Just(0),
        3 => (-2 * 60..2 * 60i64).prop_map(|minutes| minutes * MINUTE),
        3 => -2 * HOUR..2 * HOUR,
        1 => -DAY..DAY,
    ];
    let nanoseconds = prop_oneof![Just(0), 0..1_000_000_000i64];
    (seconds, nanoseconds).prop_map(|(seconds, nanoseconds)| {
        instant(event)
            + SignedDuration::from_secs(seconds)
            + SignedDuration::from_nanos(nanoseconds)
    })
}

#[derive(Debug, Clone)]
struct Scenario {
    windows: Vec<WindowCase>,
    blackouts: Vec<WindowCase>,
    now: Timestamp,
}

fn scenario() -> impl Strategy<Value = Scenario> {
    prop::sample::select(EVENTS.to_vec()).prop_flat_map(|(event, zone)| {
        let windows = prop::collection::vec(written(zone), 0..4);
        let blackouts = prop_oneof![Just(Vec::new()), prop::collection::vec(written(zone), 1..3),];
        (windows, blackouts, near(event)).prop_map(|(windows, blackouts, now)| Scenario {
            windows,
            blackouts,
            now,
        })
    })
}

fn read(windows: &[WindowCase], blackouts: &[WindowCase]) -> Schedule {
    let windows: Vec<_> = windows.iter().map(WindowCase::spec).collect();
    let blackouts: Vec<_> = blackouts.iter().map(WindowCase::spec).collect();
    Schedule::read(&windows, &blackouts).unwrap()
}

proptest! {
    #![proptest_config(crate::tests::config(200, 400))]

    #[test]
    fn a_state_names_the_first_instant_at_which_it_changes(
        Scenario { windows, blackouts, now } in scenario(),
    ) {
        let schedule = read(&windows, &blackouts);
        let model = Model::new(&windows, &blackouts, now);

        let (open, change) = match schedule.state_at(now) {
            State::Open { until } => (true, until),
            State::Closed { opens } => (false, opens),
        };
        prop_assert_eq!(open, model.is_open(now));
        let expected = model.change_after(now);
        match change {
            Some(change) if change <= now + AFTER => prop_assert_eq!(Some(change), expected),
            Some(_) => prop_assert_eq!(None, expected),
            None => prop_assert!(expected.is_none_or(|change| change > now + LOOK_AHEAD)),
        }
    }

    #[test]
    fn every_instant_has_a_state(
        Scenario { windows, blackouts, .. } in scenario(),
        seconds in Timestamp::MIN.as_second()..Timestamp::MAX.as_second(),
    ) {
        let schedule = read(&windows, &blackouts);
        schedule.state_at(Timestamp::from_second(seconds).unwrap());
    }

    #[test]
    fn any_text_is_read_or_refused(
        start in prop_oneof![
            "\\PC{0,40}",
            "([-0-9*/,?LW#+]{1,6} ){4}[-0-9*/,?LW#+A-Z]{1,6}",
        ],
        zone in "\\PC{0,20}",
        seconds in Timestamp::MIN.as_second()..Timestamp::MAX.as_second(),
    ) {
        if let Err(refused) = Schedule::read(&[spec("0 3 * * *", HOUR, &zone)], &[]) {
            prop_assert_eq!(refused.field, "windows[0].timeZone");
        }
        match Schedule::read(&[], &[utc(&start, HOUR)]) {
            Ok(schedule) => { schedule.state_at(Timestamp::from_second(seconds).unwrap()); }
            Err(refused) => prop_assert_eq!(refused.field, "blackouts[0].start"),
        }
    }
}
