//! Differences between two stored statuses, which the log, the events and the metrics report.
//! Pure.

use std::collections::HashMap;

use flashjob_api::{DeviceStatus, FlashJobStatus, Phase, condition};
use flashjob_rules::flashjob::plan::DeviceResult;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Changes that one status write made.
#[derive(Debug)]
pub struct Transitions<'a> {
    /// Devices that started an attempt.
    pub started: Vec<&'a DeviceStatus>,
    /// Devices whose attempt failed and is retried; their status already has the number of the
    /// next attempt.
    pub retried: Vec<&'a DeviceStatus>,
    /// Results of devices that finished.
    pub results: &'a [DeviceResult],
    /// Number of devices of this run that had failed before this write.
    pub failed_before: usize,
    /// Transitions of the job.
    pub job: Vec<JobTransition<'a>>,
}

/// Transition of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobTransition<'a> {
    /// A run began; the message of the status.
    Started(&'a str),
    /// `suspend` is set: no further device starts.
    Suspended,
    /// `suspend` is no longer set.
    Resumed,
    /// The job makes no progress; reason and message.
    Stalled(&'a str, &'a str),
    /// The run completed; the message of the status.
    Completed(&'a str),
    /// The run ended with failures; the message of the status.
    Failed(&'a str),
}

impl<'a> Transitions<'a> {
    /// Compares the previous status with the one that is stored now.
    #[must_use]
    pub fn between(
        before: &FlashJobStatus,
        after: &'a FlashJobStatus,
        results: &'a [DeviceResult],
    ) -> Self {
        // A new run starts its status afresh: attempts of the previous run are not compared with
        // its own.
        let same_run = before.run == after.run;
        let stood: HashMap<&str, &DeviceStatus> = before
            .devices
            .iter()
            .filter(|_| same_run)
            .map(|device| (device.uid.as_str(), device))
            .collect();
        let was = |device: &DeviceStatus| stood.get(device.uid.as_str()).copied();
        let begins = |device: &&DeviceStatus| {
            device.is_locked()
                && was(device).is_none_or(|previous_device| {
                    !previous_device.is_locked() || previous_device.attempt != device.attempt
                })
        };
        let again = |device: &&DeviceStatus| {
            was(device).is_some_and(|previous_device| previous_device.attempt < device.attempt)
                && device.reason.is_some()
        };
        Self {
            started: after.devices.iter().filter(begins).collect(),
            retried: after.devices.iter().filter(again).collect(),
            results,
            failed_before: before
                .counts
                .filter(|_| same_run)
                .map_or(0, |counts| usize::try_from(counts.failed).unwrap_or(usize::MAX)),
            job: job(before, after),
        }
    }
}

fn job<'a>(before: &FlashJobStatus, after: &'a FlashJobStatus) -> Vec<JobTransition<'a>> {
    let message = after.message.as_deref().unwrap_or_default();
    let new_run = before.run != after.run;
    let mut transitions = Vec::new();
    if new_run {
        transitions.push(JobTransition::Started(message));
    }
    match (
        holds(before, condition::SUSPENDED).is_some(),
        holds(after, condition::SUSPENDED).is_some(),
    ) {
        (false, true) => transitions.push(JobTransition::Suspended),
        (true, false) => transitions.push(JobTransition::Resumed),
        _ => {}
    }
    // A failed job is stalled too, and is reported only as failed.
    if after.phase != Some(Phase::Failed)
        && let Some(stalled) = holds(after, condition::STALLED)
        && holds(before, condition::STALLED)
            .is_none_or(|previous_condition| previous_condition.reason != stalled.reason)
    {
        transitions.push(JobTransition::Stalled(&stalled.reason, &stalled.message));
    }
    match after.phase {
        // A run may begin and end in one write, as when all devices are skipped: its phase may
        // then be the one that the previous run ended in.
        Some(Phase::Completed) if new_run || before.phase != after.phase => {
            transitions.push(JobTransition::Completed(message))
        }
        Some(Phase::Failed) if new_run || before.phase != after.phase => {
            transitions.push(JobTransition::Failed(message))
        }
        _ => {}
    }
    transitions
}

fn holds<'a>(status: &'a FlashJobStatus, kind: &str) -> Option<&'a Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use flashjob_api::DeviceState;
    use jiff::Timestamp;

    use super::*;

    fn status(devices: Vec<DeviceStatus>) -> FlashJobStatus {
        FlashJobStatus {
            run: Some("run".into()),
            phase: Some(Phase::InProgress),
            devices,
            ..FlashJobStatus::default()
        }
    }

    fn device(attempt: u32, state: DeviceState) -> DeviceStatus {
        let reason =
            (state == DeviceState::Pending && attempt > 1).then(|| "PodFailed".to_owned());
        DeviceStatus { uid: "a".into(), attempt, state, reason, ..DeviceStatus::default() }
    }

    fn transition_counts(before: Vec<DeviceStatus>, after: Vec<DeviceStatus>) -> (usize, usize) {
        let (before, after) = (status(before), status(after));
        let transitions = Transitions::between(&before, &after, &[]);
        (transitions.started.len(), transitions.retried.len())
    }

    #[test]
    fn an_attempt_starts_once_however_many_states_it_passes() {
        assert_eq!(
            transition_counts(
                vec![device(1, DeviceState::Pending)],
                vec![device(1, DeviceState::Exposing)]
            ),
            (1, 0)
        );
        assert_eq!(
            transition_counts(
                vec![device(1, DeviceState::Exposing)],
                vec![device(1, DeviceState::Flashing)]
            ),
            (0, 0)
        );
        assert_eq!(
            transition_counts(
                vec![device(1, DeviceState::Flashing)],
                vec![device(1, DeviceState::Verifying)]
            ),
            (0, 0)
        );
    }

    #[test]
    fn a_failed_attempt_is_retried_once_and_the_next_one_starts_once() {
        assert_eq!(
            transition_counts(
                vec![device(1, DeviceState::Flashing)],
                vec![device(2, DeviceState::Pending)]
            ),
            (0, 1)
        );
        assert_eq!(
            transition_counts(
                vec![device(2, DeviceState::Pending)],
                vec![device(2, DeviceState::Pending)]
            ),
            (0, 0)
        );
        assert_eq!(
            transition_counts(
                vec![device(2, DeviceState::Pending)],
                vec![device(2, DeviceState::Flashing)]
            ),
            (1, 0)
        );
    }

    #[test]
    fn a_job_is_told_of_when_it_begins_stalls_and_ends_and_not_in_between() {
        let nothing = FlashJobStatus::default();
        let mut stalled = status(Vec::new());
        condition::set(
            &mut stalled.conditions,
            condition::STALLED,
            true,
            "PluginNotReady",
            "why",
            None,
            Timestamp::UNIX_EPOCH,
        );
        let over = FlashJobStatus {
            phase: Some(Phase::Completed),
            message: Some("1 of 1".into()),
            ..status(Vec::new())
        };
        assert_eq!(
            job(&nothing, &stalled),
            [JobTransition::Started(""), JobTransition::Stalled("PluginNotReady", "why")]
        );
        assert_eq!(job(&stalled, &stalled), []);
        assert_eq!(job(&stalled, &over), [JobTransition::Completed("1 of 1")]);
        assert_eq!(job(&over, &over), []);
    }
}
