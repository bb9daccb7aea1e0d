//! FlashRollouts: the part of the operator around the rules in [`flashjob_rules::rollout`].
//!
//! - [`store`] keeps the rollouts, and what this process remembers of each.
//! - [`decide`] takes the snapshot of one rollout and asks the rules.
//! - [`apply`] carries steps out, [`report`] writes the status; each has the rollout looked at
//!   again.
//!
//! The same loop works on FlashJobs and on rollouts; see [`crate::operator`].

pub(crate) mod apply;
mod decide;
pub(crate) mod report;
mod store;

pub use decide::decide;
pub use store::{Known, Memory, RolloutKey, Rollouts};
