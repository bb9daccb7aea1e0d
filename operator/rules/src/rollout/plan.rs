//! A plan for one rollout, and its steps.

use flashjob_api::{FlashJob, FlashRolloutStatus};
use jiff::Timestamp;

use crate::firmware::ResolveFirmware;

/// Everything to be done for one rollout.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Requests to the API server, each idempotent. They may be carried out before `status` is
    /// stored, in any order; a FlashJob is only created from a stored status.
    pub steps: Vec<Step>,
    /// The status that should be stored; None: it is stored already.
    pub status: Option<FlashRolloutStatus>,
    /// Progress waits for the status to be stored; else it may be put off for some seconds.
    pub urgent: bool,
    /// Question whose answer `World::firmware` should have in the next snapshot. The same until it
    /// is answered, also after a restart.
    pub question: Option<ResolveFirmware>,
    /// Time at which to look again though nothing happened.
    pub wake_at: Option<Timestamp>,
}

/// A request to the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Creates a FlashJob. 409 where it exists already: an outcome.
    CreateChild(Box<FlashJob>),
    /// Changes fields of a FlashJob's spec.
    PatchChild {
        /// Its name.
        name: String,
        /// Its uid: no other FlashJob of that name is meant.
        uid: String,
        /// JSON merge patch of `spec`: null removes a field.
        spec: serde_json::Map<String, serde_json::Value>,
        /// Resource version from which the patch was derived, where it replaces a list; a conflict
        /// is an outcome.
        resource_version: Option<String>,
    },
    /// Deletes a FlashJob that no longer matches its devices, or whose run is forgotten.
    DeleteChild {
        /// Its name.
        name: String,
        /// Its uid: no other FlashJob of that name is meant.
        uid: String,
    },
    /// Deletes the FlashRollout, which has finished long enough ago; background propagation takes
    /// the FlashJobs along.
    DeleteRollout,
}

impl Step {
    /// Subject of this step, for which one step at a time is carried out.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::CreateChild(job) => {
                format!("flashjob/{}", job.metadata.name.as_deref().unwrap_or_default())
            }
            Self::PatchChild { name, .. } | Self::DeleteChild { name, .. } => {
                format!("flashjob/{name}")
            }
            Self::DeleteRollout => "rollout".to_owned(),
        }
    }
}
