//! Addresses that are unused but still reserved: the Service of a failed attempt keeps its address
//! for a while, as its device may still connect to it.

use flashjob_api::reason;
use jiff::Timestamp;

use super::{Memory, World};
use crate::flashjob::observed::{Finish, Job, Service, after};

impl World {
    /// Addresses that failed attempts of any job keep, where a device of this job is known to wait
    /// for one; sorted.
    pub(super) fn kept_addresses(&self, waiting: &Job, now: Timestamp) -> Vec<String> {
        if !waiting.status.waiting.contains_key(reason::WAITING_FOR_ADDRESS.name) {
            return Vec::new();
        }
        let mut kept: Vec<String> = self
            .services
            .iter()
            .filter_map(|(key, services)| {
                Some((self.jobs.get(key)?, self.memory.get(key)?, services))
            })
            .flat_map(|(job, memory, services)| {
                services.values().filter(move |service| self.is_kept(job, memory, service, now))
            })
            .flat_map(|service| service.addresses.iter().map(|address| address.text.clone()))
            .collect();
        kept.sort();
        kept.dedup();
        kept
    }

    fn is_kept(&self, job: &Job, memory: &Memory, service: &Service, now: Timestamp) -> bool {
        if service.deleting || service.job_uid != job.uid {
            return false;
        }
        let slot = service.slot.as_ref().filter(|_| service.pool.is_some());
        let last = slot.and_then(|slot| memory.slot_uses.get(slot));
        let (device, attempt, since) = match last {
            Some(last) => (Some(&last.device), last.attempt, Some(last.last_seen)),
            None => {
                let since = memory.idle_services.get(&service.name).copied();
                (service.device.as_ref(), service.attempt, since)
            }
        };
        let (Some(device), Some(since)) = (device, since) else { return false };
        let has_failed = job.result(device) == Some(Finish::Failed)
            || job.record(device).is_some_and(|record| Some(record.attempt) > attempt);
        has_failed && after(since, self.rules.periods.late_callback_seconds) > now
    }
}
