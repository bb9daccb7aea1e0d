//! Group budget: limits the devices in flight behind one node or gateway, across this job and all
//! others.

use flashjob_api::{DeviceState, GroupLimit};
use hashbrown::HashMap;

use super::draft::Draft;
use crate::count::counted;
use crate::flashjob::observed::after;

/// Seconds after which a job whose groups are full is planned again: a device of another job may
/// have begun its verification, which triggers no event.
const LOOK_AGAIN_SECONDS: i64 = 2;

/// Groups with the number of their devices in flight.
pub(super) struct Groups<'a> {
    limit: &'a GroupLimit,
    in_flight: HashMap<String, usize>,
}

impl<'a> Draft<'a> {
    /// The groups of this job. None: it has no group budget.
    pub(super) fn groups(&self) -> Option<Groups<'a>> {
        let limit = self.spec.group_limit.as_ref()?;
        let mut groups = Groups { limit, in_flight: self.observed.in_flight_of_others.clone() };
        for record in self.records.values().filter(|record| self.is_in_flight(record)) {
            groups.count(self.groups_of(&record.uid, limit));
        }
        // Their beginning may still be stored, also if they cannot start now.
        for uid in self.observed.beginning.iter().filter(|uid| self.is_waiting(uid)) {
            groups.count(self.groups_of(uid, limit));
        }
        Some(groups)
    }

    /// Returns true if the device has neither a result nor a begun attempt.
    fn is_waiting(&self, uid: &str) -> bool {
        let record = self.records.get(uid);
        self.is_in_spec(uid)
            && self.result(uid).is_none()
            && record.is_none_or(|record| record.state == DeviceState::Pending)
    }

    fn groups_of(&self, uid: &str, limit: &GroupLimit) -> Vec<&'a str> {
        // Akri deletes the Instance of a device that restarts, which still is in flight.
        let current = self.instance(uid).filter(|instance| !instance.nodes.is_empty());
        let instance = current.or_else(|| self.observed.last_instances.get(uid));
        instance.map(|instance| instance.groups(&limit.key)).unwrap_or_default()
    }

    /// Counts a device as in flight in its groups. If a group is full, returns a message instead.
    pub(super) fn join(&mut self, uid: &str, groups: &mut Groups<'a>) -> Result<(), String> {
        // It is counted already.
        if self.observed.beginning.contains(uid) {
            return Ok(());
        }
        let device_groups = self.groups_of(uid, groups.limit);
        let most = groups.limit.most;
        let is_full =
            |group: &&&str| groups.in_flight.get(**group).is_some_and(|count| *count >= most);
        if let Some(full) = device_groups.iter().find(is_full) {
            self.wake(after(self.now(), LOOK_AGAIN_SECONDS));
            return Err(format!(
                "{} of group {full} in flight across all FlashJobs",
                counted(most, "device")
            ));
        }
        // Counted at once: devices that start later in this same plan must see it.
        groups.count(device_groups);
        Ok(())
    }
}

impl Groups<'_> {
    fn count(&mut self, groups: Vec<&str>) {
        for group in groups {
            *self.in_flight.entry(group.to_owned()).or_default() += 1;
        }
    }
}
