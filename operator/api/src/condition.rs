//! Types and helpers of `status.conditions`.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Devices are being flashed, or wait for something that will come.
pub const PROGRESSING: &str = "Progressing";
/// Every device completed, or was skipped as current or duplicate.
pub const COMPLETE: &str = "Complete";
/// All is over, and a device failed or the job was stopped.
pub const FAILED: &str = "Failed";
/// `spec.suspend` holds back the devices that have not started.
pub const SUSPENDED: &str = "Suspended";
/// Nothing moves until somebody acts; a failed job is one, too. Tools that know kstatus read it as
/// failed.
pub const STALLED: &str = "Stalled";
/// Nothing starts until a person acts: `spec.suspend`, or a batch that did not pass.
pub const PAUSED: &str = "Paused";
/// The batch in progress has the approval that it asks for, or asks for none.
pub const APPROVED: &str = "Approved";
/// The firmware has a signature that the operator's `firmwareTrust` accepts.
pub const FIRMWARE_VERIFIED: &str = "FirmwareVerified";
/// The wanted state is reached: every device completed, or the plugin serves. `kubectl wait` and
/// GitOps tools ask for.
pub const READY: &str = "Ready";
/// The wanted state is being brought about. Tools that know kstatus read it as in progress.
pub const RECONCILING: &str = "Reconciling";

/// Reason of the conditions of a FlashJob in deletion that waits for no lost Pod.
pub const DELETING: &str = "Deleting";

/// Sets one condition. `last_transition_time` changes only with `status`.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = if holds { "True" } else { "False" };
    let previous = conditions.iter().find(|condition| condition.type_ == kind);
    let since = match previous {
        Some(condition) if condition.status == status => condition.last_transition_time.clone(),
        _ => Time(now),
    };
    let next = Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: since,
    };
    match conditions.iter_mut().find(|condition| condition.type_ == kind) {
        Some(condition) => *condition = next,
        None => conditions.push(next),
    }
}

/// Returns true if a condition is there and True.
#[must_use]
pub fn holds(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}
