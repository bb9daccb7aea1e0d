//! The loop: an event names a FlashJob or a FlashRollout; it is observed and planned in one act;
//! questions, steps and the status go their ways.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flashjob_api::FlashJobStatus;
use flashjob_rules::flashjob::observed::{JobKey, Observed, whole_seconds};
use flashjob_rules::flashjob::plan::{Plan, Step, plan};
use flashjob_rules::rollout::RolloutKey;
use flashjob_rules::world::World;
use futures::StreamExt;
use futures::channel::mpsc;
use jiff::Timestamp;
use kube::Client;
use kube::runtime::scheduler::{ScheduleRequest, scheduler};

use crate::config::OperatorConfig;
use crate::firmware::Access;
use crate::health::keeper::Reports;
use crate::installation::Installation;
use crate::leadership::Leadership;
use crate::metrics::{Fleet, Metrics};
use crate::plugins::Plugins;
use crate::rollout;
use crate::watch::{Kind, Watches};
use crate::{apply, consult, firmware, report};

/// After a plan its job is left alone for this many times as long as the plan took, so that
/// planning a job takes no more than a fiftieth of a core: what happens meanwhile is looked at
/// together.
const PAUSES_PER_PLAN: u32 = 50;
/// The shortest pause: small jobs are planned almost at once.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// The longest: a place that frees is not left idle for longer, however large the job.
const LONGEST_PAUSE: Duration = Duration::from_millis(150);
/// Longest pause before an object that waits for a time of day is looked at again: a clock that
/// is set, or a machine that slept, would let the time pass unseen.
const LONGEST_SLEEP: Duration = Duration::from_secs(300);
/// Between two looks at whether the caches are filled.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
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
    access: Mutex<Arc<Access>>,
    queue: mpsc::UnboundedSender<ScheduleRequest<Subject>>,
    synced: Mutex<HashSet<Kind>>,
    /// Those that wait to be planned; only counted.
    waiting: Mutex<HashSet<Subject>>,
    planning: AtomicBool,
}

/// Parts from which an operator is put together; see the fields of [`Operator`].
pub struct Parts {
    /// The API server.
    pub client: Client,
    /// Empty caches.
    pub world: World,
    /// Part of the configuration that firmware is looked up with.
    pub access: Arc<Access>,
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
pub type Queue = mpsc::UnboundedReceiver<ScheduleRequest<Subject>>;

/// Object that is planned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A FlashJob.
    Job(JobKey),
    /// A FlashRollout.
    Rollout(RolloutKey),
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(key) => write!(formatter, "FlashJob {key}"),
            Self::Rollout(key) => write!(formatter, "FlashRollout {key}"),
        }
    }
}

impl From<JobKey> for Subject {
    fn from(key: JobKey) -> Self {
        Self::Job(key)
    }
}

impl From<RolloutKey> for Subject {
    fn from(key: RolloutKey) -> Self {
        Self::Rollout(key)
    }
}

impl Operator {
    /// Puts the operator together.
    #[must_use]
    pub fn new(parts: Parts) -> (Arc<Self>, Queue) {
        let Parts {
            client,
            world,
            access,
            plugins,
            leadership,
            recorder,
            metrics,
            reports,
            installation,
        } = parts;
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
            access: Mutex::new(access),
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

    /// Part of the configuration that firmware is looked up with.
    pub(crate) fn firmware_access(&self) -> Arc<Access> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the parts of a changed configuration that the loop and the stages work by.
    pub(crate) fn configure(&self, config: &OperatorConfig) {
        let access = Access::of(config);
        // Before the rules: what is asked by the new ones is answered by the new keys.
        *self.access.lock().unwrap_or_else(PoisonError::into_inner) = access.clone();
        let mut world = self.world();
        world.rules = config.rules(access.trust());
        // Other firmware may be trusted now, or less of it.
        world.rollouts.all_due();
    }

    /// Looks at these soon, and at the rollouts that what came before concerns. A standby does
    /// not: it looks at all of them once it leads. Not to be called with [`Self::world`] held.
    pub fn look_at(&self, subjects: impl IntoIterator<Item = impl Into<Subject>>) {
        if !self.is_planning() {
            return;
        }
        for subject in subjects {
            self.look_at_in(subject, Duration::ZERO);
        }
        let due = self.world().rollouts.take_due();
        for (rollout, pause) in due {
            self.look_at_in(rollout, pause);
        }
    }

    /// Looks at one after a while.
    pub fn look_at_in(&self, subject: impl Into<Subject>, pause: Duration) {
        let subject = subject.into();
        if pause <= LOOK_INTERVAL {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(subject.clone());
        }
        let run_at = tokio::time::Instant::now() + pause;
        let request = ScheduleRequest { message: subject, run_at };
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
        Kind::NEEDED.into_iter().all(|kind| synced.contains(&kind))
    }

    /// Returns true if rollouts can be planned: their first list is in too.
    fn has_rollouts(&self) -> bool {
        let synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        synced.contains(&Kind::Rollout)
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
            world.rollouts.all_due();
            world.jobs.keys().cloned().collect()
        };
        tracing::info!(jobs = jobs.len(), "caches are filled, work begins");
        self.metrics.set_leader(true);
        self.look_at(jobs);
        let mut due = std::pin::pin!(scheduler(requests));
        while let Some(subject) = due.next().await {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&subject);
            match subject {
                Subject::Job(key) => self.reconcile(&key),
                Subject::Rollout(key) => self.reconcile_rollout(&key),
            }
        }
    }

    /// Observes and plans one rollout, and sends off what the plan asks for. Waits for nothing.
    #[tracing::instrument(name = "plan rollout", level = "debug", skip_all, fields(rollout = %key))]
    fn reconcile_rollout(self: &Arc<Self>, key: &RolloutKey) {
        if !self.has_rollouts() {
            return self.look_at_in(key.clone(), LOOK_INTERVAL);
        }
        let started = Instant::now();
        let mut world = self.world();
        let Some(known) = world.rollouts.get(key).cloned() else { return };
        let wait = world.rollouts.memory.entry(key.clone()).or_default().next_plan;
        let wait = wait.map(|next| next.saturating_duration_since(started));
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            drop(world);
            return self.look_at_in(key.clone(), wait);
        }
        let now = whole_seconds(Timestamp::now());
        let Some(plan) = world.decide_rollout(key, now) else { return };
        let is_losing = world.loses_child(&known);
        let memory = world.rollouts.memory.entry(key.clone()).or_default();
        let question = memory.ask(plan.question, started);
        let steps: Vec<_> = plan.steps.into_iter().filter(|step| memory.begin(step)).collect();
        // From the end of a batch to the start of the next one several plans follow upon each
        // other: the devices wait for them.
        let goes_on = plan.urgent || question.is_some() || !steps.is_empty();
        let pause = if goes_on { SHORTEST_PAUSE } else { pause_after_plan(started.elapsed()) };
        memory.next_plan = Some(started + pause);
        let turn = memory.pace.turn(started);
        let answer = if is_losing { Duration::ZERO } else { memory.until_answer(started) };
        let due = turn.due(plan.urgent).max(answer);
        let dropped = memory.dropped.as_ref();
        let dropped = dropped.filter(|(version, _)| *version == known.resource_version);
        let status = plan.status.filter(|status| dropped.is_none_or(|(_, is)| is != status));
        let write_now = status.is_some() && turn.may_write(plan.urgent) && answer.is_zero();
        memory.pace.writing |= write_now;
        drop(world);
        if let Some(status) = status.filter(|_| write_now) {
            tokio::spawn(rollout::report::write(self.clone(), known.clone(), status));
        } else if !due.is_zero() {
            self.look_at_in(key.clone(), due);
        }
        if let Some(at) = plan.wake_at {
            self.look_at_in(key.clone(), pause_until(at));
        }
        if let Some(question) = question {
            tokio::spawn(firmware::resolve(self.clone(), key.clone().into(), question));
        }
        for step in steps {
            tokio::spawn(rollout::apply::apply(self.clone(), known.clone(), step));
        }
    }

    /// Observes and plans one job, and sends off what the plan asks for. Waits for nothing.
    #[tracing::instrument(name = "plan", level = "debug", skip_all, fields(job = %key))]
    fn reconcile(self: &Arc<Self>, key: &JobKey) {
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
        let turn = memory.pace.turn(started);
        let Some(mut observed) = world.observe(key, now) else { return };
        observed.report = turn.may_write(false);
        let plan = plan(&observed);
        self.metrics.planned(started.elapsed());
        let released = world.set_holds(key, plan.holds.clone());
        let waiting = if released { world.waiting_jobs() } else { Vec::new() };
        let Plan { questions, firmware, steps, status, results, urgent, wake_at, .. } = plan;
        let memory = world.memory.entry(key.clone()).or_default();
        memory.next_plan = Some(started + pause_after_plan(started.elapsed()));
        let questions: Vec<_> = questions
            .into_iter()
            .filter(|question| memory.asked.insert(question.key().to_owned()))
            .collect();
        let firmware = memory.firmware.follow(firmware);
        let steps: Vec<_> = steps.into_iter().filter(|step| memory.begin(step)).collect();
        let was_dropped = |status: &FlashJobStatus| {
            let dropped = memory.dropped.as_ref();
            dropped.is_some_and(|(version, dropped)| {
                *version == observed.job.resource_version && dropped == status
            })
        };
        let is_new =
            |status: &FlashJobStatus| *status != observed.job.status && !was_dropped(status);
        let write = status.filter(is_new);
        let due = turn.due(urgent);
        let write_now = write.is_some() && turn.may_write(urgent);
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
            self.look_at_in(key.clone(), pause_until(at));
        }
        if let Some(question) = firmware {
            tokio::spawn(firmware::resolve(self.clone(), key.clone().into(), question));
        }
        self.send_off(key, &observed, questions, steps);
    }

    fn send_off(
        self: &Arc<Self>,
        key: &JobKey,
        observed: &Observed,
        questions: Vec<flashjob_rules::flashjob::observed::Question>,
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

/// Time for which a job is left alone after a plan that took so long.
fn pause_after_plan(took: Duration) -> Duration {
    (took * PAUSES_PER_PLAN).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// Pause before the look that a plan asks for at that time.
fn pause_until(at: Timestamp) -> Duration {
    let pause: Duration = at.duration_since(Timestamp::now()).try_into().unwrap_or(LOOK_INTERVAL);
    pause.min(LONGEST_SLEEP)
}
