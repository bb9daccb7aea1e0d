//! Writes a status that differs from the stored one, and reports the changes in metrics, the log
//! and events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flashjob_api::{FlashJob, FlashJobStatus};
use flashjob_rules::flashjob::observed::{Finish, Job};
use flashjob_rules::flashjob::plan::DeviceResult;
use flashjob_rules::world::change::{Change, EndedWrite, JobOutcome};
use hashbrown::HashMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cluster::answer::in_one_line;
use crate::cluster::leadership::fence::REQUEST_TIMEOUT;
use crate::cluster::read::Guarded;
use crate::cluster::watch;
use crate::flashjob::apply::{pause_after, refresh};
use crate::flashjob::events;
use crate::flashjob::transitions::{JobTransition, Transitions};
use crate::operator::Operator;
use crate::telemetry::metrics::Write;

/// Longest backoff after a failed write and the failed reads that follow: statuses have to be up
/// to date soon after an outage of the API server.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Outcome of a status write that got a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// The status is stored.
    Stored,
    /// The API server accepted the write and changed nothing: the installed definition lacks the
    /// fields that differ.
    Dropped,
    /// Another client wrote first; the next plan uses the new state.
    Conflict,
}

impl WriteOutcome {
    /// Returns the result that the metrics count; a dropped status counts as stored.
    pub fn counted(outcome: &kube::Result<Self>) -> Write {
        match outcome {
            Ok(Self::Stored | Self::Dropped) => Write::Stored,
            Ok(Self::Conflict) => Write::Conflict,
            Err(_) => Write::Error,
        }
    }

    /// Returns the outcome of a write that replaces the resourceVersion `before`, from the
    /// resourceVersion in the response.
    pub fn over(before: &str, answered: Option<&str>) -> Self {
        // A patch that changes nothing is not stored, and leaves the resourceVersion as it was.
        if answered == Some(before) { Self::Dropped } else { Self::Stored }
    }
}

/// Stores a status that was planned from `job`, and reports the new results of devices.
/// `begin_times` has the instant at which the first attempt of these devices began, as far as this
/// process observed it.
pub async fn write(
    operator: Arc<Operator>,
    job: Arc<Job>,
    status: FlashJobStatus,
    results: Vec<DeviceResult>,
    begin_times: HashMap<String, Instant>,
) {
    let begin = Instant::now();
    let mut written = send(&operator, &job, &status).await;
    let took = begin.elapsed();
    operator.metrics.wrote(WriteOutcome::counted(&written));
    if let Err(error) = &written {
        let error = in_one_line(error);
        tracing::warn!(
            job = %job.key, error,
            "status could not be stored; retrying once the API server answers"
        );
        if is_stored(&operator, &job, &status).await {
            written = Ok(WriteOutcome::Stored);
        }
        // In a task of its own: the next status need not wait until the API server has abandoned
        // this one.
        tokio::spawn(settle(operator.clone(), job.clone()));
    }
    let is_dropped = matches!(written, Ok(WriteOutcome::Dropped));
    let dropped = is_dropped.then(|| Box::new((job.resource_version.clone(), status.clone())));
    // The duration of the request alone: the pace of the next writes follows from how busy the API
    // server is.
    let ended = EndedWrite { at: Instant::now(), took, dropped };
    operator.tell(Change::Job(job.key.clone(), JobOutcome::Written(ended)));
    // After the loop was told: events are requests too, and the next status must not wait for
    // them.
    if matches!(written, Ok(WriteOutcome::Stored)) {
        let times = begin_times.into_iter().map(|(uid, since)| (uid, since.elapsed())).collect();
        tell(&operator, &job, &status, &results, &times).await;
    }
}

/// Reads a job after a failed status write until the API server answers, and returns true if that
/// status is stored. No other status of the job is written meanwhile, so an outage costs a job one
/// task and one request for each pause.
async fn is_stored(operator: &Operator, job: &Job, status: &FlashJobStatus) -> bool {
    // The write itself is the first failure.
    let mut failures = 1;
    loop {
        tokio::time::sleep(pause_after(failures, LONGEST_PAUSE, &job.uid)).await;
        match refresh(operator, job).await {
            Ok(stored) => return stored.as_ref() == Some(status),
            Err(error) => still_unknown(job, &error),
        }
        failures += 1;
    }
}

/// Finds out what became of a failed status write that was not stored at first: reads the job once
/// the write has timed out at the API server. Until then the devices that the write would have
/// released stay locked.
async fn settle(operator: Arc<Operator>, job: Arc<Job>) {
    tokio::time::sleep(REQUEST_TIMEOUT).await;
    let mut failures = 0;
    while let Err(error) = refresh(&operator, &job).await {
        still_unknown(&job, &error);
        failures += 1;
        tokio::time::sleep(pause_after(failures, LONGEST_PAUSE, &job.uid)).await;
    }
    operator.tell(Change::Job(job.key.clone(), JobOutcome::WritesSettled(job)));
}

fn still_unknown(job: &Job, error: &kube::Error) {
    let error = in_one_line(error);
    tracing::debug!(
        job = %job.key, error,
        "outcome of a status write is still unknown; retrying"
    );
}

#[tracing::instrument(
    name = "status write",
    level = "debug",
    skip_all,
    err(level = "debug"),
    fields(job = %job.key)
)]
async fn send(
    operator: &Operator,
    job: &Job,
    status: &FlashJobStatus,
) -> kube::Result<WriteOutcome> {
    let jobs: Api<Guarded<FlashJob>> =
        Api::namespaced(operator.client.clone(), &job.key.namespace);
    // No server-side apply: in a test, a stale apply by the same manager left 10 of 4,096 results.
    // The uid protects a later FlashJob of the same name.
    let patch = json!({
        "metadata": {"resourceVersion": job.resource_version, "uid": job.uid},
        "status": difference(&job.status, status),
    });
    match jobs.patch_status(&job.key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(stored) => {
            let version = stored.meta().resource_version.clone();
            // Before the watch delivers it: the next plan must not start from the status that was
            // just replaced.
            watch::tell(operator, stored);
            Ok(WriteOutcome::over(&job.resource_version, version.as_deref()))
        }
        Err(kube::Error::Api(error)) if error.code == 409 || error.code == 404 => {
            // The watch may not have delivered the version that won; without it the next write
            // would conflict again.
            refresh(operator, job).await?;
            Ok(WriteOutcome::Conflict)
        }
        Err(error) => Err(error),
    }
}

/// Returns a merge patch (RFC 7396) from one status to another: only fields that differ, null for
/// removed ones.
pub(crate) fn difference<S: Serialize>(before: &S, after: &S) -> Value {
    let object = |status: &S| match serde_json::to_value(status) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    };
    between(&object(before), &object(after)).into()
}

fn between(before: &Map<String, Value>, after: &Map<String, Value>) -> Map<String, Value> {
    let removals = before
        .keys()
        .filter(|name| !after.contains_key(*name))
        .map(|name| (name.clone(), Value::Null));
    let changed = after
        .iter()
        .filter(|(name, value)| before.get(*name) != Some(*value))
        // A merge patch keeps each member of an object that it does not name.
        .map(|(name, value)| match (before.get(name), value) {
            (Some(Value::Object(before)), Value::Object(after)) => {
                (name.clone(), between(before, after).into())
            }
            _ => (name.clone(), value.clone()),
        });
    removals.chain(changed).collect()
}

/// Reports the transitions in the metrics, the log and events.
async fn tell(
    operator: &Operator,
    job: &Job,
    status: &FlashJobStatus,
    results: &[DeviceResult],
    times: &HashMap<String, Duration>,
) {
    let transitions = Transitions::between(&job.status, status, results);
    operator.metrics.count(&transitions);
    times.values().for_each(|time| operator.metrics.device_took(*time));
    log(job, &transitions, times);
    let about = events::about(job);
    for event in events::events(job, &transitions) {
        if let Err(error) = operator.recorder.publish(&event, &about).await {
            let error = in_one_line(&error);
            tracing::debug!(job = %job.key, error, "an event could not be written");
        }
    }
}

/// Writes one line for each attempt that starts or fails, for each device's result, and for each
/// transition of the job.
fn log(job: &Job, transitions: &Transitions<'_>, times: &HashMap<String, Duration>) {
    let job = &job.key;
    for transition in &transitions.job {
        match transition {
            JobTransition::Started(message) => tracing::info!(%job, "the job starts: {message}"),
            JobTransition::Suspended => tracing::info!(%job, "the job is suspended"),
            JobTransition::Resumed => tracing::info!(%job, "the job is resumed"),
            JobTransition::Stalled(reason, message) => {
                tracing::warn!(%job, reason, "the job is stalled: {message}")
            }
            JobTransition::Completed(_) | JobTransition::Failed(_) => {}
        }
    }
    for device in &transitions.started {
        let (uid, name, endpoint) =
            (&device.uid, device.name.as_deref(), device.host_endpoint.as_deref());
        tracing::info!(
            %job, device = uid, name, attempt = device.attempt, endpoint,
            "an attempt starts"
        );
    }
    for device in &transitions.retried {
        let (uid, name, reason) = (&device.uid, device.name.as_deref(), device.reason.as_deref());
        let message = device.message.as_deref().unwrap_or_default();
        tracing::info!(
            %job, device = uid, name, attempt = device.attempt - 1, reason,
            "an attempt failed, another follows: {message}"
        );
    }
    for result in transitions.results {
        let DeviceResult { uid, name, attempt, verified, message, .. } = result;
        let (name, reason) = (name.as_deref(), result.reason.map(|reason| reason.name));
        let seconds = times.get(uid).map(Duration::as_secs);
        match result.finish {
            Finish::Completed => {
                tracing::info!(
                    %job, device = uid, name, attempt, verified, seconds,
                    "the device completed"
                )
            }
            Finish::Failed => {
                tracing::info!(
                    %job, device = uid, name, attempt, reason, seconds,
                    "the device failed: {message}"
                )
            }
            Finish::Skipped => {
                tracing::info!(
                    %job, device = uid, name, reason,
                    "the device is skipped: {message}"
                )
            }
        }
    }
    // After the results of the devices, which the end of the job sums up.
    for transition in &transitions.job {
        match transition {
            JobTransition::Completed(message) => {
                tracing::info!(%job, "the job completed: {message}")
            }
            JobTransition::Failed(message) => tracing::info!(%job, "the job failed: {message}"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use flashjob_rules::flashjob::plan::plan;
    use flashjob_rules::world::World;
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_write_after_which_the_version_is_as_before_was_dropped() {
        assert_eq!(WriteOutcome::over("7", Some("7")), WriteOutcome::Dropped);
        assert_eq!(WriteOutcome::over("7", Some("8")), WriteOutcome::Stored);
        assert_eq!(WriteOutcome::over("7", None), WriteOutcome::Stored);
    }

    #[test]
    fn a_patch_holds_what_differs_and_nulls_what_goes() {
        let before = FlashJobStatus {
            message: Some("a".into()),
            progress: Some("1/2".into()),
            ..FlashJobStatus::default()
        };
        let after = FlashJobStatus { message: Some("b".into()), ..FlashJobStatus::default() };
        assert_eq!(difference(&before, &after), json!({"message": "b", "progress": null}));
        assert_eq!(difference(&before, &before), json!({}));
        let counted = |reasons: &[(&str, u32)]| FlashJobStatus {
            waiting: reasons.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            ..FlashJobStatus::default()
        };
        let (before, after) =
            (counted(&[("A", 1), ("B", 2), ("C", 3)]), counted(&[("B", 2), ("C", 4)]));
        assert_eq!(difference(&before, &after), json!({"waiting": {"A": null, "C": 4}}));
    }

    #[test]
    fn the_error_of_a_status_that_cannot_be_decoded_is_written_once() {
        for deletion in [None, Some("2026-01-01T00:00:00Z")] {
            let mut stored = json!({
                "metadata": {
                    "name": "a", "namespace": "fleet", "uid": "u", "resourceVersion": "1",
                    "generation": 1, "deletionTimestamp": deletion, "finalizers": ["other"],
                },
                "spec": {"firmware": "r.io/f:1", "version": "1", "uuid": ["a"]},
                "status": {"devices": [{"uid": "a", "attempt": "first"}]},
            });
            let mut writes = Vec::new();
            for second in 0..3 {
                let Guarded(read): Guarded<FlashJob> =
                    serde_json::from_str(&stored.to_string()).expect("an object");
                let unreadable = read.expect_err("the attempt is no number");
                let status = unreadable.status();
                let job = Job::unreadable(unreadable.metadata, status, unreadable.error);
                let key = job.key.clone();
                let mut world = World::default();
                world.see_job(job);
                let now = Timestamp::from_second(second).expect("a time");
                let observed = world.observe(&key, now).expect("the job");
                let planned = plan(&observed).status.expect("a status");
                let patch = difference(&observed.job.status, &planned);
                for (name, value) in patch.as_object().expect("an object") {
                    stored["status"][name] = value.clone();
                }
                writes.extend((planned != observed.job.status).then_some(second));
            }
            assert_eq!(writes, [0], "{stored}");
        }
    }
}
