//! Deletes Pods and Services that no attempt needs any more. A result is stored before its Pod and
//! Service are deleted.

use std::collections::BTreeSet;

use flashjob_api::{DeviceState, DeviceStatus, Reason, reason};
use hashbrown::HashSet;

use super::draft::Draft;
use super::steps::Step;
use crate::flashjob::observed::{Observed, Pod, Service, Stage};

/// Reasons of attempts whose flash container was never started. DeviceNotAttached is none of them:
/// a kubelet that was restarted may reject a Pod that it had started before.
const NEVER_STARTED: [Reason; 6] = [
    reason::IMAGE_UNAVAILABLE,
    reason::CONTAINER_NOT_STARTED,
    reason::VOLUME_UNAVAILABLE,
    reason::INIT_CONTAINER_FAILED,
    reason::UNSCHEDULABLE,
    reason::POD_REFUSED,
];

impl<'a> Draft<'a> {
    /// Checks every Pod and Service of the job.
    pub fn clean(&mut self) {
        let observed: &'a Observed = self.observed;
        let pooled = self.pooled_slots();
        let mut nodes = BTreeSet::new();
        for pod in &observed.pods {
            match &pod.gone {
                Some(gone) if !gone.is_confirmed() => self.confirm_pod(&pod.name, &pod.device),
                // Until then the Pod locks its device.
                Some(_) if pod.may_run() => {
                    pod.may_run_until().map(|until| self.over(until, 0));
                    nodes.extend(pod.node_to_read());
                }
                // A delete that is in flight may have to wait behind hundreds of others.
                None if pod.deleting || observed.leaving_pods.contains(&pod.uid) => {}
                None if self.is_over(pod, &pooled) => {
                    self.step(Step::DeletePod { name: pod.name.clone(), uid: pod.uid.clone() });
                }
                _ => {}
            }
        }
        for name in nodes {
            self.step(Step::ReadNode { name: name.to_owned() });
        }
        let pods = observed.pods.iter().filter(|pod| pod.gone.is_none());
        let unfinished = pods
            .clone()
            .filter(|pod| !self.outcome_is_stored(&pod.device, pod.run.as_deref(), pod.attempt));
        let slots: HashSet<&str> = unfinished.filter_map(|pod| pod.slot.as_deref()).collect();
        let foreign = pods.filter(|pod| !pod.is_ours() && pod.ended.is_none());
        let foreign: HashSet<&str> = foreign.map(|pod| pod.device.as_str()).collect();
        for service in
            observed.services.iter().filter(|service| !service.deleting && service.pool.is_none())
        {
            // Services of the Go operator have no slot and are matched by their device.
            let has_pod = match (&service.slot, &service.device) {
                (Some(slot), _) => slots.contains(slot.as_str()),
                (None, Some(device)) => foreign.contains(device.as_str()),
                (None, None) => false,
            };
            // A Service goes before the Pod of a stored outcome is gone: others wait for its
            // address.
            if !has_pod && !self.is_needed(service) {
                self.step(Step::DeleteService {
                    name: service.name.clone(),
                    uid: service.uid.clone(),
                });
            }
        }
        self.clean_pools(&slots);
    }

    /// Returns true if the stored status contains the outcome of this attempt.
    fn outcome_is_stored(&self, device: &str, run: Option<&str>, attempt: Option<u32>) -> bool {
        let job = &self.observed.job;
        if run != Some(self.spec.run.as_str()) || !self.same_run || job.status.run.is_none() {
            return false;
        }
        if job.result(device).is_some() {
            return true;
        }
        match (self.observed.stored(device), attempt) {
            (Some(stored), Some(attempt)) => {
                stored.attempt > attempt
                    || stored.state == DeviceState::Verifying && stored.attempt == attempt
            }
            _ => false,
        }
    }

    fn is_over(&mut self, pod: &Pod, pooled: &HashSet<&str>) -> bool {
        if pod.run.as_deref() != Some(self.spec.run.as_str()) {
            // A Pod of another run, or of the Go operator, locks its device until it has ended.
            let time_is_up = self.foreign_ends_at(pod).is_some_and(|at| self.over(at, 0))
                || pod.is_ours() && self.observed.is_overdue(pod);
            return (pod.ended.is_some() || time_is_up) && !self.is_only_witness(pod);
        }
        if self.outcome_is_stored(&pod.device, pod.run.as_deref(), pod.attempt) {
            return !self.keeps_its_slot(pod, pooled);
        }
        // The record of a device that was removed from the spec is dropped first: with it and
        // without the Pod, a restarted operator would take the device for lost.
        if self.observed.stored(&pod.device).is_some() {
            return false;
        }
        // A Pod that runs without a record is not stopped: its device may be in the middle of a
        // write. One that cannot start, or whose node does not report, would never end.
        let never_starts = pod.waiting.as_ref().is_some_and(|waiting| waiting.is_final);
        let end = self.observed.stuck_until(pod).or_else(|| self.observed.overdue_at(pod));
        pod.ended.is_some() || never_starts || end.is_some_and(|end| self.over(end, 0))
    }

    /// Returns true if the ended Pod still reserves its address: after an attempt whose device may
    /// still connect, a pooled Service is not reused immediately. Without its Pod, a Service for
    /// one device is kept by [`Self::is_needed`], which cannot tell then that the container failed.
    fn keeps_its_slot(&mut self, pod: &Pod, pooled: &HashSet<&str>) -> bool {
        let pooled = pod.slot.as_deref().is_some_and(|slot| pooled.contains(slot));
        let keeps = match pooled {
            true => self.may_call_back(&pod.device, pod.attempt),
            false => {
                self.is_flashed_despite_failure(&pod.device, pod.attempt)
                    && self.service(&pod.name).is_some()
            }
        };
        let ended =
            self.observed.stages.get(&pod.name).filter(|(stage, _)| *stage == Stage::Ended);
        let ended = ended.map(|(_, since)| *since);
        let seconds = self.observed.periods.late_callback_seconds;
        keeps && ended.is_some_and(|ended| !self.over(ended, seconds))
    }

    /// Returns true if the device may still connect for this attempt, which is over: it may have
    /// been asked to, and was not judged as flashed.
    pub(super) fn may_call_back(&self, device: &str, attempt: Option<u32>) -> bool {
        !self.was_flashed(device, attempt) && !self.never_started(device, attempt)
    }

    /// Returns true if the attempt's container was certainly not started, so that no device was
    /// asked to connect: the address is free at once.
    fn never_started(&self, device: &str, attempt: Option<u32>) -> bool {
        // The record of the next attempt has the reason of this one until its own Pod exists.
        let is_next = |record: &&DeviceStatus| {
            Some(record.attempt) == attempt.map(|of| of + 1)
                && record.state != DeviceState::Flashing
        };
        let is_last = |record: &&DeviceStatus| {
            record.uid == device
                && record.state == DeviceState::Failed
                && Some(record.attempt) == attempt
        };
        let next = self.records.get(device).filter(is_next);
        let record = next.or_else(|| self.listed_devices.iter().find(is_last));
        let reason = record.and_then(|record| record.reason.as_deref());
        reason.is_some_and(|name| NEVER_STARTED.iter().any(|reason| reason.name == name))
    }

    /// Returns true if a Service for one device, without a running Pod, is still needed.
    fn is_needed(&mut self, service: &Service) -> bool {
        let Some(device) = service.device.clone().filter(|_| service.slot.is_some()) else {
            return false;
        };
        if service.run.as_deref() == Some(self.spec.run.as_str()) {
            let record =
                self.records.get(&device).filter(|record| Some(record.attempt) == service.attempt);
            match record.map(|record| record.state) {
                Some(state) if state.is_in_flight() => return true,
                // The Service never had a Pod.
                Some(DeviceState::Pending) => return false,
                _ if self.was_flashed(&device, service.attempt) => return false,
                // Only the memory of this process knows of a Pod that was refused, until the
                // outcome is stored.
                _ if self.never_started(&device, service.attempt)
                    && self.outcome_is_stored(
                        &device,
                        service.run.as_deref(),
                        service.attempt,
                    ) =>
                {
                    return false;
                }
                _ => {}
            }
        }
        let now = self.now();
        // A device that connects late must reach nobody: a Service that is deleted at once gives
        // its address to the next device's Pod, which sends other firmware.
        let since = self.observed.idle_services.get(&service.name).copied().unwrap_or(now);
        !self.over(since, self.observed.periods.late_callback_seconds)
    }
}
