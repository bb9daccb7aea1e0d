//! Follows one FlashJob until it is over, with one watch, and shows how it gets on.

use std::pin::pin;
use std::time::Duration;

use console::Term;
use flashjob_api::{FlashJob, Phase, condition};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watch_object};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::pace::{Seen, pace};
use super::{is_behind, view};
use crate::cluster::{CONNECT_LIMIT, Place, refused, root};
use crate::failure::{Code, Failure};

/// Interval at which a terminal is drawn anew though nothing changed: times go on.
const REDRAW: Duration = Duration::from_secs(1);

/// Reason of a failure: the FlashJob that was followed was deleted.
pub const DELETED: &str = "Deleted";

/// What ends a watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Until {
    /// Every device has its result.
    #[default]
    Done,
    /// The same, or nothing goes on until somebody acts: the FlashJob is paused or stalled.
    Blocked,
}

/// Output while a FlashJob is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A view that is drawn over itself on a terminal; one line for each change elsewhere.
    Details,
    /// A line for each change, on standard error.
    Lines,
}

/// Settings for following a FlashJob: the end, the longest time, the output.
#[derive(Clone, Copy, Debug)]
pub struct Follow {
    /// Condition that ends it.
    pub until: Until,
    /// The longest time.
    pub timeout: Option<Duration>,
    /// Output meanwhile.
    pub shown: Shown,
    /// Show every device in flight.
    pub all: bool,
}

/// Follows a FlashJob until its end; returns its last state. Each state goes to `on_change` first.
///
/// # Errors
/// It is not there or goes away, the time is over, or it is blocked and that ends the watch.
pub async fn follow(
    place: &Place,
    name: &str,
    follow: Follow,
    mut on_change: impl FnMut(&FlashJob),
) -> Result<FlashJob, Failure> {
    let events = watch_object(place.jobs(), name);
    let events = events.backoff(watcher::DefaultBackoff::default());
    let mut events = pin!(events);
    let deadline = follow.timeout.map(|timeout| Instant::now() + timeout);
    let mut screen = Screen::new(follow);
    let mut redraw = interval(REDRAW);
    redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<FlashJob> = None;
    let mut seen = None;
    loop {
        tokio::select! {
            event = events.next() => match event {
                // One of the same name that took its place while the watch was broken.
                Some(Ok(Some(job))) if last.as_ref().is_some_and(|last| last.uid() != job.uid()) => {
                    return Err(deleted(&place.namespace, name));
                }
                Some(Ok(Some(job))) => {
                    on_change(&job);
                    seen.get_or_insert_with(|| Seen::first(&job, Timestamp::now()));
                    screen.show(&job, seen)?;
                    match end(&job, follow.until) {
                        Some(ended) => return screen.clear().and(ended).map(|()| job),
                        None => last = Some(job),
                    }
                }
                Some(Ok(None)) if last.is_none() => return Err(place.no_job(name)),
                Some(Ok(None)) => return Err(deleted(&place.namespace, name)),
                Some(Err(error)) => lasting(&error, place, name, last.is_some())?,
                None => return Err(place.no_job(name)),
            },
            _ = redraw.tick(), if screen.is_drawn() => {
                if let Some(job) = &last {
                    screen.show(job, seen)?;
                }
            }
            () = reached(deadline) => {
                let job = match last {
                    Some(job) => job,
                    None => at_once(place, name, follow.timeout).await?,
                };
                let ended = end(&job, follow.until);
                let ended = ended.unwrap_or_else(|| Err(late(follow.timeout, &view::line(&job))));
                return screen.clear().and(ended).map(|()| job);
            }
        }
    }
}

/// A FlashJob was deleted by somebody while it was worked with.
pub fn deleted(namespace: &str, name: &str) -> Failure {
    let message = format!("FlashJob {namespace}/{name} was deleted");
    Failure::new(Code::Unavailable, DELETED, message)
}

async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Returns how a FlashJob in this state ends the watch; none where it does not.
fn end(job: &FlashJob, until: Until) -> Option<Result<(), Failure>> {
    if super::ended(job).is_some() {
        return Some(Ok(()));
    }
    let conditions = &job.status.as_ref()?.conditions;
    let blocked = [condition::SUSPENDED, condition::STALLED]
        .into_iter()
        .any(|kind| condition::holds(conditions, kind));
    (until == Until::Blocked && blocked).then(|| {
        let message = format!("{}; it waits for somebody to act", view::line(job));
        Err(Failure::new(Code::Blocked, "Blocked", message))
    })
}

/// A watch that breaks is taken up again; one that is refused, or that never began, is not.
fn lasting(
    error: &watcher::Error,
    place: &Place,
    name: &str,
    has_begun: bool,
) -> Result<(), Failure> {
    let what = format!("watch FlashJob {}/{name}", place.namespace);
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) =
        error
    else {
        return Ok(());
    };
    match error {
        kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404) => {
            Err(refused(&what, error))
        }
        _ if has_begun => Ok(()),
        _ => Err(refused(&what, error)),
    }
}

fn late(timeout: Option<Duration>, state: &str) -> Failure {
    let timeout = crate::duration::shown(timeout.unwrap_or_default());
    let message = format!("{state}; that is all after {timeout}, and it is not over");
    Failure::new(Code::TimedOut, "TimedOut", message)
}

/// Reads a FlashJob of which nothing was seen before the time was over: a time of 0 asks how it
/// stands now.
async fn at_once(
    place: &Place,
    name: &str,
    timeout: Option<Duration>,
) -> Result<FlashJob, Failure> {
    match tokio::time::timeout(CONNECT_LIMIT, place.job(name)).await {
        Ok(read) => read,
        Err(_) => {
            let message = format!(
                "no state of FlashJob {}/{name} came within {}: the API server does not answer",
                place.namespace,
                crate::duration::shown(timeout.unwrap_or_default() + CONNECT_LIMIT)
            );
            Err(Failure::new(Code::TimedOut, "TimedOut", message))
        }
    }
}

/// Waits until a FlashJob that was deleted is gone.
///
/// # Errors
/// The time is over, or the API server refuses.
pub async fn gone(place: &Place, name: &str, timeout: Option<Duration>) -> Result<(), Failure> {
    let events = watch_object(place.jobs(), name);
    let events = events.backoff(watcher::DefaultBackoff::default());
    let mut events = pin!(events);
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        tokio::select! {
            event = events.try_next() => match event {
                Ok(Some(Some(_))) => {}
                Ok(Some(None) | None) => return Ok(()),
                Err(error) => lasting(&error, place, name, true)?,
            },
            () = reached(deadline) => {
                let message = format!(
                    "FlashJob {}/{name} is not gone after {}: the operator ends its Pods first, \
                     then it goes by itself; where no operator runs it stays: kubectl flashjob \
                     check",
                    place.namespace,
                    crate::duration::shown(timeout.unwrap_or_default())
                );
                return Err(Failure::new(Code::TimedOut, "TimedOut", message));
            }
        }
    }
}

/// Output on which the state is shown.
struct Screen {
    terminal: Term,
    follow: Follow,
    drawn: usize,
    line: String,
}

impl Screen {
    fn new(follow: Follow) -> Self {
        let terminal = match follow.shown {
            Shown::Details => Term::stdout(),
            Shown::Lines => Term::stderr(),
        };
        Self { terminal, follow, drawn: 0, line: String::new() }
    }

    /// Returns true if a view is drawn over itself.
    fn is_drawn(&self) -> bool {
        let is_dumb = std::env::var_os("TERM").is_some_and(|kind| kind == "dumb");
        self.follow.shown == Shown::Details && self.terminal.is_term() && !is_dumb
    }

    fn show(&mut self, job: &FlashJob, seen: Option<Seen>) -> Result<(), Failure> {
        if !self.is_drawn() {
            // The state from before the last change would only mislead.
            if job.status.is_some() && is_behind(job) {
                return Ok(());
            }
            let line = view::line(job);
            if line != self.line {
                self.write(&format!("{line}\n"))?;
                self.line = line;
            }
            return Ok(());
        }
        let now = Timestamp::now();
        let (height, width) = (usize::from(self.terminal.size().0), view::width(&self.terminal));
        let all = self.follow.all;
        let text = view::details(job, pace(job, seen, now), now, all, width);
        // A view that is longer than the window could not be drawn over.
        let lines = text.lines().flat_map(|line| textwrap::wrap(line, width));
        let lines: Vec<_> = lines.take(height.saturating_sub(1).max(1)).collect();
        // In one write, so that nothing flickers.
        let up =
            if self.drawn == 0 { String::new() } else { format!("\x1b[{}A\r\x1b[J", self.drawn) };
        self.drawn = lines.len();
        self.write(&format!("{up}{}\n", lines.join("\n")))
    }

    /// Removes the view; what comes of the command is shown in its place.
    fn clear(&mut self) -> Result<(), Failure> {
        let cleared = self.terminal.clear_last_lines(std::mem::take(&mut self.drawn));
        cleared.map_err(|error| lost(&error))
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        match self.terminal.write_str(text) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(lost(&error)),
            _ => Ok(()),
        }
    }
}

fn lost(error: &std::io::Error) -> Failure {
    Failure::new(Code::Other, "OutputLost", format!("cannot write: {}", root(error)))
}

/// The failure of a FlashJob that is over and not good.
pub fn failure(job: &FlashJob) -> Option<Failure> {
    (super::ended(job) == Some(Phase::Failed))
        .then(|| Failure::new(Code::Failing, "EndedWithFailures", view::line(job)))
}
