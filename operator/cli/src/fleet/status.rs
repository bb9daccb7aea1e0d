//! `status`: progress of FlashJobs, and by the same code of FlashRollouts.

use std::time::Duration;

use clap::Args;
use console::Term;
use flashjob_api::{FlashJob, FlashRollout};
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::rollout::view as rollout_view;
use super::view;
use super::watch::{self, Follow, FollowOutput, Until};
use super::workload::{Frame, Workload, command_for, resource, resuming};
use crate::cluster::{ACCESS_DENIED, NOT_FOUND, NOT_INSTALLED, WideScope, refused};
use crate::duration;
use crate::failure::{Code, Failure};
use crate::interruption::Interruption;
use crate::output::Output;
use crate::report::Report;

/// Show how FlashJobs get on.
#[derive(Debug, Args)]
pub struct Status {
    /// Names of the objects. Default: all of the namespace.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Follow one until it ends.
    #[arg(short, long)]
    watch: bool,
    /// Follow it no longer than this: 90s, 10m, 2h.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Condition that ends it: all devices have their result, or nothing goes on until a person
    /// acts.
    #[arg(long, value_enum)]
    until: Option<Until>,
    #[command(flatten)]
    scope: WideScope,
}

/// Runs `status` for FlashJobs; without a name for FlashRollouts too.
///
/// # Errors
/// An object is missing or has failed, or the watch ended before the object did.
pub async fn run(
    command: &Status,
    output: Output,
    interruption: &Interruption,
) -> Result<Report, Failure> {
    if command.follows() || !command.names.is_empty() {
        return match command.named::<FlashJob>(output, interruption).await {
            Err(failure) if failure.reason == NOT_FOUND => Err(command.hinting(failure).await),
            ended => ended,
        };
    }
    let (client, namespace) = command.scope.place().await?;
    let jobs: Vec<FlashJob> = list(&client, namespace.as_deref()).await?;
    let mut jobs = listed(&jobs, namespace.as_deref(), view::list);
    let rollouts = rollouts(&client, namespace.as_deref()).await?;
    if rollouts.is_empty() {
        // Users without FlashRollouts need not know the kind; programs always find its field.
        jobs.json[FlashRollout::FIELD] = json!([]);
        return Ok(jobs);
    }
    Ok(listed(&rollouts, namespace.as_deref(), rollout_view::list).above(jobs))
}

/// Lists FlashRollouts; none if the kind is not installed, or the user may not list them.
async fn rollouts(client: &Client, namespace: Option<&str>) -> Result<Vec<FlashRollout>, Failure> {
    match list(client, namespace).await {
        Err(failure) if failure.reason == NOT_INSTALLED => Ok(Vec::new()),
        Err(failure) if failure.reason == ACCESS_DENIED => {
            tell!("Note: {}", failure.message);
            Ok(Vec::new())
        }
        listed => listed,
    }
}

/// Lists the objects of a kind, in one namespace or in all.
///
/// # Errors
/// They cannot be listed.
pub async fn list<K: Workload>(
    client: &Client,
    namespace: Option<&str>,
) -> Result<Vec<K>, Failure> {
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let listed = api.list(&ListParams::default()).await;
    Ok(listed.map_err(|error| refused(&format!("list {}s", K::kind(&())), &error))?.items)
}

impl Status {
    /// Returns true if one object is to be followed.
    pub fn follows(&self) -> bool {
        self.watch || self.timeout.is_some() || self.until.is_some()
    }

    /// Returns the status of the named objects of a kind, else of all; `rows` formats the list.
    ///
    /// # Errors
    /// Same as [`run`].
    pub async fn of<K: Workload>(
        &self,
        output: Output,
        interruption: &Interruption,
        rows: fn(&[K], bool) -> String,
    ) -> Result<Report, Failure> {
        if self.follows() || !self.names.is_empty() {
            return self.named::<K>(output, interruption).await;
        }
        let (client, namespace) = self.scope.place().await?;
        let objects = list(&client, namespace.as_deref()).await?;
        Ok(listed(&objects, namespace.as_deref(), rows))
    }

    async fn named<K: Workload>(
        &self,
        output: Output,
        interruption: &Interruption,
    ) -> Result<Report, Failure> {
        if self.follows() {
            return self.followed::<K>(output, interruption).await;
        }
        let place = self.scope.one_place(&format!("a {}", K::kind(&()))).await?;
        let (mut objects, mut missing) = (Vec::<K>::new(), Vec::new());
        for name in &self.names {
            match place.read(name).await {
                Ok(object) => objects.push(object),
                Err(failure) if failure.reason == NOT_FOUND => missing.push(failure),
                Err(failure) => return Err(failure),
            }
        }
        // Existing objects are shown; the failure of missing ones takes precedence over theirs.
        let mut report = report(&objects);
        missing.extend(report.failure.take());
        match (joined(missing), objects.is_empty()) {
            (Some(missing), true) => Err(missing),
            (failure, _) => Ok(report.failing(failure)),
        }
    }

    /// Adds to the failure of a missing FlashJob the command for a FlashRollout of that name.
    async fn hinting(&self, failure: Failure) -> Failure {
        let ([name], Ok(place)) = (self.names.as_slice(), self.scope.one_place("").await) else {
            return failure;
        };
        match place.read::<FlashRollout>(name).await {
            Ok(rollout) => {
                let command = command_for("status", &rollout);
                let message = format!(
                    "{}; there is a FlashRollout of that name: {command}",
                    failure.message
                );
                Failure { message, ..failure }
            }
            // This is only a hint, so its own failure is ignored.
            Err(_) => failure,
        }
    }

    async fn followed<K: Workload>(
        &self,
        output: Output,
        interruption: &Interruption,
    ) -> Result<Report, Failure> {
        let kind = K::kind(&());
        let [name] = self.names.as_slice() else {
            let message = format!("-w, --timeout and --until follow one {kind}; name it");
            return Err(Failure::usage(message));
        };
        let place = self.scope.one_place(&format!("a {kind}")).await?;
        let named = place.named::<K>(name);
        let ending = K::ending(&place.namespace, name);
        interruption.says(format!("{named} continues; {ending}"));
        let on_change = |object: &K| {
            let is_paused = object.is_suspended() && !object.is_over();
            interruption.says(match (object.is_in_deletion(), is_paused) {
                (true, _) => format!("the deletion of {named} continues"),
                (false, true) => format!("{named} stays paused: {}, {ending}", resuming(object)),
                (false, false) => format!("{named} continues; {ending}"),
            });
        };
        let is_for_people = output == Output::Table || output == Output::Wide;
        let follow = Follow {
            until: self.until.unwrap_or_default(),
            timeout: self.timeout,
            output: if is_for_people { FollowOutput::Details } else { FollowOutput::Lines },
            all: output == Output::Wide,
        };
        match watch::follow(&place, name, follow, on_change).await {
            Ok(object) => Ok(report::<K>(&[object])),
            // Shows the progress that was made before the timeout or the block.
            Err(failure) if matches!(failure.code, Code::TimedOut | Code::Blocked) => {
                match place.read::<K>(name).await {
                    Ok(object) => Ok(report(&[object]).failing(Some(failure))),
                    Err(_) => Err(failure),
                }
            }
            Err(failure) => Err(failure),
        }
    }
}

/// Joins failures into one, with the code of the first.
fn joined(failures: Vec<Failure>) -> Option<Failure> {
    failures.into_iter().reduce(|one, other| Failure {
        message: format!("{}; {}", one.message, other.message),
        ..one
    })
}

fn names<K: Workload>(objects: &[K]) -> String {
    objects.iter().map(resource).collect::<Vec<_>>().join("\n")
}

fn json_of<K: Workload>(objects: &[K], now: Timestamp) -> Value {
    let objects: Vec<_> = objects.iter().map(|object| object.json(now)).collect();
    json!({K::FIELD: objects})
}

/// Returns a report of all objects, one per row as formatted by `rows`; with the namespace if
/// there are several.
pub fn listed<K: Workload>(
    objects: &[K],
    namespace: Option<&str>,
    rows: fn(&[K], bool) -> String,
) -> Report {
    let kind = K::kind(&());
    let text = match (objects, namespace) {
        ([], Some(namespace)) => format!("No {kind}s in namespace {namespace}; -A shows all."),
        ([], None) => format!("No {kind}s."),
        _ => rows(objects, namespace.is_none()),
    };
    Report::new(text, json_of(objects, Timestamp::now())).with(Output::Name, names(objects))
}

/// Returns a report of the named objects with all details; it fails if one of them has failed.
pub fn report<K: Workload>(objects: &[K]) -> Report {
    let now = Timestamp::now();
    let width = view::width(&Term::stdout());
    let text = |all: bool| {
        let texts = objects.iter().map(|object| object.details(None, Frame { now, all, width }));
        texts.collect::<Vec<_>>().join("\n\n")
    };
    let failure = joined(objects.iter().filter_map(Workload::failure).collect());
    Report::new(text(false), json_of(objects, now))
        .with(Output::Wide, text(true))
        .with(Output::Name, names(objects))
        .failing(failure)
}
