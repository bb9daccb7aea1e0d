//! Changes to the caches: objects from watches and from responses to requests, and outcomes of the
//! requests of a plan. Each is a value; [`super::World::take`] applies one at a time.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flashjob_api::{FlashJobStatus, FlashRolloutStatus};
use hashbrown::HashSet;
use jiff::Timestamp;

use super::rollouts::{CachedRollout, StepOutcome};
use crate::firmware::{FirmwareState, ResolveFirmware};
use crate::flashjob::observed::{
    Built, Instance, Job, JobKey, Judged, NodeState, PluginView, Pod, Refusal, Service,
};
use crate::flashjob::plan::Step;
use crate::rollout::RolloutKey;
use crate::world::Rules;

/// Object for which plans are made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A FlashJob.
    Job(JobKey),
    /// A FlashRollout.
    Rollout(RolloutKey),
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(key) => write!(formatter, "FlashJob {key}"),
            Self::Rollout(key) => write!(formatter, "FlashRollout {key}"),
        }
    }
}

impl From<JobKey> for Subject {
    fn from(key: JobKey) -> Self {
        Self::Job(key)
    }
}

impl From<RolloutKey> for Subject {
    fn from(key: RolloutKey) -> Self {
        Self::Rollout(key)
    }
}

/// A watched kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// FlashJobs.
    Job,
    /// FlashRollouts.
    Rollout,
    /// Akri's Instances.
    Instance,
    /// Flash Pods.
    Pod,
    /// Flash Services.
    Service,
}

impl Kind {
    /// Kinds without which no FlashJob can be planned. FlashRollouts are not among them: FlashJobs
    /// are planned even if the API server lacks the definition of FlashRollout.
    pub const NEEDED: [Self; 4] = [Self::Job, Self::Instance, Self::Pod, Self::Service];
}

/// An object as the caches keep it.
#[derive(Debug)]
pub enum Object {
    /// A FlashJob.
    Job(Box<Job>),
    /// A FlashRollout.
    Rollout(Box<CachedRollout>),
    /// An Instance of Akri's.
    Instance(Box<Instance>),
    /// A flash Pod.
    Pod(Box<Pod>),
    /// A flash Service.
    Service(Box<Service>),
}

/// One change to the caches.
#[derive(Debug)]
pub enum Change {
    /// A watch, or the response to a request, delivered an object.
    Updated(Object),
    /// A watch reported that an object was deleted.
    Deleted {
        /// Its last state, which tells whether the end of a Pod was observed.
        last: Object,
        /// Its uid.
        uid: String,
    },
    /// The API server was queried for an object, and has none with that uid.
    NotFound {
        /// Its namespace and name.
        subject: Subject,
        /// Its uid.
        uid: String,
    },
    /// A watch has listed a kind again; objects that are not in the list were deleted while the
    /// watch was disconnected.
    Listed {
        /// The kind.
        kind: Kind,
        /// Uids of all its objects.
        uids: HashSet<String>,
    },
    /// The response to our delete request showed this Pod or Service being deleted. The watch may
    /// have reported its deletion before.
    Deleting(Object),
    /// The API server answered our delete request with 404: there is no such Pod.
    PodNotFound {
        /// Its job.
        job: JobKey,
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// The API server answered our delete request with 404: there is no such Service.
    ServiceNotFound {
        /// Its job.
        job: JobKey,
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// The API server was queried for a Pod that left the watch, and has none with that name.
    PodDeletionConfirmed {
        /// Its job.
        job: JobKey,
        /// Its name.
        name: String,
        /// The device's uid in the spec of the job.
        device: String,
    },
    /// The API server was queried for a Pod that left the watch, and still has it, perhaps in
    /// deletion: its labels were removed.
    PodUnlabelled(Box<Pod>),
    /// A node was read on which a Pod vanished.
    Node(NodeState),
    /// Outcome of a request of a FlashJob's plan.
    Job(JobKey, JobOutcome),
    /// Outcome of a request of a FlashRollout's plan.
    Rollout(RolloutKey, RolloutOutcome),
    /// Answer to a question about firmware.
    Firmware {
        /// Object whose plan asked the question.
        subject: Subject,
        /// The question.
        question: Arc<ResolveFirmware>,
        /// The answer.
        state: FirmwareState,
    },
    /// Current state of the configured plugins.
    Plugins(Vec<PluginView>),
    /// The configuration has changed.
    Rules(Box<Rules>),
}

/// Outcome of a request of a FlashJob's plan.
#[derive(Debug)]
pub enum JobOutcome {
    /// The API server accepted the object with that name.
    Accepted(String),
    /// The API server refused the object with that name.
    Refused(String, Refusal),
    /// The job's PodDisruptionBudget was created (true) or deleted (false).
    Protected(bool),
    /// A step succeeded.
    StepDone(Box<Step>),
    /// A step failed, with the API server's message. It stays in flight until
    /// [`Self::StepReleased`].
    StepFailed(Box<Step>, String),
    /// The failed step with this key may be retried.
    StepReleased(String),
    /// A plugin returned the Pod of an attempt for the device with that uid, or an error.
    Built(String, Box<Built>),
    /// A plugin judged the end of the Pod with that uid, or returned an error.
    Judged(String, Box<Judged>),
    /// The plugin with that name is out of service until that time.
    OutOfService(String, Timestamp),
    /// The question with this key may be asked again.
    QuestionReleased(String),
    /// A status write has ended.
    Written(EndedWrite<FlashJobStatus>),
    /// The outcome of all status writes that were planned from this state of the job is known.
    WritesSettled(Arc<Job>),
}

/// Outcome of a request of a FlashRollout's plan.
#[derive(Debug)]
pub enum RolloutOutcome {
    /// The step with this key ended. If it failed, it stays in flight until
    /// [`Self::StepReleased`].
    Step(String, StepOutcome),
    /// The failed step with this key may be retried.
    StepReleased(String),
    /// A status write has ended.
    Written(EndedWrite<FlashRolloutStatus>),
}

/// A status write that has ended, successfully or not.
#[derive(Debug)]
pub struct EndedWrite<S> {
    /// Time at which it ended.
    pub at: Instant,
    /// Its duration.
    pub took: Duration,
    /// Status whose changed fields are all missing from the API server's definition, so that the
    /// write had no effect; with the resource version of the object.
    pub dropped: Option<Box<(String, S)>>,
}
