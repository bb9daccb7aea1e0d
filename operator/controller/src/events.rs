//! Words Kubernetes events: transitions of the job and failures of its devices. A device that succeeds makes none. Pure.

use std::collections::BTreeMap;

use flashjob_api::{FlashJob, FlashJobSpec, Reason, reason};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::runtime::events::{Event, EventType};

use crate::observed::{Finish, Job};
use crate::transitions::{JobTransition, Transitions};

/// Devices that one write tells of by name; the others are counted in one more event.
const NAMED: usize = 10;
/// The API server takes no longer note, in bytes.
const NOTE_BYTES: usize = 1024;

/// What events are about: the FlashJob.
#[must_use]
pub fn about(job: &Job) -> ObjectReference {
    let reference = FlashJob::new("", FlashJobSpec::default()).object_ref(&());
    ObjectReference {
        name: Some(job.key.name.clone()),
        namespace: Some(job.key.namespace.clone()),
        uid: Some(job.uid.clone()),
        ..reference
    }
}

/// The events of one status write.
///
/// The recorder puts events together that have type, action, reason and related object in common, and keeps the words of the
/// first. So a device's events name its Instance as related, and what must not be put together names the FlashJob's version.
#[must_use]
pub fn events(job: &Job, transitions: &Transitions<'_>) -> Vec<Event> {
    let this_time =
        ObjectReference { resource_version: Some(job.resource_version.clone()), ..about(job) };
    let (ends, others): (Vec<JobTransition<'_>>, Vec<JobTransition<'_>>) =
        transitions.job.iter().copied().partition(|transition| {
            matches!(transition, JobTransition::Completed(_) | JobTransition::Failed(_))
        });
    let mut events: Vec<Event> =
        others.into_iter().map(|transition| of_job(transition, &this_time)).collect();
    let failed = failed(job, transitions);
    let mut more: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, (reason, event)) in failed.into_iter().enumerate() {
        if index < NAMED {
            events.push(event);
        } else {
            *more.entry(reason).or_default() += 1;
        }
    }
    if !more.is_empty() {
        let all: usize = more.values().sum();
        let each: Vec<String> =
            more.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let note = format!(
            "attempts at {all} more devices failed: {}; status.devices and status.failedUUIDs name them",
            each.join(", ")
        );
        events.push(event(
            EventType::Warning,
            "MoreDevicesFailed",
            "Flash",
            note,
            Some(this_time.clone()),
        ));
    }
    events.extend(ends.into_iter().map(|transition| of_job(transition, &this_time)));
    events
}

/// Final failures first: they matter more than attempts that are made again.
fn failed<'a>(job: &Job, transitions: &Transitions<'a>) -> Vec<(&'a str, Event)> {
    let finals = transitions.results.iter().filter(|result| result.finish == Finish::Failed);
    let finals = finals.map(|result| {
        let name = result.reason.map_or("Failed", |reason| reason.name);
        (
            name,
            of_device(
                job,
                name,
                "Fail",
                &result.uid,
                result.name.as_deref(),
                &result.message,
                "the device failed",
            ),
        )
    });
    let again = transitions.retried.iter().map(|device| {
        let name = device.reason.as_deref().unwrap_or("AttemptFailed");
        let then = format!("attempt {} follows", device.attempt);
        let message = device.message.as_deref().unwrap_or_default();
        (name, of_device(job, name, "Retry", &device.uid, device.name.as_deref(), message, &then))
    });
    finals.chain(again).collect()
}

fn of_device(
    job: &Job,
    reason: &str,
    action: &str,
    uid: &str,
    name: Option<&str>,
    message: &str,
    then: &str,
) -> Event {
    let instance = ObjectReference {
        api_version: Some("akri.sh/v0".to_owned()),
        kind: Some("Instance".to_owned()),
        namespace: Some(job.key.namespace.clone()),
        name: name.map(str::to_owned),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    };
    let advice = reason::by_name(reason)
        .map(|Reason { action, .. }| format!(" What to do: {action}"))
        .unwrap_or_default();
    let head = format!("device {uid} ({}): ", name.unwrap_or("unknown Instance"));
    let tail = format!("; {then}.{advice}");
    let note = format!(
        "{head}{}{tail}",
        shortened(message, NOTE_BYTES.saturating_sub(head.len() + tail.len()))
    );
    event(EventType::Warning, reason, action, note, Some(instance))
}

fn of_job(transition: JobTransition<'_>, this_time: &ObjectReference) -> Event {
    let once = || Some(this_time.clone());
    match transition {
        JobTransition::Started(message) => {
            event(EventType::Normal, "Started", "Flash", message.to_owned(), once())
        }
        JobTransition::Suspended => {
            let note = "spec.suspend is set: devices in flight finish, no others start".to_owned();
            event(EventType::Normal, "Suspended", "Suspend", note, None)
        }
        JobTransition::Resumed => event(
            EventType::Normal,
            "Resumed",
            "Resume",
            "spec.suspend is no longer set".to_owned(),
            None,
        ),
        JobTransition::Stalled(reason, message) => {
            let advice = reason::by_name(reason)
                .map(|Reason { action, .. }| format!(". What to do: {action}"))
                .unwrap_or_default();
            event(
                EventType::Warning,
                reason,
                "Wait",
                format!("{}{advice}", shortened(message, NOTE_BYTES - advice.len())),
                None,
            )
        }
        JobTransition::Completed(message) => {
            event(EventType::Normal, "Completed", "Flash", message.to_owned(), once())
        }
        JobTransition::Failed(message) => {
            event(EventType::Warning, "Failed", "Flash", message.to_owned(), once())
        }
    }
}

fn event(
    kind: EventType,
    reason: &str,
    action: &str,
    note: String,
    related: Option<ObjectReference>,
) -> Event {
    let note = shortened(&note, NOTE_BYTES).to_owned();
    Event {
        type_: kind,
        reason: reason.to_owned(),
        note: Some(note),
        action: action.to_owned(),
        secondary: related,
    }
}

/// The beginning of a text, at most so many bytes.
fn shortened(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use flashjob_api::{DeviceState, DeviceStatus, FlashJobStatus, Phase};

    use super::*;
    use crate::plan::DeviceResult;

    fn job() -> Job {
        let mut job = FlashJob::new("roll-out", FlashJobSpec::default());
        job.metadata.namespace = Some("fleet".into());
        job.metadata.resource_version = Some("7".into());
        Job::of(job)
    }

    fn result(uid: &str, finish: Finish, reason: Option<Reason>, message: &str) -> DeviceResult {
        let name = Some(format!("akri-{uid}"));
        DeviceResult {
            uid: uid.into(),
            name,
            attempt: 1,
            finish,
            verified: false,
            reason,
            message: message.into(),
        }
    }

    fn told(
        before: &FlashJobStatus,
        after: &FlashJobStatus,
        results: &[DeviceResult],
    ) -> Vec<(String, String)> {
        let events = events(&job(), &Transitions::between(before, after, results));
        events.into_iter().map(|event| (event.reason, event.note.unwrap_or_default())).collect()
    }

    #[test]
    fn a_failure_names_the_device_the_reason_and_what_to_do() {
        let status = FlashJobStatus::default();
        let told = told(
            &status,
            &status,
            &[result("a", Finish::Failed, Some(reason::UNSUPPORTED_DEVICE), "no such board")],
        );
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].0, "UnsupportedDevice");
        assert!(
            told[0]
                .1
                .starts_with("device a (akri-a): no such board; the device failed. What to do: "),
            "{}",
            told[0].1
        );
    }

    #[test]
    fn a_device_that_completes_or_is_skipped_makes_no_event() {
        let status = FlashJobStatus::default();
        let results = [
            result("a", Finish::Completed, None, ""),
            result("b", Finish::Skipped, Some(reason::ALREADY_CURRENT), ""),
        ];
        assert_eq!(told(&status, &status, &results), []);
    }

    #[test]
    fn failures_beyond_ten_are_counted_in_one_event_and_the_end_of_the_job_is_told_last() {
        let before = FlashJobStatus {
            run: Some("run".into()),
            phase: Some(Phase::InProgress),
            ..FlashJobStatus::default()
        };
        let after = FlashJobStatus {
            phase: Some(Phase::Failed),
            message: Some("over".into()),
            ..before.clone()
        };
        let results: Vec<_> = (0..4096)
            .map(|number| {
                result(
                    &number.to_string(),
                    Finish::Failed,
                    Some(reason::NO_PLUGIN_FOR_DEVICE),
                    "none",
                )
            })
            .collect();
        let told = told(&before, &after, &results);
        assert_eq!(told.len(), 12);
        assert!(
            told[10].1.contains("4086 more devices")
                && told[10].1.contains("4086 NoPluginForDevice"),
            "{}",
            told[10].1
        );
        assert_eq!(told[11], ("Failed".to_owned(), "over".to_owned()));
    }

    #[test]
    fn a_long_message_is_cut_and_the_advice_is_kept() {
        let status = FlashJobStatus::default();
        let told = told(
            &status,
            &status,
            &[result("a", Finish::Failed, Some(reason::GAVE_UP), &"ä".repeat(2000))],
        );
        assert!(
            told[0].1.len() <= NOTE_BYTES && told[0].1.ends_with(reason::GAVE_UP.action),
            "{}",
            told[0].1
        );
    }

    #[test]
    fn events_of_two_devices_with_one_reason_are_not_put_together() {
        let before = DeviceStatus {
            uid: "a".into(),
            attempt: 1,
            state: DeviceState::Flashing,
            ..DeviceStatus::default()
        };
        let after = DeviceStatus {
            attempt: 2,
            state: DeviceState::Pending,
            reason: Some("PodFailed".into()),
            ..before.clone()
        };
        let both = |device: &DeviceStatus| {
            vec![device.clone(), DeviceStatus { uid: "b".into(), ..device.clone() }]
        };
        let before = FlashJobStatus { devices: both(&before), ..FlashJobStatus::default() };
        let after = FlashJobStatus { devices: both(&after), ..FlashJobStatus::default() };
        let events = events(&job(), &Transitions::between(&before, &after, &[]));
        let related: Vec<_> = events
            .iter()
            .map(|event| event.secondary.as_ref().and_then(|device| device.uid.clone()))
            .collect();
        assert_eq!(related, [Some("a".to_owned()), Some("b".to_owned())]);
    }
}
