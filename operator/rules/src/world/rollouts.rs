//! The FlashRollouts of the cluster, their FlashJobs, and what this process remembers of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use flashjob_api::rollout_reason::{self, RolloutReason};
use flashjob_api::{FlashRollout, FlashRolloutStatus};
use hashbrown::{HashMap, HashSet};
use kube_core::ObjectMeta;

use super::pace::Pace;
use super::version::newer;
use crate::firmware::ResolveFirmware;
use crate::flashjob::observed::{Inquiry, Job, JobKey};
use crate::rollout::{Rollout, RolloutKey, Step, open_members};

/// Delay before a rollout is planned after a device changed: many devices change together.
const DEVICES_PAUSE: Duration = Duration::from_secs(1);
/// Longest delay of a status write while the registry's answer is pending. The answer changes the
/// status too, so between two batches the devices wait for one write instead of two.
const ANSWER_WAIT: Duration = Duration::from_millis(250);

/// The latest known state of a FlashRollout.
#[derive(Debug)]
pub struct CachedRollout {
    /// The rollout, as the rules read it.
    pub rollout: Rollout,
    /// The version of this state in the API server.
    pub resource_version: String,
    /// Namespaces and names of the Instances that it still has to flash. Computed when another
    /// rollout asks: each status write brings a new state, and most fleets have one rollout at a
    /// time.
    open: OnceLock<HashSet<(String, String)>>,
}

impl CachedRollout {
    /// Keeps a rollout.
    #[must_use]
    pub fn of(rollout: FlashRollout) -> Self {
        let version = rollout.metadata.resource_version.clone().unwrap_or_default();
        Self::new(Rollout::of(rollout), version)
    }

    /// Keeps a rollout that cannot be decoded, so that its status can report the error.
    #[must_use]
    pub fn unreadable(metadata: ObjectMeta, status: FlashRolloutStatus, fault: String) -> Self {
        let version = metadata.resource_version.clone().unwrap_or_default();
        Self::new(Rollout::unreadable(metadata, status, fault), version)
    }

    fn new(rollout: Rollout, resource_version: String) -> Self {
        Self { rollout, resource_version, open: OnceLock::new() }
    }

    /// Namespace and name.
    #[must_use]
    pub fn key(&self) -> RolloutKey {
        let Rollout { namespace, name, .. } = &self.rollout;
        RolloutKey { namespace: namespace.clone(), name: name.clone() }
    }

    /// Returns true if the run has ended.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.rollout.status.phase.is_some_and(flashjob_api::RolloutPhase::is_final)
    }

    /// Action of a person that the rollout waits for. None: it continues by itself.
    #[must_use]
    pub fn awaits_person(&self) -> Option<&str> {
        let status = &self.rollout.status;
        status.waits_for_person().then(|| status.waiting_for.as_deref().unwrap_or("a person"))
    }

    /// Returns true if the rollout still has to flash the Instance.
    #[must_use]
    pub fn holds(&self, namespace: &str, name: &str) -> bool {
        let open = self.open.get_or_init(|| {
            let open = open_members(&self.rollout.namespace, &self.rollout.status);
            open.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())).collect()
        });
        open.contains(&(namespace.to_owned(), name.to_owned()))
    }
}

/// Outcome of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// The step succeeded.
    Done,
    /// The API server refused it, with this message.
    Refused(String),
    /// It failed for a transient cause, which says nothing about the FlashJob.
    Failed,
}

/// State of one rollout that this process keeps in memory only. It is rebuilt after a restart.
#[derive(Debug, Default)]
pub struct Memory {
    /// Question to the registry about the firmware.
    pub firmware: Inquiry,
    /// Keys of the steps in flight, or in backoff after a failure.
    busy: HashSet<String>,
    /// Number of consecutive failures, by step.
    failures: HashMap<String, u32>,
    /// The API server's message, by refused step.
    refusals: BTreeMap<String, String>,
    /// Pace of the status writes.
    pub pace: Pace,
    /// Status whose changed fields are all missing from the API server's definition, with the
    /// resource version of the object: it is not written to that version again.
    pub dropped: Option<(String, FlashRolloutStatus)>,
    /// Time before which the rollout is not planned again.
    pub next_plan: Option<Instant>,
    /// Time until which a status write waits for the registry's answer.
    answer_due: Option<Instant>,
}

impl Memory {
    /// Follows the question of a plan, like [`Inquiry::follow`].
    pub fn ask(
        &mut self,
        question: Option<ResolveFirmware>,
        now: Instant,
    ) -> Option<Arc<ResolveFirmware>> {
        let new_question = self.firmware.follow(question);
        // A series of questions must not postpone a write again and again.
        if new_question.is_some() && self.answer_due.is_none_or(|due| due <= now) {
            self.answer_due = Some(now + ANSWER_WAIT);
        }
        new_question
    }

    /// Remaining time for which a status write waits for the registry's answer.
    #[must_use]
    pub fn until_answer(&self, now: Instant) -> Duration {
        let due = self.answer_due.filter(|_| self.firmware.is_unanswered());
        due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now))
    }

    /// Begins a step, and returns the number of its consecutive failures so far. None: the step is
    /// already in flight or in backoff.
    pub fn begin(&mut self, step: &Step) -> Option<u32> {
        let key = step.key();
        let failures = self.failures.get(&key).copied().unwrap_or_default();
        self.busy.insert(key).then_some(failures)
    }

    /// Notes the outcome of a step.
    pub fn note(&mut self, step: &str, outcome: StepOutcome) {
        self.refusals.remove(step);
        match outcome {
            StepOutcome::Done => {
                self.failures.remove(step);
                return;
            }
            StepOutcome::Refused(words) => {
                self.refusals.insert(step.to_owned(), words);
            }
            StepOutcome::Failed => {}
        }
        *self.failures.entry(step.to_owned()).or_default() += 1;
    }

    /// The API server's message where it refuses a step, for people.
    #[must_use]
    pub fn refused(&self) -> Option<&str> {
        self.refusals.values().next().map(String::as_str)
    }

    /// Allows a step to be retried.
    pub fn release(&mut self, step: &str) {
        self.busy.remove(step);
    }
}

/// The FlashRollouts of the cluster.
#[derive(Debug, Default)]
pub struct Rollouts {
    by_key: HashMap<RolloutKey, Arc<CachedRollout>>,
    /// Memory of each rollout.
    pub memory: HashMap<RolloutKey, Memory>,
    /// FlashJobs by the uid of the rollout that owns them.
    children: HashMap<String, BTreeSet<JobKey>>,
    due: HashMap<RolloutKey, Duration>,
}

impl Rollouts {
    /// Applies a rollout's new state. A state older than the cached one is ignored.
    pub fn see(&mut self, update: CachedRollout) {
        let key = update.key();
        if let Some(before) = self.by_key.get(&key) {
            let same = before.rollout.uid == update.rollout.uid;
            if same && !newer(&update.resource_version, &before.resource_version) {
                return;
            }
            if !same {
                self.forget(&key);
            }
        }
        // Devices that it has flashed are free for the rollouts that wait behind it.
        let waits_behind = [rollout_reason::OLDER_ROLLOUT, rollout_reason::OLDER_ROLLOUT_BLOCKED];
        self.wake_those_that_wait(&waits_behind, DEVICES_PAUSE);
        let before = self.by_key.get(&key).and_then(|before| before.awaits_person());
        let moves =
            update.is_final() || update.rollout.deleting || before != update.awaits_person();
        self.by_key.insert(key.clone(), Arc::new(update));
        self.due.insert(key, Duration::ZERO);
        if moves {
            self.wake_open();
        }
    }

    /// Forgets a deleted rollout; others may have waited for its devices.
    pub fn forget(&mut self, key: &RolloutKey) {
        self.by_key.remove(key);
        self.memory.remove(key);
        self.wake_open();
    }

    /// The rollout with that name.
    #[must_use]
    pub fn get(&self, key: &RolloutKey) -> Option<&Arc<CachedRollout>> {
        self.by_key.get(key)
    }

    /// All rollouts.
    pub fn all(&self) -> impl Iterator<Item = &Arc<CachedRollout>> {
        self.by_key.values()
    }

    /// FlashJobs owned by the rollout with that uid.
    pub fn children(&self, uid: &str) -> impl Iterator<Item = &JobKey> {
        self.children.get(uid).into_iter().flatten()
    }

    /// Records a changed FlashJob of a rollout.
    pub fn see_child(&mut self, job: &Job) {
        let Some(part) = &job.part else { return };
        self.children.entry(part.owner.clone()).or_default().insert(job.key.clone());
        self.due.insert(part.rollout.clone(), Duration::ZERO);
    }

    /// Forgets a deleted FlashJob of a rollout.
    pub fn lose_child(&mut self, job: &Job) {
        let Some(part) = &job.part else { return };
        if let Some(children) = self.children.get_mut(&part.owner) {
            children.remove(&job.key);
            if children.is_empty() {
                self.children.remove(&part.owner);
            }
        }
        self.due.insert(part.rollout.clone(), Duration::ZERO);
    }

    /// Marks all unfinished rollouts as due because devices have changed.
    pub fn devices_changed(&mut self) {
        for cached in self.by_key.values().filter(|cached| !cached.is_final()) {
            // A rollout that is due at once already stays so: `or_insert` does not postpone it.
            self.due.entry(cached.key()).or_insert(DEVICES_PAUSE);
        }
    }

    /// Marks all rollouts as due.
    pub fn all_due(&mut self) {
        self.due.extend(self.by_key.keys().map(|key| (key.clone(), Duration::ZERO)));
    }

    /// Wakes the rollouts that wait for a FlashJob's name to become free: a FlashJob was deleted.
    pub fn free_name(&mut self) {
        self.wake_those_that_wait(&[rollout_reason::NAME_TAKEN], Duration::ZERO);
    }

    /// Wakes the rollouts that wait for one of these reasons.
    fn wake_those_that_wait(&mut self, reasons: &[RolloutReason], pause: Duration) {
        // The stored reason tells who waits: neither a result of another rollout nor a deleted
        // FlashJob of somebody else is an event of the one that waits.
        let waits = |cached: &&Arc<CachedRollout>| {
            let reason = cached.rollout.status.reason.as_deref();
            reasons.iter().any(|waited| reason == Some(waited.name))
        };
        for cached in self.by_key.values().filter(waits) {
            self.due.entry(cached.key()).or_insert(pause);
        }
    }

    /// Wakes all unfinished rollouts: they may wait for the one that changed, or name in their
    /// status what it waits for.
    fn wake_open(&mut self) {
        for cached in self.by_key.values().filter(|cached| !cached.is_final()) {
            self.due.insert(cached.key(), Duration::ZERO);
        }
    }

    /// Returns the rollouts that became due since the last call, each with a delay, and clears
    /// them.
    pub fn take_due(&mut self) -> HashMap<RolloutKey, Duration> {
        std::mem::take(&mut self.due)
    }
}

#[cfg(test)]
mod tests;
