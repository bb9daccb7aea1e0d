//! Snapshots of one rollout, which borrow from the caches, and the decisions of the rules about
//! them.

use std::borrow::{Borrow, Cow};

use jiff::Timestamp;

use super::World;
use super::rollouts::{CachedRollout, Memory};
use crate::firmware::{FirmwareState, ResolveFirmware};
use crate::flashjob::observed::{Instance, Job, JobKey};
use crate::rollout::{self as rules, Child, Device, OtherRollout, Plan, RolloutKey, Snapshot};

impl World {
    /// Decides what is to be done for one rollout. None: there is no such rollout.
    #[must_use]
    pub fn decide_rollout(&self, key: &RolloutKey, now: Timestamp) -> Option<Plan> {
        let cached = self.rollouts.get(key)?;
        let jobs =
            self.rollouts.children(&cached.rollout.uid).filter_map(|job| self.jobs.get(job));
        let other_rollouts: Vec<_> = self
            .rollouts
            .all()
            .filter(|other| !other.is_final() && other.rollout.uid != cached.rollout.uid)
            .map(|other| (other, |namespace: &str, name: &str| other.holds(namespace, name)))
            .collect();
        let other_rollouts = other_rollouts.iter().map(|(other, holds)| OtherRollout {
            namespace: &other.rollout.namespace,
            name: &other.rollout.name,
            created: other.rollout.created,
            awaits_person: other.awaits_person(),
            holds,
        });
        Some(rules::decide(&Snapshot {
            rollout: &cached.rollout,
            world: &View { world: self, key, cached },
            children: jobs.filter_map(|job| child(job)).collect(),
            other_rollouts: other_rollouts.collect(),
            refused: self.rollouts.memory.get(key).and_then(Memory::refused),
            now,
        }))
    }

    /// Returns true if a FlashJob may drop results that its rollout has not stored yet.
    pub(super) fn rollout_lacks_results(&self, job: &Job) -> bool {
        let Some(part) = job.part.as_ref().filter(|_| job.may_drop_results()) else {
            return false;
        };
        // A rollout that was created again under the same name stores no results of the first one,
        // so its uid is compared too.
        let cached = self.rollouts.get(&part.rollout);
        let Some(cached) = cached.filter(|cached| cached.rollout.uid == part.owner) else {
            return false;
        };
        !rules::has_stored_results(&Snapshot {
            rollout: &cached.rollout,
            world: &View { world: self, key: &part.rollout, cached },
            children: child(job).into_iter().collect(),
            other_rollouts: Vec::new(),
            refused: None,
            // Whether a result is stored does not depend on the time.
            now: Timestamp::UNIX_EPOCH,
        })
    }

    /// FlashJobs of a rollout that may wait until it has stored their results.
    pub(super) fn children_that_wait(&self, rollout: &str) -> Vec<JobKey> {
        let waits = |job: &&JobKey| self.jobs.get(*job).is_some_and(|job| job.may_drop_results());
        self.rollouts.children(rollout).filter(waits).cloned().collect()
    }

    /// Returns true if a FlashJob of the rollout is being deleted. It is kept until the rollout
    /// has stored its results, so that write must not wait for a registry.
    #[must_use]
    pub fn has_child_in_deletion(&self, cached: &CachedRollout) -> bool {
        let mut children = self.rollouts.children(&cached.rollout.uid);
        children.any(|job| self.jobs.get(job).is_some_and(|job| job.deleting))
    }
}

fn child(job: &Job) -> Option<Child<'_>> {
    let part = job.part.as_ref()?;
    Some(Child {
        name: &job.key.name,
        uid: &job.uid,
        resource_version: &job.resource_version,
        generation: job.generation,
        deleting: job.deleting,
        spec: &part.spec,
        run: job.spec.as_ref().ok().map(|spec| Cow::Borrowed(spec.run.as_str())),
        status: &job.status,
    })
}

/// The caches, as the rules see them for one rollout.
struct View<'a> {
    world: &'a World,
    key: &'a RolloutKey,
    cached: &'a CachedRollout,
}

impl View<'_> {
    /// Returns true if FlashJobs of the rollout's namespace may flash the Instance.
    fn allows(&self, instance: &Instance) -> bool {
        self.world.rules.namespaces.allow(&self.key.namespace, &instance.namespace)
    }

    fn allowed_device<'a>(&self, instance: &'a Instance) -> Option<Device<'a>> {
        self.allows(instance).then(|| device(instance))
    }
}

impl rules::World for View<'_> {
    fn devices<'a>(&'a self) -> Box<dyn Iterator<Item = Device<'a>> + 'a> {
        Box::new(self.world.devices.all().filter_map(|instance| self.allowed_device(instance)))
    }

    fn device(&self, namespace: &str, name: &str) -> Option<Device<'_>> {
        self.allowed_device(self.world.devices.by_name(namespace, name)?)
    }

    fn device_by_uid(&self, uid: &str) -> Option<Device<'_>> {
        self.allowed_device(self.world.devices.by_uid(uid)?)
    }

    fn firmware(&self, question: &ResolveFirmware) -> FirmwareState {
        let memory = self.world.rollouts.memory.get(self.key);
        memory.map(|memory| memory.firmware.answer(question)).unwrap_or_default()
    }

    fn firmware_trust(&self, firmware: &str) -> Option<String> {
        self.world.rules.firmware_trust.of(firmware)
    }

    fn is_taken(&self, flash_job: &str) -> bool {
        let key = JobKey { namespace: self.key.namespace.clone(), name: flash_job.to_owned() };
        let owner = |job: &Job| job.part.as_ref().map(|part| part.owner.clone());
        let job = self.world.jobs.get(&key);
        job.is_some_and(|job| owner(job).as_ref() != Some(&self.cached.rollout.uid))
    }
}

fn device(instance: &Instance) -> Device<'_> {
    let traits = instance.traits();
    Device {
        uid: &instance.uid,
        namespace: &instance.namespace,
        name: &instance.name,
        identity: instance.identity.borrow(),
        device_type: traits.device_type,
        application_type: traits.application_type,
        version: traits.version,
        nodes: &instance.nodes,
        properties: instance,
        reachable: instance.reachable(None),
    }
}
