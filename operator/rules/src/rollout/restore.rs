//! Reverts edits that were made to a FlashJob. Settings are patched; a FlashJob whose devices or
//! firmware were edited is suspended, deleted and replaced, because its results would refer to
//! other devices or firmware.

use flashjob_api::{FlashJobSpec, ShardStatus};
use hashbrown::HashSet;
use serde_json::{Map, Value};

use super::draft::Draft;
use super::make::{Allowance, run_of};
use super::member_states::places;
use super::plan::Step;
use super::snapshot::Child;

impl<'a> Draft<'a> {
    /// Returns true if a FlashJob flashes the firmware of this run, with the settings of this run.
    /// In a superseded run this can no longer be compared, and is assumed: edits were reverted
    /// until then.
    pub(super) fn is_of_run(&self, child: &Child<'_>) -> bool {
        self.superseded || (child.run.is_some() && child.run.as_deref() == self.hash_of_run())
    }

    /// Returns true if the status of a FlashJob refers to the firmware of this run: results of
    /// other firmware, which was written into its spec, do not count.
    pub(super) fn speaks_of_this_run(&self, child: &Child<'_>) -> bool {
        let run = if self.superseded { child.run.as_deref() } else { self.hash_of_run() };
        run.is_some() && child.status.run.as_deref() == run
    }

    /// The hash by which the status of FlashJobs identifies this run.
    fn hash_of_run(&self) -> Option<&str> {
        let hash = || {
            let allowance = Allowance { parallelism: 1, suspend: true, max_failed: 0 };
            // The hash does not include the uids; one is enough.
            let spec = self.child_spec(vec!["uid".to_owned()], allowance);
            spec.effective().ok().map(|spec| spec.run)
        };
        self.hash.get_or_init(hash).as_deref()
    }

    /// Returns true if a FlashJob flashes the devices of its shard, with the firmware of this run.
    /// A uid that no Instance has is taken for an earlier uid of the device.
    pub(super) fn is_sound(&self, batch: usize, shard: &ShardStatus, child: &Child<'_>) -> bool {
        let names = &self.lists[batch].names[places(shard)];
        child.spec.uuid.len() == names.len()
            && self.is_of_run(child)
            && child.spec.uuid.iter().zip(names).all(|(uid, name)| {
                match self.device(name).filter(|device| device.uid == uid) {
                    Some(_) => true,
                    None => self.snapshot.world.device_by_uid(uid).is_none(),
                }
            })
    }

    /// The uids of a FlashJob, updated for devices that came back under another uid and have not
    /// begun: the FlashJob itself follows the devices that it has begun with.
    fn wanted_uids(&self, batch: usize, shard: &ShardStatus, child: &Child<'_>) -> Vec<String> {
        let status = child.status;
        let results = [&status.completed_uuids, &status.failed_uuids, &status.skipped_uuids];
        let mut begun_uids: HashSet<&str> =
            results.into_iter().flatten().map(String::as_str).collect();
        begun_uids.extend(status.devices.iter().map(|device| device.uid.as_str()));
        let list = &self.lists[batch];
        let exchanged = |(uid, place): (&String, usize)| {
            if !list.states[place].awaits_result() || begun_uids.contains(uid.as_str()) {
                return uid.clone();
            }
            self.present(list.names[place]).map_or_else(|| uid.clone(), |now| now.uid.to_owned())
        };
        child.spec.uuid.iter().zip(places(shard)).map(exchanged).collect()
    }

    /// Patches a FlashJob to its desired spec.
    pub(super) fn restore(
        &mut self,
        batch: usize,
        shard: &ShardStatus,
        child: &Child<'_>,
        allowance: Allowance,
    ) {
        let uuid = self.wanted_uids(batch, shard, child);
        let exchanges = uuid != child.spec.uuid;
        let patch = difference(child.spec, &self.child_spec(uuid, allowance));
        // A merge patch replaces the whole list, so it must not apply to a list that has changed.
        let resource_version = exchanges.then(|| child.resource_version.to_owned());
        self.patch(child, patch, resource_version);
    }

    /// Suspends a FlashJob, so that it starts no more devices.
    pub(super) fn suspend(&mut self, child: &Child<'_>) {
        // An ended FlashJob is left alone: a patch would raise its generation and make it look
        // unobserved until its next status.
        if child.spec.suspend != Some(true) && !child.has_ended() {
            let patch = Map::from_iter([("suspend".to_owned(), Value::Bool(true))]);
            self.patch(child, patch, None);
        }
    }

    fn patch(
        &mut self,
        child: &Child<'_>,
        spec: Map<String, Value>,
        resource_version: Option<String>,
    ) {
        if !spec.is_empty() && !child.deleting {
            let (name, uid) = (child.name.to_owned(), child.uid.to_owned());
            self.step(Step::PatchChild { name, uid, spec, resource_version });
        }
    }

    /// Suspends FlashJobs that were edited, and deletes them once their results are stored; new
    /// FlashJobs take over their remaining devices.
    pub(super) fn replace_edited(&mut self) {
        // A deleted FlashJob takes its results with it, so they are stored first.
        let all_stored = (0..self.lists.len()).all(|batch| self.is_stored(batch));
        for child in self.edited.clone() {
            if !child.is_quiet() {
                self.suspend(child);
            } else if all_stored && !child.deleting {
                self.delete(child);
            }
        }
    }

    /// Suspends and deletes FlashJobs that belong to no shard: those of earlier runs, and those
    /// left when a run ends. Ended FlashJobs are kept as long as their run is in the history.
    pub(super) fn clean(&mut self) {
        let snapshot = self.snapshot;
        let working: HashSet<String> =
            self.shards().iter().map(|(batch, shard)| self.child_name(*batch, shard)).collect();
        for child in &snapshot.children {
            if working.contains(child.name) || child.deleting {
                continue;
            }
            let run = run_of(&snapshot.rollout.name, child.name);
            let remembered = run.is_some_and(|run| {
                run == self.run || self.stored.history.iter().any(|past| past.run == run)
            });
            if !child.is_quiet() {
                self.suspend(child);
            } else if !(remembered && child.has_ended()) {
                self.delete(child);
            }
        }
    }

    pub(super) fn delete(&mut self, child: &Child<'_>) {
        let (name, uid) = (child.name.to_owned(), child.uid.to_owned());
        self.step(Step::DeleteChild { name, uid });
    }
}

/// JSON merge patch from one spec to another; empty if they are equivalent.
fn difference(current: &FlashJobSpec, target: &FlashJobSpec) -> Map<String, Value> {
    if current == target {
        return Map::new();
    }
    let fields = |spec: &FlashJobSpec| match serde_json::to_value(spec) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (mut current, target) = (fields(current), fields(target));
    let mut patch = Map::new();
    for (name, value) in target {
        let changed = match current.remove(&name) {
            Some(was) if was == value => continue,
            // A merge patch keeps fields that it does not name, so removed fields are set to null.
            Some(was) => replacing(&was, value),
            None => value,
        };
        patch.insert(name, changed);
    }
    patch.extend(current.into_iter().map(|(name, _)| (name, Value::Null)));
    patch
}

/// Merge patch that turns `was` into `target`.
fn replacing(was: &Value, target: Value) -> Value {
    match (was, target) {
        (Value::Object(was), Value::Object(target)) => {
            let removed_names = was.keys().filter(|name| !target.contains_key(*name));
            let mut patch: Map<String, Value> =
                removed_names.map(|name| (name.clone(), Value::Null)).collect();
            for (name, value) in target {
                match was.get(&name) {
                    Some(was) if *was == value => {}
                    Some(was) => drop(patch.insert(name, replacing(was, value))),
                    None => drop(patch.insert(name, value)),
                }
            }
            Value::Object(patch)
        }
        (_, target) => target,
    }
}
