//! `retry`: flashes the failed devices of a FlashJob again, in a new FlashJob.

use std::collections::{BTreeSet, HashSet};

use clap::Args;
use flashjob_api::{DeviceState, FlashJob};
use flashjob_rules::count::counted;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use super::manifest::applicable;
use super::parameters::Change;
use super::prompt;
use super::run::results_of_run;
use super::workload::{Workload, full_name, resource};
use crate::cluster::{Place, Scope, refused};
use crate::failure::{Code, Failure};
use crate::interruption::Interruption;
use crate::output::Output;
use crate::report::{Report, yaml};

/// Largest number of names that are tried for the new FlashJob.
const NAMES: u32 = 1000;
/// Length limit for the name of a FlashJob.
const LONGEST: usize = 63;

/// Flash failed devices again.
#[derive(Debug, Args)]
pub struct Retry {
    /// Name of the FlashJob that has failed devices.
    #[arg(value_name = "NAME")]
    name: String,
    /// Only devices that failed for this reason, as FlashTimeout; repeat it for several.
    #[arg(long, value_name = "REASON")]
    reason: Vec<String>,
    /// Name of the new FlashJob. Default: the old one's with -retry-1, -retry-2 and so on.
    #[arg(long, value_name = "NAME")]
    new_name: Option<String>,
    /// Take also devices that a newer FlashJob flashes, or has flashed, with the same firmware.
    #[arg(long)]
    again: bool,
    /// Show the new FlashJob, have the API server check it, and create nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    scope: Scope,
}

pub async fn run(command: &Retry, interruption: &Interruption) -> Result<Report, Failure> {
    interruption.says("nothing was created");
    let place = command.scope.place().await?;
    let old = place.read::<FlashJob>(&command.name).await?;
    let mut chosen = failed(&old, &command.reason)?;
    if !command.again {
        chosen.leave_out(&covered(&old, &newer(&place, &old).await?), &old)?;
    }
    chosen.notes.extend(deletion_note(&old));
    let mut job = FlashJob::new("", old.spec.clone());
    job.spec.uuid.clone_from(&chosen.uids);
    // A new FlashJob is a new run, and is not to start paused.
    (job.spec.run_id, job.spec.suspend) = (None, None);
    job.metadata.namespace = Some(place.namespace.clone());
    if command.dry_run {
        // Standard output has only the FlashJob, so that it can be applied.
        chosen.tell();
        let job = create(&place, &old, job, command.new_name.as_deref(), Change::DryRun).await?;
        let job = applicable(job);
        return Ok(Report::new(yaml(&job)?, json!(job)).with(Output::Name, resource(&job)));
    }
    chosen.tell();
    let question = format!(
        "Flash {} again with {} version {}?",
        counted(job.spec.uuid.len(), "device"),
        job.spec.firmware,
        job.spec.version
    );
    prompt::confirm(&question, command.yes).await?;
    interruption.says(format!(
        "the new FlashJob may already exist: kubectl flashjob status -n {} shows it",
        place.namespace
    ));
    let job = create(&place, &old, job, command.new_name.as_deref(), Change::Stored).await?;
    let text = format!(
        "{} created with {}; kubectl flashjob status {} -n {} -w follows it",
        resource(&job),
        counted(job.spec.uuid.len(), "device"),
        job.name_any(),
        place.namespace
    );
    Ok(Report::new(text, json!(job)).with(Output::Name, resource(&job)))
}

/// Returns a note about a FlashJob that is being deleted: it may still hold devices.
fn deletion_note(job: &FlashJob) -> Option<String> {
    job.is_in_deletion().then(|| {
        format!(
            "FlashJob {} is being deleted. A device whose Pod may still be running waits in the \
             new FlashJob until that Pod has ended.",
            full_name(job)
        )
    })
}

/// Devices to flash again.
struct Chosen {
    uids: Vec<String>,
    /// Reasons why some devices are left out, each as a sentence.
    notes: Vec<String>,
}

impl Chosen {
    fn tell(&self) {
        for note in &self.notes {
            tell!("Note: {note}");
        }
    }

    /// Leaves out the devices that other FlashJobs cover.
    ///
    /// # Errors
    /// No device is left.
    fn leave_out(
        &mut self,
        covered: &[(String, HashSet<&String>)],
        old: &FlashJob,
    ) -> Result<(), Failure> {
        let all = self.uids.len();
        let covers = |uid: &String| covered.iter().find(|(_, uids)| uids.contains(uid));
        let by: BTreeSet<&str> =
            self.uids.iter().filter_map(covers).map(|(name, _)| name.as_str()).collect();
        let by = by.into_iter().collect::<Vec<_>>().join(" ");
        self.uids.retain(|uid| covers(uid).is_none());
        let namespace = old.namespace().unwrap_or_default();
        let see = format!("kubectl flashjob status {by} -n {namespace} shows how");
        if self.uids.is_empty() {
            let message = format!(
                "FlashJob {namespace}/{}: {} failed, and a newer FlashJob flashes all of them \
                 again with the same firmware, or has done so: {see}. --again flashes them once \
                 more",
                old.name_any(),
                counted(all, "device")
            );
            return Err(Failure::new(Code::Unavailable, "NothingToRetry", message));
        }
        if self.uids.len() < all {
            self.notes.push(format!(
                "Left out: {} that a newer FlashJob flashes again with the same firmware, or has \
                 flashed: {see}. --again takes all.",
                counted(all - self.uids.len(), "device")
            ));
        }
        Ok(())
    }
}

/// Lists the FlashJobs of the namespace that were created since the run of the old one began.
async fn newer(place: &Place, old: &FlashJob) -> Result<Vec<FlashJob>, Failure> {
    match place.api::<FlashJob>().list(&ListParams::default()).await {
        Ok(jobs) => Ok(jobs.items.into_iter().filter(|job| is_newer(job, old)).collect()),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            tell!(
                "Note: no permission to list FlashJobs, so it is unknown whether another one \
                 already flashes these devices again."
            );
            Ok(Vec::new())
        }
        Err(error) => Err(refused("list FlashJobs", &error)),
    }
}

fn is_newer(job: &FlashJob, old: &FlashJob) -> bool {
    let start = old.status.as_ref().and_then(|status| status.start_time.as_ref());
    let start = start.or(old.metadata.creation_timestamp.as_ref());
    let creation = job.metadata.creation_timestamp.as_ref();
    let second = |time: &Time| time.0.as_second();
    // `creationTimestamp` has whole seconds only.
    job.uid() != old.uid() && creation.map(second) >= start.map(second)
}

/// Returns for each of these FlashJobs, by its name, the devices that it flashes or has flashed
/// with the firmware of the old one, except those that failed or were skipped there.
fn covered<'a>(old: &FlashJob, other_jobs: &'a [FlashJob]) -> Vec<(String, HashSet<&'a String>)> {
    let firmware = |job: &FlashJob| (job.spec.firmware.clone(), job.spec.version.clone());
    let same = other_jobs.iter().filter(|other| firmware(other) == firmware(old));
    same.map(|other| (other.name_any(), covered_by(other))).collect()
}

fn covered_by(job: &FlashJob) -> HashSet<&String> {
    let status = results_of_run(job);
    let completed = status.into_iter().flat_map(|status| &status.completed_uuids);
    // A FlashJob that is over or being deleted gives no more results.
    if job.is_over() || job.is_in_deletion() {
        return completed.collect();
    }
    let without =
        status.into_iter().flat_map(|status| [&status.failed_uuids, &status.skipped_uuids]);
    let without: HashSet<&String> = without.flatten().collect();
    job.spec.uuid.iter().filter(|uid| !without.contains(uid)).collect()
}

fn failed(job: &FlashJob, reasons: &[String]) -> Result<Chosen, Failure> {
    let name = job.name_any();
    let Some(status) = results_of_run(job).filter(|_| !job.is_behind()) else {
        let message = format!(
            "FlashJob {name}: the operator has not seen the last change yet, so it is unknown \
             which devices failed; see kubectl flashjob status {name} -n {}",
            job.namespace().unwrap_or_default()
        );
        return Err(Failure::new(Code::Unavailable, "NotSeen", message));
    };
    // A uid that was removed from the spec stays in the status until the operator has observed
    // that.
    let spec_uids: HashSet<&String> = job.spec.uuid.iter().collect();
    let failed: Vec<_> =
        status.failed_uuids.iter().filter(|uid| spec_uids.contains(uid)).cloned().collect();
    if failed.is_empty() {
        let message = format!("FlashJob {name} has no failed device");
        return Err(Failure::new(Code::Unavailable, "NothingToRetry", message));
    }
    if reasons.is_empty() {
        return Ok(Chosen { uids: failed, notes: Vec::new() });
    }
    let named: Vec<_> =
        status.devices.iter().filter(|device| device.state == DeviceState::Failed).collect();
    let is_asked = |reason: &str| reasons.iter().any(|filter| filter.eq_ignore_ascii_case(reason));
    let with_reason = named.iter().filter(|device| device.reason.as_deref().is_some_and(is_asked));
    let uids: Vec<_> = with_reason.map(|device| device.uid.clone()).collect();
    if uids.is_empty() {
        let reason_counts: Vec<_> =
            status.reasons.iter().map(|(name, count)| format!("{count} x {name}")).collect();
        let message = format!(
            "no device of FlashJob {name} is listed as failed with {}; its reasons: {}",
            reasons.join(", "),
            reason_counts.join(", ")
        );
        return Err(Failure::new(Code::Unavailable, "NothingToRetry", message));
    }
    // `failedUUIDs` has all failed devices, `devices` at most 100 of them with their reasons.
    let unnamed = failed.len().saturating_sub(named.len());
    let notes = (unnamed > 0).then(|| {
        format!(
            "The status has the reasons of only the first {}; {unnamed} more failed and are left \
             out. Without --reason, all are flashed again.",
            counted(named.len(), "device")
        )
    });
    Ok(Chosen { uids, notes: notes.into_iter().collect() })
}

/// Returns a name for the new FlashJob within the length limit.
fn name(old: &FlashJob, number: u32) -> String {
    let (mut stem, suffix) = (old.name_any(), format!("-retry-{number}"));
    // A retry of a retry gets the next number, not a second suffix.
    if let Some((before, count)) = stem.rsplit_once("-retry-")
        && count.parse::<u32>().is_ok()
    {
        stem = before.to_owned();
    }
    // The name is the value of the label `app` of Pods and Services, which has at most 63
    // characters.
    stem.truncate(LONGEST - suffix.len());
    // Behind a dot the suffix would begin a part of the name with a dash, which RFC 1123 does not
    // allow.
    format!("{}{suffix}", stem.trim_end_matches(['-', '.']))
}

async fn create(
    place: &Place,
    old: &FlashJob,
    mut job: FlashJob,
    new_name: Option<&str>,
    change: Change,
) -> Result<FlashJob, Failure> {
    for number in 1..=NAMES {
        job.metadata.name = Some(new_name.map_or_else(|| name(old, number), str::to_owned));
        match place.api::<FlashJob>().create(&change.posting(), &job).await {
            Ok(job) => return Ok(job),
            // The API server decides which names are taken: somebody may retry the same FlashJob
            // now.
            Err(kube::Error::Api(status)) if status.code == 409 && new_name.is_none() => {}
            Err(error) => {
                let what = format!("create FlashJob {}/{}", place.namespace, job.name_any());
                return Err(refused(&what, &error));
            }
        }
    }
    Err(Failure::usage(format!("all {NAMES} generated names are taken; give one with --new-name")))
}

#[cfg(test)]
mod tests {
    use flashjob_api::{DeviceStatus, FlashJobSpec, FlashJobStatus, Phase};
    use jiff::Timestamp;

    use super::*;

    fn job() -> FlashJob {
        let uuid = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let mut job = FlashJob::new("hall-3", FlashJobSpec { uuid, ..FlashJobSpec::default() });
        let device = |uid: &str, reason: &str| DeviceStatus {
            uid: uid.to_owned(),
            state: DeviceState::Failed,
            reason: Some(reason.to_owned()),
            ..DeviceStatus::default()
        };
        job.status = Some(FlashJobStatus {
            failed_uuids: ["a", "b", "d", "gone"].map(str::to_owned).to_vec(),
            devices: vec![device("a", "FlashTimeout"), device("b", "PodFailed")],
            ..FlashJobStatus::default()
        });
        job
    }

    #[test]
    fn failed_devices_that_the_job_still_names_are_chosen_by_their_reason() {
        let all = failed(&job(), &[]).expect("some failed");
        assert_eq!(all.uids, ["a", "b", "d"]);
        assert!(all.notes.is_empty(), "{:?}", all.notes);
        let some = failed(&job(), &["flashtimeout".to_owned()]).expect("some failed");
        assert_eq!(some.uids, ["a"]);
        let noted = |note: &String| note.contains("1 more failed and are left out");
        assert!(some.notes.iter().any(noted), "{:?}", some.notes);
        assert!(failed(&job(), &["GaveUp".to_owned()]).is_err());
    }

    #[test]
    fn the_failed_devices_of_a_job_in_deletion_are_retried_with_a_note() {
        let mut job = job();
        assert_eq!(deletion_note(&job), None);
        job.metadata.namespace = Some("fleet".to_owned());
        job.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        // The API server counts the deletion as a change of the spec.
        job.metadata.generation = Some(2);
        job.status.as_mut().expect("a status").observed_generation = Some(1);
        assert_eq!(failed(&job, &[]).expect("some failed").uids, ["a", "b", "d"]);
        let note = deletion_note(&job).expect("it is being deleted");
        assert!(note.starts_with("FlashJob fleet/hall-3 is being deleted. "), "{note}");
    }

    #[test]
    fn results_from_before_the_last_change_are_not_retried() {
        let reason = |job: &FlashJob| failed(job, &[]).err().map(|failure| failure.reason);
        let mut behind = job();
        behind.metadata.generation = Some(2);
        let mut of_another_run = job();
        of_another_run.status.as_mut().expect("a status").run = Some("another".to_owned());
        for job in [behind, of_another_run] {
            assert_eq!(reason(&job), Some("NotSeen"));
        }
    }

    #[test]
    fn devices_that_a_newer_job_flashes_or_has_flashed_are_not_retried_twice() {
        let old = job();
        let retried = |phase: Phase| {
            let mut retried = job();
            retried.metadata.name = Some("hall-3-retry-1".to_owned());
            retried.status = Some(FlashJobStatus {
                phase: Some(phase),
                completed_uuids: vec!["a".to_owned()],
                failed_uuids: vec!["b".to_owned()],
                ..FlashJobStatus::default()
            });
            retried
        };
        let choose = |other_jobs: &[FlashJob]| {
            let mut chosen = failed(&old, &[]).expect("some failed");
            chosen.leave_out(&covered(&old, other_jobs), &old).map(|()| chosen)
        };
        // While the newer FlashJob is at work, its other devices may still get a result; after its
        // end they get none.
        let chosen = choose(&[retried(Phase::InProgress)]).expect("one is left");
        assert_eq!(chosen.uids, ["b"]);
        assert!(chosen.notes.iter().any(|note| note.contains("hall-3-retry-1")));
        assert_eq!(choose(&[retried(Phase::Failed)]).expect("two are left").uids, ["b", "d"]);
        let mut other = retried(Phase::InProgress);
        other.spec.version = "another".to_owned();
        assert_eq!(choose(&[other]).expect("all are left").uids, ["a", "b", "d"]);
        let mut unseen = retried(Phase::InProgress);
        unseen.status = None;
        let refusal = choose(&[unseen]).err().expect("none is left");
        assert_eq!((refusal.code, refusal.reason), (Code::Unavailable, "NothingToRetry"));
        assert!(refusal.message.contains("--again"), "{}", refusal.message);
    }

    #[test]
    fn what_was_made_before_the_run_began_does_not_count() {
        let at = |second| Some(Time(Timestamp::from_second(second).expect("a time")));
        let job_created_at = |second| {
            let mut job = job();
            job.metadata.uid = Some("another".to_owned());
            job.metadata.creation_timestamp = at(second);
            job
        };
        let mut old = job();
        old.metadata.creation_timestamp = at(1);
        assert!(is_newer(&job_created_at(2), &old) && !is_newer(&old, &old));
        // A later run, which flashes all devices again, began at 5.
        old.status.as_mut().expect("a status").start_time = at(5);
        assert!(!is_newer(&job_created_at(2), &old) && is_newer(&job_created_at(5), &old));
    }

    #[test]
    fn the_name_of_a_retry_counts_on_and_fits() {
        assert_eq!(name(&job(), 1), "hall-3-retry-1");
        assert_eq!(name(&FlashJob::new("a-retry-1", FlashJobSpec::default()), 2), "a-retry-2");
        let long = FlashJob::new(&"x".repeat(63), FlashJobSpec::default());
        assert_eq!(name(&long, 12).len(), 63);
    }
}
