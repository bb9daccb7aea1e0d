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
mod plan;
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

pub use key::RolloutKey;
pub use plan::{Plan, Step};
pub use select::{Device, Properties};
pub use snapshot::{Child, OtherRollout, Rollout, Snapshot, World};
pub(crate) use status::open_members;

/// Decides what is to be done for one rollout.
#[must_use]
pub fn decide(snapshot: &Snapshot<'_>) -> Plan {
    runs::decide(snapshot)
}

/// Returns true if the rollout's stored status has all results of the FlashJobs in this snapshot,
/// or will never have more of them: it is in deletion, or its spec is invalid.
#[must_use]
pub fn has_stored_results(snapshot: &Snapshot<'_>) -> bool {
    runs::has_stored_results(snapshot)
}
