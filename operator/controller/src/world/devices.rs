//! Akri's Instances, found by uid, name and endpoint; and which jobs ask for which.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use flashjob_api::DeviceStatus;

use crate::observed::{Identity, Instance, Job, JobKey};

/// The Instances of the cluster.
#[derive(Debug, Default)]
pub struct Devices {
    by_uid: HashMap<String, Arc<Instance>>,
    /// Uid of the Instance, by namespace and name.
    names: HashMap<(String, String), String>,
    /// Uids of the Instances at an identity: unshared Configurations give one device several.
    identities: HashMap<Identity, Vec<String>>,
    interests: HashMap<Interest, HashSet<JobKey>>,
    of_job: HashMap<JobKey, Vec<Interest>>,
}

/// What ties a job to an Instance: the uid of its spec, or the name or endpoint stored for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Interest {
    Uid(String),
    Name(String, String),
    Identity(Identity),
}

impl Devices {
    /// Takes an Instance's new state. Returns the jobs to look at.
    pub fn see(&mut self, instance: Instance) -> Vec<JobKey> {
        if self.by_uid.get(&instance.uid).is_some_and(|known| **known == instance) {
            return Vec::new();
        }
        let mut jobs = self.asking_for(&instance);
        let name = (instance.namespace.clone(), instance.name.clone());
        if let Some(before) = self.names.insert(name, instance.uid.clone()) {
            jobs.extend(self.remove(&before));
        }
        self.names.insert((instance.namespace.clone(), instance.name.clone()), instance.uid.clone());
        self.identities.entry(instance.identity.clone()).or_default().push(instance.uid.clone());
        self.by_uid.insert(instance.uid.clone(), Arc::new(instance));
        jobs
    }

    /// An Instance is gone. Returns the jobs to look at.
    pub fn lose(&mut self, uid: &str) -> Vec<JobKey> {
        self.remove(uid)
    }

    fn remove(&mut self, uid: &str) -> Vec<JobKey> {
        let Some(instance) = self.by_uid.remove(uid) else { return Vec::new() };
        let name = (instance.namespace.clone(), instance.name.clone());
        if self.names.get(&name).is_some_and(|current| current == uid) {
            self.names.remove(&name);
        }
        if let Some(uids) = self.identities.get_mut(&instance.identity) {
            uids.retain(|other| other != uid);
            if uids.is_empty() {
                self.identities.remove(&instance.identity);
            }
        }
        self.asking_for(&instance)
    }

    /// Uids that a fresh list no longer had.
    pub fn not_in(&self, listed: &HashSet<String>) -> Vec<String> {
        self.by_uid.keys().filter(|uid| !listed.contains(*uid)).cloned().collect()
    }

    /// The Instance of that uid.
    #[must_use]
    pub fn by_uid(&self, uid: &str) -> Option<&Arc<Instance>> {
        self.by_uid.get(uid)
    }

    /// The Instances at an identity.
    #[must_use]
    pub fn at(&self, identity: &Identity) -> Vec<&Arc<Instance>> {
        let uids = self.identities.get(identity);
        uids.into_iter().flatten().filter_map(|uid| self.by_uid.get(uid)).collect()
    }

    /// Finds the device of a uid; one that came back under another uid is followed by its stored name or endpoint.
    #[must_use]
    pub fn follow(&self, job: &Job, uid: &str, record: Option<&DeviceStatus>) -> Option<&Arc<Instance>> {
        if let Some(instance) = self.by_uid.get(uid) {
            return Some(instance);
        }
        let record = record?;
        let namespace = &job.key.namespace;
        let named = record.name.as_ref().and_then(|name| self.names.get(&(namespace.clone(), name.clone())));
        if let Some(instance) = named.and_then(|uid| self.by_uid.get(uid)) {
            return Some(instance);
        }
        let identity = Identity::endpoint(record.host_endpoint.as_deref()?);
        self.at(&identity).into_iter().find(|instance| instance.namespace == *namespace)
    }

    /// Notes which Instances a job asks for.
    pub fn set_interests(&mut self, job: &Job) {
        self.drop_interests(&job.key);
        let Ok(spec) = &job.spec else { return };
        let open = spec.uuid.iter().filter(|uid| !job.results.contains_key(*uid)).map(|uid| Interest::Uid(uid.clone()));
        let stored = job.stored.values().map(|index| &job.status.devices[*index]);
        let names = stored.clone().filter_map(|device| device.name.clone()).map(|name| Interest::Name(job.key.namespace.clone(), name));
        let endpoints =
            stored.filter_map(|device| device.host_endpoint.as_deref()).map(|endpoint| Interest::Identity(Identity::endpoint(endpoint)));
        let interests: Vec<Interest> = open.chain(names).chain(endpoints).collect();
        for interest in &interests {
            self.interests.entry(interest.clone()).or_default().insert(job.key.clone());
        }
        self.of_job.insert(job.key.clone(), interests);
    }

    /// Forgets what a job asks for.
    pub fn drop_interests(&mut self, job: &JobKey) {
        for interest in self.of_job.remove(job).unwrap_or_default() {
            if let Some(jobs) = self.interests.get_mut(&interest) {
                jobs.remove(job);
                if jobs.is_empty() {
                    self.interests.remove(&interest);
                }
            }
        }
    }

    fn asking_for(&self, instance: &Instance) -> Vec<JobKey> {
        let ways = [
            Interest::Uid(instance.uid.clone()),
            Interest::Name(instance.namespace.clone(), instance.name.clone()),
            Interest::Identity(instance.identity.clone()),
        ];
        ways.iter().filter_map(|way| self.interests.get(way)).flatten().cloned().collect()
    }
}
