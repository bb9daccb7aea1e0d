//! Faults other than failing requests: the operator is killed, Pods and Services vanish, people
//! change their minds.

use flashjob_api::{DeviceState, FirmwarePolicy, FlashJob};
use kube_core::ResourceExt;

use super::checks::note_parallelism;
use super::{LOUD, Request, Simulation};
use crate::flashjob::labels::label;
use crate::flashjob::plan::tests::fixture;

/// Faults that can occur, each up to the given number of times.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub crashes: usize,
    pub pods: usize,
    pub services: usize,
    pub specs: usize,
    pub instances: usize,
    /// Share of requests that fail, in percent.
    pub requests: usize,
}

impl Simulation {
    pub(super) fn break_something(&mut self) {
        if !self.cluster.dice.percent(3) {
            return;
        }
        let pods: Vec<String> = self.cluster.pods.keys().cloned().collect();
        let pod = pods.get(self.cluster.dice.below(pods.len())).cloned();
        let services: Vec<String> = self.cluster.services.keys().cloned().collect();
        let service = services.get(self.cluster.dice.below(services.len())).cloned();
        match self.cluster.dice.below(5) {
            0 if self.faults.crashes > 0 => {
                self.faults.crashes -= 1;
                // Requests in flight may have been carried out, but their responses are lost.
                for request in std::mem::take(&mut self.requests) {
                    match request {
                        _ if self.cluster.dice.percent(50) => {}
                        Request::Status(job, status) => self.store(&job, &status, false),
                        Request::Step(job, step) => drop(self.carry_out(&job, &step, false)),
                        Request::Settle(_) => {}
                    }
                }
                self.restart();
            }
            1 if self.faults.pods > 0 => {
                let Some(pod) = pod else { return };
                // A Pod that vanishes before a watch or a response reports it is a gap that no
                // operator can close.
                let job = self.cluster.pods[&pod].labels()[label::APP].clone();
                if !self.world.knows_pod(&fixture::key(&job), &pod) {
                    return;
                }
                self.faults.pods -= 1;
                let kind = self.cluster.dice.below(4);
                if self.may_crash && matches!(kind, 0..=2) && !self.is_stored_flashing(&pod) {
                    // If the operator is killed too, nothing can tell that a Pod existed which
                    // vanished before anything about it was stored.
                    return;
                }
                if LOUD {
                    println!("POD FAULT {kind} {pod}");
                }
                match kind {
                    0 => drop(self.cluster.delete_pod(&pod)),
                    1 => self.cluster.remove_pod(&pod),
                    2 => self.cluster.lose_node(&pod),
                    _ => self.cluster.evict(&pod),
                }
            }
            2 if self.faults.services > 0 => {
                let Some(service) = service else { return };
                self.faults.services -= 1;
                self.cluster.remove_service(&service);
            }
            3 if self.faults.specs > 0 => {
                self.faults.specs -= 1;
                self.change_a_spec();
            }
            4 if self.faults.instances > 0 => {
                self.faults.instances -= 1;
                let index = self.cluster.dice.below(self.cluster.devices.len());
                let uid = self.cluster.devices[index].uids[0].clone();
                let jobs = self.world.devices.lose(&uid);
                self.due.extend(jobs.into_iter().map(|job| job.name));
            }
            _ => {}
        }
    }

    pub(super) fn is_stored_flashing(&self, pod: &str) -> bool {
        let devices = self
            .cluster
            .jobs
            .values()
            .filter_map(|job| job.status.as_ref())
            .flat_map(|status| &status.devices);
        let mut devices = devices.filter(|device| device.pod.as_deref() == Some(pod));
        devices.any(|device| device.state == DeviceState::Flashing)
    }

    pub(super) fn change_a_spec(&mut self) {
        let names: Vec<String> = self.cluster.jobs.keys().cloned().collect();
        let Some(name) = names.get(self.cluster.dice.below(names.len())) else { return };
        let mut job = self.cluster.jobs[name].clone();
        note_parallelism(&mut self.most, &job);
        match self.cluster.dice.below(7) {
            0 => job.spec.parallelism = Some(1 + self.cluster.dice.below(4) as i32),
            1 => job.spec.suspend = Some(!job.spec.suspend.unwrap_or(false)),
            2 => job.spec.run_id = Some(format!("run-{}", self.cluster.version)),
            3 if job.spec.uuid.len() > 1 => {
                let at = self.cluster.dice.below(job.spec.uuid.len());
                let uid = job.spec.uuid.remove(at);
                self.stored.retain(|(of, _, device)| of != name || *device != uid);
                self.cluster.forget_created(name, &uid);
            }
            4 => return self.delete_job(name),
            5 => {
                let policy = job.spec.firmware_policy.take();
                job.spec.firmware_policy = policy.is_none().then(FirmwarePolicy::default);
            }
            _ => {
                let all: Vec<String> =
                    self.cluster.devices.iter().flat_map(|device| device.uids.clone()).collect();
                let uid = all[self.cluster.dice.below(all.len())].clone();
                if !job.spec.uuid.contains(&uid) {
                    // A create that was in flight when the uid was removed may have arrived since.
                    self.cluster.forget_created(name, &uid);
                    job.spec.uuid.push(uid);
                }
            }
        }
        job.metadata.generation = job.metadata.generation.map(|generation| generation + 1);
        self.cluster.put_job(job);
    }

    /// Stops the faults, so that the jobs can end.
    pub fn calm_down(&mut self) {
        self.faults = Faults::default();
        let suspended: Vec<FlashJob> = self
            .cluster
            .jobs
            .values()
            .filter(|job| job.spec.suspend == Some(true))
            .cloned()
            .collect();
        for mut job in suspended {
            job.spec.suspend = None;
            self.cluster.put_job(job);
        }
        self.show_devices();
    }
}
