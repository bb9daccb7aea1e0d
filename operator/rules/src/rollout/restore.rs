//! Takes back what somebody edited in a FlashJob. Settings are patched; a FlashJob whose devices
//! or firmware were edited is emptied, deleted and replaced: its results would be of something
//! else.

use std::collections::HashSet;

use flashjob_api::{FlashJobSpec, ShardStatus};
use serde_json::{Map, Value};

use super::draft::Draft;
use super::make::{Allowance, run_of};
use super::plan::Step;
use super::snapshot::Child;
use super::status::places;

impl<'a> Draft<'a> {
    /// Returns true if a FlashJob flashes the firmware of this run, as this run asks for it. One
    /// of a superseded run cannot be compared any more: it was watched until now.
    pub(super) fn is_of_run(&self, child: &Child<'_>) -> bool {
        self.superseded || (child.run.is_some() && child.run.as_deref() == self.hash_of_run())
    }

    /// Returns true if the status of a FlashJob speaks of the firmware of this run: results of
    /// other firmware, which somebody wrote into its spec, are none.
    pub(super) fn speaks_of_this_run(&self, child: &Child<'_>) -> bool {
        let run = if self.superseded { child.run.as_deref() } else { self.hash_of_run() };
        run.is_some() && child.status.run.as_deref() == run
    }

    /// The hash that FlashJobs of this run have in their status.
    fn hash_of_run(&self) -> Option<&str> {
        let hash = || {
            let allowance = Allowance { parallelism: 1, suspend: true, max_failed: 0 };
            // The uids are no part of it; one is enough.
            let spec = self.child_spec(vec!["uid".to_owned()], allowance);
            spec.effective().ok().map(|spec| spec.run)
        };
        self.hash.get_or_init(hash).as_deref()
    }

    /// Returns true if a FlashJob flashes the devices of its shard, with the firmware of this run.
    /// A uid that no Instance has is one of before.
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

    /// The uids of a FlashJob, with those of devices that came back under another uid and are not
    /// at work: the FlashJob itself follows whom it has begun with.
    fn wanted_uids(&self, batch: usize, shard: &ShardStatus, child: &Child<'_>) -> Vec<String> {
        let status = child.status;
        let results = [&status.completed_uuids, &status.failed_uuids, &status.skipped_uuids];
        let mut begun: HashSet<&str> = results.into_iter().flatten().map(String::as_str).collect();
        begun.extend(status.devices.iter().map(|device| device.uid.as_str()));
        let list = &self.lists[batch];
        let exchanged = |(uid, place): (&String, usize)| {
            if !list.states[place].awaits_result() || begun.contains(uid.as_str()) {
                return uid.clone();
            }
            self.present(list.names[place]).map_or_else(|| uid.clone(), |now| now.uid.to_owned())
        };
        child.spec.uuid.iter().zip(places(shard)).map(exchanged).collect()
    }

    /// Changes a FlashJob into what it should be.
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
        // A list is replaced as a whole: not one that changed meanwhile.
        let resource_version = exchanges.then(|| child.resource_version.to_owned());
        self.patch(child, patch, resource_version);
    }

    /// Lets a FlashJob start no more devices.
    pub(super) fn suspend(&mut self, child: &Child<'_>) {
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

    /// Empties FlashJobs that were edited, and deletes them once their results are stored; what is
    /// left of their devices goes to new ones.
    pub(super) fn replace_edited(&mut self) {
        let all_stored = (0..self.lists.len()).all(|batch| self.is_stored(batch));
        for child in self.edited.clone() {
            if !child.is_quiet() {
                self.suspend(child);
            } else if all_stored && !child.deleting {
                self.delete(child);
            }
        }
    }

    /// FlashJobs that are no shard's: those of runs before, and what is left when a run ends. Who
    /// has ended stays as long as its run is remembered.
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

/// JSON merge patch from one spec to another; empty where they mean the same.
fn difference(current: &FlashJobSpec, wanted: &FlashJobSpec) -> Map<String, Value> {
    if current == wanted {
        return Map::new();
    }
    let fields = |spec: &FlashJobSpec| match serde_json::to_value(spec) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (mut current, wanted) = (fields(current), fields(wanted));
    let mut patch = Map::new();
    for (name, value) in wanted {
        let changed = match current.remove(&name) {
            Some(was) if was == value => continue,
            // A merge keeps what it does not name, so what is gone is named.
            Some(was) => replacing(&was, value),
            None => value,
        };
        patch.insert(name, changed);
    }
    patch.extend(current.into_iter().map(|(name, _)| (name, Value::Null)));
    patch
}

/// Merge patch that makes `wanted` out of `was`.
fn replacing(was: &Value, wanted: Value) -> Value {
    match (was, wanted) {
        (Value::Object(was), Value::Object(wanted)) => {
            let gone = was.keys().filter(|name| !wanted.contains_key(*name));
            let mut patch: Map<String, Value> =
                gone.map(|name| (name.clone(), Value::Null)).collect();
            for (name, value) in wanted {
                match was.get(&name) {
                    Some(was) if *was == value => {}
                    Some(was) => drop(patch.insert(name, replacing(was, value))),
                    None => drop(patch.insert(name, value)),
                }
            }
            Value::Object(patch)
        }
        (_, wanted) => wanted,
    }
}
