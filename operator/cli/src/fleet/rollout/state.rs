//! Meaning of the status of a FlashRollout.

use flashjob_api::{
    BatchState, BatchStatus, FlashRollout, FlashRolloutStatus, RolloutPhase, RolloutReason,
    rollout_reason,
};
use kube::ResourceExt;

use crate::fleet::workload::{Workload, command_for, resuming};

/// Returns the status; an empty one if the operator has not written any.
pub fn status(rollout: &FlashRollout) -> FlashRolloutStatus {
    rollout.status.clone().unwrap_or_default()
}

/// Returns true if the status is that of the run that the spec asks for.
pub fn is_of_this_run(rollout: &FlashRollout) -> bool {
    let fingerprint = rollout.spec.effective().ok().map(|spec| spec.fingerprint);
    // An invalid spec has no fingerprint; it must not equal a status that has none either.
    fingerprint.is_some() && status(rollout).fingerprint == fingerprint
}

/// Returns true if the run waits for a person, whatever the cause.
pub fn is_paused(rollout: &FlashRollout) -> bool {
    status(rollout).phase == Some(RolloutPhase::Paused)
}

/// Returns the name of the batch that waits for its approval, if there is one.
pub fn awaited_approval(rollout: &FlashRollout) -> Option<String> {
    let status = rollout.status.as_ref()?;
    // In another phase, such as Paused, an approval alone lets no batch start.
    if status.phase != Some(RolloutPhase::Waiting) || !is_of_this_run(rollout) {
        return None;
    }
    let batch = current(status)?;
    let run = status.run.as_deref()?;
    (asks(rollout, &batch.name) && !is_approved(rollout, &batch.name, run))
        .then(|| batch.name.clone())
}

/// Returns the first batch that has not passed.
fn current(status: &FlashRolloutStatus) -> Option<&BatchStatus> {
    status.batches.iter().find(|batch| batch.state != BatchState::Passed)
}

/// Returns true if the batch of that name starts only once it is approved.
pub fn asks(rollout: &FlashRollout, batch: &str) -> bool {
    let mut batches = rollout.spec.batches.iter().flatten();
    batches.any(|written| written.name == batch && written.approval == Some(true))
}

/// Returns true if the batch is approved for this run.
pub fn is_approved(rollout: &FlashRollout, batch: &str, run: &str) -> bool {
    let expected_approval = format!("{batch}@{run}");
    rollout.spec.approvals.iter().flatten().any(|approval| *approval == expected_approval)
}

/// Returns the runs other than this one that approvals of the batch name; they have no effect on
/// this run.
pub fn other_approved_runs(rollout: &FlashRollout, batch: &str, run: &str) -> Vec<String> {
    let approvals = rollout.spec.approvals.iter().flatten();
    let of_batch =
        approvals.filter_map(|approval| approval.strip_prefix(batch)?.strip_prefix('@'));
    of_batch.filter(|approved| *approved != run).map(str::to_owned).collect()
}

/// Returns the commands that continue or end a paused run, as the end of a sentence.
pub fn going_on(rollout: &FlashRollout) -> String {
    if rollout.is_suspended() {
        return resuming(rollout);
    }
    let abort = format!("{} ends the run", command_for("abort", rollout));
    let retry = command_for("retry", rollout);
    match retried(rollout) {
        // If the registry does not answer or a name is taken, the run continues once that is
        // resolved.
        0 if !lacks_proof(rollout) => abort,
        0 => format!("{retry} continues without this proof; {abort}"),
        _ => format!("{retry} retries failed devices; {abort}"),
    }
}

/// Returns the number of devices that a retry starts again.
pub fn retried(rollout: &FlashRollout) -> u32 {
    let counts = status(rollout).counts.unwrap_or_default();
    counts.failed + counts.absent + counts.regressed
}

/// Returns true if the run is paused because no device of a batch completed.
pub fn lacks_proof(rollout: &FlashRollout) -> bool {
    let reason = status(rollout).reason;
    is_paused(rollout) && reason.as_deref() == Some(rollout_reason::NOTHING_PROVEN.name)
}

/// Returns the reason of the status that a person must act on, except those that a command
/// resolves.
pub fn advice(rollout: &FlashRollout) -> Option<RolloutReason> {
    const BY_COMMAND: [RolloutReason; 2] =
        [rollout_reason::APPROVAL_MISSING, rollout_reason::SUSPEND_REQUESTED];
    let name = status(rollout).reason?;
    let reason = rollout_reason::ALL.iter().copied().find(|reason| reason.name == name)?;
    (reason.action != "Nothing." && !BY_COMMAND.contains(&reason)).then_some(reason)
}

/// Returns the command that approves a batch.
pub fn approving(rollout: &FlashRollout, batch: &str) -> String {
    format!(
        "kubectl flashjob rollout approve {}/{batch} -n {}",
        rollout.name_any(),
        rollout.namespace().unwrap_or_default()
    )
}
