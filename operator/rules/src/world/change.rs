//! Changes to the caches: objects from watches and from answers to requests, and outcomes of what
//! a plan asked for. Each is a value; [`super::World::take`] applies one at a time.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flashjob_api::{FlashJobStatus, FlashRolloutStatus};
use jiff::Timestamp;

use super::rollouts::{CachedRollout, StepOutcome};
use crate::firmware::{FirmwareState, ResolveFirmware};
use crate::flashjob::observed::{
    Built, Instance, Job, JobKey, Judged, PluginView, Pod, Refusal, Service,
};
use crate::flashjob::plan::Step;
use crate::rollout::RolloutKey;
use crate::world::Rules;

/// Object that is planned.
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

/// A kind that is watched.
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
    /// Kinds without which no FlashJob can be planned. An API server that lacks the definition of
    /// FlashRollouts is to hold up none.
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
    /// A watch, or the answer to a request, showed an object.
    Updated(Object),
    /// A watch told that an object is gone.
    Deleted {
        /// Its last state, which says whether a Pod's end was seen.
        last: Object,
        /// Its uid.
        uid: String,
    },
    /// The API server was asked for an object, and has none of that uid.
    NotFound {
        /// Its namespace and name.
        subject: Subject,
        /// Its uid.
        uid: String,
    },
    /// A watch has listed a kind afresh; what the list lacks went away while nobody watched.
    Listed {
        /// The kind.
        kind: Kind,
        /// Uids of all its objects.
        uids: HashSet<String>,
    },
    /// The answer to a delete of ours showed this Pod or Service in deletion. The watch may have
    /// told before that it is gone.
    Deleting(Object),
    /// The API server answered a delete of ours that there is no such Pod.
    PodNotFound {
        /// Its job.
        job: JobKey,
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// The API server answered a delete of ours that there is no such Service.
    ServiceNotFound {
        /// Its job.
        job: JobKey,
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// The API server was asked for a Pod that left the watch, and has none of that name.
    PodDeletionConfirmed {
        /// Its job.
        job: JobKey,
        /// Its name.
        name: String,
        /// The device's uid in the spec of the job.
        device: String,
    },
    /// The API server was asked for a Pod that left the watch, and has it: somebody took its
    /// labels.
    PodUnlabelled(Box<Pod>),
    /// Outcome of what the plan of a FlashJob asked for.
    Job(JobKey, JobOutcome),
    /// Outcome of what the plan of a FlashRollout asked for.
    Rollout(RolloutKey, RolloutOutcome),
    /// Answer to a question about firmware.
    Firmware {
        /// Object whose plan asked.
        subject: Subject,
        /// The question.
        question: Arc<ResolveFirmware>,
        /// The answer.
        state: FirmwareState,
    },
    /// The configured plugins, as they serve now.
    Plugins(Vec<PluginView>),
    /// The configuration has changed.
    Rules(Box<Rules>),
}

/// Outcome of what the plan of a FlashJob asked for.
#[derive(Debug)]
pub enum JobOutcome {
    /// The API server took the object of that name.
    Accepted(String),
    /// The API server refuses the object of that name.
    Refused(String, Refusal),
    /// The job's PodDisruptionBudget was made, or deleted.
    Protected(bool),
    /// A step is done.
    StepDone(Box<Step>),
    /// A step failed, in the API server's words. It stays under way until [`Self::StepReleased`].
    StepFailed(Box<Step>, String),
    /// A step that failed may be retried; its key.
    StepReleased(String),
    /// A plugin built the Pod of an attempt for the device of that uid, or could not.
    Built(String, Box<Built>),
    /// A plugin judged the end of the Pod of that uid, or could not.
    Judged(String, Box<Judged>),
    /// The plugin of that name is out of service until then.
    OutOfService(String, Timestamp),
    /// A question to a plugin may be asked again; its key.
    QuestionReleased(String),
    /// A status write has ended.
    Written(EndedWrite<FlashJobStatus>),
    /// It is clear what became of the status writes that were planned from this state of the job.
    WritesSettled(Arc<Job>),
}

/// Outcome of what the plan of a FlashRollout asked for.
#[derive(Debug)]
pub enum RolloutOutcome {
    /// A step ended, by its key. One that failed stays under way until [`Self::StepReleased`].
    Step(String, StepOutcome),
    /// A step that failed may be retried; its key.
    StepReleased(String),
    /// A status write has ended.
    Written(EndedWrite<FlashRolloutStatus>),
}

/// A status write that has ended, whatever came of it.
#[derive(Debug)]
pub struct EndedWrite<S> {
    /// Time at which it ended.
    pub at: Instant,
    /// Its duration.
    pub took: Duration,
    /// Status of which the API server's definition lacks all that was to be changed, and the
    /// version of the object that it was to change.
    pub dropped: Option<Box<(String, S)>>,
}
