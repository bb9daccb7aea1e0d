//! Locks on devices. The locks of a plan are taken in the same step as the plan, so no two jobs
//! can choose the same device.

use std::borrow::Borrow;
use std::collections::BTreeSet;

use hashbrown::HashMap;

use crate::flashjob::observed::{Holder, Identity, Instance, JobKey, Pod};

/// The table of locked devices.
#[derive(Debug, Default)]
pub struct Locks {
    held: HashMap<Identity, Vec<Holder>>,
    of_job: HashMap<JobKey, Vec<(Identity, String)>>,
    /// Devices of Pods that may be running, no matter which operator created them, by the Pod's
    /// uid.
    pods: HashMap<String, PodLock>,
    by_pod: HashMap<Identity, Vec<String>>,
}

#[derive(Debug)]
struct PodLock {
    name: String,
    identities: Vec<Identity>,
    holder: Holder,
    /// Uid of the job that owns the Pod.
    job_uid: String,
}

impl Locks {
    /// Replaces the locks of a job. Returns true if any was released.
    pub fn set(&mut self, job: &JobKey, mut holds: Vec<(Identity, String)>) -> bool {
        holds.sort();
        holds.dedup();
        let before = self.of_job.remove(job).unwrap_or_default();
        // Both lists are sorted. A plan changes few of the locks of a large job.
        let mut has_released = false;
        for (identity, uid) in before.iter().filter(|hold| holds.binary_search(hold).is_err()) {
            has_released = true;
            if let Some(holders) = self.held.get_mut(identity) {
                holders.retain(|holder| holder.job != *job || holder.uid != *uid);
                if holders.is_empty() {
                    self.held.remove(identity);
                }
            }
        }
        for (identity, uid) in holds.iter().filter(|hold| before.binary_search(hold).is_err()) {
            self.held.entry(identity.clone()).or_default().push(Holder::new(job, uid));
        }
        if !holds.is_empty() {
            self.of_job.insert(job.clone(), holds);
        }
        has_released
    }

    /// Locks the device of a Pod that may be running, even if no job has locked it.
    pub fn see_pod(&mut self, pod: &Pod) {
        self.forget_pod(&pod.uid);
        // Without an identity nothing can be locked; the plan still finds such a Pod by the uid of
        // its device.
        if !pod.may_run() || pod.identities.is_empty() {
            return;
        }
        for identity in &pod.identities {
            self.by_pod.entry(identity.clone()).or_default().push(pod.uid.clone());
        }
        let lock = PodLock {
            name: pod.name.clone(),
            identities: pod.identities.clone(),
            holder: Holder::new(&pod.job, &pod.device),
            job_uid: pod.job_uid.clone(),
        };
        self.pods.insert(pod.uid.clone(), lock);
    }

    /// Releases the lock of a Pod that can no longer be running. Returns true if it had one.
    pub fn forget_pod(&mut self, uid: &str) -> bool {
        let Some(lock) = self.pods.remove(uid) else { return false };
        for identity in lock.identities {
            if let Some(uids) = self.by_pod.get_mut(&identity) {
                uids.retain(|other| other != uid);
                if uids.is_empty() {
                    self.by_pod.remove(&identity);
                }
            }
        }
        true
    }

    /// Returns true if this Pod locks its device.
    #[must_use]
    pub fn has_pod(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// Devices that jobs have locked, as job and uid, each once.
    pub fn held_devices(&self) -> impl Iterator<Item = (&JobKey, &str)> {
        self.of_job.iter().flat_map(|(job, holds)| {
            let uids: BTreeSet<&str> = holds.iter().map(|(_, uid)| uid.as_str()).collect();
            uids.into_iter().map(move |uid| (job, uid))
        })
    }

    /// Returns true if any identity of an Instance is locked. `text` is a buffer to reuse, because
    /// this is called for every waiting device.
    #[must_use]
    pub fn is_locked(&self, instance: &Instance, text: &mut String) -> bool {
        let is_held = |identity: &str| {
            self.held.contains_key(identity) || self.by_pod.contains_key(identity)
        };
        Identity::write_instance(text, &instance.namespace, &instance.name);
        is_held(text) || is_held(instance.identity.borrow())
    }

    /// Holder of the device, other than this job and uid.
    #[must_use]
    pub fn holder(&self, identity: &Identity, job: &JobKey, uid: &str) -> Option<Holder> {
        let is_other = |holder: &&Holder| holder.job != *job || holder.uid != uid;
        let holder = self.held.get(identity).into_iter().flatten().find(is_other);
        let pods = self.by_pod.get(identity).into_iter().flatten();
        holder
            .or_else(|| {
                let locks = pods.filter_map(|pod| self.pods.get(pod));
                locks.map(|lock| &lock.holder).find(is_other)
            })
            .cloned()
    }

    /// Holder of the device whose Pod belongs to a deleted FlashJob of the same name; the Pod may
    /// be flashing it under the same uid.
    #[must_use]
    pub fn predecessor(&self, identity: &Identity, job: &JobKey, job_uid: &str) -> Option<Holder> {
        let pods = self.by_pod.get(identity).into_iter().flatten();
        let mut locks = pods.filter_map(|pod| self.pods.get(pod));
        let lock = locks.find(|lock| lock.holder.job == *job && lock.job_uid != job_uid);
        let of_pod = |lock: &PodLock| Holder {
            predecessor_pod: Some(lock.name.clone()),
            ..lock.holder.clone()
        };
        lock.map(of_pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str) -> JobKey {
        JobKey { namespace: "fleet".into(), name: name.into() }
    }

    #[test]
    fn a_device_is_held_against_every_other_job_and_uid_until_it_is_released() {
        let mut locks = Locks::default();
        let device = Identity::endpoint("10.0.0.7");
        assert!(!locks.set(&job("a"), vec![(device.clone(), "one".into())]));
        assert_eq!(locks.holder(&device, &job("a"), "one"), None);
        assert_eq!(locks.holder(&device, &job("a"), "two"), Some(Holder::new(&job("a"), "one")));
        assert_eq!(locks.holder(&device, &job("b"), "one"), Some(Holder::new(&job("a"), "one")));
        assert!(locks.set(&job("a"), Vec::new()));
        assert_eq!(locks.holder(&device, &job("b"), "one"), None);
    }

    #[test]
    fn a_job_that_releases_one_device_keeps_its_others_and_takes_none_from_another_job() {
        let mut locks = Locks::default();
        let identities = ["10.0.0.7", "10.0.0.8", "10.0.0.9"].map(Identity::endpoint);
        let [first, second, third] = &identities;
        let hold = |identity: &Identity, uid: &str| (identity.clone(), uid.to_owned());
        locks.set(&job("a"), vec![hold(third, "3"), hold(first, "1"), hold(second, "2")]);
        locks.set(&job("b"), vec![hold(first, "1"), hold(second, "2")]);
        assert!(!locks.set(
            &job("a"),
            vec![hold(first, "1"), hold(second, "2"), hold(third, "3"), hold(third, "4")]
        ));
        assert!(locks.set(&job("a"), vec![hold(second, "2"), hold(third, "4")]));
        let holders = identities.each_ref().map(|identity| {
            locks.holder(identity, &job("c"), "").map(|holder| (holder.job.name, holder.uid))
        });
        let by = |name: &str, uid: &str| Some((name.to_owned(), uid.to_owned()));
        assert_eq!(holders, [by("b", "1"), by("a", "2"), by("a", "4")]);
        assert_eq!(locks.holder(second, &job("a"), "2"), Some(Holder::new(&job("b"), "2")));
    }
}
