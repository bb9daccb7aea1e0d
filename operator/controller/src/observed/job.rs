//! A FlashJob as decisions see it: defaults supplied, or the reason why it cannot be read.

use std::collections::HashMap;
use std::fmt;

use flashjob_api::{DeviceState, DeviceStatus, EffectiveSpec, FINALIZER, FlashJob, FlashJobStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Identity, Instance};

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
    /// Uid; names and owner references are made with it.
    pub uid: String,
    /// The version of this state in the API server.
    pub resource_version: String,
    /// Counts changes of the spec.
    pub generation: Option<i64>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Whether somebody deleted it.
    pub deleting: bool,
    /// Whether our finalizer keeps it.
    pub has_finalizer: bool,
    /// All finalizers.
    pub finalizers: Vec<String>,
    /// What it asks for; else what is wrong with it.
    pub spec: Result<EffectiveSpec, String>,
    /// What is stored of it.
    pub status: FlashJobStatus,
    /// Where the record of a device without a result stands in `status.devices`, by uid.
    pub stored: HashMap<String, usize>,
    /// Devices with a stored result.
    pub results: HashMap<String, Finish>,
}

/// The results a device can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Flashed.
    Completed,
    /// Failed for good.
    Failed,
    /// Left as it was.
    Skipped,
}

impl Job {
    /// Reads a FlashJob.
    #[must_use]
    pub fn of(job: FlashJob) -> Self {
        let spec = job.spec.effective().map_err(|error| error.to_string());
        Self::assemble(job.metadata, spec, job.status.unwrap_or_default())
    }

    /// Keeps a FlashJob that cannot be decoded, so that this can be said in its status.
    #[must_use]
    pub fn unreadable(metadata: ObjectMeta, error: String) -> Self {
        Self::assemble(metadata, Err(error), FlashJobStatus::default())
    }

    fn assemble(metadata: ObjectMeta, spec: Result<EffectiveSpec, String>, status: FlashJobStatus) -> Self {
        let finalizers = metadata.finalizers.unwrap_or_default();
        let unfinished = |state| !matches!(state, DeviceState::Failed | DeviceState::Skipped);
        let devices = status.devices.iter().enumerate();
        let stored = devices.filter(|(_, device)| unfinished(device.state));
        let stored = stored.map(|(index, device)| (device.uid.clone(), index)).collect();
        Self {
            key: JobKey { namespace: metadata.namespace.unwrap_or_default(), name: metadata.name.unwrap_or_default() },
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            generation: metadata.generation,
            created: metadata.creation_timestamp.map(|time| time.0),
            deleting: metadata.deletion_timestamp.is_some(),
            has_finalizer: finalizers.iter().any(|finalizer| finalizer == FINALIZER),
            finalizers,
            spec,
            stored,
            results: results(&status),
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

    /// All that a begun attempt locks: what its record says, and what Akri knows of the device now.
    #[must_use]
    pub fn identities(&self, record: &DeviceStatus, instance: Option<&Instance>) -> Vec<Identity> {
        let overriding = self.spec.as_ref().ok().and_then(|spec| spec.host_endpoint.as_deref());
        let stored = record.host_endpoint.as_deref().map(Identity::endpoint);
        let named = record.name.as_deref().map(|name| Identity::instance(&self.key.namespace, name));
        let mut identities: Vec<Identity> = instance.map(|instance| instance.identities(overriding)).unwrap_or_default();
        identities.extend(stored.into_iter().chain(named));
        identities.sort();
        identities.dedup();
        identities
    }
}

fn results(status: &FlashJobStatus) -> HashMap<String, Finish> {
    let lists =
        [(&status.skipped_uuids, Finish::Skipped), (&status.failed_uuids, Finish::Failed), (&status.completed_uuids, Finish::Completed)];
    let each = lists.iter().flat_map(|(list, finish)| list.iter().map(|uid| (uid.clone(), *finish)));
    each.collect()
}
