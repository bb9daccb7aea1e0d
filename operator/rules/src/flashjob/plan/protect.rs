//! Prevents drains of nodes, and autoscalers, from ending a flash. One PodDisruptionBudget covers
//! all Pods of a job, from the first to the last, so it costs two requests per job and none per
//! device.

use flashjob_api::DeviceStatus;

use super::draft::Draft;
use super::steps::Step;
use crate::flashjob::make;

impl Draft<'_> {
    /// Creates or deletes the budget of the job.
    pub fn protect(&mut self) {
        let observed = self.observed;
        let is_protected = observed.is_protected;
        if !make::is_protected(self.spec, &observed.policy) {
            // `disruption` became Allow, in the FlashJob or in the configuration: a drain must no
            // longer wait for this job.
            if is_protected {
                self.unprotect();
            }
            return;
        }
        let at_work = || observed.pods.iter().any(|pod| pod.gone.is_none() && pod.ended.is_none());
        let begins = || self.plan.steps.iter().any(|step| matches!(step, Step::CreatePod(_)));
        match is_protected {
            false if begins() || at_work() => {
                let budget = make::budget(&self.observed.job);
                self.step(Step::Protect(Box::new(budget)));
            }
            true if !at_work() && !begins() && !self.goes_on() => self.unprotect(),
            _ => {}
        }
    }

    fn unprotect(&mut self) {
        let job = &self.observed.job;
        let name = make::budget_name(&job.key.name, &job.uid);
        self.step(Step::Unprotect { name });
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
