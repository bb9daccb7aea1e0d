//! `status`: how FlashJobs get on.

use std::time::Duration;

use clap::Args;
use console::Term;
use flashjob_api::FlashJob;
use jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

use super::pace::{Pace, pace};
use super::watch::{self, Follow, Shown, Until};
use super::{NOT_FOUND, ended, is_suspended, resource, resuming, view};
use crate::arguments::Output;
use crate::cluster::{WideScope, refused};
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
        let object = format!("FlashJob {}/{name}", place.namespace);
        let cancel = format!("kubectl flashjob cancel {name} -n {} ends it", place.namespace);
        interruption.says(format!("{object} goes on; {cancel}"));
        let on_change = |job: &FlashJob| {
            interruption.says(match is_suspended(job) && ended(job).is_none() {
                true => format!("{object} stays paused: {}, {cancel}", resuming(job)),
                false => format!("{object} goes on; {cancel}"),
            });
        };
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
        return match watch::follow(&place, name, follow, on_change).await {
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
    let (mut jobs, mut missing) = (Vec::new(), Vec::new());
    for name in &command.names {
        match place.job(name).await {
            Ok(job) => jobs.push(job),
            Err(failure) if failure.reason == NOT_FOUND => missing.push(failure),
            Err(failure) => return Err(failure),
        }
    }
    // Those that are there are shown; that others are not weighs more than how these ended.
    let mut shown = report(&jobs);
    missing.extend(shown.failure.take());
    match (joined(missing), jobs.is_empty()) {
        (Some(missing), true) => Err(missing),
        (failure, _) => Ok(shown.failing(failure)),
    }
}

/// Several failures as one, with the code of the first.
fn joined(failures: Vec<Failure>) -> Option<Failure> {
    failures.into_iter().reduce(|one, other| Failure {
        message: format!("{}; {}", one.message, other.message),
        ..one
    })
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
    let width = view::width(&Term::stdout());
    let text = |all: bool| {
        let texts =
            jobs.iter().zip(&paces).map(|(job, pace)| view::details(job, *pace, now, all, width));
        texts.collect::<Vec<_>>().join("\n\n")
    };
    let objects: Vec<_> =
        jobs.iter().zip(&paces).map(|(job, pace)| view::json(job, *pace)).collect();
    let failure = joined(jobs.iter().filter_map(watch::failure).collect());
    Report::new(text(false), json!({"jobs": objects}))
        .with(Output::Wide, text(true))
        .with(Output::Name, names(jobs))
        .failing(failure)
}
