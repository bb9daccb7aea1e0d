//! Decisions about one FlashRollout. Pure: one [`Snapshot`] in; steps, the status to store, a
//! question about the firmware and the next instant to look again out.
//!
//! - [`select`] chooses devices, [`members`] plans them: duplicates, versions, batches.
//! - [`children`] reads the results of the FlashJobs, [`shards`] hands devices to new ones,
//!   [`make`] writes them, [`restore`] takes back what somebody edited.
//! - [`judge`] says when a batch passes, [`soak`] finds devices that went back, [`gates`] say why
//!   nothing may start now, [`budget`] shares parallelism and failures over the FlashJobs.
//! - [`planning`] begins a run, [`runs`] supersedes, continues and ends it; what is flashed is
//!   asked for by [`crate::firmware`].
//! - [`summary`], [`words`] and [`conditions`] word the status; [`status`] has the letters of the
//!   members.
//!
//! The status is all that is remembered. A member has exactly one place, and moves only where a
//! rule says so: absent devices and those to be tried again go to the end of a list.

mod budget;
mod children;
mod conditions;
mod draft;
mod gates;
mod judge;
mod key;
mod make;
pub mod members;
mod planning;
mod restore;
mod runs;
pub mod select;
mod shards;
mod snapshot;
mod soak;
mod status;
mod summary;
#[cfg(test)]
mod tests;
mod windows;
mod words;

use flashjob_api::{FlashJob, FlashRolloutStatus};
use jiff::{SignedDuration, Timestamp};

use crate::firmware::ResolveFirmware;

pub use key::RolloutKey;
pub use make::child_name;
pub use select::{Device, Properties};
pub use snapshot::{Child, OtherRollout, Rollout, Snapshot, World};
pub use status::{Member, open_members};

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
    /// Question whose answer [`World::firmware`] should have in the next snapshot. The same until
    /// it is answered, also after a restart.
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

/// Decides what is to be done for one rollout.
#[must_use]
pub fn decide(snapshot: &Snapshot<'_>) -> Plan {
    runs::decide(snapshot)
}

/// The time so many seconds later; the last one there is, where that is beyond.
fn after(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}
