//! A FlashJob as the rules read it: with defaults applied, or the error that makes its spec
//! unusable.

use std::fmt;
use std::hash::BuildHasher;

use flashjob_api::{
    DeviceState, DeviceStatus, EffectiveSpec, FINALIZER, FlashJob, FlashJobSpec, FlashJobStatus,
    FlashRollout,
};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_core::Resource;

use super::identity::Identity;
use super::instance::Instance;
use crate::rollout::RolloutKey;

/// Namespace and name of a FlashJob.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobKey {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl fmt::Display for JobKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// A FlashJob.
#[derive(Clone, Debug)]
pub struct Job {
    /// Namespace and name.
    pub key: JobKey,
    /// Uid; part of the names and owner references of the job's objects.
    pub uid: String,
    /// The version of this state in the API server.
    pub resource_version: String,
    /// Generation, which counts changes of the spec.
    pub generation: Option<i64>,
    /// Creation time.
    pub created: Option<Timestamp>,
    /// True if it is being deleted.
    pub deleting: bool,
    /// True if it carries our finalizer.
    pub has_finalizer: bool,
    /// All finalizers.
    pub finalizers: Vec<String>,
    /// Effective spec, or the error in it.
    pub spec: Result<EffectiveSpec, String>,
    /// Stored status.
    pub status: FlashJobStatus,
    /// Index in `status.devices` of the record of each device without a result, by uid.
    pub stored: HashMap<String, usize>,
    /// Part in a rollout, for a FlashJob that is owned by one.
    pub part: Option<Box<Part>>,
    results: Results,
}

/// A FlashJob's part in the rollout that owns it.
#[derive(Clone, Debug)]
pub struct Part {
    /// Namespace and name of the rollout.
    pub rollout: RolloutKey,
    /// Uid of the rollout.
    pub owner: String,
    /// Stored spec of the FlashJob; the default where it cannot be decoded.
    pub spec: FlashJobSpec,
}

impl Part {
    fn of(metadata: &ObjectMeta, spec: FlashJobSpec) -> Option<Self> {
        let kind = FlashRollout::kind(&());
        let owners = metadata.owner_references.iter().flatten();
        // Kubernetes allows one controller among the owners; other owner references can be added
        // by anyone who may update the object.
        let owner = owners.filter(|owner| owner.controller == Some(true) && owner.kind == kind);
        let owner = owner.into_iter().next()?;
        let namespace = metadata.namespace.clone().unwrap_or_default();
        Some(Self {
            rollout: RolloutKey { namespace, name: owner.name.clone() },
            owner: owner.uid.clone(),
            spec,
        })
    }
}

/// Stored results of the devices that the spec names, by their place in it: thousands, read in
/// every plan.
#[derive(Clone, Debug, Default)]
struct Results {
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
    finishes: Vec<Option<Finish>>,
    /// Results of uids that the spec does not name.
    outside_spec: HashMap<String, Finish>,
}

/// Result of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Flashed.
    Completed,
    /// Failed permanently.
    Failed,
    /// Not flashed.
    Skipped,
}

impl Job {
    /// Reads a FlashJob.
    #[must_use]
    pub fn of(job: FlashJob) -> Self {
        let spec = job.spec.effective().map_err(|error| error.to_string());
        let part = Part::of(&job.metadata, job.spec);
        Self::assemble(job.metadata, spec, part, job.status.unwrap_or_default())
    }

    /// Keeps a FlashJob that cannot be decoded, so that its status can report the error.
    #[must_use]
    pub fn unreadable(metadata: ObjectMeta, status: FlashJobStatus, error: String) -> Self {
        let part = Part::of(&metadata, FlashJobSpec::default());
        Self::assemble(metadata, Err(error), part, status)
    }

    fn assemble(
        metadata: ObjectMeta,
        spec: Result<EffectiveSpec, String>,
        part: Option<Part>,
        status: FlashJobStatus,
    ) -> Self {
        let finalizers = metadata.finalizers.unwrap_or_default();
        // Failed and skipped devices have their results in the lists of uids; no attempt needs
        // their records.
        let unfinished = |state| !matches!(state, DeviceState::Failed | DeviceState::Skipped);
        let devices = status.devices.iter().enumerate();
        let stored = devices.filter(|(_, device)| unfinished(device.state));
        let stored = stored.map(|(index, device)| (device.uid.clone(), index)).collect();
        Self {
            key: JobKey {
                namespace: metadata.namespace.unwrap_or_default(),
                name: metadata.name.unwrap_or_default(),
            },
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            generation: metadata.generation,
            created: metadata.creation_timestamp.map(|time| time.0),
            deleting: metadata.deletion_timestamp.is_some(),
            has_finalizer: finalizers.iter().any(|finalizer| finalizer == FINALIZER),
            finalizers,
            stored,
            part: part.map(Box::new),
            results: Results::of(spec.as_ref().map_or(&[], |spec| &spec.uuid), &status),
            spec,
            status,
        }
    }
}

impl Job {
    /// The stored record of a device without a result.
    #[must_use]
    pub fn record(&self, uid: &str) -> Option<&DeviceStatus> {
        self.stored.get(uid).map(|index| &self.status.devices[*index])
    }

    /// The uids of the spec.
    #[must_use]
    pub fn uids(&self) -> &[String] {
        self.spec.as_ref().map_or(&[], |spec| &spec.uuid)
    }

    /// Place of a uid in the spec.
    #[must_use]
    pub fn place(&self, uid: &str) -> Option<usize> {
        self.results.place(self.uids(), uid)
    }

    /// The stored result of a device.
    #[must_use]
    pub fn result(&self, uid: &str) -> Option<Finish> {
        match self.place(uid) {
            Some(place) => self.results.finishes[place],
            None => self.results.outside_spec.get(uid).copied(),
        }
    }

    /// The stored results by places in the spec.
    #[must_use]
    pub fn finishes(&self) -> &[Option<Finish>] {
        &self.results.finishes
    }

    /// Returns true if the stored status refers to the run that the spec asks for. The Go operator
    /// stored no run: devices that it completed count for the current run.
    #[must_use]
    pub fn same_run(&self) -> bool {
        self.status
            .run
            .as_ref()
            .is_none_or(|run| self.spec.as_ref().is_ok_and(|spec| spec.run == *run))
    }

    /// Returns true if the next status may lack results that the stored one has, or if no more
    /// status may be stored: the job is being deleted, its run has changed, or uids were removed
    /// from its spec.
    #[must_use]
    pub(crate) fn may_drop_results(&self) -> bool {
        let is_out = |device: &DeviceStatus| self.place(&device.uid).is_none();
        self.deleting
            || !self.same_run()
            || !self.results.outside_spec.is_empty()
            || self.status.devices.iter().any(is_out)
    }

    /// Namespace of the Instance of a device.
    #[must_use]
    pub fn namespace_of<'a>(&'a self, record: &'a DeviceStatus) -> &'a str {
        record.namespace.as_deref().unwrap_or(&self.key.namespace)
    }

    /// All identities that a begun attempt locks: those in its record, and those that Akri
    /// currently reports for the device.
    #[must_use]
    pub fn identities(&self, record: &DeviceStatus, instance: Option<&Instance>) -> Vec<Identity> {
        let overriding = self.spec.as_ref().ok().and_then(|spec| spec.host_endpoint.as_deref());
        let endpoint = record.host_endpoint.as_deref();
        // Parsing it again for each device took a twentieth of the time of a plan.
        let is_current = endpoint.is_some() && instance.and_then(Instance::endpoint) == endpoint;
        let stored = endpoint.filter(|_| !is_current).map(Identity::endpoint);
        let named =
            record.name.as_deref().map(|name| Identity::instance(self.namespace_of(record), name));
        let mut identities: Vec<Identity> =
            instance.map(|instance| instance.identities(overriding)).unwrap_or_default();
        identities.extend(stored.into_iter().chain(named));
        identities.sort();
        identities.dedup();
        identities
    }
}

impl Results {
    fn of(uids: &[String], status: &FlashJobStatus) -> Self {
        let mut results = Self { finishes: vec![None; uids.len()], ..Self::default() };
        results.places.reserve(uids.len(), |_| 0);
        let hasher = &results.hasher;
        for (place, uid) in (0..).zip(uids) {
            // The spec names each uid once.
            results.places.insert_unique(hasher.hash_one(uid.as_str()), place, |other| {
                hasher.hash_one(uids[*other as usize].as_str())
            });
        }
        let lists = [
            (&status.skipped_uuids, Finish::Skipped),
            (&status.failed_uuids, Finish::Failed),
            (&status.completed_uuids, Finish::Completed),
        ];
        for (uid, finish) in
            lists.iter().flat_map(|(list, finish)| list.iter().map(|uid| (uid, *finish)))
        {
            match results.place(uids, uid) {
                Some(place) => results.finishes[place] = Some(finish),
                None => drop(results.outside_spec.insert(uid.clone(), finish)),
            }
        }
        results
    }

    fn place(&self, uids: &[String], uid: &str) -> Option<usize> {
        let entry =
            self.places.find(self.hasher.hash_one(uid), |place| uids[*place as usize] == uid);
        entry.map(|place| *place as usize)
    }
}
