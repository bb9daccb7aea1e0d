//! Batches: each is added to the FlashJob when the one before has its results and the delay is
//! over.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use flashjob_api::FlashJob;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::merge::{Merged, is_same_run, merge, without_result};
use super::order::{MOST, Order};
use super::{FILE, file};
use crate::cluster::{Place, refused};
use crate::duration;
use crate::failure::{Code, Failure};
use crate::fleet::watch::{self, Follow, Shown, Until};
use crate::fleet::{Change, devices_shown, status};
use crate::interruption::Interruption;
use crate::report::{Report, print};

/// How often a change is tried anew when somebody else changed the FlashJob meanwhile.
const TRIES: usize = 20;

/// How batches follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Pacing {
    /// Devices of a batch.
    pub batch_size: usize,
    /// From the results of a batch to the next one.
    pub delay: Duration,
    /// Go on though devices failed.
    pub keep_going: bool,
    /// The longest time for all.
    pub timeout: Option<Duration>,
}

/// What is said meanwhile on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// As the script that this command succeeds.
    Dialogue,
    /// A line for each batch.
    Options,
    /// Nothing: the output is for programs.
    Nothing,
}

impl Told {
    fn say(self, told: Self, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self == told { print(&text()) } else { Ok(()) }
    }
}

/// Carries an order out.
///
/// # Errors
/// The FlashJob cannot be changed, the time is over, or devices failed.
pub async fn carry_out(
    place: &Place,
    mut order: Order,
    pacing: Pacing,
    path: Option<&Path>,
    told: Told,
    interruption: &Interruption,
) -> Result<Report, Failure> {
    let deadline = pacing.timeout.map(|timeout| Instant::now() + timeout);
    let path = path.or((told == Told::Dialogue).then(|| Path::new(FILE)));
    let Left { existing, uids: left, note } = left(place, &order).await?;
    if let (Some(existing), true) = (&existing, left.is_empty()) {
        return Ok(status::report(std::slice::from_ref(existing)).saying(note.unwrap_or_default()));
    }
    if let (Some(note), true) = (note, told != Told::Nothing) {
        print(&note)?;
    }
    let batches: Vec<&[String]> = left.chunks(pacing.batch_size.clamp(1, MOST)).collect();
    let (stem, mut number) = (order.name.clone(), 1);
    let mut jobs: Vec<FlashJob> = Vec::new();
    let mut after = 0;
    for (index, batch) in batches.iter().enumerate() {
        let (count, is_last) = (index + 1, index + 1 == batches.len());
        told.say(Told::Dialogue, || {
            format!("\nApplying batch {count} with UUIDs: ['{}']", batch.join("', '"))
        })?;
        // One that cannot be written is said before anything is applied.
        if let Some(path) = path {
            file::write(path, &order.job(batch))?;
        }
        let job = loop {
            match apply(place, &order, batch).await? {
                Some(job) => break job,
                None => {
                    number += 1;
                    order.name = format!("{stem}-{number}");
                }
            }
        };
        after += batch.len();
        let rest = left.len() - after;
        let goes_on = going_on(place, &order, rest);
        interruption.says(&goes_on);
        if let Some(path) = path {
            file::write(path, &job)?;
            told.say(Told::Dialogue, || format!("UUIDs saved to {}", path.display()))?;
            told.say(Told::Dialogue, || format!("Successfully applied {}", path.display()))?;
        }
        told.say(Told::Dialogue, || {
            format!("Waiting for {} seconds before the next batch...", pacing.delay.as_secs())
        })?;
        told.say(Told::Options, || {
            format!(
                "Batch {count} of {}: {}, FlashJob {}/{}",
                batches.len(),
                devices_shown(batch.len()),
                place.namespace,
                order.name
            )
        })?;
        let follow = Follow {
            until: Until::Done,
            timeout: deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())),
            shown: Shown::Lines,
            all: false,
        };
        let followed = watch::follow(place, &order.name, follow).await;
        let job = followed.map_err(|failure| late(failure, &pacing, &goes_on))?;
        let failed = failed(&job, batch);
        jobs.retain(|known| known.name_any() != job.name_any());
        jobs.push(job);
        if failed > 0 && !is_last && !pacing.keep_going {
            return Ok(status::report(&jobs).failing(Some(stopped(count, failed, batch, rest))));
        }
        if is_last {
            break;
        }
        told.say(Told::Options, || {
            format!("The next batch follows after {}", duration::shown(pacing.delay))
        })?;
        let next = Instant::now() + pacing.delay;
        tokio::time::sleep_until(deadline.map_or(next, |deadline| deadline.min(next))).await;
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            let failure = Failure::new(Code::TimedOut, "TimedOut", "");
            return Ok(status::report(&jobs).failing(Some(late(failure, &pacing, &goes_on))));
        }
    }
    Ok(status::report(&jobs))
}

/// Devices of an order that are still to be flashed.
pub struct Left {
    /// The FlashJob of that name, where there is one.
    pub existing: Option<FlashJob>,
    /// Uids of the devices.
    pub uids: Vec<String>,
    /// Set where others have their result already.
    pub note: Option<String>,
}

/// Leaves out the devices that have a result of this firmware already.
///
/// # Errors
/// The FlashJob cannot be read.
pub async fn left(place: &Place, order: &Order) -> Result<Left, Failure> {
    let existing = read(place, &order.name).await?;
    let uids: Vec<String> = without_result(existing.as_ref(), order).into_iter().cloned().collect();
    let (namespace, name) = (&place.namespace, &order.name);
    let done = order.uids.len() - uids.len();
    let failed = existing.as_ref().map_or(0, |existing| failed(existing, &order.uids));
    let retry = match failed {
        0 => String::new(),
        failed => format!(
            " ({} failed: kubectl flashjob retry {name} -n {namespace} flashes those alone)",
            devices_shown(failed)
        ),
    };
    let note = match (done, uids.is_empty()) {
        (0, _) => None,
        (_, true) => Some(format!(
            "FlashJob {namespace}/{name} is unchanged: {} asked for, all with a result of this \
             firmware already{retry}. --again flashes them again",
            devices_shown(done)
        )),
        (_, false) => Some(format!(
            "Left out: {} with a result of this firmware already{retry}; --again flashes them \
             again",
            devices_shown(done)
        )),
    };
    Ok(Left { existing, uids, note })
}

/// A time-out in words of the whole command.
fn late(failure: Failure, pacing: &Pacing, goes_on: &str) -> Failure {
    if failure.code != Code::TimedOut {
        return failure;
    }
    let timeout = duration::shown(pacing.timeout.unwrap_or_default());
    Failure { message: format!("not over after {timeout}; {goes_on}"), ..failure }
}

/// The question before devices are flashed: what becomes of a FlashJob of that name is part of it.
///
/// # Errors
/// It cannot be read.
pub async fn question(place: &Place, order: &Order, pacing: &Pacing) -> Result<String, Failure> {
    let existing = read(place, &order.name).await?;
    let replaced = existing.filter(|existing| !is_same_run(existing, order));
    let replaced = replaced.map(|existing| {
        format!(
            " The results of {} version {} that it has are replaced.",
            existing.spec.firmware, existing.spec.version
        )
    });
    let batches = match order.uids.len() > pacing.batch_size {
        true => format!(" in batches of {}", pacing.batch_size),
        false => String::new(),
    };
    Ok(format!(
        "Flash {}{batches} with {} version {}, as FlashJob {}/{}?{}",
        devices_shown(order.uids.len()),
        order.firmware.reference,
        order.firmware.version,
        place.namespace,
        order.name,
        replaced.unwrap_or_default()
    ))
}

fn going_on(place: &Place, order: &Order, rest: usize) -> String {
    let (namespace, name) = (&place.namespace, &order.name);
    let without = if order.run.is_some() { " without --again" } else { "" };
    let rest = match rest {
        0 => String::new(),
        rest => format!(
            ". Not started: {} of later batches; the same command{without} goes on with them",
            devices_shown(rest)
        ),
    };
    format!(
        "FlashJob {namespace}/{name} stays: kubectl flashjob status {name} -n {namespace} -w \
         follows it, kubectl flashjob cancel {name} -n {namespace} ends it{rest}"
    )
}

fn failed(job: &FlashJob, batch: &[String]) -> usize {
    let failed: HashSet<&String> =
        job.status.iter().flat_map(|status| &status.failed_uuids).collect();
    batch.iter().filter(|uid| failed.contains(uid)).count()
}

fn stopped(count: usize, failed: usize, batch: &[String], rest: usize) -> Failure {
    let message = format!(
        "stopped after batch {count}: of {} in it {failed} failed, and {} were not started. The \
         same command goes on with them; --keep-going does not stop",
        devices_shown(batch.len()),
        devices_shown(rest)
    );
    Failure::new(Code::Failing, "BatchFailed", message)
}

/// Reads the FlashJob of that name; none where there is none.
///
/// # Errors
/// It cannot be read.
pub async fn read(place: &Place, name: &str) -> Result<Option<FlashJob>, Failure> {
    let read = place.jobs().get_opt(name).await;
    read.map_err(|error| refused(&format!("read FlashJob {}/{name}", place.namespace), &error))
}

/// Brings a batch into the FlashJob; none where that is full. What somebody else changes meanwhile
/// is not overwritten: the change is made anew on top of it.
async fn apply(
    place: &Place,
    order: &Order,
    batch: &[String],
) -> Result<Option<FlashJob>, Failure> {
    let what = format!("apply FlashJob {}/{}", place.namespace, order.name);
    for _ in 0..TRIES {
        let applied = match read(place, &order.name).await? {
            None => create(place, order, batch, Change::Stored).await,
            Some(existing) => match merge(&existing, order, batch) {
                Merged::Full => return Ok(None),
                Merged::Refused(cause) => return Err(busy(order, cause)),
                Merged::Added(uids) => {
                    change(place, &existing, json!({"uuid": uids}), Change::Stored).await
                }
                Merged::Replaced => {
                    change(place, &existing, replacement(order, batch), Change::Stored).await
                }
            },
        };
        match applied {
            Ok(job) => return Ok(Some(job)),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(refused(&what, &error)),
        }
    }
    let message = format!("cannot {what}: somebody else changes it all the time; try again");
    Err(Failure::new(Code::Other, "Busy", message))
}

/// A FlashJob that may not be changed now.
pub fn busy(order: &Order, cause: &str) -> Failure {
    let message = format!("FlashJob {}/{} {cause}", order.namespace, order.name);
    Failure::new(Code::Other, "Busy", message)
}

/// Creates the FlashJob of an order.
///
/// # Errors
/// The API server refuses it.
pub async fn create(
    place: &Place,
    order: &Order,
    batch: &[String],
    change: Change,
) -> kube::Result<FlashJob> {
    place.jobs().create(&change.posting(), &order.job(batch)).await
}

/// The spec of a FlashJob that is over and begins anew: nulls take away what only the one before
/// had.
pub fn replacement(order: &Order, batch: &[String]) -> Value {
    let mut spec = json!({
        "uuid": batch, "firmware": order.firmware.reference, "version": order.firmware.version,
        "flashjobPodImage": order.firmware.pod_image, "device": order.device,
        "applicationType": order.application, "hostEndpoint": null, "externalIP": null,
        "suspend": null,
    });
    if let Some(parallelism) = order.parallelism {
        spec["parallelism"] = json!(parallelism);
    }
    if let Some(run) = &order.run {
        spec["runID"] = json!(run);
    }
    spec
}

/// Changes the spec of a FlashJob that was read.
///
/// # Errors
/// The API server refuses it, also where somebody else changed the FlashJob meanwhile.
pub async fn change(
    place: &Place,
    existing: &FlashJob,
    spec: Value,
    change: Change,
) -> kube::Result<FlashJob> {
    // With the version that was read, so that a change of somebody else in between is a conflict.
    let metadata = json!({"resourceVersion": existing.resource_version(), "uid": existing.uid()});
    let patch = Patch::Merge(json!({"metadata": metadata, "spec": spec}));
    place.jobs().patch(&existing.name_any(), &change.patching(), &patch).await
}
