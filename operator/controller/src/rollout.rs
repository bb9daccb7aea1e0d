//! FlashRollouts: the stages around the rules in [`flashjob_rules::rollout`].
//!
//! - [`apply`] carries steps out, [`report`] writes the status; each sends its outcome, and the
//!   rollout is planned again.
//!
//! The same loop works on FlashJobs and on rollouts; see [`crate::reconcile`].

pub(crate) mod apply;
pub(crate) mod report;
