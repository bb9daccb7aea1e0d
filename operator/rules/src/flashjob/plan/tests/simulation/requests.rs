//! Requests of the operator: each reaches the API server or does not, and its response arrives or
//! is lost.

use flashjob_api::{FINALIZER, FlashJobStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube_core::ResourceExt;

use super::{LOUD, Request, Simulation};
use crate::flashjob::observed::{
    Job, Meaning, NodeLease, NodeState, Pod, Refusal, Refused, Service,
};
use crate::flashjob::plan::Step;
use crate::world::World;

impl Simulation {
    /// Handles one request: it reaches the API server or does not; its response arrives, or is
    /// lost.
    pub(super) fn answer(&mut self) -> bool {
        if self.requests.is_empty() {
            return false;
        }
        let at = self.cluster.dice.below(self.requests.len());
        let request = self.requests.swap_remove(at);
        let fails = self.cluster.dice.percent(self.faults.requests);
        if LOUD {
            println!(
                "  answer {} fails={fails}",
                match &request {
                    Request::Step(_, s) => s.key(),
                    Request::Status(j, _) =>
                        format!("status {} at {}", j.key.name, j.resource_version),
                    Request::Settle(j) =>
                        format!("settle {} at {}", j.key.name, j.resource_version),
                }
            );
        }
        let arrives = !fails || self.cluster.dice.percent(50);
        let job = match &request {
            Request::Step(job, _) | Request::Status(job, _) | Request::Settle(job) => job.clone(),
        };
        self.due.insert(job.key.name.clone());
        match request {
            Request::Status(job, status) => {
                if arrives {
                    self.store(&job, &status, !fails);
                }
                self.world.memory.entry(job.key.clone()).or_default().pace.writing = false;
                if fails {
                    self.requests.push(Request::Settle(job));
                }
            }
            Request::Settle(job) if fails => self.requests.push(Request::Settle(job)),
            Request::Settle(job) => {
                if let Some(fresh) = self.cluster.jobs.get(&job.key.name).cloned() {
                    self.world.see_job(Job::of(fresh));
                }
                self.world.memory.entry(job.key.clone()).or_default().writes_are_settled(&job);
            }
            Request::Step(job, step) => {
                let knows = |world: &World| {
                    step.key()
                        .strip_prefix("pod/")
                        .is_some_and(|name| world.knows_pod(&job.key, name))
                };
                // A create is not sent again if its Pod has been observed.
                let sent = arrives && !(step.creates() && knows(&self.world));
                let refused = sent && self.carry_out(&job, &step, !fails);
                let is_observed = knows(&self.world);
                if fails && step.creates() && !refused && !is_observed {
                    // The outcome is unknown: sent again until it is known.
                    self.requests.push(Request::Step(job, step));
                } else if let Some(memory) = self.world.memory.get_mut(&job.key) {
                    memory.count(&step, fails.then(|| "the answer was lost".to_owned()));
                    memory.end(&step.key());
                }
            }
        }
        true
    }

    pub(super) fn store(&mut self, job: &Job, status: &FlashJobStatus, answered: bool) {
        let name = &job.key.name;
        let Some(mut stored) = self.cluster.jobs.get(name).cloned() else { return };
        if stored.resource_version().as_deref() == Some(&job.resource_version) {
            let run = status.run.clone().unwrap_or_default();
            let lists = status
                .completed_uuids
                .iter()
                .chain(&status.failed_uuids)
                .chain(&status.skipped_uuids);
            self.stored.extend(lists.map(|uid| (name.clone(), run.clone(), uid.clone())));
            stored.status = Some(status.clone());
            self.cluster.put_job(stored);
        }
        if answered {
            let fresh = self.cluster.jobs[name].clone();
            self.world.see_job(Job::of(fresh));
        }
    }

    /// Carries out a step. Returns true if the API server refused it.
    pub(super) fn carry_out(&mut self, job: &Job, step: &Step, answered: bool) -> bool {
        let name = &job.key.name;
        let now = self.cluster.now;
        match step {
            Step::AddFinalizer | Step::RemoveFinalizer => {
                let Some(mut stored) = self.cluster.jobs.get(name).cloned() else { return false };
                if stored.resource_version().as_deref() == Some(&job.resource_version) {
                    let adding = matches!(step, Step::AddFinalizer);
                    stored.metadata.finalizers = adding.then(|| vec![FINALIZER.to_owned()]);
                    let over = stored.metadata.deletion_timestamp.is_some() && !adding;
                    self.cluster.put_job(stored);
                    if over {
                        self.cluster.remove_job(name);
                    }
                }
                if answered && let Some(fresh) = self.cluster.jobs.get(name).cloned() {
                    self.world.see_job(Job::of(fresh));
                }
            }
            Step::DeleteJob => self.delete_job(name),
            Step::CreateService(service) => {
                self.deleted_services.remove(&service.name_any());
                let created = self.cluster.create_service(*service.clone());
                let existing_service =
                    created.or_else(|| self.cluster.services.get(&service.name_any()).cloned());
                if answered {
                    existing_service
                        .as_ref()
                        .and_then(Service::of)
                        .map(|service| self.world.see_service(service));
                }
            }
            Step::CreatePod(pod) => {
                if self.cluster.dice.percent(self.faults.requests / 3)
                    && !self.cluster.pods.contains_key(&pod.name_any())
                {
                    let meaning = match self.cluster.dice.percent(20) {
                        true => Meaning::Final,
                        false if self.cluster.dice.percent(50) => Meaning::MayPass,
                        false => Meaning::Quota { unused_since: None },
                    };
                    let refusal = Refusal {
                        object: Refused::Pod,
                        meaning,
                        message: "quota".into(),
                        at: now,
                    };
                    let memory = self.world.memory.entry(job.key.clone()).or_default();
                    memory.refuse(&pod.name_any(), refusal);
                    return true;
                }
                self.check_create(name, pod);
                let created = self.cluster.create_pod(*pod.clone());
                let existing_pod =
                    created.or_else(|| self.cluster.pods.get(&pod.name_any()).cloned());
                if answered {
                    self.world.memory.entry(job.key.clone()).or_default().accept(&pod.name_any());
                    existing_pod.as_ref().and_then(Pod::of).map(|pod| self.world.see_pod(pod));
                }
            }
            Step::DeleteService { name, .. } => {
                self.cluster.remove_service(name);
                if answered {
                    self.deleted_services.insert(name.clone());
                }
            }
            Step::DeletePod { name, uid } => {
                let deleted = self
                    .cluster
                    .pods
                    .get(name)
                    .is_some_and(|pod| pod.uid().as_deref() == Some(uid));
                let deleted = if deleted { self.cluster.delete_pod(name) } else { None };
                match deleted.as_ref().and_then(Pod::of) {
                    Some(pod) if answered => self.world.see_deleted_pod(pod),
                    None if answered => self.world.lose_pod(&job.key, name, uid, now),
                    _ => {}
                }
            }
            Step::Protect(_) | Step::Unprotect { .. } => {
                let memory = self.world.memory.entry(job.key.clone()).or_default();
                memory.is_protected = Some(matches!(step, Step::Protect(_)));
            }
            Step::ConfirmPod { name, device, delete } => match self.cluster.pods.get(name) {
                Some(_) if *delete => drop(self.cluster.delete_pod(name)),
                None if answered => self.world.confirm_gone(&job.key, name, device, now),
                _ => {}
            },
            Step::ReadNode { name } => {
                let node = NodeState {
                    node: name.clone(),
                    asked_at: now,
                    created_at: Some(Timestamp::UNIX_EPOCH),
                    is_ready: true,
                    is_out_of_service: false,
                    lease: Some(NodeLease {
                        version: self.cluster.lease_version(name),
                        duration_seconds: 40,
                    }),
                };
                if answered {
                    let jobs = self.world.see_node(&node, now);
                    self.due.extend(jobs.into_iter().map(|job| job.name));
                }
            }
        }
        false
    }

    pub(super) fn delete_job(&mut self, name: &str) {
        let Some(mut job) = self.cluster.jobs.get(name).cloned() else { return };
        if job.metadata.finalizers.is_none() {
            self.cluster.remove_job(name);
        } else if job.metadata.deletion_timestamp.is_none() {
            job.metadata.deletion_timestamp = Some(Time(self.cluster.now));
            self.cluster.put_job(job);
        }
    }
}
