//! Attempts that end without success: the device is retried after a delay, returns to the queue,
//! or fails.

use flashjob_api::{DeviceState, Reason, reason};
use flashjob_types::plugin::Proof;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sha2::{Digest, Sha256};

use super::Draft;
use crate::flashjob::observed::after;

impl Draft<'_> {
    /// Handles a failed attempt: the device is retried, or has failed permanently.
    pub fn fail_attempt(&mut self, uid: &str, reason: Reason, message: &str) {
        let (attempt, uncounted) = self
            .records
            .get(uid)
            .map_or((1, 0), |record| (record.attempt.max(1), record.uncounted));
        if attempt.saturating_sub(uncounted) > self.spec.backoff_limit_per_device {
            return self.fail(uid, reason, message);
        }
        self.try_again(uid, attempt, reason, message);
    }

    /// Handles an attempt that has ended without success: drops a device that the job no longer
    /// names, takes one that reports the new version as flashed, fails it permanently after the
    /// deadline of the job, and otherwise counts the failure.
    pub fn give_up_attempt(&mut self, uid: &str, reason: Reason, message: &str) {
        if !self.is_in_spec(uid) {
            self.records.swap_remove(uid);
        } else if self.is_proven(uid) {
            self.flashed(uid, Proof::ReportedVersion);
        } else if reason == reason::DEADLINE_EXCEEDED {
            self.fail(uid, reason, message);
        } else {
            self.fail_attempt(uid, reason, message);
        }
    }

    /// Retries a device whose attempt failed through no fault of the device or the firmware; the
    /// attempt does not count.
    pub fn retry_uncounted(&mut self, uid: &str, reason: Reason, message: &str) {
        let attempt = self.records.get(uid).map_or(1, |record| record.attempt.max(1));
        self.try_again(uid, attempt, reason, message);
        self.set(uid, DeviceState::Pending, |record| {
            record.uncounted += 1;
            record.not_attached += u32::from(reason == reason::DEVICE_NOT_ATTACHED);
        });
    }

    fn try_again(&mut self, uid: &str, attempt: u32, reason: Reason, message: &str) {
        let pause = self.pause(uid, attempt);
        let until = after(self.now(), pause);
        self.wake(until);
        self.set(uid, DeviceState::Pending, |record| {
            record.attempt = attempt + 1;
            record.not_before = Some(Time(until));
            record.reason = Some(reason.name.to_owned());
            record.message = Some(message.to_owned());
            record.pod = None;
            record.node = None;
            record.external_ip = None;
        });
    }

    /// Puts the same attempt back at the end of the queue.
    pub fn back_to_queue(&mut self, uid: &str, why: Option<(Reason, &str)>) {
        let now = self.now();
        self.set(uid, DeviceState::Pending, |record| {
            // The queue sorts devices that had their turn by this time. It is in the past at the
            // next plan, so it delays nothing.
            record.not_before = Some(Time(now));
            record.pod = None;
            record.node = None;
            record.external_ip = None;
            record.reason = why.map(|(reason, _)| reason.name.to_owned());
            record.message = why.map(|(_, message)| message.to_owned());
        });
        if !self.is_in_spec(uid) {
            self.records.swap_remove(uid);
        }
    }

    /// Delay before the next attempt: doubles with each attempt, plus or minus up to a fifth. The
    /// jitter is derived from uid and attempt, so that devices that failed together do not retry
    /// together, and two plans of one snapshot agree.
    fn pause(&self, uid: &str, attempt: u32) -> i64 {
        let periods = &self.observed.periods;
        // The exponent is limited: disruptions raise the attempt's number too, and a shift by 64
        // bits or more overflows.
        let doubled = periods.retry_seconds.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        let pause = doubled.min(periods.longest_retry_seconds).max(0);
        let spread = Sha256::digest(format!("{uid}/{attempt}").as_bytes());
        let share = i64::from(u16::from_be_bytes([spread[0], spread[1]])) % 41 - 20;
        pause + pause * share / 100
    }
}
