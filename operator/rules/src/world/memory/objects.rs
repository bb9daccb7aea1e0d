//! Records about the objects of a snapshot: since when a job's Pods, Services and devices are in a
//! state, and what was last observed of them. Drops the answers about those that are gone.

use std::sync::Arc;

use flashjob_api::DeviceStatus;
use hashbrown::{HashMap, HashSet};
use jiff::Timestamp;

use super::Memory;
use crate::flashjob::observed::{Instance, Job, Pod, Service, Sighting, SlotUse, Stage};

impl Memory {
    /// Records since when conditions hold, and forgets those that no longer hold.
    pub fn note(
        &mut self,
        job: &Job,
        pods: &[Arc<Pod>],
        services: &[Arc<Service>],
        devices: &[Option<Sighting>],
        now: Timestamp,
    ) {
        let stuck = pods.iter().filter(|pod| pod.is_stuck()).map(|pod| &pod.name);
        renew(&mut self.stuck_pods, stuck, now);
        self.note_stages(pods, now);
        self.note_instances(job, devices);
        let with_pod: HashSet<&String> = pods
            .iter()
            .filter(|pod| pod.gone.is_none())
            .filter_map(|pod| pod.slot.as_ref())
            .collect();
        let idle = services
            .iter()
            .filter(|service| service.slot.as_ref().is_some_and(|slot| !with_pod.contains(slot)));
        renew(&mut self.idle_services, idle.map(|service| &service.name), now);
        let is_unreachable = |sighting: &Option<Sighting>| match sighting {
            Some(Sighting::Seen(instance)) => !instance.reachable(None),
            _ => false,
        };
        let unreachable = job.uids().iter().zip(devices);
        let unreachable = unreachable.filter(|(_, sighting)| is_unreachable(sighting));
        renew(&mut self.unreachable, unreachable.map(|(uid, _)| uid), now);
        self.missing_since.retain(|uid, _| {
            job.place(uid)
                .is_some_and(|place| matches!(devices[place], Some(Sighting::Missing(_))))
        });
        self.note_slots(pods, services, now);
        self.prune(job, pods, now);
    }

    fn note_stages(&mut self, pods: &[Arc<Pod>], now: Timestamp) {
        let current = || pods.iter().filter_map(|pod| Some((&pod.name, pod.stage()?)));
        let is_known = |(name, stage): (&String, Stage)| {
            self.stages.get(name).is_some_and(|(noted_stage, _)| *noted_stage == stage)
        };
        if current().count() == self.stages.len() && current().all(is_known) {
            return;
        }
        let current: HashMap<&String, Stage> = current().collect();
        let stages = Arc::make_mut(&mut self.stages);
        stages.retain(|name, (stage, _)| current.get(name) == Some(stage));
        for (name, stage) in current {
            stages.entry(name.clone()).or_insert((stage, now));
        }
    }

    fn note_instances(&mut self, job: &Job, devices: &[Option<Sighting>]) {
        let at_work = || job.status.devices.iter().filter(|device| device.is_locked());
        let current = at_work().filter_map(|device| {
            match devices.get(job.place(&device.uid)?)?.as_ref()? {
                Sighting::Seen(instance) if !instance.nodes.is_empty() => Some((device, instance)),
                _ => None,
            }
        });
        let is_new = |(device, instance): &(&DeviceStatus, &Arc<Instance>)| {
            self.last_instances.get(&device.uid).is_none_or(|last| !Arc::ptr_eq(last, instance))
        };
        let new: Vec<_> = current
            .filter(is_new)
            .map(|(device, instance)| (device.uid.clone(), instance.clone()))
            .collect();
        if new.is_empty() && self.last_instances.len() <= at_work().count() {
            return;
        }
        let open: HashSet<&str> = at_work().map(|device| device.uid.as_str()).collect();
        let last = Arc::make_mut(&mut self.last_instances);
        last.retain(|uid, _| open.contains(uid.as_str()));
        last.extend(new);
    }

    fn note_slots(&mut self, pods: &[Arc<Pod>], services: &[Arc<Service>], now: Timestamp) {
        let pooled: HashSet<&str> = services
            .iter()
            .filter(|service| service.pool.is_some())
            .filter_map(|service| service.slot.as_deref())
            .collect();
        if pooled.is_empty() && self.slot_uses.is_empty() {
            return;
        }
        let uses = Arc::make_mut(&mut self.slot_uses);
        uses.retain(|slot, _| pooled.contains(slot.as_str()));
        for pod in pods.iter().filter(|pod| pod.gone.is_none()) {
            let Some(slot) = pod.slot.as_ref().filter(|slot| pooled.contains(slot.as_str()))
            else {
                continue;
            };
            uses.insert(
                slot.clone(),
                SlotUse { device: pod.device.clone(), attempt: pod.attempt, last_seen: now },
            );
        }
    }

    /// Drops answers to attempts and Pods that are over.
    fn prune(&mut self, job: &Job, pods: &[Arc<Pod>], now: Timestamp) {
        let open = |uid: &String| {
            job.stored.contains_key(uid) || job.place(uid).is_some() && job.result(uid).is_none()
        };
        if self.answers.built.keys().any(|uid| !open(uid)) {
            self.answers_mut().built.retain(|uid, _| open(uid));
        }
        if self.leaving_pods.len() > pods.len() {
            let present: HashSet<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
            Arc::make_mut(&mut self.leaving_pods).retain(|uid| present.contains(uid.as_str()));
        }
        if !self.answers.judged.is_empty() {
            let pod_uids: HashSet<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
            if self.answers.judged.keys().any(|uid| !pod_uids.contains(uid.as_str())) {
                self.answers_mut().judged.retain(|uid, _| pod_uids.contains(uid.as_str()));
            }
        }
        if self.answers.out_of_service.values().any(|until| *until <= now) {
            self.answers_mut().out_of_service.retain(|_, until| *until > now);
        }
    }
}

/// Keeps the timestamps of names that remain, adds `now` for new names, and drops the rest.
fn renew<'a>(
    since: &mut Arc<HashMap<String, Timestamp>>,
    names: impl Iterator<Item = &'a String>,
    now: Timestamp,
) {
    let names: HashSet<&String> = names.collect();
    if names.len() == since.len() && names.iter().all(|name| since.contains_key(*name)) {
        return;
    }
    let kept = Arc::make_mut(since);
    kept.retain(|name, _| names.contains(name));
    for name in names {
        kept.entry_ref(name).or_insert(now);
    }
}
