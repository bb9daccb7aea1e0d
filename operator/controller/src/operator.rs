//! The loop: an event names a job; the job is observed and planned in one act; questions, steps and
//! the status go their ways.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::channel::mpsc;
use jiff::Timestamp;
use kube::Client;
use kube::runtime::scheduler::{ScheduleRequest, scheduler};

use crate::health::keeper::Reports;
use crate::installation::Installation;
use crate::leadership::Leadership;
use crate::metrics::{Fleet, Metrics};
use crate::observed::{JobKey, Observed, whole_seconds};
use crate::plan::{Plan, Step, plan};
use crate::plugins::Plugins;
use crate::watch::{Kind, Watches};
use crate::world::{Memory, World};
use crate::{apply, consult, report};

/// After a plan its job is left alone for this many times as long as the plan took, so that
/// planning a job takes no more than a fiftieth of a core: what happens meanwhile is looked at
/// together.
const PAUSES_PER_PLAN: u32 = 50;
/// The shortest pause: small jobs are planned almost at once.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// The longest: a place that frees is not left idle for longer, however large the job.
const LONGEST_PAUSE: Duration = Duration::from_millis(150);
/// Between two looks at whether the caches are filled.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// A status is written about this often, unless something waits for it.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// But less often where a write takes long: with the status of 4,000 devices the API server is busy
/// for half a second, and it is what the devices wait for.
const RESTS_PER_WRITE: u32 = 8;
/// The longest time that a status is behind, where nothing waits for it.
const LONGEST_WRITE_INTERVAL: Duration = Duration::from_secs(3);
/// The same where something does: enough to gather what happens in one moment.
const URGENT_WRITE_INTERVAL: Duration = Duration::from_millis(100);

/// A process that is alone leads well within this time, and need neither list nor load twice.
pub(crate) const FIRST_ROUND: Duration = Duration::from_secs(1);

/// The running operator.
pub struct Operator {
    /// The API server.
    pub client: Client,
    /// The plugins.
    pub plugins: Plugins,
    /// Leadership of this process: whether it is the one that acts.
    pub leadership: Arc<Leadership>,
    /// Writes Kubernetes events.
    pub recorder: kube::runtime::events::Recorder,
    /// Counts what happens.
    pub metrics: Arc<Metrics>,
    /// Place to which problems are reported.
    pub reports: Reports,
    /// Installation that this operator is part of.
    pub installation: Installation,
    world: Mutex<World>,
    queue: mpsc::UnboundedSender<ScheduleRequest<JobKey>>,
    synced: Mutex<HashSet<Kind>>,
    /// Jobs that wait to be planned; only counted.
    waiting: Mutex<HashSet<JobKey>>,
    planning: AtomicBool,
}

/// Parts from which an operator is put together; see the fields of [`Operator`].
pub struct Parts {
    /// The API server.
    pub client: Client,
    /// Empty caches.
    pub world: World,
    /// The plugins.
    pub plugins: Plugins,
    /// Leadership of this process: whether it is the one that acts.
    pub leadership: Arc<Leadership>,
    /// Writes Kubernetes events.
    pub recorder: kube::runtime::events::Recorder,
    /// Counts what happens.
    pub metrics: Arc<Metrics>,
    /// Place to which problems are reported.
    pub reports: Reports,
    /// Installation that this operator is part of.
    pub installation: Installation,
}

/// The receiving end of [`Operator::look_at`].
pub type Queue = mpsc::UnboundedReceiver<ScheduleRequest<JobKey>>;

impl Operator {
    /// Puts the operator together.
    #[must_use]
    pub fn new(parts: Parts) -> (Arc<Self>, Queue) {
        let Parts { client, world, plugins, leadership, recorder, metrics, reports, installation } =
            parts;
        let (queue, requests) = mpsc::unbounded();
        let operator = Self {
            client,
            plugins,
            leadership,
            recorder,
            metrics,
            reports,
            installation,
            world: Mutex::new(world),
            queue,
            synced: Mutex::default(),
            waiting: Mutex::default(),
            planning: AtomicBool::new(false),
        };
        (Arc::new(operator), requests)
    }

    /// The caches. Held for as long as one plan takes, never across a wait.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at these jobs soon. A standby does not: it looks at all of them once it leads.
    pub fn look_at(&self, jobs: impl IntoIterator<Item = JobKey>) {
        if !self.is_planning() {
            return;
        }
        for job in jobs {
            self.look_at_in(job, Duration::ZERO);
        }
    }

    /// Looks at a job after a while.
    pub fn look_at_in(&self, job: JobKey, pause: Duration) {
        if pause <= LOOK_INTERVAL {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(job.clone());
        }
        let request = ScheduleRequest { message: job, run_at: tokio::time::Instant::now() + pause };
        // The queue only ends with the process.
        let _ = self.queue.unbounded_send(request);
    }

    /// The first list of a kind is in.
    pub fn synced(&self, kind: Kind) {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        synced.insert(kind);
    }

    /// The caches are filled anew.
    pub fn forget_synced(&self) {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns true if all caches have had their first list.
    pub fn is_synced(&self) -> bool {
        let synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        Kind::ALL.into_iter().all(|kind| synced.contains(&kind))
    }

    /// Returns true if jobs are planned: this process leads, and its caches are filled afresh.
    pub fn is_planning(&self) -> bool {
        self.planning.load(Ordering::SeqCst)
    }

    /// The metrics as text.
    ///
    /// # Errors
    /// As [`Metrics::text`].
    pub fn metrics_text(&self) -> Result<String, std::fmt::Error> {
        let (fleet, plugins) = {
            let world = self.world();
            (Fleet::of(world.jobs.values().map(|job| &**job)), world.plugins.clone())
        };
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.metrics.text(fleet, &plugins, waiting)
    }

    /// Keeps the caches warm until this process leads, and fills them afresh then: what the leader
    /// before did last is in no older list.
    async fn stand_by(self: &Arc<Self>, watches: &mut Watches) {
        if tokio::time::timeout(FIRST_ROUND, self.leadership.leads()).await.is_err() {
            watches.restart(self).await;
            tracing::info!("another operator leads, or the Lease is out of reach: standing by");
            self.leadership.leads().await;
        }
        watches.restart(self).await;
        while !self.is_synced() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Stands by, then works until the process ends.
    pub async fn run(self: &Arc<Self>, requests: Queue, mut watches: Watches) {
        self.stand_by(&mut watches).await;
        self.planning.store(true, Ordering::SeqCst);
        let jobs: Vec<JobKey> = {
            let mut world = self.world();
            world.lock_what_is_stored();
            world.jobs.keys().cloned().collect()
        };
        tracing::info!(jobs = jobs.len(), "caches are filled, work begins");
        self.metrics.set_leader(true);
        self.look_at(jobs);
        let mut due = std::pin::pin!(scheduler(requests));
        while let Some(job) = due.next().await {
            self.reconcile(&job);
        }
    }

    /// Observes and plans one job, and sends off what the plan asks for. Waits for nothing.
    #[tracing::instrument(name = "plan", level = "debug", skip_all, fields(job = %key))]
    fn reconcile(self: &Arc<Self>, key: &JobKey) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        let now = whole_seconds(Timestamp::now());
        let mut world = self.world();
        let Some(memory) =
            world.jobs.contains_key(key).then(|| world.memory.entry(key.clone()).or_default())
        else {
            return;
        };
        let started = Instant::now();
        if let Some(wait) = memory
            .next_plan
            .map(|next| next.saturating_duration_since(started))
            .filter(|wait| !wait.is_zero())
        {
            drop(world);
            return self.look_at_in(key.clone(), wait);
        }
        let Some(mut observed) = world.observe(key, now) else { return };
        observed.report = world
            .memory
            .get(key)
            .is_none_or(|memory| !memory.writing && until_write(memory, false).is_zero());
        let plan = plan(&observed);
        self.metrics.planned(started.elapsed());
        let released = world.set_holds(key, plan.holds.clone());
        let waiting = if released { world.waiting_jobs() } else { Vec::new() };
        let Plan { questions, steps, status, results, urgent, wake_at, .. } = plan;
        let memory = world.memory.entry(key.clone()).or_default();
        memory.next_plan = Some(started + pause_after_plan(started.elapsed()));
        let questions: Vec<_> = questions
            .into_iter()
            .filter(|question| memory.asked.insert(question.key().to_owned()))
            .collect();
        let steps: Vec<_> = steps.into_iter().filter(|step| memory.begin(step)).collect();
        let write = status.filter(|status| *status != observed.job.status);
        let due = until_write(memory, urgent);
        let write_now = write.is_some() && !memory.writing && due.is_zero();
        if let Some(status) = write.as_ref().filter(|_| write_now) {
            memory.write_begins(&observed.job, status);
        }
        drop(world);
        self.look_at(waiting);
        if let Some(status) = write.filter(|_| write_now) {
            tokio::spawn(report::write(self.clone(), observed.job.clone(), status, results));
        } else if !due.is_zero() {
            self.look_at_in(key.clone(), due);
        }
        if let Some(at) = wake_at {
            let pause = at.duration_since(Timestamp::now());
            self.look_at_in(key.clone(), pause.try_into().unwrap_or(LOOK_INTERVAL));
        }
        self.send_off(key, &observed, questions, steps);
    }

    fn send_off(
        self: &Arc<Self>,
        key: &JobKey,
        observed: &Observed,
        questions: Vec<crate::observed::Question>,
        steps: Vec<Step>,
    ) {
        for question in questions {
            self.plugins.spawn(consult::consult(self.clone(), key.clone(), question));
        }
        for step in steps {
            tokio::spawn(apply::apply(self.clone(), observed.job.clone(), step));
        }
    }
}

/// Time until the status of a job may be written again.
fn until_write(memory: &Memory, urgent: bool) -> Duration {
    let rest = (memory.write_took * RESTS_PER_WRITE).clamp(WRITE_INTERVAL, LONGEST_WRITE_INTERVAL);
    let interval = if urgent { URGENT_WRITE_INTERVAL } else { rest };
    memory.written.map_or(Duration::ZERO, |last| interval.saturating_sub(last.elapsed()))
}

/// Time for which a job is left alone after a plan that took so long.
fn pause_after_plan(took: Duration) -> Duration {
    (took * PAUSES_PER_PLAN).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}
