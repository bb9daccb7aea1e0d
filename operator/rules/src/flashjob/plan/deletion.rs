//! Status of a FlashJob that is being deleted: no device starts any more, and none gets a result.

use std::collections::BTreeSet;

use flashjob_api::{Counts, DeviceState, DeviceStatus, FlashJobStatus, Phase, condition, reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::draft::enter;
use super::lost::{note_lost, vanished};
use super::summary::{add_begun, by_reason, failing_steps};
use super::vanished::{VanishedPods, stored_pod_name};
use crate::count::counted;
use crate::flashjob::observed::{Gone, Job, Observed, Pod};

/// Composes the status: the results stay as they are, and of the other devices those remain whose
/// Pod may be running. `awaited_pods` are the names of the Pods that are waited for, other than
/// those that are gone.
pub(super) fn status(
    observed: &Observed,
    vanished_pods: &VanishedPods,
    awaited_pods: &BTreeSet<&str>,
) -> FlashJobStatus {
    let stored = &observed.job.status;
    let devices = stored.devices.iter();
    let devices: Vec<DeviceStatus> =
        devices.filter_map(|device| remaining(observed, vanished_pods, device)).collect();
    // No turn is waited for, and no address: only Pods.
    let lost = devices.iter().filter(|device| device.state == DeviceState::Lost);
    let awaited = vanished_pods.in_words();
    let reason = if awaited.is_some() { reason::POD_LOST.name } else { condition::DELETING };
    let awaited = awaited.map(|awaited| format!("; {awaited}")).unwrap_or_default();
    let (removals, keepers) = (removals(awaited_pods), keepers(&observed.job));
    let message = format!("being deleted{awaited}{removals}{keepers}{}", failing_steps(observed));
    FlashJobStatus {
        conditions: conditions(observed, reason, &message),
        message: Some(message),
        counts: stored.counts.map(|counts| counts_with(&observed.job, counts, &devices)),
        waiting: by_reason(lost),
        devices,
        ..stored.clone()
    }
}

/// Sentence about the Pods that have to be removed first, with a leading `; `; empty if there is
/// none.
fn removals(pods: &BTreeSet<&str>) -> String {
    let Some(first) = pods.first() else { return String::new() };
    let others = match pods.len() - 1 {
        0 => String::new(),
        more => format!(" and {}", counted(more, "more Pod")),
    };
    format!("; waiting for Pod {first}{others} to be removed")
}

/// Sentence about the finalizers of other controllers, with a leading `; `; empty as long as this
/// operator's own one keeps the FlashJob.
fn keepers(job: &Job) -> String {
    let Some(first) = job.finalizers.first().filter(|_| !job.has_finalizer) else {
        return String::new();
    };
    let others = match job.finalizers.len() - 1 {
        0 => String::new(),
        others => format!(" and {}", counted(others, "other finalizer")),
    };
    format!("; kept only by the finalizer {first}{others}, which another controller has to remove")
}

/// Record of a device that has its result, or whose Pod may be running. None: nothing is left of
/// its attempts, and no other one follows.
fn remaining(
    observed: &Observed,
    vanished_pods: &VanishedPods,
    device: &DeviceStatus,
) -> Option<DeviceStatus> {
    let mut record = device.clone();
    if matches!(device.state, DeviceState::Failed | DeviceState::Skipped) {
        return Some(record);
    }
    let name = stored_pod_name(observed, device);
    // A restarted operator finds the time in the record, and keeps the device locked no longer.
    if let Some(lost) = vanished_pods.lost(&name) {
        enter(&mut record, DeviceState::Lost, observed.now);
        note_lost(&mut record, lost.until, &vanished(&name, lost.node.as_deref()));
        record.node.clone_from(&lost.node);
        record.pod = Some(name);
        return Some(record);
    }
    let pod = observed.pod(&name);
    let state = match pod {
        Some(pod) if may_be_at_work(observed, pod) => DeviceState::Flashing,
        // The Pod was deleted while no watch was running, which has to be confirmed first. Without
        // our finalizer nothing is confirmed: it was removed once no Pod could be running.
        None if device.state == DeviceState::Flashing && observed.job.has_finalizer => {
            DeviceState::Flashing
        }
        None if observed.pods_in_creation.contains_key(&name) => DeviceState::Exposing,
        _ if rollout_lacks_begin(observed, device, pod.is_some()) => {
            return Some(begun(record, observed.now));
        }
        _ => return None,
    };
    enter(&mut record, state, observed.now);
    if let Some(pod) = pod {
        record.node.clone_from(&pod.node);
    }
    record.pod = Some(name);
    record.not_before = None;
    record.reason = None;
    record.message = None;
    Some(record)
}

/// Returns true if the rollout has not stored that this run has begun with the device: nothing
/// else tells it that a new version is the work of this run.
fn rollout_lacks_begin(observed: &Observed, device: &DeviceStatus, has_pod: bool) -> bool {
    match device.has_begun() {
        true => observed.rollout_lacks_results,
        // The stored status does not show it yet, so the rollout has not read it.
        false => observed.job.part.is_some() && has_pod,
    }
}

/// Record of a device that this run has begun with, and that nothing is flashing. It names no Pod:
/// a restarted operator would take one that it does not find for lost.
fn begun(mut record: DeviceStatus, now: Timestamp) -> DeviceStatus {
    let is_noted = !record.is_locked() && record.has_begun();
    if is_noted {
        return record;
    }
    // Only the number of the next attempt shows it of a device that is not in flight.
    record.attempt = record.attempt.max(1) + 1;
    enter(&mut record, DeviceState::Pending, now);
    // Without a reason: no attempt has failed, and none follows.
    DeviceStatus {
        pod: None,
        node: None,
        external_ip: None,
        not_before: None,
        version_since: None,
        reason: None,
        message: None,
        ..record
    }
}

/// Returns true if a container of this Pod, which has not vanished, may be running.
fn may_be_at_work(observed: &Observed, pod: &Pod) -> bool {
    let is_gone = pod.gone.as_ref().is_some_and(Gone::is_confirmed);
    pod.ended.is_none() && !is_gone && !observed.is_past_its_end(pod)
}

/// Counts with these records: a device that is neither in flight nor has a result is pending.
fn counts_with(job: &Job, stored: Counts, devices: &[DeviceStatus]) -> Counts {
    let results = stored.completed + stored.failed + stored.skipped;
    let pending = stored.total.saturating_sub(results);
    // The total stays that of the spec that the status describes. Since then uids may have been
    // removed from the spec, or it cannot be read any more, so only as many devices are outside
    // the total as the stored numbers exceed it.
    let without_result = stored.pending + stored.active + stored.verifying;
    let mut outside = without_result.saturating_sub(pending);
    let mut counts = Counts { pending, active: 0, verifying: 0, ..stored };
    for device in devices.iter().filter(|device| device.is_locked()) {
        let is_outside = outside > 0 && job.place(&device.uid).is_none();
        if !is_outside && job.result(&device.uid).is_some() {
            continue;
        }
        outside -= u32::from(is_outside);
        add_begun(&mut counts, device.state.is_in_flight(), !is_outside);
    }
    counts
}

/// Conditions with this reason and message of Reconciling. A job that had ended keeps its result,
/// and one that is suspended stays so.
fn conditions(observed: &Observed, reason: &str, message: &str) -> Vec<Condition> {
    let stored = &observed.job.status;
    let mut conditions = stored.conditions.clone();
    let mut set = |kind, holds, reason| {
        condition::set(
            &mut conditions,
            kind,
            holds,
            reason,
            message,
            stored.observed_generation,
            observed.now,
        )
    };
    set(condition::RECONCILING, true, reason);
    for kind in [condition::PROGRESSING, condition::READY, condition::STALLED] {
        set(kind, false, condition::DELETING);
    }
    if !matches!(stored.phase, Some(Phase::Completed | Phase::Failed)) {
        for kind in [condition::COMPLETE, condition::FAILED] {
            set(kind, false, condition::DELETING);
        }
    }
    conditions
}
