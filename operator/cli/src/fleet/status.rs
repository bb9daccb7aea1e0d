//! `status`: how FlashJobs get on.

use std::time::Duration;

use clap::Args;
use flashjob_api::FlashJob;
use jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

use super::pace::{Pace, pace};
use super::watch::{self, Follow, Shown, Until};
use super::{resource, view};
use crate::arguments::Output;
use crate::cluster::{Place, WideScope, refused};
use crate::duration;
use crate::failure::{Code, Failure};
use crate::interruption::Interruption;
use crate::report::Report;

/// Show how FlashJobs get on.
#[derive(Debug, Args)]
pub struct Status {
    /// Names of FlashJobs. Default: all of the namespace.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Follow one FlashJob until it ends.
    #[arg(short, long)]
    watch: bool,
    /// Follow it no longer than this: 90s, 10m, 2h.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// What ends that: all devices have their result, or nothing goes on until somebody acts.
    #[arg(long, value_enum)]
    until: Option<Until>,
    #[command(flatten)]
    scope: WideScope,
}

impl Status {
    fn follows(&self) -> bool {
        self.watch || self.timeout.is_some() || self.until.is_some()
    }
}

pub async fn run(
    command: &Status,
    output: Output,
    interruption: &Interruption,
) -> Result<Report, Failure> {
    if command.follows() {
        let [name] = command.names.as_slice() else {
            return Err(Failure::usage("-w, --timeout and --until follow one FlashJob; name it"));
        };
        let place = command.scope.one_place("a FlashJob").await?;
        interruption.says(format!("FlashJob {}/{name} goes on", place.namespace));
        let follow = Follow {
            until: command.until.unwrap_or_default(),
            timeout: command.timeout,
            shown: if output == Output::Table || output == Output::Wide {
                Shown::Details
            } else {
                Shown::Lines
            },
            all: output == Output::Wide,
        };
        return match watch::follow(&place, name, follow).await {
            Ok(job) => Ok(report(&[job])),
            // Whoever asks wants to see how far it came.
            Err(failure) if matches!(failure.code, Code::TimedOut | Code::Blocked) => {
                match place.job(name).await {
                    Ok(job) => Ok(report(&[job]).failing(Some(failure))),
                    Err(_) => Err(failure),
                }
            }
            Err(failure) => Err(failure),
        };
    }
    if command.names.is_empty() {
        let (client, namespace) = command.scope.place().await?;
        let api: Api<FlashJob> = match &namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        let jobs = api.list(&ListParams::default()).await;
        let jobs = jobs.map_err(|error| refused("list FlashJobs", &error))?.items;
        return Ok(listed(&jobs, namespace.as_deref()));
    }
    let place = command.scope.one_place("a FlashJob").await?;
    let jobs = named(&place, &command.names).await?;
    Ok(report(&jobs))
}

async fn named(place: &Place, names: &[String]) -> Result<Vec<FlashJob>, Failure> {
    let mut jobs = Vec::new();
    for name in names {
        jobs.push(place.job(name).await?);
    }
    Ok(jobs)
}

fn names(jobs: &[FlashJob]) -> String {
    jobs.iter().map(resource).collect::<Vec<_>>().join("\n")
}

fn paces(jobs: &[FlashJob], now: Timestamp) -> Vec<Pace> {
    jobs.iter().map(|job| pace(job, None, now)).collect()
}

/// All FlashJobs, one a row.
fn listed(jobs: &[FlashJob], namespace: Option<&str>) -> Report {
    let text = match (jobs, namespace) {
        ([], Some(namespace)) => format!("No FlashJobs in namespace {namespace}; -A shows all."),
        ([], None) => "No FlashJobs.".to_owned(),
        _ => view::list(jobs, namespace.is_none()),
    };
    let paces = paces(jobs, Timestamp::now());
    let objects: Vec<_> = jobs.iter().zip(paces).map(|(job, pace)| view::json(job, pace)).collect();
    Report::new(text, json!({"jobs": objects})).with(Output::Name, names(jobs))
}

/// Named FlashJobs, with all that there is to say; failing where one has failed.
pub fn report(jobs: &[FlashJob]) -> Report {
    let now = Timestamp::now();
    let paces = paces(jobs, now);
    let text = |all: bool| {
        let texts = jobs
            .iter()
            .zip(&paces)
            .map(|(job, pace)| view::details(job, *pace, now, all, view::WIDE));
        texts.collect::<Vec<_>>().join("\n\n")
    };
    let objects: Vec<_> =
        jobs.iter().zip(&paces).map(|(job, pace)| view::json(job, *pace)).collect();
    let failed: Vec<_> = jobs.iter().filter_map(watch::failure).collect();
    let failure = failed.into_iter().reduce(|one, other| Failure {
        message: format!("{}; {}", one.message, other.message),
        ..one
    });
    Report::new(text(false), json!({"jobs": objects}))
        .with(Output::Wide, text(true))
        .with(Output::Name, names(jobs))
        .failing(failure)
}
