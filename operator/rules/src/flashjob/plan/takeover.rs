//! Takes over results of the Go operator's Pods for this job: the device of a Pod that succeeded
//! gets the result that the Go operator would have stored.

use flashjob_api::{DeviceState, VerifyMode};

use super::draft::Draft;
use crate::flashjob::observed::{EndedBy, Finish, Pod};

impl Draft<'_> {
    /// Completes the devices whose Go operator's Pods have succeeded.
    pub fn take_over(&mut self) {
        for pod in &self.observed.pods {
            if self.decides(pod) {
                let verified = self.reported(&pod.device) == Some(self.spec.version.as_str());
                self.complete(&pod.device, verified);
            }
        }
    }

    /// Returns true if this Pod gives its device a result: it flashed the firmware that the job
    /// still names, and the device has no result and no attempt of ours in flight.
    fn decides(&self, pod: &Pod) -> bool {
        let flashed = pod.firmware_of_go_operator.as_ref();
        let is_same = flashed.is_some_and(|(firmware, version)| {
            *firmware == self.spec.firmware && *version == self.spec.version
        });
        let succeeded = pod
            .ended
            .as_ref()
            .is_some_and(|ended| ended.by == EndedBy::Attempt && ended.exit_code == Some(0));
        let record = self.records.get(&pod.device);
        let is_begun = record.is_some_and(|record| record.state != DeviceState::Pending);
        // The earlier version of the device is unknown, so its current report is the only proof.
        let is_refuted = self.spec.verify.mode == Some(VerifyMode::Required)
            && self.reported(&pod.device) != Some(self.spec.version.as_str());
        // Nothing proves which firmware the tag referred to when the Pod fetched it.
        let is_policed = self.firmware_verification().is_some();
        is_same
            && succeeded
            && !is_policed
            && !is_refuted
            && !is_begun
            && self.is_in_spec(&pod.device)
            && self.result(&pod.device).is_none()
    }

    /// Returns true if the device's result comes from this Pod and is not stored yet: until then
    /// the Pod is its only record.
    pub fn is_only_witness(&self, pod: &Pod) -> bool {
        let stored = self.observed.job.result(&pod.device).filter(|_| self.same_run);
        pod.firmware_of_go_operator.is_some()
            && stored.is_none()
            && self.result(&pod.device) == Some(Finish::Completed)
    }
}
