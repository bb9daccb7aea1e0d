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
    /// Status to store. None: it is up to date.
    pub status: Option<FlashRolloutStatus>,
    /// True if progress waits for the status to be stored; otherwise it may be delayed for some
    /// seconds.
    pub urgent: bool,
    /// Question whose answer `World::firmware` should have in the next snapshot. It stays the same
    /// until it is answered, even after a restart.
    pub question: Option<ResolveFirmware>,
    /// Time at which to plan again even if nothing happens.
    pub wake_at: Option<Timestamp>,
}

/// A request to the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Creates a FlashJob. A 409 because it already exists counts as an outcome, not an error.
    CreateChild(Box<FlashJob>),
    /// Changes fields of a FlashJob's spec.
    PatchChild {
        /// Its name.
        name: String,
        /// Its uid, as a precondition: another FlashJob with that name is not changed.
        uid: String,
        /// JSON merge patch of `spec`: null removes a field.
        spec: serde_json::Map<String, serde_json::Value>,
        /// Resource version from which the patch was derived, where it replaces a list; a conflict
        /// counts as an outcome, not an error.
        resource_version: Option<String>,
    },
    /// Deletes a FlashJob that no longer matches its devices, or whose run left the history.
    DeleteChild {
        /// Its name.
        name: String,
        /// Its uid, as a precondition: another FlashJob with that name is not deleted.
        uid: String,
    },
    /// Deletes the FlashRollout, whose time to live after it finished has passed; background
    /// propagation deletes its FlashJobs.
    DeleteRollout,
}

impl Step {
    /// Subject of this step; only one step per subject is in flight at a time.
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
