//! A plan while it is being made: the stored lists, and the changes decided so far.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use flashjob_api::{
    BatchState, BatchStatus, EffectiveBatch, EffectiveRollout, FailedDevice, FailureBudget,
    FirmwareStatus, FlashRolloutStatus, Reason, ShardStatus, reason,
};
use hashbrown::HashMap;
use jiff::Timestamp;

use super::member_states::{List, Member, instance_of};
use super::plan::{Plan, Step};
use super::select::Device;
use super::snapshot::{Child, Snapshot};
use crate::text;

/// Maximum number of failed devices that the status names.
const SHOWN_FAILED: usize = 100;

/// A plan while it is being made.
pub(super) struct Draft<'a> {
    pub snapshot: &'a Snapshot<'a>,
    pub spec: &'a EffectiveRollout,
    pub stored: &'a FlashRolloutStatus,
    /// The stored run.
    pub run: &'a str,
    /// Version of the stored run.
    pub version: &'a str,
    pub lists: Vec<List<'a>>,
    pub batches: Vec<BatchStatus>,
    /// Firmware of the run, according to its last proof.
    pub firmware: Option<FirmwareStatus>,
    pub failed: Vec<FailedDevice>,
    pub reasons: BTreeMap<String, u32>,
    pub retry: Option<String>,
    /// False once the run has ended or is superseded: then no device moves to another place.
    pub goes_on: bool,
    /// True if the spec asks for another run than the stored one.
    pub superseded: bool,
    /// True if a completed run is resumed.
    pub restarted: bool,
    /// FlashJobs by name.
    pub children: HashMap<&'a str, &'a Child<'a>>,
    /// FlashJobs whose devices or firmware no longer match their shard.
    pub edited: Vec<&'a Child<'a>>,
    /// Hash by which the status of FlashJobs identifies this run; computed when it is first
    /// needed.
    pub hash: OnceCell<Option<String>>,
    pub plan: Plan,
}

impl<'a> Draft<'a> {
    /// Starts from the stored status.
    pub fn new(snapshot: &'a Snapshot<'a>, spec: &'a EffectiveRollout) -> Self {
        let stored = &snapshot.rollout.status;
        let mut lists: Vec<List<'a>> = stored.members.iter().map(List::of).collect();
        // A status that was truncated by a person: a batch without a list is empty.
        lists.resize_with(stored.batches.len(), List::default);
        Self {
            snapshot,
            spec,
            stored,
            run: stored.run.as_deref().unwrap_or_default(),
            version: stored.version.as_deref().unwrap_or(&spec.version),
            lists,
            batches: stored.batches.clone(),
            firmware: stored.firmware.clone(),
            failed: stored.failed.clone(),
            reasons: stored.reasons.clone(),
            retry: stored.retry.clone(),
            goes_on: true,
            superseded: false,
            restarted: false,
            children: snapshot.children.iter().map(|child| (child.name, child)).collect(),
            edited: Vec::new(),
            hash: OnceCell::new(),
            plan: Plan::default(),
        }
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        self.snapshot.now
    }

    /// Wakes this rollout no later than `at`.
    pub fn wake(&mut self, at: Timestamp) {
        let sooner = self.plan.wake_at.is_none_or(|planned| at < planned);
        if sooner {
            self.plan.wake_at = Some(at);
        }
    }

    pub fn step(&mut self, step: Step) {
        self.plan.steps.push(step);
    }

    /// The Instance of a member.
    pub fn device(&self, member: &str) -> Option<Device<'a>> {
        let (namespace, name) = instance_of(&self.snapshot.rollout.namespace, member);
        self.snapshot.world.device(namespace, name)
    }

    /// The Instance of a member, if it is reachable now.
    pub fn present(&self, member: &str) -> Option<Device<'a>> {
        self.device(member).filter(|device| device.reachable)
    }

    /// Current settings of a batch in the spec. Edits apply at once; a batch that was removed from
    /// the spec keeps its members and gets the defaults.
    pub fn policy(&self, batch: usize) -> EffectiveBatch {
        let name = self.batches[batch].name.as_str();
        let written = self.spec.batches.iter().find(|policy| policy.name == name);
        written.cloned().unwrap_or_else(|| EffectiveBatch {
            name: name.to_owned(),
            ..EffectiveBatch::default()
        })
    }

    /// All shards with their batches.
    pub fn shards(&self) -> Vec<(usize, ShardStatus)> {
        let lists = self.lists.iter().enumerate();
        lists
            .flat_map(|(batch, list)| list.shards.iter().map(move |shard| (batch, *shard)))
            .collect()
    }

    /// Number of devices of a batch that may fail.
    pub fn allowed_failures(&self, batch: usize) -> usize {
        let default =
            if batch == 0 { FailureBudget::Devices(0) } else { FailureBudget::Percent(10) };
        let budget = self.policy(batch).max_failed.or(self.spec.max_failed).unwrap_or(default);
        budget.of(self.lists[batch].names.len())
    }

    /// Number of devices of a batch that failed, or regressed after they completed.
    pub fn failures(&self, batch: usize) -> usize {
        let list = &self.lists[batch];
        list.count(Member::Failed) + list.count(Member::Regressed)
    }

    /// The first batch that has not passed; the last where all have.
    pub fn current(&self) -> usize {
        let open = self.batches.iter().position(|batch| batch.state != BatchState::Passed);
        open.unwrap_or(self.batches.len().saturating_sub(1))
    }

    /// The last batch, to which absent devices move.
    pub fn last(&self) -> usize {
        self.lists.len().saturating_sub(1)
    }

    /// Counts the reason of a result in status.
    pub fn count(&mut self, cause: &str) {
        *self.reasons.entry(cause.to_owned()).or_default() += 1;
    }

    /// Counts a failed device and lists it in status.
    pub fn fail(&mut self, batch: usize, member: &str, cause: &str, message: Option<String>) {
        self.count(cause);
        if self.failed.len() < SHOWN_FAILED {
            self.failed.push(FailedDevice {
                instance: member.to_owned(),
                batch: self.batches[batch].name.clone(),
                reason: cause.to_owned(),
                // The status also has up to 10,000 names, and etcd accepts requests of up to 1.5
                // MiB by default.
                message: message.map(|message| text::beginning(&message, 256)),
            });
        }
    }

    /// Forgets the reasons of failures: those devices are retried.
    pub fn forget_failures(&mut self) {
        self.failed.clear();
        let is_skip = |name: &str| {
            let reason: Option<Reason> = reason::by_name(name);
            // Skipped devices are not retried, so the number of each of their reasons stays.
            reason.is_some_and(|reason| reason.effect == reason::Effect::Skipped)
        };
        self.reasons.retain(|name, _| is_skip(name));
    }

    /// Returns true if the list of a batch equals the stored one.
    pub fn is_stored(&self, batch: usize) -> bool {
        self.stored.members.get(batch).is_some_and(|stored| self.lists[batch].is(stored))
    }
}
