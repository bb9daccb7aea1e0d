//! Batches: each is added to the FlashJob when the previous one has its results and the delay is
//! over.

use std::path::Path;
use std::time::Duration;

use flashjob_api::FlashJob;
use flashjob_rules::count::counted;
use kube::ResourceExt;
use tokio::time::Instant;

use super::apply::{CHANGED, apply, ours};
use super::file::{self, FILE};
use super::order::{MOST, Order};
use super::remaining::{self, Left, failed, paused_words};
use crate::cluster::{NOT_FOUND, Place};
use crate::duration;
use crate::failure::{Code, Failure};
use crate::fleet::status;
use crate::fleet::watch::{self, Follow, FollowOutput, Until};
use crate::fleet::workload::{DELETED, Workload, resuming};
use crate::interruption::Interruption;
use crate::report::{Report, print};

/// Size of the batches, and rules for the start of the next one.
#[derive(Clone, Copy, Debug)]
pub struct Pacing {
    /// Number of devices in a batch.
    pub batch_size: usize,
    /// Delay between the results of a batch and the start of the next one.
    pub delay: Duration,
    /// Continue even if devices failed.
    pub keep_going: bool,
    /// Time limit for all batches together.
    pub timeout: Option<Duration>,
}

/// Style of the progress messages on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressStyle {
    /// The messages of the script that this command replaces.
    Dialogue,
    /// A line for each batch.
    Options,
    /// No messages: the output is for programs.
    Nothing,
}

impl ProgressStyle {
    fn say(self, style: Self, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self == style { print(&text()) } else { Ok(()) }
    }
}

/// Flashes the devices of an order, batch by batch.
///
/// # Errors
/// The FlashJob cannot be changed, or somebody else deletes or changes it between batches; the
/// time limit is reached, or devices failed.
pub async fn carry_out(
    place: &Place,
    mut order: Order,
    pacing: Pacing,
    path: Option<&Path>,
    style: ProgressStyle,
    interruption: &Interruption,
) -> Result<Report, Failure> {
    // One point in time for the whole command: with a limit per batch, the total would grow with
    // the number of batches.
    let deadline = pacing.timeout.map(|timeout| Instant::now() + timeout);
    // The script filter_uuid.py always wrote this file, so the dialogue does too; with options a
    // file is written only if `--file` names one.
    let path = path.or((style == ProgressStyle::Dialogue).then(|| Path::new(FILE)));
    let Left { existing, uids: remaining_uids, note, .. } = remaining::read(place, &order).await?;
    if let (Some(existing), true) = (&existing, remaining_uids.is_empty()) {
        return Ok(status::report(std::slice::from_ref(existing)).saying(note.unwrap_or_default()));
    }
    if let (Some(note), true) = (note, style != ProgressStyle::Nothing) {
        print(&note)?;
    }
    if let Some(paused) = existing.as_ref().filter(|existing| existing.is_suspended()) {
        tell!("Note: FlashJob {}/{} {}", place.namespace, order.name, paused_words(paused));
    }
    // A FlashJob has at most `MOST` uids, so the API server would refuse a larger batch; `chunks`
    // panics for 0.
    let batches: Vec<&[String]> =
        remaining_uids.chunks(pacing.batch_size.clamp(1, MOST)).collect();
    let (stem, mut number) = (order.name.clone(), 1);
    let mut jobs: Vec<FlashJob> = Vec::new();
    let mut after = 0;
    // Uid of the FlashJob that has the batches so far. If somebody deletes it, it is not created
    // again.
    let mut job_uid: Option<String> = None;
    for (index, batch) in batches.iter().enumerate() {
        let (count, is_last) = (index + 1, index + 1 == batches.len());
        style.say(ProgressStyle::Dialogue, || {
            format!("\nApplying batch {count} with UUIDs: ['{}']", batch.join("', '"))
        })?;
        // A file that cannot be written is reported before anything is applied.
        if let Some(path) = path.filter(|_| index == 0) {
            file::write(path, &order.job(batch))?;
        }
        let job = loop {
            // The API server may have stored the batch when a signal arrives before its answer.
            interruption.says(outcome_uncertain(&order, count, after));
            let applied = apply(place, &order, batch, job_uid.as_deref()).await;
            match applied.map_err(|failure| ended(failure, &order, after, remaining_uids.len()))? {
                Some(job) => break job,
                None => {
                    // The FlashJob is full: the CustomResourceDefinition allows 4,096 uids, so a
                    // larger fleet continues in `<name>-2`, `<name>-3` and so on.
                    number += 1;
                    order.name = format!("{stem}-{number}");
                    job_uid = None;
                }
            }
        };
        let uid = job_uid.insert(job.uid().unwrap_or_default());
        after += batch.len();
        let rest = remaining_uids.len() - after;
        // The batch is stored now: the message has to name the FlashJob that continues.
        let mut goes_on = going_on(&job, rest, &order);
        interruption.says(&goes_on);
        if let Some(path) = path {
            file::write(path, &job)?;
            style.say(ProgressStyle::Dialogue, || format!("UUIDs saved to {}", path.display()))?;
            style.say(ProgressStyle::Dialogue, || {
                format!("Successfully applied {}", path.display())
            })?;
        }
        style.say(ProgressStyle::Dialogue, || {
            format!("Waiting for {} seconds before the next batch...", pacing.delay.as_secs())
        })?;
        style.say(ProgressStyle::Options, || {
            format!(
                "Batch {count} of {}: {}, FlashJob {}/{}",
                batches.len(),
                counted(batch.len(), "device"),
                place.namespace,
                order.name
            )
        })?;
        // Somebody may pause or resume the FlashJob meanwhile; the message at a signal says how to
        // continue in its present state.
        let on_change = |job: &FlashJob| {
            goes_on = going_on(job, rest, &order);
            interruption.says(&goes_on);
        };
        let followed = follow(place, &order, uid, deadline, on_change).await;
        let job = followed.map_err(|failure| {
            let failure = timed_out(failure, &pacing, &goes_on);
            ended(failure, &order, after, remaining_uids.len())
        })?;
        let failed = failed(&job, batch);
        // Batches of one FlashJob share its status, so only its latest state is reported.
        jobs.retain(|other| other.name_any() != job.name_any());
        jobs.push(job);
        // Firmware that fails on one batch is likely to fail on the next ones too. After the last
        // batch nothing is left to stop, and the report has the failure of the FlashJob.
        if failed > 0 && !is_last && !pacing.keep_going {
            return Ok(status::report(&jobs).failing(Some(stopped(count, failed, batch, rest))));
        }
        if is_last {
            break;
        }
        style.say(ProgressStyle::Options, || match pacing.delay {
            Duration::ZERO => "The next batch follows".to_owned(),
            delay => format!("The next batch follows after {}", duration::in_words(delay)),
        })?;
        let waited = wait_for_delay(place, &order, pacing.delay, deadline).await;
        waited.map_err(|failure| ended(failure, &order, after, remaining_uids.len()))?;
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            let failure = Failure::new(Code::TimedOut, "TimedOut", "");
            return Ok(status::report(&jobs).failing(Some(timed_out(failure, &pacing, &goes_on))));
        }
    }
    Ok(status::report(&jobs))
}

/// Follows the FlashJob with this uid until it is over, at most until the deadline.
///
/// # Errors
/// The FlashJob was deleted, replaced or changed, or the deadline has passed.
async fn follow(
    place: &Place,
    order: &Order,
    uid: &str,
    deadline: Option<Instant>,
    on_change: impl FnMut(&FlashJob),
) -> Result<FlashJob, Failure> {
    let follow = Follow {
        until: Until::Done,
        timeout: deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())),
        output: FollowOutput::Lines,
        all: false,
    };
    let followed = watch::follow(place, &order.name, follow, on_change).await;
    let job = followed.map_err(|failure| match failure.reason {
        // The FlashJob existed a moment ago.
        NOT_FOUND => watch::deleted::<FlashJob>(&order.namespace, &order.name),
        _ => failure,
    })?;
    // The watch may have opened after somebody replaced the FlashJob by another of the same name,
    // whose results say nothing about this batch.
    ours(Some(&job), order, uid)?;
    Ok(job)
}

/// Waits for the delay between two batches, at most until the deadline.
///
/// # Errors
/// The FlashJob was deleted in the delay, or cannot be watched.
async fn wait_for_delay(
    place: &Place,
    order: &Order,
    delay: Duration,
    deadline: Option<Instant>,
) -> Result<(), Failure> {
    let next = Instant::now() + delay;
    // The limit holds in a delay too: a delay of an hour must not outlast a limit of a minute.
    let next = deadline.map_or(next, |deadline| deadline.min(next));
    tokio::select! {
        () = tokio::time::sleep_until(next) => Ok(()),
        // A deletion in the delay would otherwise be noticed only when the next batch is applied.
        deletion = watch::wait_until_deleted(place, &order.name, None, None) => {
            Err(deletion.err().unwrap_or_else(|| {
                watch::deleted::<FlashJob>(&order.namespace, &order.name)
            }))
        }
    }
}

/// Rewords a timeout for the whole command; returns any other failure unchanged.
fn timed_out(failure: Failure, pacing: &Pacing, goes_on: &str) -> Failure {
    if failure.code != Code::TimedOut {
        return failure;
    }
    let timeout = duration::in_words(pacing.timeout.unwrap_or_default());
    Failure { message: format!("timed out after {timeout}; {goes_on}"), ..failure }
}

/// Adds the state of the devices to a failure that ends the command before its last batch: `after`
/// of `all` devices were started.
fn ended(failure: Failure, order: &Order, after: usize, all: usize) -> Failure {
    let (namespace, name) = (&order.namespace, &order.name);
    let rest = all - after;
    let message = match failure.reason {
        // No device was started, so there is nothing to add.
        _ if after == 0 => return failure,
        // The message already has the state of the devices.
        "TimedOut" => return failure,
        DELETED => format!(
            "{}, and is not created again{}. Its results were deleted with it: the same command \
             flashes all {} in a new FlashJob, --uid chooses some of them",
            failure.message,
            not_started(rest),
            counted(all, "device")
        ),
        CHANGED => format!(
            "{}; no more devices are added to it{}. kubectl flashjob status {name} -n {namespace} \
             -w follows it; for the remaining devices give another --name, or wait until it is \
             over",
            failure.message,
            not_started(rest)
        ),
        _ if rest == 0 => return failure,
        _ => format!(
            "{}{}; the same command continues with {}. kubectl flashjob status {name} -n \
             {namespace} -w follows those already started",
            failure.message,
            not_started(rest),
            them(rest)
        ),
    };
    Failure { message, ..failure }
}

/// Returns the number of devices that were not started, as a part of a sentence; empty for 0.
fn not_started(rest: usize) -> String {
    match rest {
        0 => String::new(),
        rest => format!(". Not started: {} of later batches", counted(rest, "device")),
    }
}

/// Describes what happens to the FlashJob and to the remaining devices if the program ends now.
fn going_on(job: &FlashJob, rest: usize, order: &Order) -> String {
    let (namespace, name) = (&order.namespace, &order.name);
    let paused = match job.is_suspended() {
        true => format!("; it is paused: {}", resuming(job)),
        false => String::new(),
    };
    // `--again` makes a new `runID` at each call, so repeating it would also flash again the
    // devices that have finished.
    let without = if order.run.is_some() { " without --again" } else { "" };
    let rest = match rest {
        0 => String::new(),
        rest => {
            format!(
                "{}; the same command{without} continues with {}",
                not_started(rest),
                them(rest)
            )
        }
    };
    format!(
        "FlashJob {namespace}/{name} remains: kubectl flashjob status {name} -n {namespace} -w \
         follows it, kubectl flashjob cancel {name} -n {namespace} ends it{paused}{rest}"
    )
}

/// Describes what is left if the program ends while batch `count` is applied, after `after`
/// devices were started.
fn outcome_uncertain(order: &Order, count: usize, after: usize) -> String {
    let (namespace, name) = (&order.namespace, &order.name);
    let again = match (after, &order.run) {
        (_, None) => "; the same command continues",
        // A first batch with `--again` that was not applied needs `--again` again.
        (0, Some(_)) => "",
        (_, Some(_)) => "; the same command without --again continues",
    };
    format!(
        "it is uncertain whether batch {count} was applied to FlashJob {namespace}/{name}: \
         kubectl flashjob report {name} -n {namespace} lists its devices, kubectl flashjob cancel \
         {name} -n {namespace} ends it{again}"
    )
}

fn them(count: usize) -> &'static str {
    if count == 1 { "it" } else { "them" }
}

fn stopped(count: usize, failed: usize, batch: &[String], rest: usize) -> Failure {
    let were = if rest == 1 { "was" } else { "were" };
    let message = format!(
        "stopped after batch {count}: {failed} of {} in it failed, and {} {were} not started. The \
         same command continues with {}; --keep-going does not stop on failures",
        counted(batch.len(), "device"),
        counted(rest, "device"),
        them(rest)
    );
    Failure::new(Code::Failing, "BatchFailed", message)
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;
    use tokio::sync::mpsc::unbounded_channel;

    use super::super::apply::{addition, replacement, still_ours};
    use super::super::tests::{order, paused};
    use super::*;
    use crate::fake_api;

    #[tokio::test]
    async fn a_signal_before_the_answer_to_a_batch_leaves_its_outcome_open() {
        let (sender, mut creations) = unbounded_channel();
        let place = fake_api::place(move |method, _, _| match *method {
            Method::POST => {
                let _ = sender.send(());
                None
            }
            _ => fake_api::rejection(StatusCode::NOT_FOUND, "NotFound", "hall-3"),
        });
        let interruption = Interruption::default();
        interruption.says("nothing was applied");
        let pacing =
            Pacing { batch_size: 2, delay: Duration::ZERO, keep_going: false, timeout: None };
        let style = ProgressStyle::Nothing;
        tokio::select! {
            _ = carry_out(&place, order(), pacing, None, style, &interruption) => {
                panic!("the API server does not answer")
            }
            _ = creations.recv() => {}
        }
        let message = interruption.message();
        for expected in ["uncertain", "batch 1", "fleet/hall-3", "cancel hall-3 -n fleet"] {
            assert!(message.contains(expected), "{message}");
        }
        assert!(!message.contains("nothing was applied"), "{message}");
    }

    #[test]
    fn a_pause_stays_and_the_end_says_how_to_lift_it() {
        let all = ["a", "b"].map(str::to_owned);
        for change in [replacement(&order(), &all), addition(&order(), &all)] {
            assert_eq!((&change["uuid"], &change["parallelism"]), (&json!(["a", "b"]), &json!(3)));
            assert!(change.get("suspend").is_none(), "{change}");
        }
        assert!(order().anew(paused("1").spec, &all).suspend.is_some());
        assert!(going_on(&paused("1"), 1, &order()).contains("resume hall-3 -n fleet"));
        assert!(!going_on(&order().job(&all), 0, &order()).contains("paused"));
    }

    #[test]
    fn a_job_that_is_gone_another_one_or_changed_gets_no_later_batch() {
        let (order, all) = (order(), ["a", "b", "c"].map(str::to_owned));
        let job = |uid: &str| {
            let mut job = order.job(&all);
            job.metadata.uid = Some(uid.to_owned());
            job
        };
        let end = |existing: Option<FlashJob>| {
            let failure = still_ours(existing.as_ref(), &order, "ours").err()?;
            let failure = ended(failure, &order, 1, 3);
            assert!(failure.message.contains("fleet/hall-3"), "{}", failure.message);
            assert!(failure.message.contains("Not started: 2 devices"), "{}", failure.message);
            Some((failure.code, failure.reason))
        };
        assert_eq!(end(Some(job("ours"))), None);
        for existing in [None, Some(job("of somebody else"))] {
            assert_eq!(end(existing), Some((Code::Unavailable, DELETED)));
        }
        let mut going = job("ours");
        going.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(end(Some(going)), Some((Code::Unavailable, DELETED)));
        let mut other = job("ours");
        other.spec.version = "2".to_owned();
        assert_eq!(end(Some(other)), Some((Code::Other, CHANGED)));
    }

    #[test]
    fn one_device_that_was_not_started_was_not_started() {
        let stopped = |rest| stopped(1, 1, &["a".to_owned()], rest).message;
        assert!(stopped(1).contains("1 device was not started"), "{}", stopped(1));
        assert!(stopped(2).contains("2 devices were not started"), "{}", stopped(2));
    }
}
