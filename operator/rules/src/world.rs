//! The caches: objects from the watches, overlaid with the responses to our own writes until the
//! watches have caught up.
//!
//! A single loop owns all of it: it applies one [`change::Change`] after another, and a plan and
//! its locks are taken in one step. Nothing here does I/O.

mod addresses;
pub mod change;
mod decide;
mod departed;
mod devices;
mod locks;
mod memory;
mod observe;
mod orphans;
pub mod pace;
pub mod rollouts;
mod take;
mod version;

use std::collections::BTreeMap;
use std::sync::Arc;

use flashjob_api::DeviceState;
use hashbrown::{HashMap, HashSet};
use jiff::Timestamp;

use crate::firmware::FirmwareTrust;
use crate::flashjob::make::{GRACE_SECONDS, attempt_name};
use crate::flashjob::observed::{
    Address, Gone, Holder, Identity, Job, JobKey, NodeState, PluginView, Pod, Service, after,
};
use crate::flashjob::policy::{Namespaces, Periods, Policy};
use departed::Departed;
pub use devices::Devices;
pub use locks::Locks;
pub use memory::Memory;
use orphans::Orphans;
use rollouts::Rollouts;
use version::newer;

/// Part of the configuration that decisions depend on.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Namespaces of the Instances that a FlashJob may flash.
    pub namespaces: Namespaces,
    /// Waiting periods.
    pub periods: Periods,
    /// Policy for flash Pods and Services, in addition to job and plugin.
    pub policy: Arc<Policy>,
    /// Signers that are trusted, by firmware reference.
    pub firmware_trust: FirmwareTrust,
}

/// Everything that the operator knows about the cluster.
#[derive(Debug, Default)]
pub struct World {
    /// FlashJobs.
    pub jobs: HashMap<JobKey, Arc<Job>>,
    /// Akri's Instances, and the jobs that refer to them.
    pub devices: Devices,
    /// Locks on devices, and the jobs and Pods that hold them.
    pub locks: Locks,
    /// Memory of each job, which this process does not store.
    pub memory: HashMap<JobKey, Memory>,
    /// FlashRollouts.
    pub rollouts: Rollouts,
    /// True if the lock of a Pod was released since the last call of [`Self::set_holds`].
    pod_released: bool,
    /// The configured plugins.
    pub plugins: Arc<Vec<PluginView>>,
    /// Number of their configuration: it changes with their settings and images.
    plugin_configuration: u64,
    /// Part of the configuration that decisions depend on.
    pub rules: Rules,
    pods: HashMap<JobKey, BTreeMap<String, Arc<Pod>>>,
    services: HashMap<JobKey, BTreeMap<String, Arc<Service>>>,
    /// IP addresses and host names that flash Services hold, with the number of Services.
    addresses: HashMap<String, usize>,
    departed: Departed,
    orphans: Orphans,
    /// Jobs that wait for a device that another job or Pod holds.
    waiting: HashSet<JobKey>,
}

impl World {
    /// Returns an empty world with these plugins and rules.
    #[must_use]
    pub fn new(plugins: Vec<PluginView>, rules: Rules) -> Self {
        Self { plugins: Arc::new(plugins), rules, ..Self::default() }
    }

    /// Applies a FlashJob's new state. Returns false if it is older than the cached state.
    pub fn see_job(&mut self, job: Job) -> bool {
        // A late response to one of our requests may show an object that is already deleted.
        if self.departed.has(&job.uid) {
            return false;
        }
        let key = job.key.clone();
        if let Some(cached_job) = self.jobs.get(&key) {
            if cached_job.uid == job.uid
                && !newer(&job.resource_version, &cached_job.resource_version)
            {
                return false;
            }
            // A FlashJob that was deleted and created again under its name is another one: nothing
            // that is remembered of the first counts for it.
            if cached_job.uid != job.uid {
                self.forget_job(&key);
            }
        }
        self.rollouts.see_child(&job);
        self.devices.set_interests(&job);
        self.jobs.insert(key, Arc::new(job));
        true
    }

    /// Forgets a deleted FlashJob.
    pub fn forget_job(&mut self, key: &JobKey) {
        if let Some(job) = self.jobs.remove(key) {
            self.rollouts.lose_child(&job);
            self.rollouts.free_name();
        }
        self.memory.remove(key);
        self.devices.drop_interests(key);
        self.locks.set(key, Vec::new());
        self.waiting.remove(key);
        // Pods that still exist keep their locks: garbage collection deletes them later, and until
        // then their containers may run.
        if let Some(pods) = self.pods.get_mut(key) {
            let (locks, orphans) = (&mut self.locks, &mut self.orphans);
            pods.retain(|_, pod| {
                if pod.gone.is_some() {
                    locks.forget_pod(&pod.uid);
                    return false;
                }
                orphans.note(pod, false);
                // The job waited until nothing of it could be running.
                if !locks.has_pod(&pod.uid) {
                    orphans.end(&pod.uid);
                }
                true
            });
        }
    }

    /// Applies a Pod's new state. Returns the job to plan.
    pub fn see_pod(&mut self, mut pod: Pod) -> Option<JobKey> {
        if self.departed.is_older(&pod.uid, &pod.resource_version) {
            return None;
        }
        let key = pod.job.clone();
        if pod.identities.is_empty() {
            // Pods of the Go operator name their endpoint; this one does not and is identified by
            // its device.
            pod.identities.extend(
                self.devices.by_uid(&pod.device).map(|instance| instance.identity.clone()),
            );
        }
        let pods = self.pods.entry(key.clone()).or_default();
        if let Some(cached_pod) = pods.get(&pod.name)
            && cached_pod.uid == pod.uid
            && cached_pod.gone.is_none()
            && !newer(&pod.resource_version, &cached_pod.resource_version)
        {
            return None;
        }
        self.locks.see_pod(&pod);
        let has_job = job_exists(&self.jobs, &key, &pod.job_uid);
        if self.orphans.note(&pod, has_job) {
            self.locks.forget_pod(&pod.uid);
        }
        pods.insert(pod.name.clone(), Arc::new(pod));
        Some(key)
    }

    /// Handles a Pod that left the watch. A Pod whose end was not observed is kept until it is
    /// known whether it still exists.
    pub fn lose_pod(&mut self, job: &JobKey, name: &str, uid: &str, now: Timestamp) {
        let Some(pods) = self.pods.get_mut(job) else { return };
        let Some(pod) = pods.get(name).filter(|pod| pod.uid == uid) else { return };
        let ended = pod.ended.is_some();
        // No plan confirms the deletion of a Pod whose FlashJob was deleted, and perhaps created
        // again under its name.
        let has_job = job_exists(&self.jobs, job, &pod.job_uid);
        self.orphans.forget(uid);
        if ended || !has_job {
            self.locks.forget_pod(uid);
        }
        if !has_job {
            pods.remove(name);
        } else if pod.gone.is_none() {
            // A Pod whose end was observed is kept too: its outcome may not be stored yet.
            let mut pod = Pod::clone(pod);
            let gone = Gone::last_seen(now);
            pod.gone = Some(if ended { gone.confirmed(now) } else { gone });
            pods.insert(name.to_owned(), Arc::new(pod));
        }
    }

    /// Notes that an object was deleted, according to a watch or a 404, and its last version:
    /// states that arrive later are stale.
    pub fn note_departure(&mut self, uid: &str, version: &str) {
        self.departed.note(uid, version);
    }

    /// Applies the response to our own delete request, which may arrive after the watch reported
    /// the Pod as deleted.
    pub fn see_deleted_pod(&mut self, pod: Pod) {
        let cached_pod = self.pods.get(&pod.job).and_then(|pods| pods.get(&pod.name));
        if cached_pod.is_some_and(|cached| cached.uid == pod.uid && cached.gone.is_none()) {
            self.see_pod(pod);
        }
    }

    /// Like [`Self::see_deleted_pod`], for a Service.
    pub fn see_deleted_service(&mut self, service: Service) {
        let cached_service =
            self.services.get(&service.job).and_then(|services| services.get(&service.name));
        if cached_service.is_some_and(|cached| cached.uid == service.uid) {
            self.see_service(service);
        }
    }

    /// Notes that the API server was queried and has no such Pod.
    pub fn confirm_gone(&mut self, job: &JobKey, name: &str, device: &str, now: Timestamp) {
        let pods = self.pods.entry(job.clone()).or_default();
        let mut pod = match pods.get(name) {
            Some(pod) => Pod::clone(pod),
            None => {
                match self.jobs.get(job).and_then(|owner| unseen_pod(owner, name, device, now)) {
                    Some(pod) => pod,
                    None => return,
                }
            }
        };
        pod.gone = Some(pod.gone.unwrap_or_else(|| Gone::last_seen(now)).confirmed(now));
        self.locks.see_pod(&pod);
        pods.insert(name.to_owned(), Arc::new(pod));
    }

    /// Applies the state of a node to the Pods that vanished from it. Returns the jobs to plan:
    /// those of Pods that can no longer be running.
    pub fn see_node(&mut self, node: &NodeState, now: Timestamp) -> Vec<JobKey> {
        let margin = self.rules.periods.lost_pod_margin_seconds.max(0);
        let mut jobs = Vec::new();
        for (job, pods) in &mut self.pods {
            let here = |pod: &&mut Arc<Pod>| pod.node_to_read() == Some(&node.node);
            for pod in pods.values_mut().filter(here) {
                let pod = Arc::make_mut(pod);
                let seconds = pod.grace_seconds.saturating_add(margin);
                if pod.gone.as_mut().is_some_and(|gone| gone.note_node(node, seconds, now)) {
                    self.locks.see_pod(pod);
                    jobs.push(job.clone());
                }
            }
        }
        if !jobs.is_empty() {
            jobs.extend(self.waiting_jobs());
        }
        jobs
    }

    /// Applies a Service's new state. Returns the job to plan.
    pub fn see_service(&mut self, service: Service) -> Option<JobKey> {
        if self.departed.is_older(&service.uid, &service.resource_version) {
            return None;
        }
        let key = service.job.clone();
        let services = self.services.entry(key.clone()).or_default();
        let cached_service = services.get(&service.name);
        if cached_service.is_some_and(|cached| {
            cached.uid == service.uid
                && !newer(&service.resource_version, &cached.resource_version)
        }) {
            return None;
        }
        let before = cached_service.map(|cached| canonical_addresses(cached)).unwrap_or_default();
        for address in canonical_addresses(&service) {
            *self.addresses.entry(address).or_default() += 1;
        }
        release(&mut self.addresses, before);
        services.insert(service.name.clone(), Arc::new(service));
        Some(key)
    }

    /// Forgets a deleted Service.
    pub fn lose_service(&mut self, job: &JobKey, name: &str, uid: &str) {
        let Some(services) = self.services.get_mut(job) else { return };
        if services.get(name).is_some_and(|service| service.uid == uid) {
            let service = services.remove(name);
            release(
                &mut self.addresses,
                service.map(|service| canonical_addresses(&service)).unwrap_or_default(),
            );
        }
    }

    /// Returns the Pods that a new list does not contain: job, name and uid of each.
    pub fn pods_not_in(&self, listed: &HashSet<String>) -> Vec<(JobKey, String, String)> {
        let pods =
            self.pods.iter().flat_map(|(job, pods)| pods.values().map(move |pod| (job, pod)));
        let missing = pods.filter(|(_, pod)| pod.gone.is_none() && !listed.contains(&pod.uid));
        missing.map(|(job, pod)| (job.clone(), pod.name.clone(), pod.uid.clone())).collect()
    }

    /// Like [`Self::pods_not_in`], for Services.
    pub fn services_not_in(&self, listed: &HashSet<String>) -> Vec<(JobKey, String, String)> {
        let services = self
            .services
            .iter()
            .flat_map(|(job, services)| services.values().map(move |service| (job, service)));
        let missing = services.filter(|(_, service)| !listed.contains(&service.uid));
        missing
            .map(|(job, service)| (job.clone(), service.name.clone(), service.uid.clone()))
            .collect()
    }

    /// Returns true if a Pod with that name was observed, whether it still exists or not: a create
    /// with an unknown outcome then has succeeded.
    #[must_use]
    pub fn knows_pod(&self, job: &JobKey, name: &str) -> bool {
        self.pods.get(job).is_some_and(|pods| pods.contains_key(name))
    }

    /// Jobs that wait for a device held by another job or Pod; to be planned when a lock is
    /// released.
    pub fn waiting_jobs(&self) -> Vec<JobKey> {
        self.waiting.iter().cloned().collect()
    }

    /// Locks the devices that stored records show in flight. Called once, before the first plan.
    pub fn lock_what_is_stored(&mut self) {
        let keys: Vec<JobKey> = self.jobs.keys().cloned().collect();
        for key in keys {
            let job = self.jobs[&key].clone();
            let in_flight = job.status.devices.iter().filter(|device| device.is_locked());
            let holds = in_flight.flat_map(|device| {
                let instance = self.devices.follow(&job, &device.uid);
                let identities = job.identities(device, instance.map(AsRef::as_ref));
                identities.into_iter().map(|identity| (identity, device.uid.clone()))
            });
            let holds = holds.collect();
            self.locks.set(&key, holds);
        }
    }

    /// Sets the locks of a job from its plan. Returns true if a lock was released, also that of a
    /// Pod since the last call.
    pub fn set_holds(&mut self, job: &JobKey, mut holds: Vec<(Identity, String)>) -> bool {
        let pod_released = std::mem::take(&mut self.pod_released);
        // A create may succeed although a later plan has given its attempt up, so its device stays
        // locked until the answer has arrived.
        let pods_in_creation =
            self.memory.get(job).into_iter().flat_map(|memory| memory.pods_in_creation.values());
        let identities = pods_in_creation.flat_map(|pod| {
            pod.identities.iter().map(|identity| (identity.clone(), pod.device.clone()))
        });
        holds.extend(identities);
        self.locks.set(job, holds) || pod_released
    }
}

/// Placeholder for a Pod that the status names and that was never observed: it may have run, and
/// its node may still run it. None: the status names it no longer.
fn unseen_pod(job: &Job, name: &str, device: &str, now: Timestamp) -> Option<Pod> {
    let record = job.record(device)?;
    let run = job.status.run.as_deref().unwrap_or_default();
    if attempt_name(&job.key.name, &job.uid, run, device, record.attempt.max(1)) != name {
        return None;
    }
    // 900 s is the default of deviceTimeoutSeconds, for a spec that cannot be read.
    let timeout = job.spec.as_ref().map_or(900, |spec| spec.device_timeout_seconds);
    let may_run_seconds = timeout.saturating_add(GRACE_SECONDS);
    // The status of a lost device has the time until which its Pod may run. Counted from now, a
    // restart of the operator would keep the device locked for longer.
    let until = record.waits_until().filter(|_| record.state == DeviceState::Lost);
    let last_seen = until.map_or(now, |until| after(until, -may_run_seconds));
    let existed_at = record.holds_since().unwrap_or(last_seen).min(last_seen);
    Some(Pod {
        job: job.key.clone(),
        job_uid: job.uid.clone(),
        name: name.to_owned(),
        uid: format!("unseen/{name}"),
        resource_version: String::new(),
        device: device.to_owned(),
        run: job.status.run.clone(),
        attempt: Some(record.attempt),
        slot: Some(crate::flashjob::make::slot(name).to_owned()),
        plugin: None,
        firmware_of_go_operator: None,
        identities: job.identities(record, None),
        deleting: false,
        node: record.node.clone(),
        scheduled: true,
        waiting: None,
        ended: None,
        taken: false,
        may_run_seconds,
        grace_seconds: GRACE_SECONDS,
        gone: Some(Gone::unseen(last_seen, existed_at)),
    })
}

/// Addresses of a Service, each in canonical spelling.
fn canonical_addresses(service: &Service) -> Vec<String> {
    let text = |address: &Address| match address.ip {
        Some(ip) => ip.to_string(),
        None => address.text.clone(),
    };
    service.addresses.iter().map(text).collect()
}

fn release(uses: &mut HashMap<String, usize>, addresses: Vec<String>) {
    for address in addresses {
        let count = uses.get(&address).copied().unwrap_or(0).saturating_sub(1);
        if count == 0 {
            uses.remove(&address);
        } else {
            uses.insert(address, count);
        }
    }
}

/// Returns true if the FlashJob of that name exists, and is the one with that uid.
fn job_exists(jobs: &HashMap<JobKey, Arc<Job>>, key: &JobKey, uid: &str) -> bool {
    jobs.get(key).is_some_and(|job| job.uid == uid)
}

/// Constructor for the holder that messages name.
impl Holder {
    /// Creates a holder.
    #[must_use]
    pub fn new(job: &JobKey, uid: &str) -> Self {
        Self { job: job.clone(), uid: uid.to_owned(), predecessor_pod: None }
    }
}
