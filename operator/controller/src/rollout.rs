//! FlashRollouts: the part of the operator around the rules in [`flashjob_rules::rollout`].
//!
//! - [`apply`] carries steps out, [`report`] writes the status; each has the rollout looked at
//!   again.
//!
//! The same loop works on FlashJobs and on rollouts; see [`crate::operator`].

pub(crate) mod apply;
pub(crate) mod report;
