//! `rollout approve`: approves a batch that waits for approval.

use clap::Args;
use flashjob_api::{BatchState, FlashRollout};
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::json;

use super::batches;
use super::state::{asks, is_approved, is_of_this_run, other_approved_runs, status};
use crate::cluster::{Place, Scope};
use crate::failure::{Code, Failure};
use crate::fleet::change::dropped;
use crate::fleet::parameters::Change;
use crate::fleet::workload::{Workload, changeable, command_for, full_name, resource};
use crate::output::Output;
use crate::report::Report;

/// Number of times that an approval is tried while others change the FlashRollout.
const TRIES: usize = 20;
/// Largest number of approvals that the CustomResourceDefinition allows.
const MOST: usize = 100;

/// Approve batches.
#[derive(Debug, Args)]
pub struct Approve {
    /// FlashRollout and batch; the batch by its name, or by its number from 1.
    #[arg(value_name = "NAME/BATCH", required = true, value_parser = target)]
    batches: Vec<Target>,
    /// Only if this is the run now, 6 hexadecimal digits, as status shows it.
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    #[command(flatten)]
    scope: Scope,
}

/// A batch of a FlashRollout.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    name: String,
    batch: String,
}

fn target(text: &str) -> Result<Target, String> {
    let parts = text.split_once('/').filter(|(name, batch)| !name.is_empty() && !batch.is_empty());
    let owned =
        parts.map(|(name, batch)| Target { name: name.to_owned(), batch: batch.to_owned() });
    owned.ok_or_else(|| format!("{text:?} is not NAME/BATCH, such as hall-3/canary or hall-3/1"))
}

/// Approves each of the batches.
///
/// # Errors
/// There is no such batch or no run, the run is another one, the FlashRollout is being deleted, or
/// the API server rejects the change.
pub async fn run(command: &Approve) -> Result<Report, Failure> {
    let place = command.scope.place().await?;
    let approved = approve_all(&place, &command.batches, command.run.as_deref()).await?;
    let (mut lines, mut rows, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for (rollout, verdict) in approved {
        names.push(resource(&rollout));
        lines.push(verdict.message(&rollout));
        rows.push(json!({
            "namespace": rollout.namespace(), "name": rollout.name_any(),
            "batch": verdict.batch, "run": verdict.run, "done": verdict.done(),
        }));
    }
    names.dedup();
    Ok(Report::new(lines.join("\n"), json!({"rollouts": rows}))
        .with(Output::Name, names.join("\n")))
}

/// Judges all batches, so that nothing is changed if one of them cannot be approved, then approves
/// them.
async fn approve_all(
    place: &Place,
    targets: &[Target],
    run: Option<&str>,
) -> Result<Vec<(FlashRollout, Verdict)>, Failure> {
    for target in targets {
        judged(place, target, run).await?;
    }
    let mut approved = Vec::new();
    for target in targets {
        approved.push(approve(place, target, run).await?);
    }
    Ok(approved)
}

/// Reads a FlashRollout, and judges its batch.
async fn judged(
    place: &Place,
    target: &Target,
    run: Option<&str>,
) -> Result<(FlashRollout, Verdict), Failure> {
    let rollout: FlashRollout = place.read(&target.name).await?;
    changeable("approve", &rollout)?;
    let verdict = judge(&rollout, &target.batch, run)?;
    Ok((rollout, verdict))
}

async fn approve(
    place: &Place,
    target: &Target,
    run: Option<&str>,
) -> Result<(FlashRollout, Verdict), Failure> {
    // A merge patch replaces the whole list (RFC 7396), so each try adds to the list as it is now.
    for _ in 0..TRIES {
        let (rollout, verdict) = judged(place, target, run).await?;
        if verdict.state != Approval::Missing {
            return Ok((rollout, verdict));
        }
        // With the version that was read, so that an approval by somebody else in between is a
        // conflict and is not overwritten.
        let patch = json!({
            "metadata": {"resourceVersion": rollout.resource_version(), "uid": rollout.uid()},
            "spec": {"approvals": with(&rollout, &verdict)},
        });
        let parameters = Change::Stored.patching();
        let api = place.api::<FlashRollout>();
        match api.patch(&target.name, &parameters, &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => {
                return Err(place.refused::<FlashRollout>("approve", &target.name, &error));
            }
            Ok(stored) if is_approved(&stored, &verdict.batch, &verdict.run) => {
                return Ok((stored, verdict));
            }
            // An API server with an older definition drops the field, and answers with success.
            Ok(_) => {
                let field = "spec.approvals";
                return Err(dropped::<FlashRollout>(place, "approve", &target.name, field));
            }
        }
    }
    let message = format!(
        "cannot approve {}: others keep changing it at the same time; try again",
        place.named::<FlashRollout>(&target.name)
    );
    Err(Failure::new(Code::Other, "Conflict", message))
}

/// A batch, and the state of its approval.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    batch: String,
    run: String,
    state: Approval,
}

/// State of an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Approval {
    /// The approval has to be written.
    Missing,
    /// The batch is approved already.
    Present,
    /// The batch needs no approval.
    Unneeded,
}

impl Verdict {
    fn message(&self, rollout: &FlashRollout) -> String {
        let (resource, batch, run) = (resource(rollout), &self.batch, &self.run);
        match self.state {
            Approval::Missing => {
                let others = other_approved_runs(rollout, batch, run).join(", ");
                let others = match others.as_str() {
                    "" => String::new(),
                    others => format!("; its approval for run {others} has no effect on this run"),
                };
                format!("{resource} batch {batch} approved for run {run}{others}")
            }
            Approval::Present => {
                format!("{resource} batch {batch} was already approved for run {run}")
            }
            Approval::Unneeded => {
                format!("{resource} batch {batch} needs no approval; nothing was changed")
            }
        }
    }

    fn done(&self) -> &'static str {
        match self.state {
            Approval::Missing | Approval::Present => "approved",
            Approval::Unneeded => "unneeded",
        }
    }
}

fn judge(
    rollout: &FlashRollout,
    name_or_number: &str,
    run: Option<&str>,
) -> Result<Verdict, Failure> {
    let (name, status) = (full_name(rollout), status(rollout));
    let refused = |reason, message: String| Err(Failure::new(Code::Other, reason, message));
    // An approval names its run, so that it never lets other firmware start than the one that was
    // reviewed. The run of an older status is therefore not used.
    let Some(now) = status.run.clone().filter(|_| is_of_this_run(rollout)) else {
        let message = format!(
            "FlashRollout {name}: the operator has not started the run that the spec requests, so \
             there is nothing to approve yet; {} shows it",
            command_for("status", rollout)
        );
        return refused("NotSeen", message);
    };
    // A new run may have begun since the person has looked at the batch.
    if let Some(run) = run.filter(|run| *run != now) {
        let message =
            format!("FlashRollout {name}: the run is {now}, not {run}; nothing was changed");
        return refused("OtherRun", message);
    }
    if let Some(phase) = rollout.ended() {
        let message = format!("FlashRollout {name}: run {now} is over ({phase:?})");
        return refused("RunOver", message);
    }
    let names: Vec<&str> = status.batches.iter().map(|batch| batch.name.as_str()).collect();
    if names.is_empty() {
        let message = format!("FlashRollout {name}: the batches of run {now} are not planned yet");
        return refused("NotSeen", message);
    }
    let Some(place) = batches::position(name_or_number, &names) else {
        let message = format!(
            "FlashRollout {name} has no batch {name_or_number}; its batches are {}",
            batches::list(&names)
        );
        return Err(Failure::new(Code::Unavailable, "NoBatch", message));
    };
    let batch = names[place].to_owned();
    let state = match (asks(rollout, &batch), is_approved(rollout, &batch, &now)) {
        (_, true) => Approval::Present,
        (true, false) => Approval::Missing,
        (false, false) => Approval::Unneeded,
    };
    Ok(Verdict { batch, run: now, state })
}

/// Returns the names of FlashRollout and batch, as the command takes them, for all batches that
/// still need approval.
pub fn unapproved(rollout: &FlashRollout) -> Vec<String> {
    let status = status(rollout);
    let Some(run) = status.run.filter(|_| !rollout.is_over()) else { return Vec::new() };
    let open = status.batches.iter().filter(|batch| {
        batch.state == BatchState::Pending
            && asks(rollout, &batch.name)
            && !is_approved(rollout, &batch.name, &run)
    });
    open.map(|batch| format!("{}/{}", rollout.name_any(), batch.name)).collect()
}

/// Returns all approvals and this one. At the limit, those of other runs are removed: they have no
/// effect any more.
fn with(rollout: &FlashRollout, verdict: &Verdict) -> Vec<String> {
    let mut approvals = rollout.spec.approvals.clone().unwrap_or_default();
    if approvals.len() >= MOST {
        approvals.retain(|approval| approval.ends_with(&format!("@{}", verdict.run)));
    }
    approvals.push(format!("{}@{}", verdict.batch, verdict.run));
    approvals
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use http::{Method, StatusCode};
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::super::tests::rollout;
    use super::*;
    use crate::fake_api;
    use crate::fleet::workload::DELETED;

    #[tokio::test]
    async fn nothing_is_approved_if_one_of_the_rollouts_is_being_deleted() {
        let (there, mut deleted) = (rollout(), rollout());
        deleted.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let is_changed = Arc::new(AtomicBool::new(false));
        let changes = is_changed.clone();
        let place = fake_api::place(move |method, path, _| {
            changes.fetch_or(*method != Method::GET, Ordering::Relaxed);
            let found = if path.ends_with("/hall") { &there } else { &deleted };
            Some((StatusCode::OK, json!(found)))
        });
        let targets = ["hall/ten", "old/ten"].map(|text| target(text).expect("a batch"));
        let refusal = approve_all(&place, &targets, None).await.expect_err("one is deleted");
        assert_eq!(refusal.reason, DELETED);
        assert!(!is_changed.load(Ordering::Relaxed));
    }

    fn verdict(rollout: &FlashRollout, batch: &str) -> Approval {
        judge(rollout, batch, None).expect(batch).state
    }

    #[test]
    fn a_batch_is_approved_by_name_or_number_where_it_asks_for_that() {
        let rollout = rollout();
        assert_eq!(verdict(&rollout, "ten"), Approval::Missing);
        assert_eq!(verdict(&rollout, "2"), Approval::Missing);
        assert_eq!(verdict(&rollout, "canary"), Approval::Unneeded);
        assert_eq!(unapproved(&rollout), ["hall/ten"]);
        let unknown = judge(&rollout, "4", None).expect_err("no such batch");
        assert!(unknown.message.contains("1 canary, 2 ten, 3 rest"), "{}", unknown.message);
        assert_eq!(target("a/b/c").map(|one| one.batch), Ok("b/c".to_owned()));
        assert!(["a", "a/", "/b"].into_iter().all(|text| target(text).is_err()));
    }

    #[test]
    fn another_approval_stays_and_an_approval_of_this_run_counts() {
        let mut rollout = rollout();
        rollout.spec.approvals = Some(vec!["rest@0a1b2c".to_owned()]);
        let judged = judge(&rollout, "ten", None).expect("a batch");
        assert_eq!(with(&rollout, &judged), ["rest@0a1b2c", "ten@0a1b2c"]);
        rollout.spec.approvals = Some(with(&rollout, &judged));
        assert_eq!(verdict(&rollout, "ten"), Approval::Present);
        let message = judged.message(&rollout);
        assert!(message.ends_with("batch ten approved for run 0a1b2c"), "{message}");
        rollout.spec.approvals = Some(vec!["ten@ffffff".to_owned(), "rest@eeeeee".to_owned()]);
        let message = judged.message(&rollout);
        assert!(message.ends_with("its approval for run ffffff has no effect on this run"));
        let old = (0..MOST).map(|number| format!("b{number}@ffffff")).collect();
        rollout.spec.approvals = Some(old);
        assert_eq!(with(&rollout, &judged), ["ten@0a1b2c"]);
    }

    #[test]
    fn a_run_that_is_another_or_over_or_not_begun_is_not_approved() {
        let reason = |rollout: &FlashRollout, run| {
            judge(rollout, "ten", run).err().map(|failure| failure.reason)
        };
        let mut changed = rollout();
        assert_eq!(reason(&changed, Some("0a1b2c")), None);
        assert_eq!(reason(&changed, Some("ffffff")), Some("OtherRun"));
        changed.spec.version = "3".to_owned();
        assert_eq!(reason(&changed, None), Some("NotSeen"));
        let mut over = rollout();
        over.status.as_mut().expect("a status").phase = Some(flashjob_api::RolloutPhase::Aborted);
        assert_eq!(reason(&over, None), Some("RunOver"));
    }
}
