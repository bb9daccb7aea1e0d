//! Kubernetes events about transitions of the job and failures of its devices. A device that
//! succeeds causes no event. Pure.

use std::collections::BTreeMap;

use flashjob_api::{DeviceStatus, FlashJob, FlashJobSpec, Reason, reason};
use flashjob_rules::flashjob::observed::{Finish, Job};
use flashjob_rules::flashjob::plan::DeviceResult;
use flashjob_rules::text::shortened;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::runtime::events::{Event, EventType};

use crate::cluster::NOTE_BYTES;
use crate::flashjob::transitions::{JobTransition, Transitions};

/// Number of failed devices of a run that have an event of their own; one more event says where
/// the others are listed.
const NAMED: usize = 10;

/// Returns a reference to the FlashJob, which the events are about.
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

/// Returns the events of one status write.
///
/// The recorder aggregates events with the same type, action, reason and related object, and keeps
/// the note of the first one. The events of a device therefore name its Instance as the related
/// object, and an event that must not be aggregated names the FlashJob with its resourceVersion.
#[must_use]
pub fn events(job: &Job, transitions: &Transitions<'_>) -> Vec<Event> {
    let this_time =
        ObjectReference { resource_version: Some(job.resource_version.clone()), ..about(job) };
    let of_jobs = transitions.job.iter();
    let mut events: Vec<Event> =
        of_jobs.clone().filter_map(|transition| under_way(*transition)).collect();
    events.extend(failed(transitions));
    events.extend(retried(transitions));
    events.extend(of_jobs.filter_map(|transition| ending(*transition, &this_time)));
    events
}

/// Returns one event for each of the first failed devices of a run, then one for all others: the
/// status lists them, and a failing fleet must not flood the API server with events.
fn failed(transitions: &Transitions<'_>) -> Vec<Event> {
    let failed: Vec<&DeviceResult> =
        transitions.results.iter().filter(|result| result.finish == Finish::Failed).collect();
    let named = NAMED.saturating_sub(transitions.failed_before).min(failed.len());
    let mut events: Vec<Event> = failed[..named].iter().copied().map(of_device).collect();
    // Once a run: only the write with which the failures exceed the limit says it.
    if transitions.failed_before <= NAMED && transitions.failed_before + failed.len() > NAMED {
        let note = format!(
            "more than {NAMED} devices failed: status.reasons counts them by reason, and \
             status.failedUUIDs lists them"
        );
        events.push(event(EventType::Warning, "MoreDevicesFailed", "Flash", note, None));
    }
    events
}

/// Returns one event per reason of attempts that are retried; the recorder counts repetitions.
fn retried(transitions: &Transitions<'_>) -> Vec<Event> {
    // The recorder merges events of one reason within six minutes into one with a count, so a
    // fleet that retries does not flood the API server.
    let mut by_reason: BTreeMap<&str, &DeviceStatus> = BTreeMap::new();
    for device in &transitions.retried {
        by_reason.entry(device.reason.as_deref().unwrap_or("AttemptFailed")).or_insert(device);
    }
    let of_reason = |(reason, device): (&str, &DeviceStatus)| {
        let head = format!("device {} ({}): ", device.uid, instance_name(device.name.as_deref()));
        let tail =
            format!("; attempt {} follows. status.devices lists the others", device.attempt);
        let message = device.message.as_deref().unwrap_or_default();
        event(EventType::Warning, reason, "Retry", between(&head, message, &tail), None)
    };
    by_reason.into_iter().map(of_reason).collect()
}

fn of_device(result: &DeviceResult) -> Event {
    let instance = ObjectReference {
        api_version: Some("akri.sh/v0".to_owned()),
        kind: Some("Instance".to_owned()),
        // A job may flash devices of other namespaces than its own.
        namespace: result.namespace.clone(),
        name: result.name.clone(),
        uid: Some(result.uid.clone()),
        ..ObjectReference::default()
    };
    let advice = result
        .reason
        .map(|Reason { action, .. }| format!(" What to do: {action}"))
        .unwrap_or_default();
    let head = format!("device {} ({}): ", result.uid, instance_name(result.name.as_deref()));
    let tail = format!("; the device failed.{advice}");
    let reason = result.reason.map_or("Failed", |reason| reason.name);
    let note = between(&head, &result.message, &tail);
    event(EventType::Warning, reason, "Fail", note, Some(instance))
}

fn instance_name(name: Option<&str>) -> &str {
    name.unwrap_or("unknown Instance")
}

/// Joins head, message and tail. A message that is too long is cut; head and tail are kept.
fn between(head: &str, message: &str, tail: &str) -> String {
    let room = NOTE_BYTES.saturating_sub(head.len() + tail.len());
    format!("{head}{}{tail}", shortened(message, room))
}

/// Returns the event of a transition before the end of a run. The start of a run causes none: the
/// status has its time.
fn under_way(transition: JobTransition<'_>) -> Option<Event> {
    let (kind, reason, action, note) = match transition {
        JobTransition::Suspended => {
            let note = "spec.suspend is set: devices in flight finish, and no other device starts";
            (EventType::Normal, "Suspended", "Suspend", note.to_owned())
        }
        JobTransition::Resumed => {
            (EventType::Normal, "Resumed", "Resume", "spec.suspend is no longer set".to_owned())
        }
        JobTransition::Stalled(reason, message) => {
            let advice = reason::by_name(reason)
                .map(|Reason { action, .. }| format!(". What to do: {action}"))
                .unwrap_or_default();
            (EventType::Warning, reason, "Wait", between("", message, &advice))
        }
        JobTransition::Started(_) | JobTransition::Completed(_) | JobTransition::Failed(_) => {
            return None;
        }
    };
    Some(event(kind, reason, action, note, None))
}

/// Returns the event that summarizes a run.
fn ending(transition: JobTransition<'_>, this_time: &ObjectReference) -> Option<Event> {
    let (kind, reason, message) = match transition {
        JobTransition::Completed(message) => (EventType::Normal, "Completed", message),
        JobTransition::Failed(message) => (EventType::Warning, "Failed", message),
        _ => return None,
    };
    Some(event(kind, reason, "Flash", message.to_owned(), Some(this_time.clone())))
}

fn event(
    kind: EventType,
    reason: &str,
    action: &str,
    note: String,
    related: Option<ObjectReference>,
) -> Event {
    let note = shortened(&note, NOTE_BYTES);
    Event {
        type_: kind,
        reason: reason.to_owned(),
        note: Some(note),
        action: action.to_owned(),
        secondary: related,
    }
}

#[cfg(test)]
mod tests {
    use flashjob_api::{Counts, DeviceState, FlashJobStatus, Phase};

    use super::*;

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
            namespace: Some("devices".into()),
            attempt: 1,
            finish,
            verified: false,
            reason,
            message: message.into(),
        }
    }

    fn event_texts(
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
        let texts = event_texts(
            &status,
            &status,
            &[result("a", Finish::Failed, Some(reason::UNSUPPORTED_DEVICE), "no such board")],
        );
        assert_eq!(texts.len(), 1);
        assert_eq!(texts[0].0, "UnsupportedDevice");
        assert!(
            texts[0]
                .1
                .starts_with("device a (akri-a): no such board; the device failed. What to do: "),
            "{}",
            texts[0].1
        );
    }

    #[test]
    fn a_device_that_completes_or_is_skipped_makes_no_event() {
        let status = FlashJobStatus::default();
        let results = [
            result("a", Finish::Completed, None, ""),
            result("b", Finish::Skipped, Some(reason::ALREADY_CURRENT), ""),
        ];
        assert_eq!(event_texts(&status, &status, &results), []);
    }

    fn failures(count: usize) -> Vec<DeviceResult> {
        let reason = Some(reason::NO_PLUGIN_FOR_DEVICE);
        (0..count)
            .map(|number| result(&number.to_string(), Finish::Failed, reason, "none"))
            .collect()
    }

    fn in_progress(failed: u32) -> FlashJobStatus {
        FlashJobStatus {
            run: Some("run".into()),
            phase: Some(Phase::InProgress),
            counts: Some(Counts { failed, ..Counts::default() }),
            ..FlashJobStatus::default()
        }
    }

    #[test]
    fn ten_failures_of_a_run_are_named_the_rest_is_told_once_and_the_end_of_the_job_last() {
        let after = FlashJobStatus {
            phase: Some(Phase::Failed),
            message: Some("over".into()),
            ..in_progress(4096)
        };
        let reasons = |before: FlashJobStatus, after: &FlashJobStatus, count: usize| {
            let texts = event_texts(&before, after, &failures(count));
            texts.into_iter().map(|(reason, _)| reason).collect::<Vec<_>>()
        };
        let at_once = reasons(in_progress(0), &after, 4096);
        assert_eq!(at_once.len(), 12);
        assert_eq!(at_once[9..], ["NoPluginForDevice", "MoreDevicesFailed", "Failed"]);
        let later_reasons = reasons(in_progress(8), &in_progress(12), 4);
        assert_eq!(later_reasons, ["NoPluginForDevice", "NoPluginForDevice", "MoreDevicesFailed"]);
        assert_eq!(reasons(in_progress(9), &in_progress(10), 1), ["NoPluginForDevice"]);
        assert_eq!(reasons(in_progress(10), &in_progress(11), 1), ["MoreDevicesFailed"]);
        assert_eq!(reasons(in_progress(11), &in_progress(15), 4), [""; 0]);
        // The count starts again with another run.
        let before = FlashJobStatus { run: Some("before".into()), ..in_progress(4096) };
        assert_eq!(reasons(before, &in_progress(1), 1), ["NoPluginForDevice"]);
    }

    #[test]
    fn a_long_message_is_cut_and_the_advice_is_kept() {
        let status = FlashJobStatus::default();
        let texts = event_texts(
            &status,
            &status,
            &[result("a", Finish::Failed, Some(reason::GAVE_UP), &"ä".repeat(2000))],
        );
        assert!(
            texts[0].1.len() <= NOTE_BYTES && texts[0].1.ends_with(reason::GAVE_UP.action),
            "{}",
            texts[0].1
        );
    }

    #[test]
    fn attempts_that_are_made_again_make_one_event_a_reason() {
        let device = |uid: &str, attempt: u32, reason: Option<&str>| DeviceStatus {
            uid: uid.into(),
            attempt,
            state: DeviceState::Pending,
            reason: reason.map(str::to_owned),
            ..DeviceStatus::default()
        };
        let status = |devices: Vec<DeviceStatus>| FlashJobStatus { devices, ..in_progress(0) };
        let before = status(["a", "b", "c"].map(|uid| device(uid, 1, None)).into());
        let again = [("a", "PodFailed"), ("b", "PodFailed"), ("c", "PodLost")];
        let after = status(again.map(|(uid, reason)| device(uid, 2, Some(reason))).into());
        let texts = event_texts(&before, &after, &[]);
        let reasons: Vec<&str> = texts.iter().map(|(reason, _)| reason.as_str()).collect();
        assert_eq!(reasons, ["PodFailed", "PodLost"]);
        assert!(texts[0].1.starts_with("device a (unknown Instance): "), "{}", texts[0].1);
        assert!(texts[0].1.contains("; attempt 2 follows."), "{}", texts[0].1);
    }

    #[test]
    fn a_failed_device_is_related_to_its_instance_in_the_namespace_of_that() {
        let status = FlashJobStatus::default();
        let results = failures(1);
        let transitions = Transitions::between(&status, &status, &results);
        let related = events(&job(), &transitions).remove(0).secondary.expect("an Instance");
        assert_eq!(related.namespace.as_deref(), Some("devices"));
    }

    #[test]
    fn events_of_two_devices_that_failed_for_one_reason_are_not_put_together() {
        let status = FlashJobStatus::default();
        let results = failures(2);
        let transitions = Transitions::between(&status, &status, &results);
        let related: Vec<_> = events(&job(), &transitions)
            .iter()
            .map(|event| event.secondary.as_ref().and_then(|device| device.uid.clone()))
            .collect();
        assert_eq!(related, [Some("0".to_owned()), Some("1".to_owned())]);
    }
}
