//! All that a decision may know: one immutable snapshot of one job and all that touches it. Plain
//! data, no I/O.

mod endpoint;
mod firmware;
mod identity;
mod instance;
mod job;
mod pod;
mod refusal;
mod service;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use flashjob_api::DeviceStatus;
use flashjob_types::plugin::{FlashPod, Outcome, Request, Verdict};
use flashjob_types::{CallError, Digest, ServedTypes};
use jiff::{SignedDuration, Timestamp};

pub use endpoint::Endpoint;
pub use firmware::Inquiry;
pub use identity::Identity;
pub use instance::{Instance, Traits};
pub use job::{Finish, Job, JobKey, Part};
pub use pod::{Cause, Ended, EndedBy, Gone, Pod, Stage, Waiting};
pub use refusal::{Meaning, Refusal, Refused};
pub(crate) use service::AddressWish;
pub use service::{Address, Service};

use crate::flashjob::grants::Grants;
use crate::flashjob::policy::{Periods, Policy};

/// Everything that one plan may look at.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The instant of this snapshot, in whole seconds.
    pub now: Timestamp,
    /// The job itself, with our own latest writes.
    pub job: Arc<Job>,
    /// Akri's knowledge of the job's devices, by their place in the spec. None: the device has its
    /// result, and no twin.
    pub devices: Vec<Option<Sighting>>,
    /// True if a device that has no result is there as two Instances.
    pub twins: bool,
    /// The job's Pods, and those that vanished before their outcome was stored; sorted by name.
    pub pods: Vec<Arc<Pod>>,
    /// The job's Services, sorted by name.
    pub services: Vec<Arc<Service>>,
    /// Services that have no Pod any more, and since when.
    pub idle_services: Arc<HashMap<String, Timestamp>>,
    /// Pods that cannot get on, by name: since when they are seen so.
    pub stuck_pods: Arc<HashMap<String, Timestamp>>,
    /// Part of its life that each Pod is in, by name: since when it is seen so.
    pub stages: Arc<HashMap<String, (Stage, Timestamp)>>,
    /// Devices whose Instance is there but reaches nothing, since when, by uid.
    pub unreachable: Arc<HashMap<String, Timestamp>>,
    /// Holders of devices that this job wants, by identity.
    pub holders: HashMap<Identity, Holder>,
    /// True if a flash Service in the installation holds an address; where the job asks for one,
    /// that address.
    pub addresses_in_use: bool,
    /// Addresses that failed attempts of any job keep for a while; none where no device is known
    /// to wait for one.
    pub kept_addresses: Vec<String>,
    /// The plugins of this installation.
    pub plugins: Arc<Vec<PluginView>>,
    /// Answers of plugins to this job's earlier questions.
    pub answers: Arc<Answers>,
    /// Question about the firmware to its registry, and the answer.
    pub firmware: Inquiry,
    /// Digest of the entry of `firmwareTrust` that decides on the firmware now, where the job has
    /// a `firmwarePolicy` and an entry matches.
    pub firmware_trust: Option<String>,
    /// Pods that are being created and may be there already: the slot of each, by name.
    pub making: HashMap<String, Option<String>>,
    /// Pods of attempts that a status on its way takes back: until it is clear whether that is
    /// stored, they are not made.
    pub withdrawn: Arc<HashSet<String>>,
    /// Attempt that used the slot of a pooled Service last, by slot.
    pub slot_uses: Arc<HashMap<String, SlotUse>>,
    /// Refusals of the API server for this job, by object name.
    pub refusals: Arc<HashMap<String, Refusal>>,
    /// Objects whose creation keeps failing for another cause than a refusal, by name: what the
    /// API server says.
    pub failing: Arc<HashMap<String, String>>,
    /// Steps other than creates that keep failing, by key: which it is, and what the API server
    /// says.
    pub failing_steps: Arc<BTreeMap<String, String>>,
    /// True if the stored message may tell of steps that kept failing.
    pub has_told_failing: bool,
    /// Devices of other jobs in flight, by group of this job's groupBudget.
    pub in_flight_of_others: HashMap<String, usize>,
    /// True if evictions of the job's Pods are refused, as far as this process knows.
    pub is_protected: bool,
    /// Waiting periods.
    pub periods: Periods,
    /// Policy by which flash Pods and Services are made, beside job and plugin.
    pub policy: Arc<Policy>,
    /// True if this FlashJob may drop results that its FlashRollout has not stored yet. Until it
    /// has, no status but a message is written, and the finalizer stays.
    pub rollout_lacks_results: bool,
    /// Statuses that could be stored now. Wording one for nothing is most of what the plan of a
    /// large job costs.
    pub report: Report,
}

/// Statuses that could be stored when a plan is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// None: a write is under way, or the last one was just now.
    Never,
    /// One that something waits for.
    Urgent,
    /// Any.
    Now,
}

impl Report {
    /// Returns true if a status could be stored for which something waits, or nothing.
    #[must_use]
    pub fn may_store(self, urgent: bool) -> bool {
        match self {
            Self::Never => false,
            Self::Urgent => urgent,
            Self::Now => true,
        }
    }
}

/// An attempt whose Pod had the slot of a pooled Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotUse {
    /// The device.
    pub device: String,
    /// The attempt.
    pub attempt: Option<u32>,
    /// Time at which its Pod was seen last.
    pub last_seen: Timestamp,
}

/// Akri's knowledge of one uid.
#[derive(Clone, Debug)]
pub enum Sighting {
    /// The device's Instance, under this uid or, after it came back, under another.
    Seen(Arc<Instance>),
    /// The Instance is in a namespace that this job may not flash.
    Forbidden(Arc<Instance>),
    /// No Instance, since then.
    Missing(Timestamp),
}

/// Holder of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The job.
    pub job: JobKey,
    /// The uid under which the job flashes the device.
    pub uid: String,
}

/// A configured plugin.
#[derive(Clone, Debug)]
pub struct PluginView {
    /// Its name.
    pub name: String,
    /// The reference in the configuration.
    pub reference: String,
    /// The types it serves; empty while nothing is known of it.
    pub device_types: Vec<ServedTypes>,
    /// True if it serves any type that no other plugin serves.
    pub any_type: bool,
    /// True if nothing came of loading it yet, since this process began.
    pub is_loading: bool,
    /// Loaded plugin; else why none is loaded.
    pub ready: Result<ReadyPlugin, String>,
    /// Digests that can be asked: the one that serves, and older ones that Pods began with.
    pub digests: Vec<Digest>,
    /// Image of the flash Pod where a FlashJob names none; none for the plugin's own.
    pub flash_image: Option<String>,
    /// Settings from the configuration.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Settings from the configuration that nobody may change.
    pub locked_settings: serde_json::Map<String, serde_json::Value>,
    /// Privileges that it may give its Pods.
    pub grants: Arc<Grants>,
}

/// A plugin that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyPlugin {
    /// Digest of the component.
    pub digest: Digest,
    /// The version it says it has.
    pub version: String,
}

/// Answer of a plugin about one attempt.
#[derive(Clone, Debug)]
pub struct Built {
    /// Name of the attempt.
    pub attempt: String,
    /// The plugin.
    pub plugin: String,
    /// The digest that answered.
    pub digest: Digest,
    /// Reference of the firmware in the request.
    pub firmware: String,
    /// The answer.
    pub pod: Result<FlashPod, CallError>,
}

/// Result of asking how an attempt ended.
#[derive(Clone, Debug)]
pub enum Judged {
    /// The plugin was asked.
    Asked(Result<Verdict, CallError>),
    /// The digest that the attempt began with cannot be had any more, or may no longer be run:
    /// why.
    Gone(String),
}

/// Remembered answers. A plugin is asked once for an attempt and once for an ended Pod.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// By the device's uid: what was said of its current attempt.
    pub built: HashMap<String, Arc<Built>>,
    /// By Pod uid.
    pub judged: HashMap<String, Arc<Judged>>,
    /// Plugins that broke several times in a row, by name: until when they are not asked.
    pub out_of_service: HashMap<String, Timestamp>,
}

/// A question to a plugin.
#[derive(Clone, Debug)]
pub enum Question {
    /// Asks what an attempt needs.
    Build {
        /// Name of the attempt.
        attempt: String,
        /// The plugin to ask.
        plugin: String,
        /// The digest to ask.
        digest: Digest,
        /// The request.
        request: Box<Request>,
    },
    /// Asks what an ended Pod means.
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
    /// Subject of this question, about which it is asked once.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Build { attempt, .. } => attempt,
            Self::Judge { pod_uid, .. } => pod_uid,
        }
    }
}

impl Observed {
    /// Akri's knowledge of a device that the spec names.
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
        let found = self.pods.binary_search_by(|pod| pod.name.as_str().cmp(name));
        found.ok().map(|index| &self.pods[index])
    }

    /// Time by which even a kubelet that nobody hears of has ended the Pod's container, by this
    /// process's own observation.
    #[must_use]
    pub(crate) fn overdue_at(&self, pod: &Pod) -> Option<Timestamp> {
        let (stage, since) = self.stages.get(&pod.name)?;
        (*stage != Stage::Ended).then(|| after(*since, pod.overdue_seconds()))
    }

    /// Returns true if that time has come.
    #[must_use]
    pub(crate) fn is_overdue(&self, pod: &Pod) -> bool {
        self.overdue_at(pod).is_some_and(|at| at <= self.now)
    }

    /// The job's Service of that name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        let found = self.services.binary_search_by(|service| service.name.as_str().cmp(name));
        found.ok().map(|index| &self.services[index])
    }
}

/// `instant` without its fraction: Kubernetes stores whole seconds, and what is compared must be
/// what comes back.
#[must_use]
pub fn whole_seconds(instant: Timestamp) -> Timestamp {
    Timestamp::from_second(instant.as_second()).unwrap_or(instant)
}

/// `instant` plus whole seconds, at most the end of time.
#[must_use]
pub fn after(instant: Timestamp, seconds: i64) -> Timestamp {
    instant.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}
