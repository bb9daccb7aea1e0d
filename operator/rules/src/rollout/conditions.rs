//! Conditions of a rollout: those of kstatus, and its own.

use flashjob_api::{
    EffectiveRollout, FlashRolloutStatus, RolloutPhase, condition, rollout_reason,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::draft::Draft;
use super::run_state::RunState;
use super::snapshot::Snapshot;
use crate::firmware;

/// State of the approval of the batch in progress.
pub(super) enum Approval {
    NotAskedFor,
    Given,
    Missing(String),
}

impl Approval {
    pub fn of(draft: &Draft<'_>, batch: usize) -> Self {
        if batch >= draft.batches.len() {
            return Self::NotAskedFor;
        }
        match draft.wanted_approval(batch) {
            None => Self::NotAskedFor,
            Some(approval) if draft.spec.approvals.contains(&approval) => Self::Given,
            Some(approval) => Self::Missing(approval),
        }
    }
}

/// Returns all conditions for the state of the run.
pub(super) fn conditions(
    snapshot: &Snapshot<'_>,
    spec: &EffectiveRollout,
    status: &FlashRolloutStatus,
    words: &RunState,
    approval: Approval,
) -> Vec<Condition> {
    let mut conditions = status.conditions.clone();
    let generation = snapshot.rollout.generation;
    let mut set = |kind: &str, holds: bool, reason: &str, message: &str| {
        condition::set(&mut conditions, kind, holds, reason, message, generation, snapshot.now);
    };
    let reason = words.reason.as_deref().unwrap_or("Unknown");
    let message = words.message.as_str();
    let phase = words.phase;
    let failed = matches!(phase, RolloutPhase::Failed | RolloutPhase::Aborted);
    let paused = phase == RolloutPhase::Paused;
    let moves = !phase.is_final() && !paused && !words.stalled;
    set(condition::READY, phase == RolloutPhase::Completed, reason, message);
    set(condition::RECONCILING, moves, reason, message);
    set(condition::PROGRESSING, moves, reason, message);
    set(condition::COMPLETE, phase == RolloutPhase::Completed, reason, message);
    set(condition::FAILED, failed, reason, message);
    set(condition::PAUSED, paused, reason, if paused { message } else { "" });
    // kstatus has no condition for failure: it computes Failed from Stalled=True.
    let stalled = words.stalled || failed;
    set(condition::STALLED, stalled, reason, if stalled { message } else { "" });
    match approval {
        Approval::NotAskedFor => set(condition::APPROVED, true, "NotAskedFor", ""),
        Approval::Given => set(condition::APPROVED, true, "Approved", ""),
        Approval::Missing(entry) => {
            let message = format!("add {entry} to spec.approvals");
            set(condition::APPROVED, false, rollout_reason::APPROVAL_MISSING.name, &message);
        }
    }
    let (verified, reason, message) =
        firmware::verified(status.firmware.as_ref(), spec.verify_firmware);
    set(condition::FIRMWARE_VERIFIED, verified, reason, &message);
    conditions
}
