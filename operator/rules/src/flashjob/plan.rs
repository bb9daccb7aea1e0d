//! Plans one FlashJob. Pure and synchronous: the input is one snapshot; the output is questions,
//! steps, the status to store and the time of the next plan.
//!
//! Every rule of a FlashJob's behaviour is in this folder: [`attempt`] follows a device through an
//! attempt, [`lost`] one whose Pod vanished, [`guards`] compare it with the job, [`firmware`]
//! proves its firmware, [`queue`] chooses the next devices, [`quota`] makes them wait for a quota,
//! [`expose`] and [`pool`] prepare the Pod, for which [`address`] awaits an external address and
//! which [`objects`] creates, [`proof`] decides when a device is proven, [`protect`] prevents
//! evictions, [`clean`] deletes objects that are no longer needed, [`ending`] deletes a job, which
//! waits for [`vanished`] Pods, [`takeover`] gives devices the results of the Go operator's Pods,
//! [`summary`] composes the status, and [`deletion`] that of a job in deletion, [`request`]
//! describes an attempt to a plugin, [`holds`] keeps devices locked.
//!
//! Dependencies go one way: every rule changes the [`draft`], which depends on no rule, and
//! [`summary`] turns it into the plan, with its [`steps`].

mod address;
mod attempt;
mod clean;
mod deletion;
mod draft;
mod ending;
mod expose;
mod firmware;
mod groups;
mod guards;
mod holds;
mod lost;
mod objects;
mod pool;
mod proof;
mod protect;
mod queue;
mod quota;
pub mod request;
pub mod serving;
mod start;
mod steps;
mod summary;
mod takeover;
#[cfg(test)]
mod tests;
mod vanished;

pub use steps::{DeviceResult, Plan, Step};

use crate::flashjob::observed::Observed;
use draft::Draft;
use holds::holds;

/// Makes the plan for one job.
#[must_use]
pub fn plan(observed: &Observed) -> Plan {
    let job = &observed.job;
    // Deletion is decided before the spec is read: a FlashJob whose spec is invalid, or cannot be
    // decoded, must still be able to go.
    if job.deleting {
        return ending::plan(observed);
    }
    let spec = match &job.spec {
        Ok(spec) => spec,
        Err(error) => return summary::invalid(observed, error),
    };
    // Without the finalizer, `kubectl delete` removes the FlashJob at once, and with it the stored
    // records by which devices in flight stay locked.
    if !job.has_finalizer {
        return Plan {
            steps: vec![Step::AddFinalizer],
            status: summary::held_up(observed, "not started"),
            holds: holds(observed),
            ..Plan::default()
        };
    }
    // The status of the previous run is the only record of its devices in flight, so it is
    // replaced only when none is left.
    if job.status.run.as_ref().is_some_and(|run| *run != spec.run)
        && (!ending::previous_run_is_over(observed) || ending::lacks_begun(observed))
    {
        return ending::drain(observed);
    }
    // A new status could drop results that the rollout has not stored, so an edit of the spec
    // waits.
    if observed.rollout_lacks_results {
        return Plan { holds: holds(observed), ..Plan::default() };
    }
    let mut draft = Draft::new(observed, spec);
    // Attempts come before the queue: one that ends now frees its place and its pooled Service for
    // the next device in this same plan.
    draft.follow_attempts();
    draft.take_over();
    draft.process_queue();
    // No event tells of the release of a device by a Pod that a dead node keeps.
    if let Some(at) = observed.orphan_ends_at {
        draft.wake(at);
    }
    // Cleaning needs all decisions: a pooled Service that a waiting device can use is kept. The
    // budget needs the steps: it is requested together with the first Pod.
    draft.clean();
    draft.protect();
    draft.finish()
}
