//! Keeper of the record of current problems: receives reports from all parts, and announces
//! problems in the log, in events about the operator's own Pod, in metrics and on `/readyz`. Does
//! I/O: the events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flashjob_rules::text::shortened;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder};
use tokio::sync::{mpsc, watch};

use super::problem::{Problem, ProblemSource};
use super::record::{Announcement, Readiness, Record, Report};
use crate::cluster::NOTE_BYTES;
use crate::cluster::answer::in_one_line;
use crate::telemetry::metrics::Metrics;

/// Longest action of an event that the API server accepts, in bytes.
const ACTION_BYTES: usize = 128;
/// Timeout of writing an event; the next announcement of the problem repeats it.
const EVENT_LIMIT: Duration = Duration::from_secs(10);

/// Channel to which the parts of the operator send reports.
#[derive(Clone, Debug)]
pub struct Reports(mpsc::UnboundedSender<Report>);

impl Reports {
    /// Returns both ends of a new channel for reports.
    #[must_use]
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Report>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Reports that a part works.
    pub fn works(&self, source: ProblemSource) {
        self.send(Report::State(source, Ok(())));
    }

    /// Reports a part's problem.
    pub fn fails(&self, source: ProblemSource, problem: Problem) {
        self.send(Report::State(source, Err(problem)));
    }

    /// Reports a part's problem, or that it has none.
    pub fn state(&self, source: ProblemSource, problem: Option<Problem>) {
        self.send(Report::State(source, problem.map_or(Ok(()), Err)));
    }

    /// Sends any report.
    pub fn send(&self, report: Report) {
        // The keeper lives as long as the process; when the process ends, reports are lost.
        let _ = self.0.send(report);
    }
}

/// The keeper of the record.
pub struct Keeper {
    /// Incoming reports.
    pub reports: mpsc::UnboundedReceiver<Report>,
    /// Record of the current problems.
    pub record: Record,
    /// Metrics of problems and readiness.
    pub metrics: Arc<Metrics>,
    /// Writes events through a client that the fence does not hold back: a standby, or an operator
    /// that cannot acquire its Lease, has problems to report too, and an event changes no object
    /// that a leader works on.
    pub recorder: Recorder,
    /// The operator's own Pod, where it runs in one.
    pub pod: Option<ObjectReference>,
    /// Readiness, read by `/readyz`.
    pub readiness: watch::Sender<Readiness>,
}

impl Keeper {
    /// Keeps the record until the process ends.
    pub async fn run(mut self) {
        loop {
            let now = Instant::now();
            let due = self.record.due(now);
            self.say(due);
            self.show(now);
            let report = match self.record.wakes_at(now) {
                Some(at) => tokio::time::timeout_at(at.into(), self.reports.recv()).await,
                None => Ok(self.reports.recv().await),
            };
            match report {
                Ok(Some(report)) => {
                    let over = self.record.take(report, Instant::now());
                    self.say(over);
                }
                // All senders are gone: the process ends.
                Ok(None) => return,
                Err(_) => {}
            }
        }
    }

    fn show(&self, now: Instant) {
        let readiness = self.record.readiness(now);
        self.metrics.set_health(&self.record.causes(), readiness == Readiness::Ready);
        self.readiness.send_if_modified(|last_readiness| {
            let changed = *last_readiness != readiness;
            match (&*last_readiness, &readiness) {
                (Readiness::Ready, Readiness::NotReady(why)) => {
                    tracing::warn!(why, "no longer ready")
                }
                (Readiness::NotReady(_), Readiness::Ready) => tracing::info!("ready"),
                _ => {}
            }
            *last_readiness = readiness;
            changed
        });
    }

    fn say(&self, announcements: Vec<Announcement>) {
        for announcement in announcements {
            match announcement {
                Announcement::Holds { problem, lasted, event } => {
                    let (cause, seconds) = (problem.cause.name(), lasted.as_secs());
                    tracing::warn!(cause, seconds, "{}", problem.message);
                    if event {
                        self.tell(&problem);
                    }
                }
                Announcement::Over { problem, lasted } => {
                    let (cause, seconds) = (problem.cause.name(), lasted.as_secs());
                    tracing::info!(cause, seconds, "resolved: {}", problem.object);
                }
            }
        }
    }

    fn tell(&self, problem: &Problem) {
        let Some(pod) = self.pod.clone() else { return };
        // The recorder aggregates events with the same reason unless their action differs.
        let event = Event {
            type_: EventType::Warning,
            reason: problem.cause.name().to_owned(),
            note: Some(shortened(&problem.message, NOTE_BYTES)),
            action: shortened(&problem.object, ACTION_BYTES),
            secondary: None,
        };
        let recorder = self.recorder.clone();
        // Not awaited: while the API server is away it takes up to 10 s, and readiness has to be
        // current meanwhile.
        tokio::spawn(async move {
            let published =
                tokio::time::timeout(EVENT_LIMIT, recorder.publish(&event, &pod)).await;
            if let Ok(Err(error)) = published {
                let error = in_one_line(&error);
                tracing::debug!(error, "an event could not be written");
            }
        });
    }
}
