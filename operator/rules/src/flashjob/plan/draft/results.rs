//! Results of devices: completed, failed or skipped, with what is kept of each.

use flashjob_api::{DeviceState, DeviceStatus, Reason, ResultDetails};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Draft;
use crate::flashjob::observed::Finish;
use crate::flashjob::plan::steps::DeviceResult;

/// Maximum number of failed devices, and of skipped devices, in the status.
const SHOWN_RESULTS: usize = 100;

impl Draft<'_> {
    pub fn complete(&mut self, uid: &str, verified: bool) {
        let record = self.records.swap_remove(uid).unwrap_or_default();
        if !self.is_in_spec(uid) {
            return;
        }
        self.keep_details(uid, &record, !verified);
        self.tell(uid, &record, Finish::Completed, verified, None);
        self.results.insert(uid.to_owned(), Finish::Completed);
        self.unverified += u32::from(!verified);
    }

    pub fn fail(&mut self, uid: &str, reason: Reason, message: &str) {
        self.end(uid, Finish::Failed, reason, message);
    }

    pub fn skip(&mut self, uid: &str, reason: Reason, message: &str) {
        self.end(uid, Finish::Skipped, reason, message);
    }

    fn end(&mut self, uid: &str, finish: Finish, reason: Reason, message: &str) {
        let now = self.now();
        let mut record = self.records.swap_remove(uid).unwrap_or_default();
        if !self.is_in_spec(uid) {
            return;
        }
        uid.clone_into(&mut record.uid);
        record.state =
            if finish == Finish::Failed { DeviceState::Failed } else { DeviceState::Skipped };
        record.reason = Some(reason.name.to_owned());
        record.message = Some(message.to_owned());
        record.not_before = None;
        record.since = Some(Time(now));
        *self.reasons.entry(reason.name.to_owned()).or_default() += 1;
        if finish == Finish::Failed {
            self.keep_details(uid, &record, false);
        }
        self.tell(uid, &record, finish, false, Some(reason));
        self.results.insert(uid.to_owned(), finish);
        // Failures are listed before skips, each up to `SHOWN_RESULTS`.
        let count =
            self.listed_devices.iter().filter(|device| device.state == record.state).count();
        if count < SHOWN_RESULTS {
            self.listed_devices.push(record);
        }
    }

    /// Keeps details of a device after its record is removed. A device whose first attempt never
    /// began has no details.
    fn keep_details(&mut self, uid: &str, record: &DeviceStatus, unverified: bool) {
        let Some(Time(start)) = record.start_time else { return };
        let seconds = self.now().duration_since(start).as_secs().max(0);
        let details = ResultDetails {
            from: record.baseline_version.clone(),
            attempts: record.attempt.max(1),
            seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
            unverified,
            reported: self.reported(uid).filter(|_| unverified).map(str::to_owned),
        };
        self.details.insert(uid.to_owned(), details);
    }

    /// Adds a result to the plan, for the log, the events and the metrics.
    fn tell(
        &mut self,
        uid: &str,
        record: &DeviceStatus,
        finish: Finish,
        verified: bool,
        reason: Option<Reason>,
    ) {
        let message = reason.and(record.message.clone()).unwrap_or_default();
        let namespace = self.own_instance(uid).map(|instance| instance.namespace.clone());
        let (uid, name, attempt) = (uid.to_owned(), record.name.clone(), record.attempt.max(1));
        self.plan.results.push(DeviceResult {
            uid,
            name,
            namespace,
            attempt,
            finish,
            verified,
            reason,
            message,
        });
    }
}
