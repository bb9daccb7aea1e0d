//! Composes the status: counts, phase, conditions and one sentence.

use std::collections::BTreeMap;

use flashjob_api::{
    Counts, DeviceState, DeviceStatus, FlashJobStatus, Phase, PluginStatus, ResultDetails,
    condition, reason,
};
use hashbrown::HashSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::draft::Draft;
use super::holds::holds;
use super::steps::{Plan, Step};
use crate::firmware::verified;
use crate::flashjob::observed::{Finish, Observed, after};
use crate::text;

/// Maximum number of repeatedly failing steps that the message describes; the others are counted.
const TOLD_STEPS: usize = 2;
/// Longest description of such a step, in characters.
const STEP_LENGTH: usize = 300;

impl Draft<'_> {
    /// Composes the status and returns the plan.
    pub fn finish(mut self) -> Plan {
        let in_flight: Vec<String> = self
            .records
            .values()
            .filter(|record| record.is_locked())
            .map(|record| record.uid.clone())
            .collect();
        for uid in in_flight {
            let identities = self.identities(&uid);
            self.plan.holds.extend(identities.into_iter().map(|identity| (identity, uid.clone())));
        }
        // Results decided in this plan are not stored yet: if the process is killed now, its
        // successor finds the attempt in flight, so the stored locks are kept.
        self.plan.holds.extend(holds(self.observed));
        write(&mut self);
        self.plan
    }
}

/// Composes the status of a valid job, if it could be stored.
fn write(draft: &mut Draft<'_>) {
    let stored = &draft.observed.job.status;
    let counts = counts(draft);
    // A device that was taken out of the spec has no result to come, and may still be flashed.
    let is_busy = counts.active + counts.verifying > 0;
    let over = !is_busy && counts.completed + counts.failed + counts.skipped >= counts.total;
    // No Pod is created before the run is stored, and rollouts and `kubectl wait` act on the end
    // of a job, so neither status waits for its turn.
    draft.plan.urgent |= over || stored.run.as_ref() != Some(&draft.spec.run);
    if draft.observed.report.may_store(draft.plan.urgent) {
        draft.plan.status = Some(words(draft, counts, over));
    }
    // The time counts from the stored end, so that no job is deleted before its results were
    // stored.
    let finished =
        stored.completion_time.as_ref().filter(|_| over && draft.same_run).map(|time| time.0);
    if let (Some(seconds), Some(finished)) = (draft.spec.ttl_seconds_after_finished, finished) {
        let at = after(finished, seconds);
        if at > draft.now() {
            draft.wake(at);
        } else if !has_pod_at_work(draft.observed) {
            draft.step(Step::DeleteJob);
        }
    }
}

/// Returns true if a Pod may still be flashing a device, although no record has that attempt: it
/// would be deleted with the job.
fn has_pod_at_work(observed: &Observed) -> bool {
    observed.pods.iter().any(|pod| pod.may_run() && !observed.is_overdue(pod))
        || !observed.pods_in_creation.is_empty()
}

fn words(draft: &Draft<'_>, counts: Counts, over: bool) -> FlashJobStatus {
    let stored = &draft.observed.job.status;
    let stopped = draft
        .listed_devices
        .iter()
        .any(|device| device.reason.as_deref() == Some(reason::JOB_STOPPED.name));
    let phase = match over {
        false => Phase::InProgress,
        true if counts.failed == 0 && !stopped => Phase::Completed,
        true => Phase::Failed,
    };
    let before =
        stored.completion_time.clone().filter(|_| draft.same_run && stored.phase == Some(phase));
    let completion_time = over.then(|| before.unwrap_or(Time(draft.now())));
    let start_time =
        stored.start_time.clone().filter(|_| draft.same_run).unwrap_or(Time(draft.now()));
    let message = message(draft, &counts, over);
    let conditions = conditions(draft, &counts, phase, &message);
    let list = |finish: Finish| -> Vec<String> {
        let with = |(place, _): &(usize, &String)| draft.result_at(*place) == Some(finish);
        draft.spec.uuid.iter().enumerate().filter(with).map(|(_, uid)| uid.clone()).collect()
    };
    FlashJobStatus {
        phase: Some(phase),
        message: Some(message),
        progress: Some(format!(
            "{}/{}",
            counts.completed + counts.failed + counts.skipped,
            counts.total
        )),
        host_endpoint: draft.last_endpoint.clone(),
        completed_uuids: list(Finish::Completed),
        failed_uuids: list(Finish::Failed),
        skipped_uuids: list(Finish::Skipped),
        counts: Some(counts),
        reasons: draft.reasons.clone(),
        waiting: waiting(draft),
        devices: devices(draft),
        results: details(draft),
        plugins: plugins(draft),
        firmware: draft.proven.status().cloned(),
        run: Some(draft.spec.run.clone()),
        start_time: Some(start_time),
        completion_time,
        observed_generation: draft.observed.job.generation,
        conditions,
    }
}

/// Plans for a FlashJob whose spec is invalid.
pub(super) fn invalid(observed: &Observed, error: &str) -> Plan {
    let mut status = observed.job.status.clone();
    let message = format!("this FlashJob is invalid: {error}");
    let generation = observed.job.generation;
    let mut set = |kind, holds, reason| {
        condition::set(
            &mut status.conditions,
            kind,
            holds,
            reason,
            &message,
            generation,
            observed.now,
        )
    };
    for kind in [
        condition::PROGRESSING,
        condition::COMPLETE,
        condition::FAILED,
        condition::SUSPENDED,
        condition::READY,
        condition::RECONCILING,
    ] {
        set(kind, false, "InvalidSpec");
    }
    set(condition::STALLED, true, "InvalidSpec");
    status.phase = Some(Phase::InProgress);
    status.completion_time = None;
    status.message = Some(message.clone());
    status.observed_generation = generation;
    Plan { status: Some(status), holds: holds(observed), ..Plan::default() }
}

/// Status while requests keep failing and there is nothing else to report: only the message
/// changes. Once they succeed, the message is `otherwise`.
pub(super) fn held_up(observed: &Observed, otherwise: &str) -> Option<FlashJobStatus> {
    let failing = failing_steps(observed);
    let message = match failing.strip_prefix("; ") {
        Some(failing) => failing,
        None if observed.has_reported_failing_steps => otherwise,
        None => return None,
    };
    Some(FlashJobStatus { message: Some(message.to_owned()), ..observed.job.status.clone() })
}

/// Requests that keep failing, each with a leading `; `; at most two, then the number of others.
pub(super) fn failing_steps(observed: &Observed) -> String {
    let failing = &observed.failing_steps;
    let steps = failing.values().take(TOLD_STEPS);
    let sentences = steps.map(|step| format!("; {}", text::beginning(step, STEP_LENGTH)));
    let more = failing.len().saturating_sub(TOLD_STEPS);
    let more = (more > 0).then(|| format!("; {more} more requests keep failing"));
    sentences.chain(more).collect()
}

/// Status while devices of the previous run are in flight: only the message and the conditions
/// change.
pub(super) fn draining(observed: &Observed, message: &str) -> FlashJobStatus {
    let mut status = FlashJobStatus {
        message: Some(message.to_owned()),
        phase: Some(Phase::InProgress),
        ..observed.job.status.clone()
    };
    status.completion_time = None;
    // Kubernetes API conventions: a status describes the generation that `observedGeneration`
    // names. The run of the new generation has not begun.
    let generation = observed.job.status.observed_generation;
    let mut set = |kind, holds| {
        condition::set(
            &mut status.conditions,
            kind,
            holds,
            "SpecChanged",
            message,
            generation,
            observed.now,
        )
    };
    set(condition::PROGRESSING, true);
    set(condition::RECONCILING, true);
    for kind in [
        condition::COMPLETE,
        condition::FAILED,
        condition::SUSPENDED,
        condition::STALLED,
        condition::READY,
    ] {
        set(kind, false);
    }
    status
}

fn counts(draft: &Draft<'_>) -> Counts {
    let mut counts = Counts { total: number(draft.spec.uuid.len()), ..Counts::default() };
    for place in 0..draft.spec.uuid.len() {
        match draft.result_at(place) {
            Some(Finish::Completed) => counts.completed += 1,
            Some(Finish::Failed) => counts.failed += 1,
            Some(Finish::Skipped) => counts.skipped += 1,
            None => counts.pending += 1,
        }
    }
    for record in draft.records.values().filter(|record| record.is_locked()) {
        let is_in_spec = draft.is_in_spec(&record.uid);
        if is_in_spec && draft.result(&record.uid).is_some() {
            continue;
        }
        add_begun(&mut counts, draft.is_in_flight(record), is_in_spec);
    }
    // A status written before results had details does not tell which uids that were taken out of
    // the spec are in the stored number.
    counts.unverified = draft.unverified.min(counts.completed);
    counts
}

/// Counts a device whose attempt has begun, and which is among the pending ones if the spec names
/// it.
pub(super) fn add_begun(counts: &mut Counts, is_in_flight: bool, is_in_spec: bool) {
    *if is_in_flight { &mut counts.active } else { &mut counts.verifying } += 1;
    // The total has only the devices of the spec.
    counts.pending = counts.pending.saturating_sub(u32::from(is_in_spec));
}

/// Number of devices that were taken out of the spec while their attempt was in progress.
fn removed_in_flight(draft: &Draft<'_>) -> u32 {
    let locked = draft.records.values().filter(|record| record.is_locked());
    number(locked.filter(|record| !draft.is_in_spec(&record.uid)).count())
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Number of devices without a result that have a reason to wait, by reason.
fn waiting(draft: &Draft<'_>) -> BTreeMap<String, u32> {
    let mut waiting = by_reason(draft.records.values());
    // Some devices counted in `draft.waiting` also have a record with that reason.
    for (reason, (count, _)) in &draft.waiting {
        let recorded: &mut u32 = waiting.entry((*reason).to_owned()).or_default();
        *recorded = (*recorded).max(number(*count));
    }
    waiting
}

/// Number of devices by reason, without those that have none.
pub(super) fn by_reason<'a>(
    records: impl Iterator<Item = &'a DeviceStatus>,
) -> BTreeMap<String, u32> {
    let mut reasons: BTreeMap<String, u32> = BTreeMap::new();
    for reason in records.filter_map(|record| record.reason.as_ref()) {
        *reasons.entry(reason.clone()).or_default() += 1;
    }
    reasons
}

/// Devices at work first, in the order of the spec; then failures, then skips.
fn devices(draft: &Draft<'_>) -> Vec<DeviceStatus> {
    // Devices that the spec no longer names come last.
    let mut records: Vec<&DeviceStatus> = draft.records.values().collect();
    records.sort_by_cached_key(|record| {
        let place = draft.observed.job.place(&record.uid);
        (place.is_none(), place, place.is_none().then(|| record.uid.clone()))
    });
    let failed = draft.listed_devices.iter().filter(|device| device.state == DeviceState::Failed);
    let skipped =
        draft.listed_devices.iter().filter(|device| device.state == DeviceState::Skipped);
    let room = 100usize.saturating_sub(failed.clone().count());
    records.into_iter().chain(failed).chain(skipped.take(room)).cloned().collect()
}

/// Details of the results, stored or decided in this plan, of devices that the spec still names.
fn details(draft: &Draft<'_>) -> BTreeMap<String, ResultDetails> {
    let stored = draft.observed.job.status.results.iter().filter(|_| draft.same_run);
    let all = stored.chain(&draft.details);
    let kept = all.filter(|(uid, _)| draft.is_in_spec(uid) && draft.result(uid).is_some());
    kept.map(|(uid, details)| (uid.clone(), details.clone())).collect()
}

fn plugins(draft: &Draft<'_>) -> Vec<PluginStatus> {
    let mut names = HashSet::new();
    let mut plugins: Vec<PluginStatus> = Vec::new();
    let mut types = HashSet::new();
    for uid in draft.records.keys() {
        let kind = draft.instance(uid).and_then(|instance| instance.traits().device_type);
        if !types.insert(kind) {
            continue;
        }
        let Some(plugin) = draft.plugin_for(uid) else { continue };
        if !names.insert(plugin.name.clone()) {
            continue;
        }
        let ready = plugin.ready.as_ref().ok();
        plugins.push(PluginStatus {
            name: plugin.name.clone(),
            reference: Some(plugin.reference.clone()),
            digest: ready.map(|ready| ready.digest.to_string()),
            version: ready.map(|ready| ready.version.clone()),
        });
    }
    let stored = draft.observed.job.status.plugins.iter().filter(|_| draft.same_run);
    plugins.extend(stored.filter(|plugin| !names.contains(&plugin.name)).cloned());
    plugins.sort_by(|left, right| left.name.cmp(&right.name));
    plugins
}

fn message(draft: &Draft<'_>, counts: &Counts, over: bool) -> String {
    let mut parts = Vec::new();
    let mut part = |count: u32, text: &str| {
        if count > 0 {
            parts.push(format!("{count} {text}"));
        }
    };
    part(counts.active, "in flight");
    part(counts.verifying, "verifying");
    part(removed_in_flight(draft), "of these removed from spec.uuid");
    part(counts.pending, if draft.spec.suspend { "held back by suspend" } else { "waiting" });
    part(counts.failed, "failed");
    part(counts.skipped, "skipped");
    part(counts.unverified, "completed without proof");
    let rest = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    let mut text = format!("{} of {} devices completed{rest}", counts.completed, counts.total);
    let why = if over {
        None
    } else {
        draft
            .waiting
            .iter()
            .next()
            .map(|(reason, (count, message))| format!("; {count} {reason}: {message}"))
    };
    text.push_str(&why.unwrap_or_default());
    if let Some(failed) =
        draft.listed_devices.iter().rev().find(|device| device.state == DeviceState::Failed)
    {
        let reason = failed.reason.as_deref().unwrap_or_default();
        text.push_str(&format!(
            "; last failure: {} {reason}: {}",
            failed.uid,
            failed.message.as_deref().unwrap_or_default()
        ));
    }
    text.push_str(&failing_steps(draft.observed));
    let unused: Vec<&str> = draft
        .spec
        .settings
        .keys()
        .map(String::as_str)
        .filter(|name| !draft.observed.plugins.iter().any(|plugin| plugin.name == **name))
        .collect();
    if !unused.is_empty() {
        text.push_str(&format!(
            "; spec.settings has entries for plugins that are not configured: {}",
            unused.join(", ")
        ));
    }
    text::beginning(&text, 1024)
}

fn conditions(draft: &Draft<'_>, counts: &Counts, phase: Phase, message: &str) -> Vec<Condition> {
    let job = &draft.observed.job;
    let mut conditions = job.status.conditions.clone();
    let mut set = |kind: &str, holds: bool, reason: &str, text: &str| {
        condition::set(&mut conditions, kind, holds, reason, text, job.generation, draft.now());
    };
    let busy = counts.active + counts.verifying > 0;
    // All remaining devices wait for a plugin that cannot be called, or for firmware that a person
    // has to fix. Every other wait ends by itself.
    let stuck = [Some(reason::PLUGIN_NOT_READY), draft.proven.stuck];
    let stuck = stuck.into_iter().flatten();
    let stuck: Vec<_> = stuck.filter_map(|why| draft.waiting.get_key_value(why.name)).collect();
    let waiting = stuck.iter().map(|(_, (count, _))| number(*count)).sum::<u32>();
    let is_stalled = phase == Phase::InProgress && !busy && waiting >= counts.pending;
    let stalled = stuck.first().filter(|_| is_stalled);
    let held_back = draft.spec.suspend && !busy;
    let reason = match phase {
        Phase::InProgress if stalled.is_some() => "Stalled",
        Phase::InProgress if held_back => "Suspended",
        Phase::InProgress if busy => "Flashing",
        Phase::InProgress => "Waiting",
        Phase::Completed => "Completed",
        Phase::Failed => "DevicesFailed",
    };
    let moves = phase == Phase::InProgress && stalled.is_none() && !held_back;
    set(condition::PROGRESSING, moves, reason, message);
    set(condition::RECONCILING, moves, reason, message);
    set(condition::READY, phase == Phase::Completed, reason, message);
    set(condition::COMPLETE, phase == Phase::Completed, reason, message);
    set(condition::FAILED, phase == Phase::Failed, reason, message);
    let suspended = draft.spec.suspend && phase == Phase::InProgress;
    set(
        condition::SUSPENDED,
        suspended,
        if suspended { "SuspendRequested" } else { "NotSuspended" },
        "",
    );
    match stalled {
        Some((why, (_, text))) => set(condition::STALLED, true, why, text),
        // kstatus has no condition for failure: it computes Failed from Stalled=True.
        None if phase == Phase::Failed => set(condition::STALLED, true, reason, message),
        None => set(condition::STALLED, false, "Moving", ""),
    }
    let firmware = draft.proven.valid();
    let verify = draft.firmware_verification();
    if firmware.is_some() || verify.is_some() {
        let (verified, reason, message) = verified(firmware, verify.unwrap_or_default());
        set(condition::FIRMWARE_VERIFIED, verified, reason, &message);
    } else {
        conditions.retain(|condition| condition.type_ != condition::FIRMWARE_VERIFIED);
    }
    conditions
}
