//! Decisions about one FlashRollout. Pure: the input is a [`Snapshot`]; the output is steps, the
//! status to store, a question about the firmware and the time of the next plan.
//!
//! - [`select`] selects devices, [`members`] plans them: duplicates, versions, batches.
//! - [`children`] reads the results of the FlashJobs, [`shards`] assigns devices to new ones,
//!   [`make`] composes them, [`restore`] reverts edits to them.
//! - [`judge`] decides when a batch passes, [`soak`] finds devices that regressed, [`gates`]
//!   decide why nothing may start now, [`budget`] distributes parallelism and failures over the
//!   FlashJobs.
//! - [`planning`] begins a run, [`runs`] supersedes, continues and ends it; [`crate::firmware`]
//!   has the question about the firmware.
//! - [`summary`], [`words`] and [`conditions`] compose the status; [`status`] has the letters of
//!   the members.
//!
//! The status is the only memory. A member has exactly one place, and moves only where a rule says
//! so: absent devices and those to be retried move to the end of a list.

mod budget;
mod children;
mod conditions;
mod draft;
mod gates;
mod judge;
mod key;
mod make;
mod member_states;
pub mod members;
mod new_run;
mod plan;
mod restore;
mod run_state;
mod runs;
pub mod select;
mod shards;
mod snapshot;
mod soak;
mod summary;
#[cfg(test)]
mod tests;
mod windows;

pub use key::RolloutKey;
pub(crate) use member_states::open_members;
pub use plan::{Plan, Step};
pub use select::{Device, Properties};
pub use snapshot::{Child, OtherRollout, Rollout, Snapshot, World};

/// Decides what is to be done for one rollout.
#[must_use]
pub fn decide(snapshot: &Snapshot<'_>) -> Plan {
    runs::decide(snapshot)
}

/// Returns true if the rollout's stored status has all results of the FlashJobs in this snapshot,
/// or will never have more of them: it is being deleted, or its spec is invalid.
#[must_use]
pub fn has_stored_results(snapshot: &Snapshot<'_>) -> bool {
    runs::has_stored_results(snapshot)
}
