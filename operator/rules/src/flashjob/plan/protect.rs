//! Prevents drains of nodes, and autoscalers, from ending a flash. One PodDisruptionBudget covers
//! all Pods of a job, from the first to the last, so it costs two requests per job and none per
//! device.

use flashjob_api::DeviceStatus;

use super::draft::Draft;
use super::steps::Step;
use crate::flashjob::make;
use crate::flashjob::observed::{Observed, after};

/// Seconds after the end of a job within which a new process deletes the budget: the earlier
/// process may have ended between the last Pod and the delete. Deletes for all jobs that ever
/// ended would delay the first requests of a new leader.
const LEFT_OVER_SECONDS: i64 = 3600;

impl Draft<'_> {
    /// Creates or deletes the budget of the job.
    pub fn protect(&mut self) {
        let observed = self.observed;
        let may_exist = budget_may_exist(observed);
        if !make::is_protected(self.spec, &observed.policy) {
            // `disruption` became Allow, in the FlashJob or in the configuration: a drain must no
            // longer wait for this job.
            if may_exist {
                self.step(unprotect(observed));
            }
            return;
        }
        let has_pods = self.is_at_work() || self.begins();
        if has_pods && observed.is_protected != Some(true) {
            let budget = make::budget(&observed.job);
            self.step(Step::Protect(Box::new(budget)));
        } else if !has_pods && may_exist && !self.goes_on() {
            self.step(unprotect(observed));
        }
    }

    fn is_at_work(&self) -> bool {
        self.observed.pods.iter().any(|pod| pod.gone.is_none() && pod.ended.is_none())
    }

    fn begins(&self) -> bool {
        self.plan.steps.iter().any(|step| matches!(step, Step::CreatePod(_)))
    }

    /// Returns true if another flash Pod may follow: a device has no result, and the job is not
    /// suspended without a device in flight.
    fn goes_on(&self) -> bool {
        match self.spec.suspend {
            true => self.records.values().any(DeviceStatus::is_locked),
            false => (0..self.spec.uuid.len()).any(|place| self.result_at(place).is_none()),
        }
    }
}

/// Returns true if the job may have a budget, which an earlier process may have left.
pub(super) fn budget_may_exist(observed: &Observed) -> bool {
    let may_be_left_over = || {
        let ended = observed.job.status.completion_time.as_ref();
        ended.is_none_or(|ended| after(ended.0, LEFT_OVER_SECONDS) > observed.now)
    };
    observed.is_protected.unwrap_or_else(may_be_left_over)
}

/// Returns the request that deletes the budget of the job.
pub(super) fn unprotect(observed: &Observed) -> Step {
    let job = &observed.job;
    Step::Unprotect { name: make::budget_name(&job.key.name, &job.uid) }
}
