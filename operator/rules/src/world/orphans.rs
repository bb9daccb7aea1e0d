//! Pods in deletion whose FlashJob is gone. The Pod of a dead node stays for as long as the node,
//! but it keeps its device locked only until even a kubelet without connection has ended its
//! container.

use hashbrown::HashMap;
use jiff::Timestamp;

use crate::flashjob::observed::{JobKey, Pod, after};

/// Pods in deletion whose FlashJob is gone, by uid.
#[derive(Debug, Default)]
pub struct Orphans(HashMap<String, Orphan>);

#[derive(Debug)]
struct Orphan {
    job: JobKey,
    job_uid: String,
    /// Seconds from when it was first observed until its container has ended.
    overdue_seconds: i64,
    /// End of that time; None until the first snapshot after it was observed. A restart makes it
    /// later, never earlier.
    ends_at: Option<Timestamp>,
    has_ended: bool,
}

impl Orphans {
    /// Notes the state of a Pod; `has_job` is true if its FlashJob exists. Returns true if the Pod
    /// is an orphan whose time has passed.
    pub fn note(&mut self, pod: &Pod, has_job: bool) -> bool {
        // No kubelet starts a Pod that is being deleted. A Pod of the Go operator has no deadline.
        if has_job || !pod.deleting || !pod.is_ours() || pod.ended.is_some() {
            self.forget(&pod.uid);
            return false;
        }
        let orphan = self.0.entry(pod.uid.clone()).or_insert_with(|| Orphan {
            job: pod.job.clone(),
            job_uid: pod.job_uid.clone(),
            overdue_seconds: pod.overdue_seconds(),
            ends_at: None,
            has_ended: false,
        });
        orphan.has_ended
    }

    /// Notes that nothing of a Pod can be running, if it is one of these.
    pub fn end(&mut self, uid: &str) {
        if let Some(orphan) = self.0.get_mut(uid) {
            orphan.has_ended = true;
        }
    }

    /// Forgets a Pod that the API server no longer has.
    pub fn forget(&mut self, uid: &str) {
        self.0.remove(uid);
    }

    /// Returns the uids of the Pods of which nothing can be running from now on. `has_job` tells
    /// whether there is a FlashJob of that name and uid: a list of Pods may arrive before that of
    /// the FlashJobs.
    pub fn take_ended(
        &mut self,
        has_job: impl Fn(&JobKey, &str) -> bool,
        now: Timestamp,
    ) -> Vec<String> {
        self.0.retain(|_, orphan| !has_job(&orphan.job, &orphan.job_uid));
        let mut ended = Vec::new();
        for (uid, orphan) in self.0.iter_mut().filter(|(_, orphan)| !orphan.has_ended) {
            let seconds = orphan.overdue_seconds;
            let ends_at = *orphan.ends_at.get_or_insert_with(|| after(now, seconds));
            if ends_at <= now {
                orphan.has_ended = true;
                ended.push(uid.clone());
            }
        }
        ended
    }

    /// Time at which the next of these Pods releases its device.
    pub fn next_end(&self) -> Option<Timestamp> {
        let open = self.0.values().filter(|orphan| !orphan.has_ended);
        open.filter_map(|orphan| orphan.ends_at).min()
    }
}
