//! The loop. It alone owns and changes the caches: it applies one change after the other, observes
//! and plans the objects that the change affects, and starts tasks for questions, steps and status
//! writes. Their outcomes come back as changes.

use std::collections::HashSet;
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
use jiff::Timestamp;
use kube::runtime::scheduler::{ScheduleRequest, scheduler};

use crate::cluster::leadership::FIRST_ROUND;
use crate::cluster::watch::Watches;
use crate::flashjob::{apply, consult, report};
use crate::operator::{Message, Messages, Operator};
use crate::{firmware, rollout};

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
/// Longest time for which the list of FlashRollouts is waited for before FlashJobs are planned: an
/// API server may lack their definition.
const ROLLOUTS_WAIT: Duration = Duration::from_secs(2);
/// Pause before a FlashRollout is tried again while their list is not in, and where the time to
/// look again is past. An object that is planned within this pause counts into the depth of the
/// queue.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Runs the loop until the process ends: stands by, and works once this process leads.
pub async fn run(operator: Arc<Operator>, messages: Messages, world: World, mut watches: Watches) {
    let (queue, requests) = mpsc::unbounded();
    let schedule = Schedule { queue, waiting: HashSet::new() };
    let mut reconciler =
        Reconciler { operator, world, messages, listed: HashSet::new(), schedule };
    reconciler.stand_by(&mut watches).await;
    reconciler.work(requests).await;
}

/// The loop, and what it owns.
struct Reconciler {
    operator: Arc<Operator>,
    world: World,
    messages: Messages,
    /// Kinds of which a list is in since the watches were started last.
    listed: HashSet<Kind>,
    schedule: Schedule,
}

/// Subjects that are to be planned.
struct Schedule {
    queue: mpsc::UnboundedSender<ScheduleRequest<Subject>>,
    /// Those that wait to be planned soon; only counted.
    waiting: HashSet<Subject>,
}

impl Schedule {
    /// Queues an object to be planned after a pause.
    fn look_in(&mut self, subject: impl Into<Subject>, pause: Duration) {
        let subject = subject.into();
        if pause <= LOOK_INTERVAL {
            self.waiting.insert(subject.clone());
        }
        let run_at = tokio::time::Instant::now() + pause;
        // The queue only ends with the loop.
        let _ = self.queue.unbounded_send(ScheduleRequest { message: subject, run_at });
    }
}

impl Reconciler {
    /// Keeps the caches warm until this process leads, and fills them afresh then: what the leader
    /// before did last is in no older list.
    async fn stand_by(&mut self, watches: &mut Watches) {
        let leadership = self.operator.leadership.clone();
        let first = tokio::time::timeout(FIRST_ROUND, leadership.leads());
        if self.take_until(first).await.is_err() {
            self.watch_afresh(watches).await;
            tracing::info!("another operator leads, or the Lease is out of reach: standing by");
            self.take_until(leadership.leads()).await;
        }
        self.watch_afresh(watches).await;
        while !Kind::NEEDED.iter().all(|kind| self.listed.contains(kind)) {
            let Some(message) = self.messages.recv().await else { return };
            self.take(message);
        }
        // A rollout that is not known yet may have results of a FlashJob in deletion to store.
        let mut limit = std::pin::pin!(tokio::time::sleep(ROLLOUTS_WAIT));
        while !self.listed.contains(&Kind::Rollout) {
            tokio::select! {
                () = &mut limit => {
                    // Those that were known before may be gone with their definition.
                    let none = Change::Listed { kind: Kind::Rollout, uids: HashSet::new() };
                    self.world.take(none, whole_seconds(Timestamp::now()));
                    return;
                }
                Some(message) = self.messages.recv() => self.take(message),
            }
        }
    }

    /// Starts all watches anew.
    async fn watch_afresh(&mut self, watches: &mut Watches) {
        watches.stop().await;
        // No list of before counts as one of now.
        while let Ok(message) = self.messages.try_recv() {
            self.take(message);
        }
        self.listed.clear();
        watches.start(&self.operator);
    }

    /// Takes messages until something has come.
    async fn take_until<T>(&mut self, until: impl Future<Output = T>) -> T {
        let mut until = std::pin::pin!(until);
        loop {
            tokio::select! {
                ended = &mut until => return ended,
                Some(message) = self.messages.recv() => self.take(message),
            }
        }
    }

    /// Plans what is due until the process ends.
    async fn work(&mut self, requests: mpsc::UnboundedReceiver<ScheduleRequest<Subject>>) {
        self.operator.begin_planning();
        self.world.lock_what_is_stored();
        self.world.rollouts.all_due();
        let jobs: Vec<JobKey> = self.world.jobs.keys().cloned().collect();
        tracing::info!(jobs = jobs.len(), "caches are filled, work begins");
        self.operator.metrics.set_leader(true);
        self.look_at(jobs.into_iter().map(Subject::Job));
        let mut due = std::pin::pin!(scheduler(requests));
        loop {
            tokio::select! {
                // A plan sees everything that was told before it.
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
        let subjects = self.world.take(change, whole_seconds(Timestamp::now()));
        self.look_at(subjects);
    }

    /// Queues these objects to be planned, and the rollouts that the last changes affect. A
    /// standby queues nothing; it queues all once it leads.
    fn look_at(&mut self, subjects: impl IntoIterator<Item = Subject>) {
        if !self.operator.is_planning() {
            return;
        }
        for subject in subjects {
            self.schedule.look_in(subject, Duration::ZERO);
        }
        for (rollout, pause) in self.world.rollouts.take_due() {
            self.schedule.look_in(rollout, pause);
        }
    }

    /// Observes and plans one rollout, and sends off what the plan asks for. Waits for nothing.
    #[tracing::instrument(
        name = "plan rollout",
        level = "debug",
        skip_all,
        fields(rollout = %key)
    )]
    fn reconcile_rollout(&mut self, key: &RolloutKey) {
        // An API server that lacks their definition holds up no FlashJob, and is waited for here.
        if !self.listed.contains(&Kind::Rollout) {
            return self.schedule.look_in(key.clone(), LOOK_INTERVAL);
        }
        let started = Instant::now();
        let world = &mut self.world;
        let Some(cached) = world.rollouts.get(key).cloned() else { return };
        let next_plan = world.rollouts.memory.entry(key.clone()).or_default().next_plan;
        if let Some(pause) = until(next_plan, started) {
            return self.schedule.look_in(key.clone(), pause);
        }
        let now = whole_seconds(Timestamp::now());
        let Some(plan) = world.decide_rollout(key, now) else { return };
        let is_awaited = world.has_child_in_deletion(&cached);
        let memory = world.rollouts.memory.entry(key.clone()).or_default();
        let question = memory.ask(plan.question, started);
        let begin = |step| Some((memory.begin(&step)?, step));
        let steps: Vec<_> = plan.steps.into_iter().filter_map(begin).collect();
        // From the end of a batch to the start of the next one several plans follow upon each
        // other: the devices wait for them.
        let goes_on = plan.urgent || question.is_some() || !steps.is_empty();
        let pause = if goes_on { SHORTEST_PAUSE } else { pause_after_plan(started.elapsed()) };
        memory.next_plan = Some(started + pause);
        let turn = memory.pace.turn(started);
        let answer = if is_awaited { Duration::ZERO } else { memory.until_answer(started) };
        let due = turn.due(plan.urgent).max(answer);
        let is_new = |status: &_| !was_dropped(&memory.dropped, &cached.resource_version, status);
        let status = plan.status.filter(is_new);
        let write_now = status.is_some() && turn.may_write(plan.urgent) && answer.is_zero();
        memory.pace.writing |= write_now;
        let operator = &self.operator;
        if let Some(status) = status.filter(|_| write_now) {
            tokio::spawn(rollout::report::write(operator.clone(), cached.clone(), status));
        } else if !due.is_zero() {
            self.schedule.look_in(key.clone(), due);
        }
        if let Some(at) = plan.wake_at {
            self.schedule.look_in(key.clone(), pause_until(at));
        }
        if let Some(question) = question {
            tokio::spawn(firmware::resolve(operator.clone(), key.clone().into(), question));
        }
        for (failures, step) in steps {
            tokio::spawn(rollout::apply::apply(operator.clone(), cached.clone(), step, failures));
        }
    }

    /// Observes and plans one job, and sends off what the plan asks for. Waits for nothing.
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
            return self.schedule.look_in(key.clone(), pause);
        }
        let turn = memory.pace.turn(started);
        let Some(mut observed) = world.observe(key, now) else { return };
        observed.report = turn.report();
        let plan = plan(&observed);
        self.operator.metrics.planned(started.elapsed());
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
        if memory.forget_failing_steps(&steps) {
            self.schedule.look_in(key.clone(), SHORTEST_PAUSE);
        }
        let begin = |step| Some((memory.begin(&step)?, step));
        let steps: Vec<_> = steps.into_iter().filter_map(begin).collect();
        let job = &observed.job;
        let is_new = |status: &FlashJobStatus| {
            *status != job.status && !was_dropped(&memory.dropped, &job.resource_version, status)
        };
        let write = status.filter(is_new);
        let due = turn.due(urgent);
        let write_now = write.is_some() && turn.may_write(urgent);
        if let Some(status) = write.as_ref().filter(|_| write_now) {
            memory.write_begins(&observed.job, status, started);
        }
        let begun = memory.begun(results.iter().map(|result| &result.uid));
        let recall_seconds = world.rules.periods.unknown_device_seconds;
        self.look_at(waiting.into_iter().map(Subject::Job));
        let operator = &self.operator;
        if let Some(status) = write.filter(|_| write_now) {
            let job = observed.job.clone();
            tokio::spawn(report::write(operator.clone(), job, status, results, begun));
        } else if !due.is_zero() {
            self.schedule.look_in(key.clone(), due);
        }
        if let Some(at) = wake_at {
            self.schedule.look_in(key.clone(), pause_until(at));
        }
        if let Some(question) = firmware {
            tokio::spawn(firmware::resolve(operator.clone(), key.clone().into(), question));
        }
        for question in questions {
            let consult =
                consult::consult(operator.clone(), key.clone(), question, recall_seconds);
            operator.plugins.spawn(consult);
        }
        for (failures, step) in steps {
            tokio::spawn(apply::apply(operator.clone(), observed.job.clone(), step, failures));
        }
    }
}

/// Pause until an object may be planned again; None: it may be planned now.
fn until(next_plan: Option<Instant>, now: Instant) -> Option<Duration> {
    let pause = next_plan?.saturating_duration_since(now);
    (!pause.is_zero()).then_some(pause)
}

/// Time for which a job is left alone after a plan that took so long.
fn pause_after_plan(took: Duration) -> Duration {
    (took * PAUSES_PER_PLAN).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// Returns true if the API server dropped this very status when it was written to this version.
fn was_dropped<S: PartialEq>(dropped: &Option<(String, S)>, version: &str, status: &S) -> bool {
    dropped.as_ref().is_some_and(|(over, dropped)| over == version && dropped == status)
}

/// Pause before the look that a plan asks for at that time.
fn pause_until(at: Timestamp) -> Duration {
    let pause: Duration = at.duration_since(Timestamp::now()).try_into().unwrap_or(LOOK_INTERVAL);
    pause.min(LONGEST_SLEEP)
}
