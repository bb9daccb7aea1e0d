//! Akri's Instances, indexed by uid, name and identity; and the jobs that refer to them.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap, HashSet, HashTable};

use crate::flashjob::observed::{Identity, Instance, Job, JobKey};

/// The Instances of the cluster.
#[derive(Debug, Default)]
pub struct Devices {
    uids: Index,
    /// By namespace and name.
    names: Index,
    /// By identity: unshared Configurations create several Instances of one device.
    identities: Index,
    interests: HashMap<Interest, HashSet<JobKey>>,
    of_job: HashMap<JobKey, Vec<Interest>>,
}

/// Index of Instances by a value inside them, without a copy of that value: there may be a hundred
/// thousand Instances.
#[derive(Debug, Default)]
struct Index {
    table: HashTable<Arc<Instance>>,
    hasher: DefaultHashBuilder,
}

/// Function that hashes the key of an Instance.
type Hashed = fn(&DefaultHashBuilder, &Instance) -> u64;

const BY_UID: Hashed = |hasher, instance| hasher.hash_one(&instance.uid);
const BY_NAME: Hashed = |hasher, instance| hasher.hash_one((&instance.namespace, &instance.name));
const BY_IDENTITY: Hashed = |hasher, instance| hasher.hash_one(&instance.identity);

impl Index {
    /// The Instances that have this key.
    fn find(
        &self,
        key: impl Hash,
        has_it: impl Fn(&Instance) -> bool,
    ) -> impl Iterator<Item = &Arc<Instance>> {
        self.table.iter_hash(self.hasher.hash_one(key)).filter(move |instance| has_it(instance))
    }

    fn insert(&mut self, instance: Arc<Instance>, hashed: Hashed) {
        let hasher = &self.hasher;
        self.table
            .insert_unique(hashed(hasher, &instance), instance, |other| hashed(hasher, other));
    }

    fn remove(&mut self, instance: &Arc<Instance>, hashed: Hashed) {
        if let Ok(entry) = self
            .table
            .find_entry(hashed(&self.hasher, instance), |other| Arc::ptr_eq(other, instance))
        {
            entry.remove();
        }
    }
}

/// Reference from a job to an Instance: the uid in its spec, or the name or endpoint stored for
/// it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Interest {
    Uid(String),
    Name(String, String),
    Identity(Identity),
}

impl Devices {
    /// Applies an Instance's new state. Returns the jobs to plan.
    pub fn see(&mut self, instance: Instance) -> Vec<JobKey> {
        if self.by_uid(&instance.uid).is_some_and(|cached| **cached == instance) {
            return Vec::new();
        }
        let mut jobs = self.asking_for(&instance);
        // The list after a broken watch can contain the recreated Instance of a name before the
        // old one is found missing: both must not be indexed under that name.
        let before = self
            .by_uid(&instance.uid)
            .or_else(|| self.by_name(&instance.namespace, &instance.name))
            .cloned();
        if let Some(before) = before {
            jobs.extend(self.remove(&before));
        }
        let instance = Arc::new(instance);
        self.uids.insert(instance.clone(), BY_UID);
        self.names.insert(instance.clone(), BY_NAME);
        self.identities.insert(instance, BY_IDENTITY);
        jobs
    }

    /// Forgets a deleted Instance. Returns the jobs to plan.
    pub fn lose(&mut self, uid: &str) -> Vec<JobKey> {
        let Some(instance) = self.by_uid(uid).cloned() else { return Vec::new() };
        self.remove(&instance)
    }

    fn remove(&mut self, instance: &Arc<Instance>) -> Vec<JobKey> {
        self.uids.remove(instance, BY_UID);
        self.names.remove(instance, BY_NAME);
        self.identities.remove(instance, BY_IDENTITY);
        self.asking_for(instance)
    }

    /// Returns the uids of Instances that a new list does not contain.
    pub fn not_in(&self, listed: &HashSet<String>) -> Vec<String> {
        self.uids
            .table
            .iter()
            .map(|instance| &instance.uid)
            .filter(|uid| !listed.contains(*uid))
            .cloned()
            .collect()
    }

    /// The Instance with that uid.
    #[must_use]
    pub fn by_uid(&self, uid: &str) -> Option<&Arc<Instance>> {
        self.uids.find(uid, |instance| instance.uid == uid).next()
    }

    /// All Instances.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.uids.table.iter()
    }

    /// The Instance with that name.
    #[must_use]
    pub fn by_name(&self, namespace: &str, name: &str) -> Option<&Arc<Instance>> {
        self.names
            .find((namespace, name), |instance| {
                instance.namespace == namespace && instance.name == name
            })
            .next()
    }

    /// Returns true if another Instance represents the same device.
    #[must_use]
    pub fn has_duplicate(&self, instance: &Instance) -> bool {
        self.identities
            .find(&instance.identity, |other| other.identity == instance.identity)
            .nth(1)
            .is_some()
    }

    /// The Instances with an identity.
    #[must_use]
    pub fn at(&self, identity: &Identity) -> Vec<&Arc<Instance>> {
        self.identities.find(identity, |instance| instance.identity == *identity).collect()
    }

    /// Finds the device of a uid; a device that came back under another uid is found by its stored
    /// name or endpoint.
    #[must_use]
    pub fn follow(&self, job: &Job, uid: &str) -> Option<&Arc<Instance>> {
        if let Some(instance) = self.by_uid(uid) {
            return Some(instance);
        }
        let record = job.record(uid)?;
        let namespace = job.namespace_of(record);
        // Akri derives the name from a hash of the device's id: a device that comes back after a
        // reboot has another uid, but the same name.
        if let Some(instance) = record.name.as_ref().and_then(|name| self.by_name(namespace, name))
        {
            return Some(instance);
        }
        // New firmware can change APPLICATION_TYPE, which can move a device to another Akri
        // Configuration and so give it another name; its endpoint stays.
        let identity = Identity::endpoint(record.host_endpoint.as_deref()?);
        self.at(&identity).into_iter().find(|instance| instance.namespace == namespace)
    }

    /// Records which Instances a job refers to.
    pub fn set_interests(&mut self, job: &Job) {
        self.drop_interests(&job.key);
        let Ok(spec) = &job.spec else { return };
        let open = spec.uuid.iter().zip(job.finishes()).filter(|(_, finish)| finish.is_none());
        let open = open.map(|(uid, _)| Interest::Uid(uid.clone()));
        let stored = job.stored.values().map(|index| &job.status.devices[*index]);
        let names = stored.clone().filter_map(|device| {
            let name = device.name.clone()?;
            Some(Interest::Name(job.namespace_of(device).to_owned(), name))
        });
        let endpoints = stored
            .filter_map(|device| device.host_endpoint.as_deref())
            .map(|endpoint| Interest::Identity(Identity::endpoint(endpoint)));
        let interests: Vec<Interest> = open.chain(names).chain(endpoints).collect();
        for interest in &interests {
            self.interests.entry(interest.clone()).or_default().insert(job.key.clone());
        }
        self.of_job.insert(job.key.clone(), interests);
    }

    /// Forgets which Instances a job refers to.
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
