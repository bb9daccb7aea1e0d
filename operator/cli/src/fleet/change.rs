//! `pause`, `resume`, `cancel`: commands that change FlashJobs.

use std::time::Duration;

use clap::Args;
use flashjob_api::{FlashJob, Phase};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, Preconditions};
use serde_json::json;

use super::{Change, devices_shown, prompt, resource, watch};
use crate::arguments::Output;
use crate::cluster::{Place, Scope, refused};
use crate::duration;
use crate::failure::{Code, Failure};
use crate::interruption::Interruption;
use crate::report::Report;

/// Start no more devices.
#[derive(Debug, Args)]
pub struct Pause {
    #[command(flatten)]
    which: Which,
}

/// Go on.
#[derive(Debug, Args)]
pub struct Resume {
    #[command(flatten)]
    which: Which,
}

/// Delete FlashJobs.
#[derive(Debug, Args)]
pub struct Cancel {
    #[command(flatten)]
    which: Which,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Wait no longer than this until they are gone: 90s, 10m. Default: as long as it takes.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
}

#[derive(Debug, Args)]
struct Which {
    /// Names of FlashJobs.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    scope: Scope,
}

pub async fn pause(command: &Pause) -> Result<Report, Failure> {
    suspend(&command.which, true).await
}

pub async fn resume(command: &Resume) -> Result<Report, Failure> {
    suspend(&command.which, false).await
}

async fn suspend(which: &Which, suspend: bool) -> Result<Report, Failure> {
    let place = which.scope.place().await?;
    let done = if suspend { "paused" } else { "resumed" };
    let mut lines = Vec::new();
    let mut jobs = Vec::new();
    for name in &which.names {
        let job = set_suspend(&place, name, suspend).await?;
        let phase = job.status.as_ref().and_then(|status| status.phase);
        let is_over = matches!(phase, Some(Phase::Completed | Phase::Failed));
        let state = match is_over && suspend {
            true => "; its devices have their results, and any that are added wait",
            false => "",
        };
        lines.push(format!("{} {done}{state}", resource(&job)));
        jobs.push(job);
    }
    Ok(changed(&jobs, &lines, done))
}

async fn set_suspend(place: &Place, name: &str, suspend: bool) -> Result<FlashJob, Failure> {
    // null takes the field away, as whoever wrote the FlashJob without it had it.
    let value = if suspend { json!(true) } else { json!(null) };
    let patch = Patch::Merge(json!({"spec": {"suspend": value}}));
    let what = if suspend { "pause" } else { "resume" };
    let job = match place.jobs().patch(name, &Change::Stored.patching(), &patch).await {
        Ok(job) => job,
        Err(kube::Error::Api(status)) if status.code == 404 => return Err(place.no_job(name)),
        Err(error) => {
            return Err(refused(&format!("{what} FlashJob {}/{name}", place.namespace), &error));
        }
    };
    // An API server drops a field that its definition does not have, and says nothing.
    if job.spec.suspend.unwrap_or(false) != suspend {
        let message = format!(
            "cannot {what} FlashJob {}/{name}: the definition that is installed has no field \
             spec.suspend; install the definitions of this version (kubectl flashjob check)",
            place.namespace
        );
        return Err(Failure::new(Code::Unavailable, "DefinitionOutdated", message));
    }
    Ok(job)
}

fn changed(jobs: &[FlashJob], lines: &[String], done: &str) -> Report {
    let names: Vec<_> = jobs.iter().map(resource).collect();
    let objects: Vec<_> = jobs
        .iter()
        .map(|job| json!({"namespace": job.namespace(), "name": job.name_any(), "done": done}))
        .collect();
    Report::new(lines.join("\n"), json!({"jobs": objects})).with(Output::Name, names.join("\n"))
}

pub async fn cancel(command: &Cancel, interruption: &Interruption) -> Result<Report, Failure> {
    let place = command.which.scope.place().await?;
    let mut jobs = Vec::new();
    for name in &command.which.names {
        jobs.push(place.job(name).await?);
    }
    interruption.says("nothing was changed");
    prompt::confirm(&question(&jobs), command.yes).await?;
    interruption.says(
        "what was deleted goes as soon as its devices in flight are done; kubectl flashjob status \
         shows what is left",
    );
    let mut lines = Vec::new();
    for job in &jobs {
        delete(&place, job).await?;
    }
    for job in &jobs {
        watch::gone(&place, &job.name_any(), command.timeout).await?;
        lines.push(format!("{} deleted", resource(job)));
    }
    Ok(changed(&jobs, &lines, "deleted"))
}

fn question(jobs: &[FlashJob]) -> String {
    let in_flight = |job: &FlashJob| {
        let counts = job.status.as_ref().and_then(|status| status.counts).unwrap_or_default();
        counts.active + counts.verifying
    };
    let named = |job: &FlashJob| {
        let name = format!("{}/{}", job.namespace().unwrap_or_default(), job.name_any());
        match in_flight(job) {
            0 => name,
            devices => format!("{name} with {} in flight", devices_shown(devices as usize)),
        }
    };
    let named: Vec<_> = jobs.iter().map(named).collect();
    format!("Delete FlashJob {}?", named.join(", "))
}

async fn delete(place: &Place, job: &FlashJob) -> Result<(), Failure> {
    let name = job.name_any();
    // The one that was asked about, and no newer one of its name.
    let preconditions = Preconditions { uid: job.uid(), resource_version: None };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match place.jobs().delete(&name, &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(refused(&format!("delete FlashJob {}/{name}", place.namespace), &error)),
    }
}
