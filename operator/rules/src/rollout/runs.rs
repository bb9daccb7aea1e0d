//! Supersedes, continues and ends runs.

use flashjob_api::{
    EffectiveRollout, FlashRolloutStatus, OnFailure, PastRun, RolloutPhase, condition,
    rollout_reason,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use sha2::{Digest, Sha256};

use super::draft::Draft;
use super::gates::Hold;
use super::judge::Verdict;
use super::new_run::plan_run;
use super::plan::{Plan, Step};
use super::run_state::RunState;
use super::snapshot::{Snapshot, after};
use super::summary;

/// Number of past runs in the history.
const HISTORY: usize = 5;

/// Decides what is to be done for one rollout.
pub(super) fn decide(snapshot: &Snapshot<'_>) -> Plan {
    let rollout = snapshot.rollout;
    if rollout.deleting {
        // Garbage collection deletes the FlashJobs by their owner reference.
        return Plan::default();
    }
    let spec = match &rollout.spec {
        Ok(spec) => spec,
        Err(fault) => return summary::invalid(snapshot, fault),
    };
    let status = &rollout.status;
    if status.fingerprint.as_ref() != Some(&spec.fingerprint) {
        return supersede(snapshot, spec);
    }
    let ended = status.phase.is_some_and(RolloutPhase::is_final);
    if status.batches.is_empty() && !ended {
        let mut draft = Draft::new(snapshot, spec);
        draft.clean();
        return plan_run(snapshot, spec, draft.plan, status.clone());
    }
    continue_run(Draft::new(snapshot, spec))
}

/// Returns true if no plan for the rollout will store more results of its FlashJobs than are
/// stored now.
pub(super) fn has_stored_results(snapshot: &Snapshot<'_>) -> bool {
    let rollout = snapshot.rollout;
    match &rollout.spec {
        Ok(spec) if !rollout.deleting => {
            let mut draft = Draft::new(snapshot, spec);
            draft.superseded = rollout.status.fingerprint.as_ref() != Some(&spec.fingerprint);
            draft.has_stored_results()
        }
        // Such a rollout stores no results.
        _ => true,
    }
}

/// Lets the previous run end, and begins the one that the spec asks for.
fn supersede(snapshot: &Snapshot<'_>, spec: &EffectiveRollout) -> Plan {
    let stored = &snapshot.rollout.status;
    let mut draft = Draft::new(snapshot, spec);
    (draft.superseded, draft.goes_on) = (true, false);
    draft.follow();
    for child in &snapshot.children {
        draft.suspend(child);
    }
    let over = stored.completion_time.is_some();
    // Suspension stops new attempts only. A device in flight has to end before a FlashJob of
    // another run may flash it.
    if !snapshot.children.iter().all(|child| child.stays_quiet(over)) {
        let run = draft.run;
        let words = RunState {
            phase: RolloutPhase::Planning,
            reason: Some(rollout_reason::SUPERSEDED.name.to_owned()),
            waiting_for: Some(format!("devices of run {run} that are in flight")),
            message: format!(
                "the spec requests a new run; devices of run {run} that are in flight finish first"
            ),
            stalled: false,
        };
        return draft.finish(words);
    }
    let mut history = stored.history.clone();
    // A run without a start was never planned, so it has flashed nothing.
    if stored.start_time.is_some() {
        history.insert(0, past_run(&draft));
        history.truncate(HISTORY);
    }
    let fresh = FlashRolloutStatus {
        run: Some(run_name(&snapshot.rollout.uid, &spec.fingerprint, draft.run, &history)),
        fingerprint: Some(spec.fingerprint.clone()),
        version: Some(spec.version.clone()),
        history,
        conditions: stored.conditions.clone(),
        ..FlashRolloutStatus::default()
    };
    // FlashJobs of the previous run are cleaned up once the new run is stored.
    draft.plan.steps.clear();
    plan_run(snapshot, spec, draft.plan, fresh)
}

fn past_run(draft: &Draft<'_>) -> PastRun {
    let stored = draft.stored;
    let ended = stored.phase.filter(|phase| phase.is_final());
    PastRun {
        run: draft.run.to_owned(),
        firmware: stored.firmware.as_ref().map(|is| is.reference.clone()).unwrap_or_default(),
        version: draft.version.to_owned(),
        phase: ended.map_or_else(
            || rollout_reason::SUPERSEDED.name.to_owned(),
            |phase| format!("{phase:?}"),
        ),
        counts: draft.counts(),
        start_time: stored.start_time.clone(),
        end_time: Some(stored.completion_time.clone().unwrap_or(Time(draft.now()))),
    }
}

/// Name of a run: the same after a restart. It depends on the previous run, so that a new run with
/// the same fields gets a new name: neither approvals nor FlashJobs of a run that is no longer in
/// the history count for it.
fn run_name(uid: &str, fingerprint: &str, before: &str, history: &[PastRun]) -> String {
    let name = |number: usize| -> String {
        let digest = Sha256::digest(format!("{uid}/{fingerprint}/{before}/{number}").as_bytes());
        digest.iter().take(3).map(|byte| format!("{byte:02x}")).collect()
    };
    let is_new = |name: &String| *name != before && !history.iter().any(|past| past.run == *name);
    (0..=history.len() + 1).map(name).find(is_new).unwrap_or_else(|| name(history.len() + 2))
}

/// Continues a planned run.
fn continue_run(mut draft: Draft<'_>) -> Plan {
    let (spec, stored) = (draft.spec, draft.stored);
    let retries = spec.retry.is_some() && spec.retry != stored.retry;
    let completed = stored.phase == Some(RolloutPhase::Completed);
    let reopens = completed && retries && !draft.batches.is_empty() && !spec.abort;
    if stored.phase.is_some_and(RolloutPhase::is_final) && !reopens {
        return stay_ended(draft);
    }
    if spec.abort {
        let message = "ended by spec.abort".to_owned();
        return end(
            draft,
            RunState::ended(RolloutPhase::Aborted, rollout_reason::ABORT_REQUESTED.name, message),
        );
    }
    // The deadline of a completed run does not apply to devices that are retried later.
    draft.restarted = reopens;
    if let Some(seconds) = spec.active_deadline_seconds.filter(|_| !reopens) {
        let started = stored.start_time.as_ref().map_or(draft.now(), |time| time.0);
        let deadline = after(started, seconds);
        if deadline <= draft.now() {
            let message = format!("activeDeadlineSeconds ({seconds} s) passed at {deadline}");
            return end(
                draft,
                RunState::ended(
                    RolloutPhase::Failed,
                    rollout_reason::DEADLINE_EXCEEDED.name,
                    message,
                ),
            );
        }
        draft.wake(deadline);
    }
    draft.follow();
    // Results were read first, so that devices whose failure this plan reads are retried too.
    if retries {
        draft.try_again();
        draft.retry.clone_from(&spec.retry);
    }
    draft.watch_completed();
    work(draft)
}

/// Judges the batches, and starts the devices that may start.
fn work(mut draft: Draft<'_>) -> Plan {
    let (batch, hold, words) = loop {
        match draft.judge() {
            Verdict::Passed => {
                let batch = draft.current();
                let words = draft.completed_state();
                break (batch, None, words);
            }
            Verdict::Stopped(fault)
                if fault.may_abort && draft.spec.on_failure == OnFailure::Abort =>
            {
                let words = RunState::ended(RolloutPhase::Failed, fault.reason, fault.message);
                return end(draft, words);
            }
            Verdict::Stopped(fault) => {
                let batch = fault.batch;
                let hold = Hold::of(fault);
                let words = RunState::held(&hold);
                break (batch, Some(hold), words);
            }
            Verdict::Soaks(batch, until) => {
                draft.wake(until);
                let hold = draft.suspended();
                let words = match &hold {
                    Some(hold) => RunState::held(hold),
                    None => draft.soaking_state(batch, until),
                };
                break (batch, hold, words);
            }
            Verdict::Runs(batch) => {
                let hold = draft.gate(batch);
                if hold.is_none() && draft.begin_shard(batch) {
                    let now = Time(draft.now());
                    draft.batches[batch].started_at.get_or_insert(now);
                    draft.reopen(batch);
                }
                // All remaining devices are absent, and were moved: the batch is judged again.
                let list = &draft.lists[batch];
                if list.open() == 0 && list.shards.is_empty() {
                    continue;
                }
                let words = match &hold {
                    Some(hold) => RunState::held(hold),
                    None => draft.running_state(batch),
                };
                break (batch, hold, words);
            }
        }
    };
    let words = match draft.share(batch, hold.is_some()) {
        Some(name) => RunState::held(&Hold::name_taken(&name)),
        None => draft.refused_state().unwrap_or(words),
    };
    draft.replace_edited();
    draft.clean();
    draft.finish(words)
}

/// Ends a run before all batches passed: nothing more starts, and devices in flight finish.
fn end(mut draft: Draft<'_>, words: RunState) -> Plan {
    draft.goes_on = false;
    draft.follow();
    let batch = draft.current();
    draft.share(batch, true);
    draft.replace_edited();
    draft.clean();
    draft.finish(words)
}

/// Handles a run that has ended. Results of devices that were in flight are still read; then the
/// remaining FlashJobs that did not end are deleted, and nothing changes any more.
fn stay_ended(mut draft: Draft<'_>) -> Plan {
    let stored = draft.stored;
    draft.goes_on = false;
    draft.follow();
    let batch = draft.current();
    if !draft.batches.is_empty() {
        draft.share(batch, true);
    }
    draft.replace_edited();
    draft.clean();
    let all_stored = (0..draft.lists.len()).all(|batch| draft.is_stored(batch));
    if stored.completion_time.is_some() && all_stored {
        for (batch, shard) in draft.shards() {
            let child = draft.child(batch, &shard);
            if let Some(child) = child.filter(|child| child.is_quiet() && !child.deleting) {
                draft.delete(child);
            }
        }
    }
    let ttl = draft.spec.ttl_seconds_after_finished;
    if let (Some(seconds), Some(finished)) = (ttl, stored.completion_time.as_ref()) {
        let at = after(finished.0, seconds);
        if at <= draft.now() {
            draft.step(Step::DeleteRollout);
        } else {
            draft.wake(at);
        }
    }
    let words = ended_state(stored);
    draft.finish(words)
}

/// State of a run that has ended, taken from its condition: the message may since have reported
/// an invalid spec.
fn ended_state(stored: &FlashRolloutStatus) -> RunState {
    let phase = stored.phase.unwrap_or(RolloutPhase::Completed);
    let kind =
        if phase == RolloutPhase::Completed { condition::COMPLETE } else { condition::FAILED };
    let says = |condition: &&Condition| condition.type_ == kind && condition.status == "True";
    match stored.conditions.iter().find(says) {
        Some(condition) => RunState::ended(phase, &condition.reason, condition.message.clone()),
        None => RunState {
            reason: stored.reason.clone(),
            ..RunState::ended(phase, "", stored.message.clone().unwrap_or_default())
        },
    }
}
