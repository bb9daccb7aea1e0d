//! Removes Pods and Services that no attempt needs any more. A result is stored before its Pod and Service go.

use flashjob_api::DeviceState;

use super::Step;
use super::draft::Draft;
use crate::observed::{Finish, Pod, Service};

impl Draft<'_> {
    /// Looks at every Pod and Service of the job.
    pub fn clean(&mut self) {
        let observed = self.observed;
        for pod in observed.pods.iter().filter(|pod| pod.gone.is_none() && !pod.deleting) {
            if self.is_over(pod) {
                self.step(Step::DeletePod { name: pod.name.clone(), uid: pod.uid.clone() });
            }
        }
        for service in observed.services.iter().filter(|service| !service.deleting) {
            if !self.is_needed(service) {
                self.step(Step::DeleteService { name: service.name.clone(), uid: service.uid.clone() });
            }
        }
    }

    /// Whether the stored status shows that this attempt has its outcome.
    fn outcome_is_stored(&self, device: &str, run: Option<&str>, attempt: Option<u32>) -> bool {
        let job = &self.observed.job;
        if run != Some(self.spec.run.as_str()) || !self.same_run || job.status.run.is_none() {
            return false;
        }
        if job.results.contains_key(device) {
            return true;
        }
        match (self.observed.stored(device), attempt) {
            (Some(stored), Some(attempt)) => {
                stored.attempt > attempt || stored.state == DeviceState::Verifying && stored.attempt == attempt
            }
            _ => false,
        }
    }

    fn is_over(&mut self, pod: &Pod) -> bool {
        if pod.run.as_deref() != Some(self.spec.run.as_str()) {
            // Another run's, or the Go operator's: it locks its device until it ended, and has no result here.
            return pod.ended.is_some();
        }
        if self.outcome_is_stored(&pod.device, pod.run.as_deref(), pod.attempt) {
            return !self.keeps_its_slot(pod);
        }
        let dropped = !self.wanted(&pod.device) && !self.records.contains_key(&pod.device);
        dropped && pod.ended.is_some()
    }

    /// A pooled Service is not handed on right after an attempt that was not judged flashed: its ended Pod keeps the slot.
    fn keeps_its_slot(&mut self, pod: &Pod) -> bool {
        let pooled = self.observed.services.iter().any(|service| service.pool.is_some() && service.slot == pod.slot);
        let ended = pod.ended.as_ref().and_then(|ended| ended.at);
        let seconds = self.observed.periods.late_callback_seconds;
        pooled && !self.was_flashed(&pod.device, pod.attempt) && ended.is_some_and(|ended| !self.over(ended, seconds))
    }

    fn was_flashed(&self, device: &str, attempt: Option<u32>) -> bool {
        let verifying =
            self.records.get(device).is_some_and(|record| record.state == DeviceState::Verifying && Some(record.attempt) == attempt);
        verifying || self.results.get(device) == Some(&Finish::Completed)
    }

    fn is_needed(&mut self, service: &Service) -> bool {
        if service.pool.is_some() {
            return self.pool_is_needed(service) || self.has_pod(service);
        }
        if self.has_pod(service) {
            return true;
        }
        let Some(device) = service.device.clone().filter(|_| service.run.as_deref() == Some(self.spec.run.as_str())) else {
            return false;
        };
        let record = self.records.get(&device).filter(|record| Some(record.attempt) == service.attempt);
        if let Some(record) = record
            && record.in_flight()
            && record.state != DeviceState::Verifying
        {
            return true;
        }
        let never_had_a_pod = record.is_some_and(|record| record.state == DeviceState::Pending);
        if never_had_a_pod || self.was_flashed(&device, service.attempt) {
            return false;
        }
        let now = self.now();
        let since = self.observed.idle_services.get(&service.name).copied().unwrap_or(now);
        !self.over(since, self.observed.periods.late_callback_seconds)
    }

    /// Whether a Pod that may still call for this Service is there. The Go operator's Services are told by their device.
    fn has_pod(&self, service: &Service) -> bool {
        self.observed.pods.iter().any(|pod| match &service.slot {
            Some(_) => {
                pod.slot == service.slot && pod.gone.is_none() && !self.outcome_is_stored(&pod.device, pod.run.as_deref(), pod.attempt)
            }
            None => !pod.is_ours() && service.device.as_deref() == Some(pod.device.as_str()) && pod.ended.is_none(),
        })
    }
}
