//! Follows a device whose Pod vanished before its end was observed: it stays locked until nothing
//! of the Pod can run, and is then judged by the version that it reports.

use flashjob_api::{DeviceState, DeviceStatus, reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::draft::Draft;
use crate::flashjob::observed::{Gone, Pod};

/// Message about a vanished Pod of which something may still be running.
pub(super) fn vanished(pod: &str, node: Option<&str>) -> String {
    let end = match node {
        Some(node) => format!(
            "node {node} shows that it no longer runs the Pod, or the Pod's deadline has passed"
        ),
        None => "the Pod's deadline has passed".to_owned(),
    };
    format!(
        "Pod {pod} vanished before its outcome was observed; the device stays locked until {end}"
    )
}

/// Message about a vanished Pod whose node shows that nothing of it is running.
fn stopped_on(pod: &str, node: &str) -> String {
    format!(
        "Pod {pod} vanished before its outcome was observed; node {node} no longer runs it, and \
         the device gets time to report the new version"
    )
}

/// Notes until when a lost device stays locked, and why.
pub(super) fn note_lost(record: &mut DeviceStatus, until: Timestamp, message: &str) {
    record.not_before = Some(Time(until));
    record.reason = Some(reason::POD_LOST.name.to_owned());
    record.message = Some(message.to_owned());
}

impl Draft<'_> {
    /// Follows an attempt whose Pod left the cache before its end was observed.
    pub fn follow_gone(&mut self, uid: &str, pod: &Pod, gone: &Gone) {
        // A watch with a label selector reports a Pod as deleted also when somebody removes the
        // label. Only a query shows whether the Pod still exists.
        if !gone.is_confirmed() {
            return self.confirm_pod(&pod.name, uid);
        }
        // No kubelet starts a Pod that was never bound to a node, so the device is free at once.
        if !pod.scheduled {
            let reason = self.noted(uid).unwrap_or(reason::POD_LOST);
            return self.give_up_attempt(
                uid,
                reason,
                &format!("Pod {} was deleted before it ran", pod.name),
            );
        }
        // Removal from the API server stops no container: after a forced deletion, or on a lost
        // node, it runs until the kubelet learns of the removal, or enforces the deadline and the
        // grace period.
        let until = pod.may_run_until().unwrap_or_else(|| self.now());
        let message = match (&pod.node, pod.stopped_at()) {
            (Some(node), Some(_)) => stopped_on(&pod.name, node),
            (node, _) => vanished(&pod.name, node.as_deref()),
        };
        self.lose(uid, until, &message);
    }

    /// Locks the device until nothing of the attempt can still run.
    pub fn lose(&mut self, uid: &str, until: Timestamp, message: &str) {
        self.over(until, 0);
        self.set(uid, DeviceState::Lost, |record| note_lost(record, until, message));
    }

    /// Decides a lost attempt by the version that the device reports, even while its container may
    /// still run: draining a node deletes Pods that have already finished their work. The lost Pod
    /// itself keeps its device locked against other jobs until its deadline.
    pub fn wait_out_the_lost(&mut self, uid: &str, name: &str, pod: Option<&Pod>) {
        let Some(record) = self.records.get(uid) else { return };
        let stored_until = record.waits_until().unwrap_or_else(|| self.now());
        let stopped_at = pod.and_then(Pod::stopped_at).filter(|at| *at < stored_until);
        let until = stopped_at.unwrap_or(stored_until);
        let node = record.node.clone();
        let provable = record.baseline_version.as_deref() != Some(&self.spec.version);
        let proves = provable && self.reported(uid) == Some(&self.spec.version);
        // Another attempt, or another job, may have flashed this version, while this attempt still
        // runs. The baseline excludes that for the first attempt only.
        let is_new = record.baseline_version.is_some() && record.attempt <= 1;
        if proves && (is_new || self.over(until, 0)) {
            return self.complete(uid, true);
        }
        if !self.over(until, 0) {
            // After a restart no Pod is cached whose node would be read.
            if pod.is_none() && node.is_some() {
                self.confirm_pod(name, uid);
            }
            return;
        }
        if let Some(node) = node.filter(|_| stopped_at.is_some()) {
            self.lose(uid, until, &stopped_on(name, &node));
        }
        // The device may have been flashed and be rebooting, so one that can prove it gets the
        // time to report before it is flashed again.
        if !provable || !self.is_in_spec(uid) || self.over(until, self.spec.verify.timeout_seconds)
        {
            let message = "the Pod vanished before its outcome was observed, and the device did \
                           not report the new version";
            self.give_up_attempt(uid, reason::POD_LOST, message);
        }
    }
}
