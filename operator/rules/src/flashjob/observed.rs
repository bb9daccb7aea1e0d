//! Input of a decision: one immutable snapshot of one job and of every object that concerns it.
//! Plain data, no I/O.

mod endpoint;
mod firmware;
mod identity;
mod instance;
mod instant;
mod job;
mod pod;
mod refusal;
mod service;

use std::collections::BTreeMap;
use std::sync::Arc;

use flashjob_api::DeviceStatus;
use flashjob_types::plugin::{FlashPod, Outcome, Request, Verdict};
use flashjob_types::{CallError, Digest, ServedTypes};
use hashbrown::{HashMap, HashSet};
use jiff::Timestamp;

pub use endpoint::Endpoint;
pub use firmware::Inquiry;
pub use identity::Identity;
pub use instance::{Instance, Traits};
pub use instant::after;
pub use job::{Finish, Job, JobKey, Part};
pub use pod::{Cause, Ended, EndedBy, Gone, NodeLease, NodeState, Pod, Stage, Waiting};
pub use refusal::{Meaning, Refusal, Refused};
pub(crate) use service::AddressWish;
pub use service::{Address, Service};

use crate::flashjob::grants::Grants;
use crate::flashjob::policy::{Periods, Policy};

/// Snapshot of one job: everything that one plan may read.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The instant of this snapshot, in whole seconds.
    pub now: Timestamp,
    /// The job itself, including our own latest writes.
    pub job: Arc<Job>,
    /// State of the job's devices in Akri, by their place in the spec. None: the device has a
    /// result, and no other uid of the spec is the same device.
    pub devices: Vec<Option<Sighting>>,
    /// True if a device that has no result appears as two Instances, or if two uids of the spec
    /// lead to one Instance.
    pub has_duplicates: bool,
    /// The job's Pods, and those that vanished before their outcome was stored; sorted by name.
    pub pods: Vec<Arc<Pod>>,
    /// The job's Services, sorted by name.
    pub services: Vec<Arc<Service>>,
    /// Services that have no Pod any more, and since when.
    pub idle_services: Arc<HashMap<String, Timestamp>>,
    /// Pods that cannot make progress, by name, with the time since when this is observed.
    pub stuck_pods: Arc<HashMap<String, Timestamp>>,
    /// Stage of each Pod, by name, with the time since when it is observed.
    pub stages: Arc<HashMap<String, (Stage, Timestamp)>>,
    /// Uids of Pods whose delete request is in flight or has succeeded.
    pub leaving_pods: Arc<HashSet<String>>,
    /// Last known Instance with nodes of each device that has begun, by uid.
    pub last_instances: Arc<HashMap<String, Arc<Instance>>>,
    /// Devices whose Instance exists but is unreachable, by uid, with the time since when.
    pub unreachable: Arc<HashMap<String, Timestamp>>,
    /// Holders of devices that this job wants, by identity.
    pub holders: HashMap<Identity, Holder>,
    /// Time at which the next Pod whose FlashJob is gone releases its device; None if this job
    /// waits for no holder.
    pub orphan_ends_at: Option<Timestamp>,
    /// True if any flash Service in the installation holds an address; if the job requests a
    /// specific address, true if that address is held.
    pub addresses_in_use: bool,
    /// Addresses that failed attempts of any job keep for a while; empty where no device is known
    /// to wait for an address.
    pub kept_addresses: Vec<String>,
    /// The plugins of this installation.
    pub plugins: Arc<Vec<PluginView>>,
    /// Number of their configuration: it changes with their settings and images.
    pub plugin_configuration: u64,
    /// Answers of plugins to earlier questions about this job.
    pub answers: Arc<Answers>,
    /// Question to the registry about the firmware, and the answer.
    pub firmware: Inquiry,
    /// Digest of the `firmwareTrust` entry that currently applies to the firmware, where the job
    /// has a `firmwarePolicy` and an entry matches.
    pub firmware_trust: Option<String>,
    /// Pods whose creation is in flight and which may already exist: the slot of each, by name.
    pub pods_in_creation: HashMap<String, Option<String>>,
    /// Pooled Services whose creation is in flight and which may already exist: the pool of each,
    /// by name.
    pub services_in_creation: BTreeMap<String, String>,
    /// Pods whose attempts are withdrawn by a status write in flight: they are not created until
    /// it is known whether the write succeeded.
    pub withdrawn: Arc<HashSet<String>>,
    /// Devices whose attempts begin with a status write in flight, by uid: whether this snapshot
    /// shows them as begun or not, they will be if the write succeeds.
    pub beginning: Arc<HashSet<String>>,
    /// Most recent attempt that used the slot of a pooled Service, by slot.
    pub slot_uses: Arc<HashMap<String, SlotUse>>,
    /// Refusals of the API server for this job, by object name.
    pub refusals: Arc<HashMap<String, Refusal>>,
    /// Objects whose creation keeps failing for a cause other than a refusal, by name, with the
    /// API server's error message.
    pub failing: Arc<HashMap<String, String>>,
    /// Steps other than creates that keep failing, by key, with a description of the step and the
    /// API server's error message.
    pub failing_steps: Arc<BTreeMap<String, String>>,
    /// True if the stored message may mention steps that kept failing.
    pub has_reported_failing_steps: bool,
    /// Devices of other jobs in flight, by group of this job's groupBudget.
    pub in_flight_of_others: HashMap<String, usize>,
    /// True if the job has a PodDisruptionBudget, false if it has none; None if an earlier process
    /// may have left one.
    pub is_protected: Option<bool>,
    /// Waiting periods.
    pub periods: Periods,
    /// Policy for flash Pods and Services, in addition to job and plugin.
    pub policy: Arc<Policy>,
    /// True if this FlashJob may drop results that its FlashRollout has not stored yet. Until they
    /// are stored, the status keeps them and each device that has begun, and the finalizer stays.
    pub rollout_lacks_results: bool,
    /// Statuses that could be stored now. Composing a status that is not stored would be most of
    /// the cost of planning a large job.
    pub report: Report,
}

/// Statuses that could be stored when a plan is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// None: a write is in flight, or the last one was only just completed.
    Never,
    /// Only a status that something waits for.
    Urgent,
    /// Any status.
    Now,
}

impl Report {
    /// Returns true if a status may be stored now; `urgent` says that something waits for it.
    #[must_use]
    pub fn may_store(self, urgent: bool) -> bool {
        match self {
            Self::Never => false,
            Self::Urgent => urgent,
            Self::Now => true,
        }
    }
}

/// An attempt whose Pod used the slot of a pooled Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotUse {
    /// The device.
    pub device: String,
    /// The attempt.
    pub attempt: Option<u32>,
    /// Time at which its Pod was seen last.
    pub last_seen: Timestamp,
}

/// State of one uid in Akri.
#[derive(Clone, Debug)]
pub enum Sighting {
    /// The device's Instance, under this uid or, if it was recreated, under another.
    Seen(Arc<Instance>),
    /// The Instance is in a namespace that this job may not flash.
    Forbidden(Arc<Instance>),
    /// No Instance, since this time.
    Missing(Timestamp),
}

/// Holder of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The job.
    pub job: JobKey,
    /// The uid under which the job flashes the device.
    pub uid: String,
    /// Name of the Pod, if it belongs to a deleted FlashJob of the same name.
    pub predecessor_pod: Option<String>,
}

/// A configured plugin.
#[derive(Clone, Debug)]
pub struct PluginView {
    /// Its name.
    pub name: String,
    /// Its reference in the configuration.
    pub reference: String,
    /// Device types it serves; empty until it has been loaded.
    pub device_types: Vec<ServedTypes>,
    /// True if it serves any type that no other plugin serves.
    pub any_type: bool,
    /// True if its first load since this process started has neither succeeded nor failed yet.
    pub is_loading: bool,
    /// Loaded plugin, or the reason why none is loaded.
    pub ready: Result<ReadyPlugin, String>,
    /// Digests that can be called: the current one, and older ones with which Pods were started.
    pub digests: Vec<Digest>,
    /// Image of the flash Pod where a FlashJob names none. None: the plugin's own image.
    pub flash_image: Option<String>,
    /// Settings from the configuration.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Settings from the configuration that a FlashJob cannot override.
    pub locked_settings: serde_json::Map<String, serde_json::Value>,
    /// Privileges that the plugin may give its Pods.
    pub grants: Arc<Grants>,
}

impl PluginView {
    /// Returns true if the configuration makes the same of questions to both.
    pub(crate) fn is_configured_like(&self, other: &Self) -> bool {
        self.name == other.name
            && self.flash_image == other.flash_image
            && self.settings == other.settings
            && self.locked_settings == other.locked_settings
    }
}

/// A plugin that can be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyPlugin {
    /// Digest of the component.
    pub digest: Digest,
    /// Version that the plugin reports.
    pub version: String,
}

/// Answer of a plugin to the question of what an attempt needs.
#[derive(Clone, Debug)]
pub struct Built {
    /// Name of the attempt.
    pub attempt: String,
    /// The plugin.
    pub plugin: String,
    /// Digest of the component that answered.
    pub digest: Digest,
    /// Reference of the firmware in the request.
    pub firmware: String,
    /// The device in the request; None: Akri did not know it.
    pub instance: Option<Arc<Instance>>,
    /// Number of the configuration of the plugins that the request is based on.
    pub configuration: u64,
    /// The answer.
    pub pod: Result<FlashPod, CallError>,
}

/// Result of asking a plugin to judge the end of an attempt.
#[derive(Clone, Debug)]
pub enum Judged {
    /// The plugin's answer, or the error of the call.
    Asked(Result<Verdict, CallError>),
    /// The digest with which the attempt began is no longer available, or may no longer be run;
    /// with the cause.
    Gone(String),
}

/// Remembered answers. A plugin is asked once per attempt and once per ended Pod.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// By the device's uid: answer about its current attempt.
    pub built: HashMap<String, Arc<Built>>,
    /// By Pod uid.
    pub judged: HashMap<String, Arc<Judged>>,
    /// Plugins that failed several times in a row, by name: time until which they are not called.
    pub out_of_service: HashMap<String, Timestamp>,
}

/// A question to a plugin.
#[derive(Clone, Debug)]
pub enum Question {
    /// Asks for the Pod of an attempt.
    Build {
        /// Name of the attempt.
        attempt: String,
        /// The plugin to ask.
        plugin: String,
        /// The digest to ask.
        digest: Digest,
        /// The device in the request; None: Akri does not know it.
        instance: Option<Arc<Instance>>,
        /// Number of the configuration of the plugins that the request is based on.
        configuration: u64,
        /// The request.
        request: Box<Request>,
    },
    /// Asks for a verdict on an ended Pod.
    Judge {
        /// Uid of the Pod.
        pod_uid: String,
        /// The plugin to ask.
        plugin: String,
        /// The digest that the attempt began with.
        digest: Digest,
        /// The request of the attempt.
        request: Box<Request>,
        /// Outcome of the Pod.
        outcome: Box<Outcome>,
    },
}

impl Question {
    /// Subject of this question; each subject is asked about once.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Build { attempt, .. } => attempt,
            Self::Judge { pod_uid, .. } => pod_uid,
        }
    }
}

impl Observed {
    /// State in Akri of a device that the spec names.
    #[must_use]
    pub(crate) fn sighting(&self, uid: &str) -> Option<&Sighting> {
        self.devices[self.job.place(uid)?].as_ref()
    }

    /// The stored record of a device.
    #[must_use]
    pub fn stored(&self, uid: &str) -> Option<&DeviceStatus> {
        self.job.record(uid)
    }

    /// The job's Pod of that name.
    #[must_use]
    pub fn pod(&self, name: &str) -> Option<&Arc<Pod>> {
        // Snapshots take Pods and Services from ordered maps, so both lists are sorted by name.
        let position = self.pods.binary_search_by(|pod| pod.name.as_str().cmp(name));
        position.ok().map(|index| &self.pods[index])
    }

    /// Time by which the Pod's container has ended even if its kubelet is unreachable, based on
    /// when this process observed the Pod's stage.
    #[must_use]
    pub(crate) fn overdue_at(&self, pod: &Pod) -> Option<Timestamp> {
        let (stage, since) = self.stages.get(&pod.name)?;
        // Measured from when this process saw the stage, not by times that the node wrote. A
        // restart makes it later, never earlier.
        (*stage != Stage::Ended).then(|| after(*since, pod.overdue_seconds()))
    }

    /// Returns true if the time returned by [`Self::overdue_at`] has passed.
    #[must_use]
    pub(crate) fn is_overdue(&self, pod: &Pod) -> bool {
        self.overdue_at(pod).is_some_and(|at| at <= self.now)
    }

    /// Time until which a Pod that no attempt needs any more may wait for something that may never
    /// happen; None if it does not wait for such a thing.
    #[must_use]
    pub(crate) fn stuck_until(&self, pod: &Pod) -> Option<Timestamp> {
        let since = self.stuck_pods.get(&pod.name).copied().unwrap_or(self.now);
        let seconds = self.periods.unschedulable_seconds.max(self.periods.image_pull_seconds);
        pod.is_stuck().then(|| after(since, seconds))
    }

    /// Returns true if nothing of a Pod can be running, although the API server keeps it: its node
    /// is dead. Its kubelet has ended the container, and starts none of a Pod that is being
    /// deleted.
    #[must_use]
    pub(crate) fn is_past_its_end(&self, pod: &Pod) -> bool {
        pod.deleting && pod.gone.is_none() && pod.is_ours() && self.is_overdue(pod)
    }

    /// The job's Service of that name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        let position = self.services.binary_search_by(|service| service.name.as_str().cmp(name));
        position.ok().map(|index| &self.services[index])
    }
}

/// `instant` without its fraction: Kubernetes stores whole seconds, and a value must equal what is
/// later read back.
#[must_use]
pub fn whole_seconds(instant: Timestamp) -> Timestamp {
    Timestamp::from_second(instant.as_second()).unwrap_or(instant)
}
