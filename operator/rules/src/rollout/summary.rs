//! Composes the status: counts, progress and one sentence.

use flashjob_api::{
    BatchMembers, BatchState, BatchStatus, EffectiveRollout, FlashRolloutStatus, LeftOut,
    RolloutCounts, RolloutPhase, condition, rollout_reason,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value};

use super::conditions::{Approval, conditions};
use super::draft::Draft;
use super::member_states::{List, Member, differ_beyond_results};
use super::members::Planned;
use super::plan::{Plan, Step};
use super::run_state::RunState;
use super::snapshot::{Child, Snapshot};
use crate::count::counted;
use crate::text;

/// Returns the numbers of devices that were left out, as part of a sentence.
pub(super) fn left_out(left_out: &LeftOut) -> String {
    let parts = [
        (left_out.current, "already report the version"),
        (left_out.newer, "report a higher version"),
        (left_out.too_old, "report a version below minVersion"),
        (left_out.duplicates, "are duplicates"),
        (left_out.unknown_comparison, "were planned without comparing versions"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, text)| format!("{count} {text}")).collect();
    parts.join(", ")
}

/// Adds the members of a new run to its status.
pub(super) fn add_members(status: &mut FlashRolloutStatus, planned: Planned) {
    for (name, instances) in planned.batches {
        let results = Member::Open.letter().to_string().repeat(instances.len());
        let planned = number(instances.len());
        let counts = RolloutCounts { planned, ..RolloutCounts::default() };
        status.batches.push(BatchStatus { name, planned, counts, ..BatchStatus::default() });
        status.members.push(BatchMembers { instances, results, ..BatchMembers::default() });
    }
    let planned = status.batches.iter().map(|batch| batch.planned).sum();
    status.counts = Some(RolloutCounts { planned, ..RolloutCounts::default() });
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Appends the non-zero counts to a sentence.
fn add_counts(sentence: &mut String, parts: &[(u32, &str)]) {
    for (count, text) in parts.iter().filter(|(count, _)| *count > 0) {
        sentence.push_str(&format!(", {count} {text}"));
    }
}

/// Number of devices of one batch in each state, without those that have begun.
fn counts_of(list: &List<'_>) -> RolloutCounts {
    let count = |state| number(list.count(state));
    let unverified = count(Member::Unverified);
    RolloutCounts {
        planned: number(list.names.len()),
        completed: count(Member::Completed) + unverified,
        unverified,
        failed: count(Member::Failed) + count(Member::Retry),
        skipped: count(Member::Skipped),
        absent: count(Member::Absent),
        regressed: count(Member::Regressed),
        ..RolloutCounts::default()
    }
}

/// Returns the counts plus the devices that these FlashJobs have begun.
fn with_begun<'a>(
    counts: RolloutCounts,
    children: impl Iterator<Item = &'a Child<'a>>,
) -> RolloutCounts {
    children.fold(counts, |counts, child| RolloutCounts {
        in_flight: counts.in_flight + child.counts().active,
        verifying: counts.verifying + child.counts().verifying,
        ..counts
    })
}

/// Number of devices with a result.
fn devices_with_result(counts: &RolloutCounts) -> u32 {
    counts.completed + counts.failed + counts.skipped + counts.absent + counts.regressed
}

impl Draft<'_> {
    /// Number of devices of the run in each state.
    pub(super) fn counts(&self) -> RolloutCounts {
        let begun_counts = with_begun(RolloutCounts::default(), self.snapshot.children.iter());
        self.lists.iter().map(counts_of).fold(begun_counts, |sum, counts| RolloutCounts {
            planned: sum.planned + counts.planned,
            completed: sum.completed + counts.completed,
            unverified: sum.unverified + counts.unverified,
            failed: sum.failed + counts.failed,
            skipped: sum.skipped + counts.skipped,
            absent: sum.absent + counts.absent,
            regressed: sum.regressed + counts.regressed,
            ..sum
        })
    }

    fn batch_counts(&self, batch: usize) -> RolloutCounts {
        let shards = self.lists[batch].shards.iter();
        let children = shards.filter_map(|shard| self.child(batch, shard));
        with_begun(counts_of(&self.lists[batch]), children)
    }

    fn place_of(&self, batch: usize) -> String {
        format!("{}/{} {}", batch + 1, self.batches.len(), self.batches[batch].name)
    }

    pub(super) fn running_state(&self, batch: usize) -> RunState {
        let counts = self.batch_counts(batch);
        let mut message = format!(
            "batch {}: {} of {} devices completed",
            self.place_of(batch),
            counts.completed,
            counts.planned
        );
        let parts = [
            (counts.in_flight, "in flight"),
            (counts.verifying, "verifying"),
            (counts.failed, "failed"),
            (counts.regressed, "regressed"),
            (counts.absent, "absent"),
            (counts.skipped, "skipped"),
        ];
        add_counts(&mut message, &parts);
        let waiting_for = (counts.in_flight + counts.verifying == 0)
            .then(|| self.waits_in_child(batch))
            .flatten();
        RunState {
            phase: RolloutPhase::Progressing,
            reason: Some(rollout_reason::FLASHING.name.to_owned()),
            waiting_for,
            message,
            stalled: false,
        }
    }

    /// Reason for which the devices of a FlashJob wait, if no device has begun.
    fn waits_in_child(&self, batch: usize) -> Option<String> {
        self.lists[batch].shards.iter().find_map(|shard| {
            let child = self.child(batch, shard)?;
            let most = child.status.waiting.iter().max_by_key(|(_, count)| **count)?;
            Some(format!(
                "FlashJob {}: {} {}",
                child.name,
                counted(*most.1 as usize, "device"),
                most.0
            ))
        })
    }

    /// Returns the state of a run whose FlashJobs the API server refuses; the request is retried.
    pub(super) fn refused_state(&self) -> Option<RunState> {
        let refused = self.snapshot.refused?;
        let asks = |step: &Step| matches!(step, Step::CreateChild(_) | Step::PatchChild { .. });
        self.plan.steps.iter().any(asks).then(|| RunState {
            phase: RolloutPhase::Waiting,
            reason: Some(rollout_reason::FLASH_JOB_REFUSED.name.to_owned()),
            waiting_for: Some("the API server to accept a FlashJob".to_owned()),
            message: format!("the API server refuses a FlashJob of this rollout: {refused}"),
            stalled: true,
        })
    }

    pub(super) fn soaking_state(&self, batch: usize, until: Timestamp) -> RunState {
        RunState {
            phase: RolloutPhase::Soaking,
            reason: Some(rollout_reason::SOAKING.name.to_owned()),
            waiting_for: Some(format!(
                "the soak of batch {} (ends at {until})",
                self.batches[batch].name
            )),
            message: format!("batch {} ended and is observed until {until}", self.place_of(batch)),
            stalled: false,
        }
    }

    pub(super) fn completed_state(&self) -> RunState {
        let counts = self.counts();
        let mut message = format!("{} of {} devices completed", counts.completed, counts.planned);
        let parts = [
            (counts.unverified, "without proof"),
            (counts.failed, "failed"),
            (counts.regressed, "regressed"),
            (counts.absent, "absent"),
            (counts.skipped, "skipped"),
        ];
        add_counts(&mut message, &parts);
        RunState::ended(RolloutPhase::Completed, rollout_reason::ALL_BATCHES_PASSED.name, message)
    }

    /// Completes the plan with the status, if it differs from the stored one.
    pub(super) fn finish(mut self, words: RunState) -> Plan {
        let stored = self.stored;
        let counts = self.counts();
        for batch in 0..self.batches.len() {
            self.batches[batch].counts = self.batch_counts(batch);
        }
        let current = self.current();
        let approval = Approval::of(&self, current);
        let members: Vec<BatchMembers> = (0..self.lists.len())
            .map(|batch| match stored.members.get(batch) {
                Some(stored) if self.lists[batch].is(stored) => stored.clone(),
                _ => self.lists[batch].store(),
            })
            .collect();
        let ended = words.phase.is_final();
        let before = stored.completion_time.clone().filter(|_| !self.restarted || ended);
        let is_quiet = |child: &Child<'_>| child.stays_quiet(before.is_some());
        let over = ended && self.snapshot.children.iter().all(is_quiet);
        let status = FlashRolloutStatus {
            run: stored.run.clone(),
            fingerprint: stored.fingerprint.clone(),
            version: stored.version.clone(),
            firmware: self.firmware.take(),
            batch: (!self.batches.is_empty()).then(|| self.place_of(current)),
            progress: Some(format!("{}/{}", devices_with_result(&counts), counts.planned)),
            counts: Some(counts),
            left_out: stored.left_out,
            reasons: std::mem::take(&mut self.reasons),
            batches: std::mem::take(&mut self.batches),
            members,
            failed: std::mem::take(&mut self.failed),
            history: stored.history.clone(),
            retry: self.retry.take(),
            // `activeDeadlineSeconds` of a run that `retry` has reopened counts from its new
            // start.
            start_time: if self.restarted && !ended {
                Some(Time(self.now()))
            } else {
                stored.start_time.clone()
            },
            completion_time: if over { before.or(Some(Time(self.now()))) } else { None },
            conditions: stored.conditions.clone(),
            ..FlashRolloutStatus::default()
        };
        let mut plan = std::mem::take(&mut self.plan);
        plan.urgent = self.is_waited_for(&status.members);
        write_with(self.snapshot, self.spec, status, words, plan, approval)
    }
}

impl Draft<'_> {
    /// Returns true if something waits until these members are stored: a FlashJob to be created,
    /// or one that was edited or is being deleted and is kept until then.
    fn is_waited_for(&self, members: &[BatchMembers]) -> bool {
        let stored = &self.stored.members;
        members != stored
            && (differ_beyond_results(members, stored)
                || !self.edited.is_empty()
                || self.snapshot.children.iter().any(|child| child.deleting))
    }
}

/// Adds a status without members to the plan, if it differs from the stored one.
pub(super) fn write(
    snapshot: &Snapshot<'_>,
    spec: &EffectiveRollout,
    mut status: FlashRolloutStatus,
    words: RunState,
    plan: Plan,
) -> Plan {
    if words.phase.is_final() {
        status.completion_time.get_or_insert(Time(snapshot.now));
    }
    write_with(snapshot, spec, status, words, plan, Approval::NotAskedFor)
}

fn write_with(
    snapshot: &Snapshot<'_>,
    spec: &EffectiveRollout,
    mut status: FlashRolloutStatus,
    words: RunState,
    mut plan: Plan,
    approval: Approval,
) -> Plan {
    let (rollout, stored) = (snapshot.rollout, &snapshot.rollout.status);
    status.conditions = conditions(snapshot, spec, &status, &words, approval);
    status.phase = Some(words.phase);
    status.reason = words.reason;
    status.waiting_for = words.waiting_for;
    status.message = Some(text::beginning(&words.message, 1024));
    status.observed_generation = rollout.generation;
    // Counts and results change with every device and can wait: the FlashJobs keep the results.
    // Changes that other decisions wait for are written soon.
    plan.urgent |= status.phase != stored.phase
        || !status.batches.iter().map(moments).eq(stored.batches.iter().map(moments))
        || status.run != stored.run
        || status.retry != stored.retry
        || status.completion_time != stored.completion_time
        || status.waiting_for != stored.waiting_for;
    plan.status = (status != *stored).then_some(status);
    plan.urgent &= plan.status.is_some();
    plan
}

/// Part of a batch's status that is lost permanently if it is not stored.
fn moments(batch: &BatchStatus) -> (BatchState, Option<&Time>, Option<&Time>) {
    (batch.state, batch.started_at.as_ref(), batch.ended_at.as_ref())
}

/// Plans for a FlashRollout that is invalid. The stored status and every FlashJob are left
/// unchanged, except that a run that is suspended or aborted starts no more devices, and that an
/// abort ends a run that was never planned.
pub(super) fn invalid(snapshot: &Snapshot<'_>, fault: &str) -> Plan {
    let rollout = snapshot.rollout;
    let mut status = rollout.status.clone();
    // Such a run has no devices whose results could still be read, so it need not wait for a valid
    // spec to end.
    let ends = rollout.is_aborted && status.start_time.is_none();
    let (reason, message) = match (ends, rollout.is_held) {
        (true, _) => (
            rollout_reason::ABORT_REQUESTED.name,
            format!(
                "spec.abort is true: this run ended before it was planned; this FlashRollout is \
                 invalid: {fault}"
            ),
        ),
        (false, true) => (
            rollout_reason::INVALID_SPEC.name,
            format!(
                "this FlashRollout is invalid: {fault}; no device starts, because spec.suspend or \
                 spec.abort is true"
            ),
        ),
        (false, false) => {
            (rollout_reason::INVALID_SPEC.name, format!("this FlashRollout is invalid: {fault}"))
        }
    };
    let mut set = |kind, holds| {
        let (generation, now) = (rollout.generation, snapshot.now);
        let kinds = &mut status.conditions;
        condition::set(kinds, kind, holds, reason, &message, generation, now);
    };
    for kind in [condition::READY, condition::RECONCILING, condition::PROGRESSING] {
        set(kind, false);
    }
    set(condition::STALLED, true);
    if ends {
        set(condition::COMPLETE, false);
        set(condition::PAUSED, false);
        set(condition::FAILED, true);
        status.phase = Some(RolloutPhase::Aborted);
        status.completion_time.get_or_insert(Time(snapshot.now));
    }
    status.message = Some(text::beginning(&message, 1024));
    status.reason = Some(reason.to_owned());
    status.waiting_for = (!ends).then(|| "a valid spec".to_owned());
    status.observed_generation = rollout.generation;
    let changed = status != rollout.status;
    let working = snapshot.children.iter().filter(|child| {
        rollout.is_held
            && child.spec.suspend != Some(true)
            && !child.has_ended()
            && !child.deleting
    });
    let suspend = working.map(|child| Step::PatchChild {
        name: child.name.to_owned(),
        uid: child.uid.to_owned(),
        spec: Map::from_iter([("suspend".to_owned(), Value::Bool(true))]),
        resource_version: None,
    });
    let steps = suspend.collect();
    Plan { steps, status: changed.then_some(status), urgent: changed, ..Plan::default() }
}
