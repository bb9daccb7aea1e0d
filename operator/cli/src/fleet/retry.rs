//! `retry`: the failed devices of a FlashJob, as a new one.

use std::collections::HashSet;

use clap::Args;
use flashjob_api::{DeviceState, FlashJob};
use kube::ResourceExt;
use serde_json::json;

use super::workload::{Workload, resource};
use super::{Change, applicable, devices_shown, prompt, results_of_run};
use crate::arguments::Output;
use crate::cluster::{Place, Scope, refused};
use crate::failure::{Code, Failure};
use crate::interruption::Interruption;
use crate::report::{Report, yaml};

/// Most names that are tried for the new FlashJob.
const NAMES: u32 = 1000;
/// Longest name of a FlashJob.
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
    let chosen = failed(&old, &command.reason)?;
    let mut job = FlashJob::new("", old.spec.clone());
    job.spec.uuid = chosen.uids;
    // A new FlashJob is a new run, and whoever asks for it wants it to run.
    (job.spec.run_id, job.spec.suspend) = (None, None);
    job.metadata.namespace = Some(place.namespace.clone());
    if command.dry_run {
        // Standard output has the FlashJob alone, so that it can be applied.
        if let Some(note) = &chosen.note {
            eprintln!("Note: {note}");
        }
        let job = create(&place, &old, job, command.new_name.as_deref(), Change::DryRun).await?;
        let job = applicable(job);
        return Ok(Report::new(yaml(&job)?, json!(job)).with(Output::Name, resource(&job)));
    }
    let note = chosen.note.map(|note| format!("{note}\n")).unwrap_or_default();
    let question = format!(
        "{note}Flash {} again with {} version {}?",
        devices_shown(job.spec.uuid.len()),
        job.spec.firmware,
        job.spec.version
    );
    prompt::confirm(&question, command.yes).await?;
    interruption.says(format!(
        "the new FlashJob may be created already: kubectl flashjob status -n {} shows it",
        place.namespace
    ));
    let job = create(&place, &old, job, command.new_name.as_deref(), Change::Stored).await?;
    let text = format!(
        "{} created with {}; kubectl flashjob status {} -n {} -w follows it",
        resource(&job),
        devices_shown(job.spec.uuid.len()),
        job.name_any(),
        place.namespace
    );
    Ok(Report::new(text, json!(job)).with(Output::Name, resource(&job)))
}

/// Devices to flash again.
struct Chosen {
    uids: Vec<String>,
    /// Set where some may be missing.
    note: Option<String>,
}

fn failed(job: &FlashJob, reasons: &[String]) -> Result<Chosen, Failure> {
    let name = job.name_any();
    let Some(status) = results_of_run(job).filter(|_| !job.is_behind()) else {
        let message = format!(
            "FlashJob {name}: the operator has not seen the last change yet, so nothing says which \
             devices failed; see kubectl flashjob status {name}"
        );
        return Err(Failure::new(Code::Unavailable, "NotSeen", message));
    };
    let known: HashSet<&String> = job.spec.uuid.iter().collect();
    let failed: Vec<_> =
        status.failed_uuids.iter().filter(|uid| known.contains(uid)).cloned().collect();
    if failed.is_empty() {
        let message = format!("FlashJob {name} has no failed device");
        return Err(Failure::new(Code::Unavailable, "NothingToRetry", message));
    }
    if reasons.is_empty() {
        return Ok(Chosen { uids: failed, note: None });
    }
    let named: Vec<_> =
        status.devices.iter().filter(|device| device.state == DeviceState::Failed).collect();
    let is_asked = |reason: &str| reasons.iter().any(|asked| asked.eq_ignore_ascii_case(reason));
    let with_reason = named.iter().filter(|device| device.reason.as_deref().is_some_and(is_asked));
    let uids: Vec<_> = with_reason.map(|device| device.uid.clone()).collect();
    if uids.is_empty() {
        let found: Vec<_> =
            status.reasons.iter().map(|(name, count)| format!("{count} x {name}")).collect();
        let message = format!(
            "no device of FlashJob {name} is listed as failed with {}; its reasons: {}",
            reasons.join(", "),
            found.join(", ")
        );
        return Err(Failure::new(Code::Unavailable, "NothingToRetry", message));
    }
    let unnamed = failed.len().saturating_sub(named.len());
    let note = (unnamed > 0).then(|| {
        format!(
            "The status names the reasons of the first {}; {unnamed} more failed and are left out. \
             Without --reason all are flashed again.",
            devices_shown(named.len())
        )
    });
    Ok(Chosen { uids, note })
}

/// A name for the new FlashJob, which fits.
fn name(old: &FlashJob, number: u32) -> String {
    let (mut stem, suffix) = (old.name_any(), format!("-retry-{number}"));
    // A retry of a retry is the next one, not a retry of its own.
    if let Some((before, count)) = stem.rsplit_once("-retry-")
        && count.parse::<u32>().is_ok()
    {
        stem = before.to_owned();
    }
    stem.truncate(LONGEST - suffix.len());
    format!("{}{suffix}", stem.trim_end_matches(['-', '.']))
}

async fn create(
    place: &Place,
    old: &FlashJob,
    mut job: FlashJob,
    asked: Option<&str>,
    change: Change,
) -> Result<FlashJob, Failure> {
    for number in 1..=NAMES {
        job.metadata.name = Some(asked.map_or_else(|| name(old, number), str::to_owned));
        match place.api::<FlashJob>().create(&change.posting(), &job).await {
            Ok(job) => return Ok(job),
            Err(kube::Error::Api(status)) if status.code == 409 && asked.is_none() => {}
            Err(error) => {
                let what = format!("create FlashJob {}/{}", place.namespace, job.name_any());
                return Err(refused(&what, &error));
            }
        }
    }
    Err(Failure::usage(format!("no name is free; give one with --new-name (tried {NAMES})")))
}

#[cfg(test)]
mod tests {
    use flashjob_api::{DeviceStatus, FlashJobSpec, FlashJobStatus};

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
        assert_eq!((all.uids, all.note), (["a", "b", "d"].map(str::to_owned).to_vec(), None));
        let some = failed(&job(), &["flashtimeout".to_owned()]).expect("some failed");
        assert_eq!(some.uids, ["a"]);
        assert!(some.note.is_some_and(|note| note.contains("1 more failed and are left out")));
        assert!(failed(&job(), &["GaveUp".to_owned()]).is_err());
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
    fn the_name_of_a_retry_counts_on_and_fits() {
        assert_eq!(name(&job(), 1), "hall-3-retry-1");
        assert_eq!(name(&FlashJob::new("a-retry-1", FlashJobSpec::default()), 2), "a-retry-2");
        let long = FlashJob::new(&"x".repeat(63), FlashJobSpec::default());
        assert_eq!(name(&long, 12).len(), 63);
    }
}
