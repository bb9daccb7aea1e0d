//! Snapshots of one FlashJob.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use flashjob_api::DeviceState;
use hashbrown::{HashMap, HashSet};
use jiff::Timestamp;

use super::{Devices, Memory, World, job_exists};
use crate::flashjob::observed::{
    Finish, Holder, Identity, Job, JobKey, Observed, Pod, Refused, Report, Service, Sighting,
};
use crate::flashjob::policy::Namespaces;

/// Devices of one job, as far as they are in the caches.
struct Sightings {
    /// By their place in the spec. None: the device has a result, and no other uid of the spec is
    /// the same device.
    devices: Vec<Option<Sighting>>,
    /// Other holders of these devices.
    holders: HashMap<Identity, Holder>,
    /// True if a device that has no result may appear under two uids.
    has_duplicates: bool,
}

impl World {
    /// Takes the snapshot of one job. None: there is no such job.
    pub fn observe(&mut self, key: &JobKey, now: Timestamp) -> Option<Observed> {
        let job = self.jobs.get(key)?.clone();
        self.drop_expired_pods(&job, now);
        self.release_orphans(now);
        let pods: Vec<Arc<Pod>> = self
            .pods
            .get(key)
            .map(|pods| pods.values().filter(|pod| pod.job_uid == job.uid).cloned().collect())
            .unwrap_or_default();
        let mut services: Vec<Arc<Service>> = self
            .services
            .get(key)
            .map(|services| {
                services.values().filter(|service| service.job_uid == job.uid).cloned().collect()
            })
            .unwrap_or_default();
        let in_flight_of_others = self.in_flight_of_others(&job);
        let kept_addresses = self.kept_addresses(&job, now);
        let firmware_trust = self.trust_of(&job);
        let rollout_lacks_results = self.rollout_lacks_results(&job);
        let Sightings { devices, holders, has_duplicates } = self.sight_devices(&job, now);
        let memory = self.memory.entry(key.clone()).or_default();
        memory.mark_leaving(&mut services);
        // The run is stored before the first Pod is created, and so before the budget.
        if job.status.run.is_none() {
            memory.is_protected.get_or_insert(false);
        }
        memory.forget_settled_writes(&job);
        memory.note(&job, &pods, &services, &devices, now);
        memory.has_reported_failing_steps |= !memory.failing_steps.is_empty();
        if memory.waits_for_quota() {
            let here = |job: &JobKey| job.namespace == key.namespace;
            let uses_pods = |pods: &BTreeMap<String, Arc<Pod>>| {
                pods.values().any(|pod| pod.gone.is_none() && pod.ended.is_none())
            };
            let in_use = |object| match object {
                Refused::Service => {
                    self.services.iter().any(|(job, services)| here(job) && !services.is_empty())
                }
                Refused::Pod => self.pods.iter().any(|(job, pods)| here(job) && uses_pods(pods)),
            };
            memory.note_quota(in_use, now);
        }
        // A lock that another job releases is no event of this job, which has to be planned again
        // then.
        if holders.is_empty() && in_flight_of_others.is_empty() {
            self.waiting.remove(key);
        } else {
            self.waiting.insert(key.clone());
        }
        let external_ip = job
            .spec
            .as_ref()
            .ok()
            .and_then(|spec| spec.external_ip.as_deref())
            .and_then(|text| text.parse::<IpAddr>().ok());
        let addresses_in_use = match external_ip {
            Some(address) => self.addresses.contains_key(&address.to_string()),
            None => !self.addresses.is_empty(),
        };
        let orphan_ends_at = self.orphans.next_end().filter(|_| !holders.is_empty());
        let observed = Observed {
            now,
            devices,
            has_duplicates,
            idle_services: memory.idle_services.clone(),
            stuck_pods: memory.stuck_pods.clone(),
            stages: memory.stages.clone(),
            last_instances: memory.last_instances.clone(),
            leaving_pods: memory.leaving_pods.clone(),
            unreachable: memory.unreachable.clone(),
            holders,
            orphan_ends_at,
            addresses_in_use,
            kept_addresses,
            plugins: self.plugins.clone(),
            plugin_configuration: self.plugin_configuration,
            answers: memory.answers.clone(),
            firmware: memory.firmware.clone(),
            firmware_trust,
            pods_in_creation: memory
                .pods_in_creation
                .values()
                .map(|pod| (pod.name.clone(), pod.slot.clone()))
                .collect(),
            services_in_creation: memory.services_in_creation.values().cloned().collect(),
            withdrawn: memory.withdrawn(),
            beginning: memory.beginning(),
            slot_uses: memory.slot_uses.clone(),
            refusals: memory.refusals(now),
            failing: memory.failing.clone(),
            failing_steps: memory.failing_steps.clone(),
            has_reported_failing_steps: memory.has_reported_failing_steps,
            in_flight_of_others,
            is_protected: memory.is_protected,
            periods: self.rules.periods,
            policy: self.rules.policy.clone(),
            job,
            pods,
            services,
            rollout_lacks_results,
            report: Report::Now,
        };
        for pod in observed.pods.iter().filter(|pod| observed.is_past_its_end(pod)) {
            self.pod_released |= self.locks.forget_pod(&pod.uid);
        }
        Some(observed)
    }

    /// Finds the devices of a job that have no result, and the holders of those that are locked.
    fn sight_devices(&mut self, job: &Job, now: Timestamp) -> Sightings {
        let mut devices = vec![None; job.uids().len()];
        let mut holders = HashMap::new();
        let mut has_duplicates = false;
        let Ok(spec) = &job.spec else {
            return Sightings { devices, holders, has_duplicates };
        };
        let memory = self.memory.entry(job.key.clone()).or_default();
        // Results of another run do not count, so all devices are looked up.
        let again = !job.same_run();
        let mut text = String::new();
        let mut followed = HashSet::new();
        for (place, uid) in spec
            .uuid
            .iter()
            .enumerate()
            .filter(|(place, _)| again || job.finishes()[*place].is_none())
        {
            let sighting = sight(&self.devices, &self.rules.namespaces, job, uid, memory, now);
            if let Sighting::Seen(instance) = &sighting {
                let overriding = spec.host_endpoint.as_deref();
                // `is_locked` looks at the identities of the Instance alone, among which an
                // overriding endpoint is not. Most devices are free, and then nothing is copied.
                if overriding.is_some() || self.locks.is_locked(instance, &mut text) {
                    let held = instance.identities(overriding).into_iter();
                    holders.extend(held.filter_map(|identity| {
                        let other = self.locks.holder(&identity, &job.key, uid);
                        let holder = other
                            .or_else(|| self.locks.predecessor(&identity, &job.key, &job.uid));
                        holder.map(|holder| (identity, holder))
                    }));
                }
                has_duplicates |= self.devices.has_duplicate(instance);
                // A device whose Instance was recreated is followed by its name or endpoint: the
                // new uid may be in the spec too.
                if instance.uid != *uid {
                    has_duplicates |= job.place(&instance.uid).is_some()
                        || !followed.insert(instance.identity.clone());
                }
            }
            devices[place] = Some(sighting);
        }
        if let Some(endpoint) = &spec.host_endpoint {
            forbid_foreign_override(
                &mut devices,
                &self.devices,
                &self.rules.namespaces,
                job,
                endpoint,
            );
        }
        // With duplicates, the other uid of a device may already have its result.
        for (place, uid) in spec.uuid.iter().enumerate().filter(|_| has_duplicates) {
            devices[place].get_or_insert_with(|| {
                sight(&self.devices, &self.rules.namespaces, job, uid, memory, now)
            });
        }
        Sightings { devices, holders, has_duplicates }
    }

    /// Digest of the `firmwareTrust` entry that applies to a job with a `firmwarePolicy`.
    fn trust_of(&self, job: &Job) -> Option<String> {
        let spec = job.spec.as_ref().ok().filter(|spec| spec.firmware_policy.is_some())?;
        self.rules.firmware_trust.of(&spec.firmware)
    }

    /// Number of devices that other jobs have in flight, by group of this job's groupBudget,
    /// according to their stored status: a device whose Pod has just ended still counts.
    fn in_flight_of_others(&self, job: &Job) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        let Some(limit) = job.spec.as_ref().ok().and_then(|spec| spec.group_limit.as_ref()) else {
            return counts;
        };
        for (key, uid) in self.locks.held_devices().filter(|(key, _)| **key != job.key) {
            let Some(other) = self.jobs.get(key) else { continue };
            let state = other.record(uid).map(|record| record.state);
            // Akri deletes the Instance of a device that restarts, which still is in flight.
            let last = self.memory.get(key).and_then(|memory| memory.last_instances.get(uid));
            let current = self.devices.follow(other, uid).filter(|now| !now.nodes.is_empty());
            let Some(instance) = current.or(last) else { continue };
            // A locked device without such a state is about to begin.
            if state != Some(DeviceState::Verifying) {
                for group in instance.groups(&limit.key) {
                    *counts.entry(group.to_owned()).or_default() += 1;
                }
            }
        }
        counts
    }

    /// Releases the devices of Pods whose FlashJob is gone, once nothing of them can run.
    fn release_orphans(&mut self, now: Timestamp) {
        let jobs = &self.jobs;
        let has_job = |key: &JobKey, uid: &str| job_exists(jobs, key, uid);
        for uid in self.orphans.take_ended(has_job, now) {
            self.pod_released |= self.locks.forget_pod(&uid);
        }
    }

    /// Forgets a vanished Pod once nothing of it can run and its attempt is no longer the stored
    /// one.
    fn drop_expired_pods(&mut self, job: &Job, now: Timestamp) {
        let Some(pods) = self.pods.get_mut(&job.key) else { return };
        let (locks, mut released) = (&mut self.locks, false);
        pods.retain(|_, pod| {
            let Some(gone) = &pod.gone else { return true };
            // The device reports the version that the Pod was flashing, so the Pod has done its
            // work.
            let is_proven = pod.run.is_some()
                && pod.run == job.status.run
                && job.result(&pod.device) == Some(Finish::Completed);
            let is_over = is_proven
                || !pod.may_run()
                || pod.may_run_until().is_some_and(|until| until <= now);
            let expired = gone.is_confirmed() && is_over;
            let record = job.record(&pod.device);
            // While the stored attempt is that of this Pod, the plan needs it: without it the Pod
            // would be queried again and its device locked for another full deadline.
            let current = pod.run.is_some()
                && pod.run == job.status.run
                && record.is_some_and(|record| {
                    Some(record.attempt) == pod.attempt && record.state != DeviceState::Verifying
                });
            let keep = !expired || current;
            if !keep {
                released |= locks.forget_pod(&pod.uid);
            }
            keep
        });
        self.pod_released |= released;
    }
}

/// Finds the device of a uid.
fn sight(
    devices: &Devices,
    namespaces: &Namespaces,
    job: &Job,
    uid: &str,
    memory: &mut Memory,
    now: Timestamp,
) -> Sighting {
    match devices.follow(job, uid) {
        Some(instance) if namespaces.allow(&job.key.namespace, &instance.namespace) => {
            memory.missing_since.remove(uid);
            Sighting::Seen(instance.clone())
        }
        Some(instance) => Sighting::Forbidden(instance.clone()),
        None => Sighting::Missing(*memory.missing_since.entry(uid.to_owned()).or_insert(now)),
    }
}

/// Forbids the job's devices if the overriding endpoint belongs to an Instance that this job may
/// not flash: the job would flash that device.
fn forbid_foreign_override(
    sightings: &mut [Option<Sighting>],
    devices: &Devices,
    namespaces: &Namespaces,
    job: &Job,
    endpoint: &str,
) {
    let at = devices.at(&Identity::endpoint(endpoint));
    if let Some(foreign) =
        at.into_iter().find(|instance| !namespaces.allow(&job.key.namespace, &instance.namespace))
    {
        for sighting in
            sightings.iter_mut().filter(|sighting| matches!(sighting, Some(Sighting::Seen(_))))
        {
            *sighting = Some(Sighting::Forbidden(foreign.clone()));
        }
    }
}
