//! Applies one change to the caches, and returns the objects that it concerns.

use std::sync::Arc;

use hashbrown::HashSet;
use jiff::Timestamp;

use super::World;
use super::change::{Change, JobOutcome, Kind, Object, RolloutOutcome, Subject};
use super::memory::Memory;
use super::rollouts::StepOutcome;
use crate::flashjob::observed::{Inquiry, JobKey};
use crate::rollout::RolloutKey;

impl World {
    /// Applies a change. Returns the objects to plan because of it, in addition to the rollouts of
    /// [`super::rollouts::Rollouts::take_due`]. An outcome for an object that no longer exists is
    /// ignored.
    pub fn take(&mut self, change: Change, now: Timestamp) -> Vec<Subject> {
        let jobs = match change {
            Change::Updated(object) => self.see(object),
            Change::Deleted { last, uid } => self.lose(last, &uid, now),
            Change::NotFound { subject, uid } => self.miss(&subject, &uid),
            Change::Listed { kind, uids } => self.forget_unlisted(kind, &uids, now),
            Change::Deleting(object) => {
                self.see_deleting(object);
                Vec::new()
            }
            Change::PodNotFound { job, name, uid } => {
                self.lose_pod(&job, &name, &uid, now);
                vec![job]
            }
            Change::ServiceNotFound { job, name, uid } => {
                self.lose_service(&job, &name, &uid);
                vec![job]
            }
            Change::PodDeletionConfirmed { job, name, device } => {
                self.confirm_gone(&job, &name, &device, now);
                vec![job]
            }
            Change::PodUnlabelled(pod) => {
                let (job, name, uid) = (pod.job.clone(), pod.name.clone(), pod.uid.clone());
                let stays = pod.ended.is_some() && !pod.deleting;
                self.see_pod(*pod);
                // No watch reports this Pod any more. Unless a query has shown its end, it is
                // handled like one that vanished; in deletion also if it has ended, as nothing
                // reports its removal.
                if !stays {
                    self.lose_pod(&job, &name, &uid, now);
                }
                vec![job]
            }
            Change::Node(node) => self.see_node(&node, now),
            Change::Job(job, outcome) => self.note_job(job, outcome),
            Change::Rollout(rollout, outcome) => return self.note_rollout(rollout, outcome),
            Change::Firmware { subject, question, state } => {
                let inquiry = self.inquiry_mut(&subject);
                let is_taken = inquiry.is_some_and(|inquiry| inquiry.take(&question, state));
                return if is_taken { vec![subject] } else { Vec::new() };
            }
            Change::Plugins(plugins) => {
                // Devices that wait are asked about again: an answer contains the settings and the
                // image that were configured when the question was asked.
                let before = self.plugins.iter();
                if self.plugins.len() != plugins.len()
                    || before.zip(&plugins).any(|(view, new)| !view.is_configured_like(new))
                {
                    self.plugin_configuration += 1;
                }
                self.plugins = Arc::new(plugins);
                // Devices may have waited for a plugin.
                self.jobs.keys().cloned().collect()
            }
            Change::Rules(rules) => {
                self.rules = *rules;
                // The firmware that is trusted may have changed.
                self.rollouts.all_due();
                // The change of the plugins, which follows each new configuration, plans the
                // FlashJobs.
                Vec::new()
            }
        };
        jobs.into_iter().map(Subject::Job).collect()
    }

    /// The question about firmware that the latest plan asked.
    #[must_use]
    pub fn inquiry(&self, subject: &Subject) -> Option<&Inquiry> {
        match subject {
            Subject::Job(key) => self.memory.get(key).map(|memory| &memory.firmware),
            Subject::Rollout(key) => self.rollouts.memory.get(key).map(|memory| &memory.firmware),
        }
    }

    fn inquiry_mut(&mut self, subject: &Subject) -> Option<&mut Inquiry> {
        match subject {
            Subject::Job(key) => self.memory.get_mut(key).map(|memory| &mut memory.firmware),
            Subject::Rollout(key) => {
                self.rollouts.memory.get_mut(key).map(|memory| &mut memory.firmware)
            }
        }
    }

    fn see(&mut self, object: Object) -> Vec<JobKey> {
        match object {
            Object::Job(job) => {
                let key = job.key.clone();
                if self.see_job(*job) { vec![key] } else { Vec::new() }
            }
            Object::Rollout(cached) => {
                let uid = cached.rollout.uid.clone();
                // A late response to one of our requests may show an object that is already
                // deleted.
                if !self.departed.has(&uid) {
                    self.rollouts.see(*cached);
                }
                self.children_that_wait(&uid)
            }
            Object::Instance(instance) => {
                self.rollouts.devices_changed();
                self.devices.see(*instance)
            }
            Object::Pod(pod) => {
                let ended = pod.ended.is_some();
                let mut keys: Vec<JobKey> = self.see_pod(*pod).into_iter().collect();
                // The end of a Pod releases its device, for which jobs of any namespace may wait.
                if ended {
                    keys.extend(self.waiting_jobs());
                }
                keys
            }
            Object::Service(service) => self.see_service(*service).into_iter().collect(),
        }
    }

    fn lose(&mut self, last: Object, uid: &str, now: Timestamp) -> Vec<JobKey> {
        match last {
            Object::Job(job) => {
                self.note_departure(uid, &job.resource_version);
                self.miss(&Subject::Job(job.key), uid)
            }
            Object::Rollout(cached) => {
                self.note_departure(uid, &cached.resource_version);
                self.miss(&Subject::Rollout(cached.key()), uid)
            }
            Object::Instance(_) => {
                self.rollouts.devices_changed();
                self.devices.lose(uid)
            }
            Object::Pod(pod) => {
                let (job, name) = (pod.job.clone(), pod.name.clone());
                self.note_departure(uid, &pod.resource_version);
                // The state in the deletion event may be the only one that shows the end of the
                // Pod: its container can end and the Pod be deleted between two events.
                self.see_pod(*pod);
                self.lose_pod(&job, &name, uid, now);
                let mut keys = self.waiting_jobs();
                keys.push(job);
                keys
            }
            Object::Service(service) => {
                self.note_departure(uid, &service.resource_version);
                self.lose_service(&service.job, &service.name, uid);
                vec![service.job]
            }
        }
    }

    fn miss(&mut self, subject: &Subject, uid: &str) -> Vec<JobKey> {
        match subject {
            Subject::Job(key) => {
                let job = self.jobs.get(key).filter(|job| job.uid == uid).cloned();
                if let Some(job) = job {
                    // A response to one of our requests may still arrive.
                    self.note_departure(uid, &job.resource_version);
                    self.forget_job(key);
                }
                self.waiting_jobs()
            }
            Subject::Rollout(key) => {
                let cached = self.rollouts.get(key).filter(|cached| cached.rollout.uid == uid);
                if let Some(cached) = cached.cloned() {
                    self.note_departure(uid, &cached.resource_version);
                    self.rollouts.forget(key);
                }
                self.children_that_wait(uid)
            }
        }
    }

    fn see_deleting(&mut self, object: Object) {
        match object {
            Object::Pod(pod) => self.see_deleted_pod(*pod),
            Object::Service(service) => self.see_deleted_service(*service),
            _ => {}
        }
    }

    /// Forgets objects that a new list does not contain: they were deleted while no watch was
    /// running.
    fn forget_unlisted(
        &mut self,
        kind: Kind,
        listed: &HashSet<String>,
        now: Timestamp,
    ) -> Vec<JobKey> {
        let mut keys = Vec::new();
        match kind {
            Kind::Job => {
                let jobs = self.jobs.values().filter(|job| !listed.contains(&job.uid));
                let job_keys: Vec<JobKey> = jobs.map(|job| job.key.clone()).collect();
                job_keys.iter().for_each(|key| self.forget_job(key));
                keys.extend(self.waiting_jobs());
            }
            Kind::Rollout => {
                let rollouts = self.rollouts.all();
                let rollouts = rollouts.filter(|cached| !listed.contains(&cached.rollout.uid));
                let rollouts: Vec<_> = rollouts.map(Arc::clone).collect();
                for cached in rollouts {
                    self.rollouts.forget(&cached.key());
                    keys.extend(self.children_that_wait(&cached.rollout.uid));
                }
                self.rollouts.all_due();
            }
            Kind::Instance => {
                for uid in self.devices.not_in(listed) {
                    keys.extend(self.devices.lose(&uid));
                }
            }
            Kind::Pod => {
                for (job, name, uid) in self.pods_not_in(listed) {
                    self.lose_pod(&job, &name, &uid, now);
                    keys.push(job);
                }
                keys.extend(self.waiting_jobs());
            }
            Kind::Service => {
                for (job, name, uid) in self.services_not_in(listed) {
                    self.lose_service(&job, &name, &uid);
                    keys.push(job);
                }
            }
        }
        keys
    }

    fn note_job(&mut self, job: JobKey, outcome: JobOutcome) -> Vec<JobKey> {
        let Some(memory) = self.memory.get_mut(&job) else { return Vec::new() };
        if note(memory, outcome) { vec![job] } else { Vec::new() }
    }

    fn note_rollout(&mut self, rollout: RolloutKey, outcome: RolloutOutcome) -> Vec<Subject> {
        let Some(memory) = self.rollouts.memory.get_mut(&rollout) else { return Vec::new() };
        match outcome {
            RolloutOutcome::Step(step, outcome) => {
                let is_done = outcome == StepOutcome::Done;
                memory.note(&step, outcome);
                if is_done {
                    memory.release(&step);
                }
            }
            RolloutOutcome::StepReleased(step) => memory.release(&step),
            RolloutOutcome::Written(written) => {
                memory.pace.wrote(written.at, written.took);
                memory.dropped = written.dropped.map(|dropped| *dropped);
            }
        }
        vec![Subject::Rollout(rollout)]
    }
}

/// Applies an outcome. Returns true if the job is to be planned because of it.
fn note(memory: &mut Memory, outcome: JobOutcome) -> bool {
    match outcome {
        // The outcome of the step follows.
        JobOutcome::Accepted(name) => {
            memory.accept(&name);
            return false;
        }
        JobOutcome::Refused(name, refusal) => {
            memory.refuse(&name, refusal);
            return false;
        }
        JobOutcome::Protected(is_protected) => {
            memory.is_protected = Some(is_protected);
            return false;
        }
        JobOutcome::StepDone(step) => {
            memory.count(&step, None);
            memory.end(&step.key());
        }
        JobOutcome::StepFailed(step, error) => {
            memory.count(&step, Some(error));
        }
        JobOutcome::StepReleased(step) => memory.end(&step),
        JobOutcome::Built(device, built) => {
            memory.answers_mut().built.insert(device, Arc::new(*built));
        }
        JobOutcome::Judged(pod, judged) => {
            memory.answers_mut().judged.insert(pod, Arc::new(*judged));
        }
        JobOutcome::OutOfService(plugin, until) => {
            memory.answers_mut().out_of_service.insert(plugin, until);
        }
        JobOutcome::QuestionReleased(question) => {
            memory.asked.remove(&question);
        }
        JobOutcome::Written(written) => {
            memory.pace.wrote(written.at, written.took);
            memory.dropped = written.dropped.map(|dropped| *dropped);
        }
        JobOutcome::WritesSettled(job) => memory.writes_are_settled(&job),
    }
    true
}

#[cfg(test)]
mod tests;
