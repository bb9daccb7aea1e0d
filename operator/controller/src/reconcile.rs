//! The control loop, sole owner of the caches. It applies one change at a time, observes and plans
//! the objects that the change affects, and spawns tasks for questions, steps and status writes.
//! Their outcomes come back as changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flashjob_api::FlashJobStatus;
use flashjob_rules::flashjob::observed::{JobKey, whole_seconds};
use flashjob_rules::flashjob::plan::{Plan, plan};
use flashjob_rules::rollout::RolloutKey;
use flashjob_rules::world::World;
use flashjob_rules::world::change::{Change, Kind, Subject};
use futures::StreamExt;
use futures::channel::mpsc;
use hashbrown::HashSet;
use jiff::Timestamp;
use kube::runtime::scheduler::{ScheduleRequest, scheduler};

use crate::cluster::leadership::FIRST_ROUND;
use crate::cluster::watch::Watches;
use crate::flashjob::{apply, consult, report};
use crate::operator::{Message, Messages, Operator};
use crate::{firmware, rollout};

/// Pause after each plan of a job, as a multiple of the time that the plan took, so that planning
/// one job takes no more than a fiftieth of a core. Changes during the pause are planned together.
const PAUSES_PER_PLAN: u32 = 50;
/// Shortest pause after a plan, so that small jobs are planned again almost at once.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// Longest pause after a plan: a free slot is not left idle for longer, however large the job.
const LONGEST_PAUSE: Duration = Duration::from_millis(150);
/// Longest pause before an object that waits for a point in time is planned again: after a change
/// of the clock or a suspend of the machine, a longer timer would fire too late.
const LONGEST_SLEEP: Duration = Duration::from_secs(300);
/// Longest wait for the list of FlashRollouts before FlashJobs are planned: the API server may
/// lack their CustomResourceDefinition.
const ROLLOUTS_WAIT: Duration = Duration::from_secs(2);
/// Pause before a FlashRollout is planned again while the list of FlashRollouts is missing, and
/// before an object is planned whose wake-up time has already passed. An object that is due within
/// this pause counts toward the queue depth.
const REQUEUE_PAUSE: Duration = Duration::from_millis(50);

/// Runs the loop until the process ends: first as a standby, then as the leader.
pub async fn run(operator: Arc<Operator>, messages: Messages, world: World, mut watches: Watches) {
    let (queue, requests) = mpsc::unbounded();
    let schedule = Schedule { queue, waiting: HashSet::new() };
    let mut reconciler =
        Reconciler { operator, world, messages, listed: HashSet::new(), schedule };
    reconciler.stand_by(&mut watches).await;
    reconciler.work(requests).await;
}

/// The loop and its state.
struct Reconciler {
    operator: Arc<Operator>,
    world: World,
    messages: Messages,
    /// Kinds whose list is complete since the last start of the watches.
    listed: HashSet<Kind>,
    schedule: Schedule,
}

/// Queue of subjects to plan.
struct Schedule {
    queue: mpsc::UnboundedSender<ScheduleRequest<Subject>>,
    /// Subjects that are due soon; only their number is used.
    waiting: HashSet<Subject>,
}

impl Schedule {
    /// Queues an object to be planned after a pause.
    fn schedule_after(&mut self, subject: impl Into<Subject>, pause: Duration) {
        let subject = subject.into();
        if pause <= REQUEUE_PAUSE {
            self.waiting.insert(subject.clone());
        }
        // The scheduler keeps one request per subject, the earliest, so queueing an object again
        // costs nothing.
        let run_at = tokio::time::Instant::now() + pause;
        // The queue only ends with the loop.
        let _ = self.queue.unbounded_send(ScheduleRequest { message: subject, run_at });
    }
}

impl Reconciler {
    /// Keeps the caches warm until this process leads, then lists everything again: an older list
    /// may lack the last writes of the previous leader.
    async fn stand_by(&mut self, watches: &mut Watches) {
        let leadership = self.operator.leadership.clone();
        // The watches have not started yet: a process that becomes the leader at once lists only
        // once.
        let first = tokio::time::timeout(FIRST_ROUND, leadership.leads());
        if self.take_until(first).await.is_err() {
            self.restart_watches(watches).await;
            tracing::info!(
                "another operator leads, or the Lease cannot be reached: running as a standby"
            );
            self.take_until(leadership.leads()).await;
        }
        self.restart_watches(watches).await;
        // Locks follow from Pods and stored statuses. A plan from a part of them could start a
        // second flasher on a device.
        while !Kind::NEEDED.iter().all(|kind| self.listed.contains(kind)) {
            let Some(message) = self.messages.recv().await else { return };
            self.take(message);
        }
        // A rollout that is not in the caches yet may have to store results of a FlashJob in
        // deletion.
        let mut limit = std::pin::pin!(tokio::time::sleep(ROLLOUTS_WAIT));
        while !self.listed.contains(&Kind::Rollout) {
            tokio::select! {
                () = &mut limit => {
                    // Cached FlashRollouts may have been deleted together with their definition.
                    let none = Change::Listed { kind: Kind::Rollout, uids: HashSet::new() };
                    self.world.take(none, whole_seconds(Timestamp::now()));
                    return;
                }
                Some(message) = self.messages.recv() => self.take(message),
            }
        }
    }

    /// Restarts all watches.
    async fn restart_watches(&mut self, watches: &mut Watches) {
        // The tasks have to end first: one that still runs could send an event of its old list
        // after the queue is drained.
        watches.stop().await;
        // A list from before the restart must not count as a new one.
        while let Ok(message) = self.messages.try_recv() {
            self.take(message);
        }
        self.listed.clear();
        watches.start(&self.operator);
    }

    /// Processes messages until the future `until` completes.
    async fn take_until<T>(&mut self, until: impl Future<Output = T>) -> T {
        let mut until = std::pin::pin!(until);
        loop {
            tokio::select! {
                ended = &mut until => return ended,
                Some(message) = self.messages.recv() => self.take(message),
            }
        }
    }

    /// Plans due objects until the process ends.
    async fn work(&mut self, requests: mpsc::UnboundedReceiver<ScheduleRequest<Subject>>) {
        self.operator.begin_planning();
        // An attempt of the previous leader may have no Pod in the caches any more: then its
        // stored record alone keeps other jobs off the device.
        self.world.lock_what_is_stored();
        self.world.rollouts.all_due();
        let jobs: Vec<JobKey> = self.world.jobs.keys().cloned().collect();
        tracing::info!(jobs = jobs.len(), "caches are filled; work begins");
        self.operator.metrics.set_leader(true);
        self.enqueue(jobs.into_iter().map(Subject::Job));
        let mut due = std::pin::pin!(scheduler(requests));
        loop {
            tokio::select! {
                // A plan takes every earlier message into account.
                biased;
                Some(message) = self.messages.recv() => self.take(message),
                Some(subject) = due.next() => {
                    self.schedule.waiting.remove(&subject);
                    match subject {
                        Subject::Job(key) => self.reconcile(&key),
                        Subject::Rollout(key) => self.reconcile_rollout(&key),
                    }
                }
                else => return,
            }
            self.operator.metrics.set_queue_depth(self.schedule.waiting.len());
        }
    }

    fn take(&mut self, message: Message) {
        let change = match message {
            Message::Change(change) => change,
            Message::Plugins => Change::Plugins(self.operator.plugins.views()),
            Message::Read(read) => return read(&self.world),
        };
        if let Change::Listed { kind, .. } = &change {
            self.listed.insert(*kind);
        }
        // Kubernetes stores whole seconds: a finer time would differ from the value that is read
        // back.
        let subjects = self.world.take(change, whole_seconds(Timestamp::now()));
        self.enqueue(subjects);
    }

    /// Queues these objects to be planned, and the rollouts that the last changes affect. A
    /// standby queues nothing; it queues all objects when it becomes the leader.
    fn enqueue(&mut self, subjects: impl IntoIterator<Item = Subject>) {
        if !self.operator.is_planning() {
            return;
        }
        for subject in subjects {
            self.schedule.schedule_after(subject, Duration::ZERO);
        }
        for (rollout, pause) in self.world.rollouts.take_due() {
            self.schedule.schedule_after(rollout, pause);
        }
    }

    /// Observes and plans one rollout, and spawns the tasks of the plan. Never blocks.
    #[tracing::instrument(
        name = "plan rollout",
        level = "debug",
        skip_all,
        fields(rollout = %key)
    )]
    fn reconcile_rollout(&mut self, key: &RolloutKey) {
        // If the API server lacks their definition, FlashRollouts wait here, and FlashJobs do not.
        if !self.listed.contains(&Kind::Rollout) {
            return self.schedule.schedule_after(key.clone(), REQUEUE_PAUSE);
        }
        let started = Instant::now();
        let world = &mut self.world;
        let Some(cached) = world.rollouts.get(key).cloned() else { return };
        let next_plan = world.rollouts.memory.entry(key.clone()).or_default().next_plan;
        if let Some(pause) = until(next_plan, started) {
            return self.schedule.schedule_after(key.clone(), pause);
        }
        let now = whole_seconds(Timestamp::now());
        let Some(plan) = world.decide_rollout(key, now) else { return };
        // A FlashJob in deletion keeps its finalizer until the rollout has stored its results, so
        // that write must not wait for a registry.
        let is_awaited = world.has_child_in_deletion(&cached);
        let memory = world.rollouts.memory.entry(key.clone()).or_default();
        let question = memory.ask(plan.question, started);
        let begin = |step| Some((memory.begin(&step)?, step));
        let steps: Vec<_> = plan.steps.into_iter().filter_map(begin).collect();
        // Between the end of a batch and the start of the next one several plans follow each
        // other, and the devices wait for them.
        let goes_on = plan.urgent || question.is_some() || !steps.is_empty();
        let pause = if goes_on { SHORTEST_PAUSE } else { pause_after_plan(started.elapsed()) };
        memory.next_plan = Some(started + pause);
        let turn = memory.pace.turn(started);
        let answer = if is_awaited { Duration::ZERO } else { memory.until_answer(started) };
        let due = turn.due(plan.urgent).max(answer);
        let is_new = |status: &_| !was_dropped(&memory.dropped, &cached.resource_version, status);
        let status = plan.status.filter(is_new);
        let write_now = status.is_some() && turn.may_write(plan.urgent) && answer.is_zero();
        // Set before the task is spawned: other changes may be planned before it runs, and an
        // object has at most one write in flight.
        memory.pace.writing |= write_now;
        let operator = &self.operator;
        if let Some(status) = status.filter(|_| write_now) {
            tokio::spawn(rollout::report::write(operator.clone(), cached.clone(), status));
        } else if !due.is_zero() {
            self.schedule.schedule_after(key.clone(), due);
        }
        if let Some(at) = plan.wake_at {
            self.schedule.schedule_after(key.clone(), pause_until(at));
        }
        if let Some(question) = question {
            tokio::spawn(firmware::resolve(operator.clone(), key.clone().into(), question));
        }
        for (failures, step) in steps {
            tokio::spawn(rollout::apply::apply(operator.clone(), cached.clone(), step, failures));
        }
    }

    /// Observes and plans one job, and spawns the tasks of the plan. Never blocks.
    #[tracing::instrument(name = "plan", level = "debug", skip_all, fields(job = %key))]
    fn reconcile(&mut self, key: &JobKey) {
        let now = whole_seconds(Timestamp::now());
        let world = &mut self.world;
        let Some(memory) =
            world.jobs.contains_key(key).then(|| world.memory.entry(key.clone()).or_default())
        else {
            return;
        };
        let started = Instant::now();
        if let Some(pause) = until(memory.next_plan, started) {
            return self.schedule.schedule_after(key.clone(), pause);
        }
        let turn = memory.pace.turn(started);
        let Some(mut observed) = world.observe(key, now) else { return };
        // A status is composed only where it could be written now: built in every plan, it was
        // built about twenty times for each write.
        observed.report = turn.report();
        let plan = plan(&observed);
        self.operator.metrics.planned(started.elapsed());
        // The locks are set before a step of the plan is sent: the caches lag behind the creates,
        // and another job may be planned next.
        let released = world.set_holds(key, plan.holds.clone());
        // A job that waits for a device gets no event of its own when another job releases it.
        let waiting = if released { world.waiting_jobs() } else { Vec::new() };
        let Plan { questions, firmware, steps, status, results, urgent, wake_at, .. } = plan;
        let memory = world.memory.entry(key.clone()).or_default();
        memory.next_plan = Some(started + pause_after_plan(started.elapsed()));
        // Every plan asks until the answer is in the caches; the plugin is asked once.
        let questions: Vec<_> = questions
            .into_iter()
            .filter(|question| memory.asked.insert(question.key().to_owned()))
            .collect();
        let firmware = memory.firmware.follow(firmware);
        // The status of this plan may still name the failure of a step that is no longer needed.
        if memory.forget_failing_steps(&steps) {
            self.schedule.schedule_after(key.clone(), SHORTEST_PAUSE);
        }
        // A plan repeats a step until the caches show its effect. A step in flight or in backoff
        // is not sent a second time.
        let begin = |step| Some((memory.begin(&step)?, step));
        let steps: Vec<_> = steps.into_iter().filter_map(begin).collect();
        let job = &observed.job;
        let is_new = |status: &FlashJobStatus| {
            *status != job.status && !was_dropped(&memory.dropped, &job.resource_version, status)
        };
        let write = status.filter(is_new);
        let due = turn.due(urgent);
        let write_now = write.is_some() && turn.may_write(urgent);
        // Noted before the write is sent: if its response is lost, the devices that it releases
        // stay locked until the outcome is known.
        if let Some(status) = write.as_ref().filter(|_| write_now) {
            memory.write_begins(&observed.job, status, started);
        }
        let begin_times = memory.begun(results.iter().map(|result| &result.uid));
        let recall_seconds = world.rules.periods.unknown_device_seconds;
        self.enqueue(waiting.into_iter().map(Subject::Job));
        let operator = &self.operator;
        if let Some(status) = write.filter(|_| write_now) {
            let job = observed.job.clone();
            tokio::spawn(report::write(operator.clone(), job, status, results, begin_times));
        } else if !due.is_zero() {
            self.schedule.schedule_after(key.clone(), due);
        }
        if let Some(at) = wake_at {
            self.schedule.schedule_after(key.clone(), pause_until(at));
        }
        if let Some(question) = firmware {
            tokio::spawn(firmware::resolve(operator.clone(), key.clone().into(), question));
        }
        for question in questions {
            // On the plugin threads: a call may use the processor for its whole time limit, and
            // the loop has a single thread.
            let consult =
                consult::consult(operator.clone(), key.clone(), question, recall_seconds);
            operator.plugins.spawn(consult);
        }
        for (failures, step) in steps {
            tokio::spawn(apply::apply(operator.clone(), observed.job.clone(), step, failures));
        }
    }
}

/// Returns the pause until an object may be planned again; None if it may be planned now.
fn until(next_plan: Option<Instant>, now: Instant) -> Option<Duration> {
    let pause = next_plan?.saturating_duration_since(now);
    (!pause.is_zero()).then_some(pause)
}

/// Returns the pause after a plan that took this long.
fn pause_after_plan(took: Duration) -> Duration {
    (took * PAUSES_PER_PLAN).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// Returns true if the API server dropped this same status when it was written over this version.
fn was_dropped<S: PartialEq>(dropped: &Option<(String, S)>, version: &str, status: &S) -> bool {
    dropped.as_ref().is_some_and(|(over, dropped)| over == version && dropped == status)
}

/// Returns the pause until the wake-up time of a plan, at most [`LONGEST_SLEEP`].
fn pause_until(at: Timestamp) -> Duration {
    // A time that has passed gives a negative span, which is no `Duration`.
    let pause: Duration = at.duration_since(Timestamp::now()).try_into().unwrap_or(REQUEUE_PAUSE);
    pause.min(LONGEST_SLEEP)
}
