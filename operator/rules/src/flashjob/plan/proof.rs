//! Proof that a device was flashed. Only a change of the reported version to the requested one,
//! byte for byte, is proof; it counts regardless of what the flash container reported.

use flashjob_api::{DeviceState, VerifyMode, reason};
use flashjob_types::plugin::Proof;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::draft::Draft;
use crate::flashjob::observed::Finish;

impl Draft<'_> {
    /// Handles a device that was flashed according to its plugin.
    pub fn flashed(&mut self, uid: &str, proof: Proof) {
        if !self.is_in_spec(uid) {
            self.records.swap_remove(uid);
            return;
        }
        let of_plugin = match proof {
            Proof::Pod => VerifyMode::None,
            Proof::ReportedVersion => VerifyMode::BestEffort,
        };
        let mode = self.spec.verify.mode.unwrap_or(of_plugin);
        let baseline = self.records.get(uid).and_then(|record| record.baseline_version.clone());
        let unprovable = baseline.as_deref() == Some(&self.spec.version);
        match mode {
            VerifyMode::None => self.complete(uid, true),
            // A device that reported this version before, or never any, cannot prove anything by a
            // report, so waiting for one would only cost time.
            VerifyMode::BestEffort if unprovable || baseline.is_none() => {
                self.complete(uid, false)
            }
            VerifyMode::Required if unprovable => self.fail_unprovable(uid),
            VerifyMode::BestEffort | VerifyMode::Required => {
                self.set(uid, DeviceState::Verifying, |record| {
                    record.not_before = None;
                    record.version_since = None;
                    record.reason = None;
                    record.message = None;
                });
                self.verify(uid);
            }
        }
    }

    /// Returns true if the device has changed to the new version since its first attempt began,
    /// and the mode of `verify` takes reported versions into account.
    pub fn is_proven(&self, uid: &str) -> bool {
        self.spec.verify.mode != Some(VerifyMode::None) && self.has_changed_to_the_version(uid)
    }

    /// Returns true if the device reported another version when its first attempt began, and
    /// reports the requested one now.
    pub fn has_changed_to_the_version(&self, uid: &str) -> bool {
        let baseline = self.records.get(uid).and_then(|record| record.baseline_version.as_deref());
        let version = self.spec.version.as_str();
        baseline.is_some_and(|baseline| baseline != version) && self.reported(uid) == Some(version)
    }

    /// Returns true if this attempt flashed its device, which then restarted and does not connect
    /// for it any more.
    pub fn was_flashed(&self, device: &str, attempt: Option<u32>) -> bool {
        self.is_judged_flashed(device, attempt) && !self.has_failed_pod(device, attempt)
    }

    /// Returns true if the device was judged as flashed although this attempt's container failed.
    /// Another job may have flashed it before this attempt asked it, and then it may still connect.
    pub fn is_flashed_despite_failure(&self, device: &str, attempt: Option<u32>) -> bool {
        self.is_judged_flashed(device, attempt) && self.has_failed_pod(device, attempt)
    }

    /// Returns true if the device was judged as flashed in this attempt, its last.
    fn is_judged_flashed(&self, device: &str, attempt: Option<u32>) -> bool {
        let is_verifying = self.records.get(device).is_some_and(|record| {
            record.state == DeviceState::Verifying && Some(record.attempt) == attempt
        });
        let is_last = || self.attempts(device).is_none_or(|last| attempt == Some(last));
        is_verifying || self.result(device) == Some(Finish::Completed) && is_last()
    }

    /// Number of attempts of a device that has completed or failed. A status written before results
    /// had details does not tell.
    fn attempts(&self, device: &str) -> Option<u32> {
        let stored = self.observed.job.status.results.get(device).filter(|_| self.same_run);
        self.details.get(device).or(stored).map(|details| details.attempts)
    }

    /// Returns true if the Pod of this attempt exists, and has ended without success.
    fn has_failed_pod(&self, device: &str, attempt: Option<u32>) -> bool {
        self.pods_of(device).iter().any(|pod| {
            pod.run.as_deref() == Some(&self.spec.run)
                && pod.attempt == attempt
                && pod.gone.is_none()
                && pod.ended.as_ref().is_some_and(|ended| ended.exit_code != Some(0))
        })
    }

    /// Fails a device that already reports the requested version: nothing could be proven.
    pub fn fail_unprovable(&mut self, uid: &str) {
        let message = format!(
            "the device already reported version {} before it was flashed",
            self.spec.version
        );
        self.fail(uid, reason::VERSION_UNPROVABLE, &message);
    }

    /// Checks whether a flashed device reports its new version.
    pub fn verify(&mut self, uid: &str) {
        let Some(record) = self.records.get(uid) else { return };
        let since = record.holds_since().unwrap_or_else(|| self.now());
        let baseline = record.baseline_version.clone();
        let reported = self.reported(uid).map(str::to_owned);
        let version = self.spec.version.as_str();
        if !self.is_in_spec(uid) {
            self.records.swap_remove(uid);
            return;
        }
        // A boot loader can roll back: new firmware that does not confirm itself reports its
        // version once, and the next reset returns to the previous slot (MCUboot, ESP-IDF).
        let seen_since = record.version_since.as_ref().map(|time| time.0);
        let attempts = record.attempt.saturating_sub(record.uncounted);
        if reported.as_deref() == Some(version) && baseline.as_deref() != Some(version) {
            let since = seen_since.unwrap_or_else(|| self.now());
            if self.over(since, self.spec.verify.stable_seconds) {
                return self.complete(uid, true);
            }
            self.set(uid, DeviceState::Verifying, |record| {
                record.version_since = Some(Time(since))
            });
            return;
        }
        // A device that restarts reports nothing for a while; one that reports another version has
        // rolled back.
        if let (Some(_), Some(reported)) = (seen_since, &reported) {
            let message = format!("rolled back to {reported} after it had reported {version}");
            return self.give_up_attempt(uid, reason::VERSION_NOT_REPORTED, &message);
        }
        // A version left by an earlier attempt is not new.
        let first = attempts <= 1;
        let third = first
            && reported.is_some()
            && reported != baseline
            && reported.as_deref() != Some(version);
        // `verify.mode` is no part of the run: it was edited while this device was being verified.
        if self.spec.verify.mode == Some(VerifyMode::None) {
            return self.complete(uid, true);
        }
        let expired = self.over(since, self.spec.verify.timeout_seconds);
        if !third && !expired && !self.job_deadline_passed() {
            return;
        }
        if self.spec.verify.mode == Some(VerifyMode::Required) {
            let reported = reported.unwrap_or_else(|| "none".to_owned());
            let message = format!("the device reports version {reported}, expected {version}");
            let reason = if self.job_deadline_passed() {
                reason::DEADLINE_EXCEEDED
            } else {
                reason::VERSION_NOT_REPORTED
            };
            return self.give_up_attempt(uid, reason, &message);
        }
        self.complete(uid, false);
    }
}
