//! `rollout abort`, `rollout retry`: end a run, or retry its failed devices.

use clap::Args;
use flashjob_api::{FlashRollout, RolloutPhase};
use flashjob_rules::count::counted;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::{Value, json};

use super::state::{lacks_proof, status};
use crate::cluster::Place;
use crate::failure::{Code, Failure};
use crate::fleet::change::{Which, changed, dropped};
use crate::fleet::parameters::Change;
use crate::fleet::prompt;
use crate::fleet::workload::{Workload, command_for, full_name, resource};
use crate::interruption::Interruption;
use crate::report::Report;

/// End runs.
#[derive(Debug, Args)]
pub struct Abort {
    #[command(flatten)]
    which: Which,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
}

/// Try failed devices again.
#[derive(Debug, Args)]
pub struct Retry {
    #[command(flatten)]
    which: Which,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
}

/// Sets `spec.abort` after confirmation.
///
/// # Errors
/// A FlashRollout is missing, over or being deleted, the user does not confirm, or the API server
/// rejects the change.
pub async fn abort(command: &Abort, interruption: &Interruption) -> Result<Report, Failure> {
    interruption.says("nothing was changed");
    let place = command.which.place().await?;
    let rollouts: Vec<FlashRollout> = command.which.read_changeable(&place, "abort").await?;
    for rollout in &rollouts {
        // The field would stay set, and end the next run at once.
        if let Some(phase) = rollout.ended() {
            let message = format!(
                "FlashRollout {}: its run is already over ({phase:?})",
                full_name(rollout)
            );
            return Err(Failure::new(Code::Other, "RunOver", message));
        }
    }
    let losses: Vec<String> = rollouts.iter().map(loss).collect();
    let question = format!(
        "End the run of {}? Devices in flight finish, no more start, and this cannot be undone.",
        losses.join(", ")
    );
    prompt::confirm(&question, command.yes).await?;
    interruption.says(in_doubt(&rollouts, "aborted"));
    let mut lines = Vec::new();
    for rollout in &rollouts {
        let spec = json!({"abort": true});
        let stored = patch(&place, "abort", rollout, &spec).await?;
        if stored.spec.abort != Some(true) {
            let name = rollout.name_any();
            return Err(dropped::<FlashRollout>(&place, "abort", &name, "spec.abort"));
        }
        lines.push(format!(
            "{} aborted; {} -w follows it to its end",
            resource(rollout),
            command_for("status", rollout)
        ));
    }
    Ok(changed(&rollouts, &lines, "aborted"))
}

/// Returns the name of a rollout with the numbers of its devices that are at work or have not
/// started.
fn loss(rollout: &FlashRollout) -> String {
    let counts = status(rollout).counts.unwrap_or_default();
    let begun_count = counts.in_flight + counts.verifying;
    let not_started = counts.planned.saturating_sub(super::view::results(&counts) + begun_count);
    let parts = [
        (counts.in_flight, "in flight"),
        (counts.verifying, "verifying"),
        (not_started, "not started"),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts
        .map(|(count, words)| format!("{} {words}", counted(count as usize, "device")))
        .collect();
    let name = format!("FlashRollout {}", full_name(rollout));
    if parts.is_empty() { name } else { format!("{name} ({})", parts.join(", ")) }
}

/// Sets a new `spec.retry` after confirmation.
///
/// # Errors
/// A FlashRollout is missing, being deleted or has nothing to retry, the user does not confirm, or
/// the API server rejects the change.
pub async fn retry(command: &Retry, interruption: &Interruption) -> Result<Report, Failure> {
    interruption.says("nothing was changed");
    let place = command.which.place().await?;
    let rollouts: Vec<FlashRollout> = command.which.read_changeable(&place, "retry").await?;
    let retries: Vec<String> = rollouts.iter().map(retried).collect::<Result<_, _>>()?;
    let question = format!("Retry devices of {}?", retries.join(", "));
    prompt::confirm(&question, command.yes).await?;
    interruption.says(in_doubt(&rollouts, "retried"));
    let mut lines = Vec::new();
    for rollout in &rollouts {
        // The value has no meaning; it only has to differ from all earlier ones.
        let value = format!("retry-{}", Timestamp::now());
        let stored = patch(&place, "retry", rollout, &json!({"retry": value})).await?;
        if stored.spec.retry.as_ref() != Some(&value) {
            let name = rollout.name_any();
            return Err(dropped::<FlashRollout>(&place, "retry", &name, "spec.retry"));
        }
        let next = match rollout.is_suspended() {
            true => crate::fleet::workload::resuming(rollout),
            false => format!("{} -w follows it", command_for("status", rollout)),
        };
        lines.push(format!("{} retried; {next}", resource(rollout)));
    }
    Ok(changed(&rollouts, &lines, "retried"))
}

/// Returns the name of a rollout with the number of devices to retry.
fn retried(rollout: &FlashRollout) -> Result<String, Failure> {
    let (name, status) = (full_name(rollout), status(rollout));
    // The operator retries nothing in a run that ended before all batches passed.
    if let Some(phase) = rollout.ended().filter(|phase| *phase != RolloutPhase::Completed) {
        let message = format!(
            "FlashRollout {name}: its run is over ({phase:?}), and its devices are not retried; a \
             new spec.runID starts another run (--run-id of kubectl flashjob rollout create)"
        );
        return Err(Failure::new(Code::Other, "RunOver", message));
    }
    let counts = status.counts.unwrap_or_default();
    let parts: Vec<String> =
        [(counts.failed, "failed"), (counts.absent, "absent"), (counts.regressed, "regressed")]
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, words)| format!("{count} {words}"))
            .collect();
    if parts.is_empty() && lacks_proof(rollout) {
        return Ok(format!("FlashRollout {name} (none failed; it continues without proof)"));
    }
    if parts.is_empty() {
        let message =
            format!("FlashRollout {name} has no failed, absent or regressed device to retry");
        return Err(Failure::new(Code::Unavailable, "NothingToRetry", message));
    }
    Ok(format!("FlashRollout {name} ({})", parts.join(", ")))
}

/// Returns the message for a signal that arrives while changes are sent: a request without an
/// answer may have been stored.
fn in_doubt(rollouts: &[FlashRollout], done: &str) -> String {
    let states = rollouts
        .iter()
        .map(|rollout| format!("{} ({})", full_name(rollout), command_for("status", rollout)));
    format!("these FlashRollouts may be {done} already: {}", states.collect::<Vec<_>>().join(", "))
}

/// Patches the spec of a FlashRollout that was read, but not of a newer one of the same name.
async fn patch(
    place: &Place,
    verb: &str,
    rollout: &FlashRollout,
    spec: &Value,
) -> Result<FlashRollout, Failure> {
    // Without the resourceVersion: each write of the status changes it, and no other change
    // contradicts this one.
    let patch = Patch::Merge(json!({"metadata": {"uid": rollout.uid()}, "spec": spec}));
    let name = rollout.name_any();
    let api = place.api::<FlashRollout>();
    let patched = api.patch(&name, &Change::Stored.patching(), &patch).await;
    patched.map_err(|error| place.refused::<FlashRollout>(verb, &name, &error))
}

#[cfg(test)]
mod tests {
    use super::super::tests::rollout;
    use super::*;

    #[test]
    fn the_question_before_an_abort_counts_what_is_left() {
        let expected = "FlashRollout fleet/hall (2 devices in flight, 15 devices not started)";
        assert_eq!(loss(&rollout()), expected);
    }

    #[test]
    fn a_signal_while_changes_are_sent_names_each_rollout_and_how_to_see_its_state() {
        let words = in_doubt(&[rollout()], "aborted");
        let state = "fleet/hall (kubectl flashjob rollout status hall -n fleet)";
        assert_eq!(words, format!("these FlashRollouts may be aborted already: {state}"));
    }

    #[test]
    fn failed_absent_and_regressed_devices_are_retried_while_the_run_can_go_on() {
        let mut rollout = rollout();
        let words = retried(&rollout).expect("one failed");
        assert_eq!(words, "FlashRollout fleet/hall (1 failed)");
        let reason = |rollout: &FlashRollout| retried(rollout).err().map(|failure| failure.reason);
        rollout.status.as_mut().expect("a status").phase = Some(RolloutPhase::Aborted);
        assert_eq!(reason(&rollout), Some("RunOver"));
        let status = rollout.status.as_mut().expect("a status");
        (status.phase, status.counts) = (Some(RolloutPhase::Paused), None);
        assert_eq!(reason(&rollout), Some("NothingToRetry"));
        rollout.status.as_mut().expect("a status").reason = Some("NothingProven".to_owned());
        assert_eq!(reason(&rollout), None);
    }
}
