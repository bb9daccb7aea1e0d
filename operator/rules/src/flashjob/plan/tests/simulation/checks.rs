//! Invariants, which hold regardless of what happened before.

use flashjob_api::{DeviceState, DeviceStatus, FlashJob, Phase, VerifyMode};
use hashbrown::HashMap;
use jiff::Timestamp;
use kube_core::ResourceExt;

use super::Simulation;
use crate::flashjob::labels::{annotation, label};
use crate::flashjob::observed::{Job, after};
use crate::flashjob::plan::tests::model::address;
use crate::flashjob::plan::{Plan, Step};

impl Simulation {
    pub(super) fn check(&mut self) {
        let mut flashers: HashMap<usize, usize> = HashMap::new();
        for container in self.cluster.containers.values() {
            *flashers.entry(container.device).or_default() += 1;
        }
        assert!(flashers.values().all(|count| *count <= 1), "two flashers on one device");
        assert!(self.cluster.created.values().all(|count| *count <= 1), "an attempt had two Pods");
        for (name, job) in &self.cluster.jobs {
            note_parallelism(&mut self.most, job);
            let most = &self.most[name];
            let owned = self.cluster.pods.values().filter(|pod| {
                pod.labels().get(label::APP) == Some(name) && pod.labels().contains_key(label::RUN)
            });
            let ended = |pod: &&k8s_openapi::api::core::v1::Pod| {
                !matches!(
                    pod.status.as_ref().and_then(|status| status.phase.as_deref()),
                    Some("Succeeded" | "Failed")
                )
            };
            let at_work = owned.filter(ended).count();
            assert!(at_work <= *most, "{at_work} Pods at work, {most} allowed");
            let pooled = self.cluster.services.values().filter(|service| {
                service.labels().get(label::APP) == Some(name)
                    && service.annotations().contains_key(annotation::POOL)
            });
            assert!(pooled.count() <= *most, "more pooled Services than allowed");
        }
    }

    pub(super) fn check_create(&mut self, job: &str, pod: &k8s_openapi::api::core::v1::Pod) {
        let (uid, run) = (pod.labels()[label::UUID].clone(), pod.labels()[label::RUN].clone());
        let has_result = self.stored.contains(&(job.to_owned(), run, uid.clone()));
        assert!(
            !has_result || self.cluster.pods.contains_key(&pod.name_any()),
            "device {uid} has a stored result and starts again"
        );
        assert!(
            !self.deleted_services.contains(&pod.name_any()),
            "device {uid} starts at the address of a Service that was deleted"
        );
        let (device, now) = (self.cluster.device_of(&uid), self.cluster.now);
        let address = address(pod);
        let mut late = self.cluster.unflashed.iter().filter(|(of, other, at)| {
            Some(of) == address.as_ref() && *other != device && after(*at, 60) > now
        });
        assert!(
            !self.undisturbed || late.next().is_none(),
            "a late callback would reach the next device's Pod {} of {job}: {:?} at {now}",
            pod.name_any(),
            self.cluster.unflashed
        );
    }

    pub(super) fn check_status(&self, name: &str, job: &Job, plan: &Plan) {
        let (Some(status), Ok(spec)) = (&plan.status, &job.spec) else { return };
        let Some(counts) = status.counts else { return };
        // A status that only says why nothing moves describes an earlier spec.
        if status.run.as_ref() != Some(&spec.run) || status.observed_generation != job.generation {
            return;
        }
        let sum = counts.pending
            + counts.active
            + counts.verifying
            + counts.completed
            + counts.failed
            + counts.skipped;
        let is_removed =
            |device: &&DeviceStatus| device.is_locked() && !spec.uuid.contains(&device.uid);
        let removed = status.devices.iter().filter(is_removed).count();
        assert_eq!(
            sum as usize,
            counts.total as usize + removed,
            "the counts do not add up: {counts:?}"
        );
        assert_eq!(counts.total as usize, spec.uuid.len());
        for (list, count) in [
            (&status.completed_uuids, counts.completed),
            (&status.failed_uuids, counts.failed),
            (&status.skipped_uuids, counts.skipped),
        ] {
            assert_eq!(list.len(), count as usize, "a list and its count differ");
        }
        let over =
            removed == 0 && counts.completed + counts.failed + counts.skipped == counts.total;
        // A job in deletion stops, and gets no result.
        assert!(job.deleting || over == (status.phase != Some(Phase::InProgress)));
        let most = self.most.get(name).copied().unwrap_or(0).max(spec.parallelism);
        let busy = (counts.active + counts.verifying) as usize;
        if spec.verify.mode == Some(VerifyMode::Required) {
            assert!(busy <= most, "{busy} devices in flight or unproven, {most} allowed");
        }
        assert!(counts.verifying as usize <= 2 * most);
        let failed = counts.failed as usize;
        if spec.max_failed_devices.is_some_and(|budget| failed > budget.of(spec.uuid.len())) {
            let started =
                status.devices.iter().filter(|device| device.state == DeviceState::Exposing);
            let waited = |uid: &str| {
                job.record(uid).is_none_or(|record| record.state == DeviceState::Pending)
            };
            let new = started.filter(|device| {
                waited(&device.uid)
                    && !self.world.memory[&job.key].pods_in_creation.contains_key(&format!(
                        "pod/{}",
                        device.pod.as_deref().unwrap_or_default()
                    ))
            });
            assert_eq!(new.count(), 0, "a device starts though the failure budget is exceeded");
        }
    }
}

/// Notes the most devices that a job was ever allowed to have in flight: requests that are in
/// flight while the spec is changed were planned from the one before.
pub(super) fn note_parallelism(most: &mut HashMap<String, usize>, job: &FlashJob) {
    let parallelism = job.spec.parallelism.unwrap_or(10) as usize;
    let most = most.entry(job.name_any()).or_default();
    *most = (*most).max(parallelism);
}

pub(super) fn check_firmware(job: &Job, plan: &Plan) {
    let is_policed = job.spec.as_ref().is_ok_and(|spec| spec.firmware_policy.is_some());
    let mut creates = plan.steps.iter().filter(|step| matches!(step, Step::CreatePod(_)));
    assert!(
        !is_policed || job.status.firmware.is_some() || creates.next().is_none(),
        "a device is flashed with firmware that is not proven"
    );
}

pub(super) fn keys(plan: &Plan) -> (Vec<String>, Vec<(String, String)>, Option<Timestamp>) {
    let holds = plan.holds.iter().map(|(identity, uid)| (identity.to_string(), uid.clone()));
    (plan.steps.iter().map(Step::key).collect(), holds.collect(), plan.wake_at)
}
