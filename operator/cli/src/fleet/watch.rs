//! Follows one FlashJob or FlashRollout until its end, with one watch, and shows its progress.

use std::pin::pin;
use std::time::Duration;

use console::Term;
use flashjob_api::FlashJob;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watch_object};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::pace::FirstCount;
use super::view;
use super::workload::{DELETED, Frame, Workload};
use crate::cause::{root, through_proxy};
use crate::cluster::{CONNECT_LIMIT, Place, refused};
use crate::failure::{Code, Failure};
use crate::text::without_control_characters;

/// Interval at which a terminal is redrawn without a change, as the times in the view advance.
const REDRAW: Duration = Duration::from_secs(1);

/// Condition that ends a watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Until {
    /// Every device has its result.
    #[default]
    Done,
    /// The same, or nothing goes on until somebody acts: it is paused or stalled, or waits for an
    /// approval.
    Blocked,
}

/// Output while an object is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowOutput {
    /// A view that is redrawn in place on a terminal; elsewhere one line for each change.
    Details,
    /// A line for each change, on standard error.
    Lines,
}

/// Settings for following an object: end condition, timeout, output.
#[derive(Clone, Copy, Debug)]
pub struct Follow {
    /// Condition that ends the watch.
    pub until: Until,
    /// Longest time to follow; none for no limit.
    pub timeout: Option<Duration>,
    /// Output while the object is followed.
    pub output: FollowOutput,
    /// Show every device in flight.
    pub all: bool,
}

/// Follows an object until its end, and returns its last state. Each state goes to `on_change`
/// first.
///
/// # Errors
/// The object does not exist or is deleted, the timeout is reached, or the object is blocked and
/// that ends the watch.
pub async fn follow<K: Workload>(
    place: &Place,
    name: &str,
    follow: Follow,
    mut on_change: impl FnMut(&K),
) -> Result<K, Failure> {
    let events = watch_object(place.api::<K>(), name);
    // Without a backoff the watcher repeats a failed list at once, and adds to the load of an API
    // server that is already in trouble.
    let events = events.backoff(watcher::DefaultBackoff::default());
    let mut events = pin!(events);
    let deadline = follow.timeout.map(|timeout| Instant::now() + timeout);
    let mut screen = Screen::new(follow);
    let mut redraw = interval(REDRAW);
    // The default, `Burst`, would redraw many times at once after the process was stopped by
    // Ctrl-Z.
    redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<K> = None;
    let mut first_count = None;
    loop {
        tokio::select! {
            event = events.next() => match event {
                // A new object of the same name, created while the watch was interrupted.
                Some(Ok(Some(object)))
                    if last.as_ref().is_some_and(|last| last.uid() != object.uid()) =>
                {
                    return Err(deleted::<K>(&place.namespace, name));
                }
                Some(Ok(Some(object))) => {
                    on_change(&object);
                    let first = FirstCount::first(object.results(), Timestamp::now());
                    let first_count = *first_count.get_or_insert(first);
                    screen.show(&object, first_count)?;
                    match end(&object, follow.until) {
                        Some(ended) => return screen.clear().and(ended).map(|()| object),
                        None => last = Some(object),
                    }
                }
                // `watch_object` reports an object that never existed and one that was deleted by
                // the same event; only an earlier state tells them apart.
                Some(Ok(None)) if last.is_none() => return Err(place.missing::<K>(name)),
                Some(Ok(None)) => return Err(deleted::<K>(&place.namespace, name)),
                // The stream goes on after an error: the watcher lists again, for example after
                // 410 Gone for a resourceVersion that etcd has compacted.
                Some(Err(error)) => lasting::<K>(&error, place, name, last.is_some())?,
                None => return Err(place.missing::<K>(name)),
            },
            _ = redraw.tick(), if screen.is_drawn() => {
                if let (Some(object), Some(first_count)) = (&last, first_count) {
                    screen.show(object, first_count)?;
                }
            }
            () = reached(deadline) => {
                let object = match last {
                    Some(object) => object,
                    None => at_once(place, name, follow.timeout).await?,
                };
                // An object that ended just before the deadline has not timed out.
                let ended = end(&object, follow.until);
                let ended = ended
                    .unwrap_or_else(|| Err(timed_out(follow.timeout, &object.line())));
                return screen.clear().and(ended).map(|()| object);
            }
        }
    }
}

/// Returns the failure for an object that somebody deleted while the command used it.
pub fn deleted<K: Workload>(namespace: &str, name: &str) -> Failure {
    let message = format!("{} {namespace}/{name} was deleted", K::kind(&()));
    Failure::new(Code::Unavailable, DELETED, message)
}

async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Returns the result with which an object in this state ends the watch; none if it does not.
fn end<K: Workload>(object: &K, until: Until) -> Option<Result<(), Failure>> {
    // Before `is_blocked`: a FlashJob that ended with failures also has the condition Stalled, so
    // that kstatus evaluates it as Failed.
    if object.is_over() {
        return Some(Ok(()));
    }
    // A deletion goes on by itself, whatever its object waited for before.
    let is_blocked = object.is_blocked() && !object.is_in_deletion();
    (until == Until::Blocked && is_blocked).then(|| {
        let message = format!("{}; it waits for somebody to act", object.line());
        Err(Failure::new(Code::Blocked, "Blocked", message))
    })
}

/// Returns the failure of a watch that cannot continue: the API server rejects it, or it never
/// began. Any other watch is reopened after an error.
fn lasting<K: Workload>(
    error: &watcher::Error,
    place: &Place,
    name: &str,
    has_begun: bool,
) -> Result<(), Failure> {
    let what = format!("watch {}", place.named::<K>(name));
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) =
        error
    else {
        return Ok(());
    };
    match error {
        // Waiting does not help: the credentials are not accepted, a right is missing, or the kind
        // is not installed.
        kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404) => {
            Err(refused(&what, error))
        }
        // A restart of the API server, or a connection that broke, must not end a watch of hours.
        _ if has_begun => Ok(()),
        _ => Err(refused(&what, error)),
    }
}

fn timed_out(timeout: Option<Duration>, state: &str) -> Failure {
    let timeout = crate::duration::in_words(timeout.unwrap_or_default());
    let message = format!("{state}; timed out after {timeout}");
    Failure::new(Code::TimedOut, "TimedOut", message)
}

/// Reads an object of which no state arrived before the timeout: a timeout of 0 asks for the
/// current state.
async fn at_once<K: Workload>(
    place: &Place,
    name: &str,
    timeout: Option<Duration>,
) -> Result<K, Failure> {
    match tokio::time::timeout(CONNECT_LIMIT, place.read(name)).await {
        Ok(read) => read,
        Err(_) => {
            let message = format!(
                "no state of {} was received within {}: the API server does not answer{}",
                place.named::<K>(name),
                crate::duration::in_words(timeout.unwrap_or_default() + CONNECT_LIMIT),
                through_proxy()
            );
            Err(Failure::new(Code::TimedOut, "TimedOut", message))
        }
    }
}

/// Waits until the FlashJob with this uid no longer exists; without a uid, until none of this name
/// exists.
///
/// # Errors
/// The timeout is reached, or the API server rejects the watch.
pub async fn wait_until_deleted(
    place: &Place,
    name: &str,
    uid: Option<&str>,
    timeout: Option<Duration>,
) -> Result<(), Failure> {
    let events = watch_object(place.api::<FlashJob>(), name);
    let events = events.backoff(watcher::DefaultBackoff::default());
    let mut events = pin!(events);
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut last_message = None;
    loop {
        tokio::select! {
            event = events.try_next() => match event {
                // A new FlashJob of this name took its place.
                Ok(Some(Some(found))) if uid.is_some() && found.uid().as_deref() != uid => {
                    return Ok(());
                }
                Ok(Some(Some(found))) => {
                    last_message = found.status.and_then(|status| status.message);
                }
                Ok(Some(None) | None) => return Ok(()),
                // The FlashJob was read before, so the watch has begun: an error of the connection
                // does not mean that the object is gone.
                Err(error) => lasting::<FlashJob>(&error, place, name, true)?,
            },
            () = reached(deadline) => {
                let timeout = crate::duration::in_words(timeout.unwrap_or_default());
                return Err(still_exists(&place.named::<FlashJob>(name), &timeout, last_message));
            }
        }
    }
}

/// Returns the failure for a FlashJob that was not gone in time. The message of its status names
/// the Pod that the deletion waits for, and until when.
fn still_exists(name: &str, timeout: &str, status_message: Option<String>) -> Failure {
    let status = status_message
        .map(|message| format!("; its status says: {}", without_control_characters(&message)))
        .unwrap_or_default();
    let message = format!(
        "{name} still exists after {timeout}: it is deleted once the operator has stopped its \
         Pods; without a running operator it is never deleted, see kubectl flashjob check{status}"
    );
    Failure::new(Code::TimedOut, "TimedOut", message)
}

/// Returns true if the line about an object is to be shown: a status that is older than the last
/// change of the spec would mislead, but a deletion begins whatever the status says.
fn is_current<K: Workload>(object: &K) -> bool {
    !object.has_status() || !object.is_behind() || object.is_in_deletion()
}

/// Output that shows the state.
struct Screen {
    terminal: Term,
    follow: Follow,
    drawn: usize,
    line: String,
}

impl Screen {
    fn new(follow: Follow) -> Self {
        let terminal = match follow.output {
            FollowOutput::Details => Term::stdout(),
            // Standard output has the result in a form for programs, which progress would make
            // invalid.
            FollowOutput::Lines => Term::stderr(),
        };
        Self { terminal, follow, drawn: 0, line: String::new() }
    }

    /// Returns true if the view is redrawn in place.
    fn is_drawn(&self) -> bool {
        // A terminal of the type `dumb` prints escape sequences as text.
        let is_dumb = std::env::var_os("TERM").is_some_and(|kind| kind == "dumb");
        self.follow.output == FollowOutput::Details && self.terminal.is_term() && !is_dumb
    }

    fn show<K: Workload>(&mut self, object: &K, first_count: FirstCount) -> Result<(), Failure> {
        if !self.is_drawn() {
            if !is_current(object) {
                return Ok(());
            }
            let line = object.line();
            // The operator writes the status up to once a second, often without an effect on this
            // line.
            if line != self.line {
                self.write(&format!("{line}\n"))?;
                self.line = line;
            }
            return Ok(());
        }
        let (height, width) = (usize::from(self.terminal.size().0), view::width(&self.terminal));
        let frame = Frame { now: Timestamp::now(), all: self.follow.all, width };
        let text = object.details(Some(first_count), frame);
        // A view that is longer than the window could not be redrawn in place.
        let lines = text.lines().flat_map(|line| textwrap::wrap(line, width));
        let lines: Vec<_> = lines.take(height.saturating_sub(1).max(1)).collect();
        // In one write, so that nothing flickers.
        let up =
            if self.drawn == 0 { String::new() } else { format!("\x1b[{}A\r\x1b[J", self.drawn) };
        self.drawn = lines.len();
        self.write(&format!("{up}{}\n", lines.join("\n")))
    }

    /// Removes the view; the result of the command is shown in its place.
    fn clear(&mut self) -> Result<(), Failure> {
        let cleared = self.terminal.clear_last_lines(std::mem::take(&mut self.drawn));
        cleared.map_err(|error| lost(&error))
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        match self.terminal.write_str(text) {
            // A reader such as `head` closes the pipe once it has seen enough; that ends no watch.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(lost(&error)),
            _ => Ok(()),
        }
    }
}

fn lost(error: &std::io::Error) -> Failure {
    Failure::new(Code::Other, "OutputLost", format!("cannot write: {}", root(error)))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use flashjob_api::{Counts, FlashJobSpec, FlashJobStatus, Phase, condition};
    use http::StatusCode;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;
    use crate::fake_api;

    #[tokio::test]
    async fn the_line_of_a_deletion_counts_as_current_and_the_watch_ends_when_the_job_is_gone() {
        let mut job = FlashJob::new("hall-3", FlashJobSpec::default());
        job.metadata.namespace = Some("fleet".to_owned());
        job.metadata.resource_version = Some("7".to_owned());
        job.metadata.generation = Some(2);
        // The last change of the spec has not been observed, which hides other changes.
        job.status = Some(FlashJobStatus {
            phase: Some(Phase::InProgress),
            counts: Some(Counts { total: 1, active: 1, ..Counts::default() }),
            observed_generation: Some(1),
            ..FlashJobStatus::default()
        });
        let mut deleted = job.clone();
        deleted.metadata.generation = Some(3);
        deleted.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let event = |kind: &str| json!({"type": kind, "object": deleted});
        let list = json!({
            "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashJobList",
            "metadata": {"resourceVersion": "7"}, "items": [job],
        });
        // The last one is the first answer; each answer ends a watch, which is then reopened.
        let answers = Mutex::new(vec![event("DELETED"), event("MODIFIED"), list]);
        let place = fake_api::place(move |_, _, _| {
            answers.lock().ok()?.pop().map(|answer| (StatusCode::OK, answer))
        });
        let follow_settings = Follow {
            until: Until::Done,
            timeout: Some(Duration::from_secs(30)),
            output: FollowOutput::Lines,
            all: false,
        };
        let mut lines = Vec::new();
        let on_change = |job: &FlashJob| lines.extend(is_current(job).then(|| job.line()));
        let ended = follow(&place, "hall-3", follow_settings, on_change).await;
        let ended = ended.expect_err("it was deleted");
        assert_eq!((ended.code, ended.reason), (Code::Unavailable, DELETED));
        assert_eq!(ended.message, "FlashJob fleet/hall-3 was deleted");
        assert_eq!(lines.len(), 1, "{lines:?}");
        let expected = "; being deleted, until the operator has stopped its Pods";
        assert!(lines[0].starts_with("hall-3 Deleting: ") && lines[0].ends_with(expected));
    }

    #[test]
    fn a_pause_that_was_just_lifted_or_ends_by_deletion_does_not_end_a_watch_until_blocked() {
        let mut conditions = Vec::new();
        let now = Timestamp::UNIX_EPOCH;
        condition::set(&mut conditions, condition::SUSPENDED, true, "Paused", "", Some(1), now);
        let mut job = FlashJob::new("hall-3", FlashJobSpec::default());
        job.metadata.generation = Some(1);
        job.status = Some(FlashJobStatus {
            phase: Some(Phase::InProgress),
            observed_generation: Some(1),
            conditions,
            ..FlashJobStatus::default()
        });
        let code = |job: &FlashJob, until| {
            end(job, until).map(|ended| ended.err().map(|failure| failure.code))
        };
        assert_eq!(code(&job, Until::Blocked), Some(Some(Code::Blocked)));
        assert_eq!(code(&job, Until::Done), None);
        // The spec was changed, and the status still describes the pause.
        job.metadata.generation = Some(2);
        assert_eq!(code(&job, Until::Blocked), None);
        // It is being deleted, which increments the generation too.
        job.metadata.deletion_timestamp = Some(Time(now));
        assert!(!job.is_behind() && job.is_blocked());
        assert_eq!(code(&job, Until::Blocked), None);
    }
}
