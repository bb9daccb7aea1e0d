//! Pace of a FlashJob, and the time that it may still take; both may be unknown.

use std::time::Duration;

use flashjob_api::{Counts, FlashJob, condition};
use jiff::Timestamp;
use serde::Serialize;

/// Smallest number of results from which a pace is computed.
const TELLING: u32 = 2;

/// Results per minute, and the time until the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pace {
    /// Devices with a result, per minute; none if unknown.
    pub devices_per_minute: Option<f64>,
    /// Seconds until the last device has its result; none if unknown.
    pub seconds_left: Option<u64>,
}

/// First observation of a watch: the count of results, and its time.
#[derive(Clone, Copy, Debug)]
pub struct FirstCount {
    /// Number of devices with a result.
    results: u32,
    /// Time of that count.
    at: Timestamp,
}

/// Returns the number of devices that have a result.
pub fn results(counts: &Counts) -> u32 {
    counts.completed + counts.failed + counts.skipped
}

impl FirstCount {
    /// Returns the observation at the beginning of a watch.
    pub fn first(results: u32, now: Timestamp) -> Self {
        Self { results, at: now }
    }
}

/// Returns the pace of a FlashJob since `first_count`, else since its run began.
pub fn pace(job: &FlashJob, first_count: Option<FirstCount>, now: Timestamp) -> Pace {
    let unknown = Pace::default();
    let Some((status, counts)) =
        job.status.as_ref().and_then(|status| Some((status, status.counts?)))
    else {
        return unknown;
    };
    let is_over = results(&counts) >= counts.total;
    if is_over || condition::holds(&status.conditions, condition::SUSPENDED) {
        return unknown;
    }
    let since_start = status.start_time.as_ref().map(|time| FirstCount { results: 0, at: time.0 });
    // The observation of a watch is newer; until it has enough results, the whole run counts.
    let enough =
        |first_count: &FirstCount| results(&counts).saturating_sub(first_count.results) >= TELLING;
    let Some(from) = first_count.filter(enough).or(since_start.filter(enough)) else {
        return unknown;
    };
    let elapsed = now.duration_since(from.at).as_secs_f64();
    // The start may come from the operator's clock, so the difference can even be negative.
    if elapsed < 1.0 {
        return unknown;
    }
    let each_second = f64::from(results(&counts) - from.results) / elapsed;
    let seconds = f64::from(counts.total - results(&counts)) / each_second;
    let seconds_left = Duration::try_from_secs_f64(seconds).ok().map(|time| time.as_secs());
    Pace { devices_per_minute: Some(each_second * 60.0), seconds_left }
}

#[cfg(test)]
mod tests {
    use flashjob_api::{FlashJobSpec, FlashJobStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn job(completed: u32, total: u32) -> FlashJob {
        let mut job = FlashJob::new("job", FlashJobSpec::default());
        job.status = Some(FlashJobStatus {
            counts: Some(Counts { total, completed, ..Counts::default() }),
            start_time: Some(Time(at(0))),
            ..FlashJobStatus::default()
        });
        job
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    #[test]
    fn the_pace_is_results_by_time_and_the_rest_takes_as_long() {
        let pace = pace(&job(30, 90), None, at(60));
        assert_eq!(pace.devices_per_minute, Some(30.0));
        assert_eq!(pace.seconds_left, Some(120));
    }

    #[test]
    fn what_a_watch_saw_itself_counts_once_it_is_enough() {
        let first_count = FirstCount::first(20, at(50));
        let pace_of = |completed| pace(&job(completed, 90), Some(first_count), at(60));
        assert_eq!(pace_of(30).devices_per_minute, Some(60.0));
        assert_eq!(pace_of(21).devices_per_minute, Some(21.0));
    }

    #[test]
    fn nothing_is_said_before_two_results_or_of_a_job_that_is_over_or_paused() {
        let mut paused = job(30, 90);
        if let Some(status) = &mut paused.status {
            let conditions = &mut status.conditions;
            condition::set(conditions, condition::SUSPENDED, true, "A", "", None, at(0));
        }
        for unknown in [job(1, 90), job(90, 90), paused] {
            assert_eq!(pace(&unknown, None, at(60)), Pace::default());
        }
        assert_eq!(pace(&job(30, 90), None, at(0)), Pace::default());
    }
}
