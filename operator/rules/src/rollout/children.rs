//! Copies the results of FlashJobs into the lists of members, each once.

use flashjob_api::{DeviceStatus, ShardStatus, VerifyMode, reason};
use hashbrown::HashMap;

use super::draft::Draft;
use super::member_states::{Member, places};
use super::snapshot::Child;

/// Reason for a failure that the FlashJob's status no longer names.
const UNNAMED: &str = "DeviceFailed";

/// Meaning of one result of a FlashJob.
enum Outcome {
    Is(Member, Option<String>),
    /// Its device was absent; decided when the FlashJob has ended.
    Absent,
    /// Never started; another FlashJob takes over the device.
    Left,
}

/// Reason for a failure whose record is not listed in the FlashJob's status: certain only if all
/// failures have the same reason.
fn unnamed<'a>(child: &Child<'a>) -> &'a str {
    let fails = |name: &&String| {
        reason::by_name(name).is_none_or(|reason| reason.effect != reason::Effect::Skipped)
    };
    let mut causes = child.status.reasons.keys().filter(fails);
    match (causes.next(), causes.next()) {
        (Some(only), None) => only,
        _ => UNNAMED,
    }
}

impl<'a> Draft<'a> {
    /// The FlashJob of a shard.
    pub fn child(&self, batch: usize, shard: &ShardStatus) -> Option<&'a Child<'a>> {
        self.children.get(self.child_name(batch, shard).as_str()).copied()
    }

    /// Reads all results, and closes the shards whose FlashJob has ended or was deleted.
    pub fn follow(&mut self) {
        for (batch, shard) in self.shards() {
            // Places shift when an earlier shard is closed.
            let now = self.lists[batch].shards.iter().find(|other| other.number == shard.number);
            let Some(shard) = now.copied() else { continue };
            match self.child(batch, &shard) {
                Some(child) => self.follow_child(batch, &shard, child),
                None if self.was_deleted(batch, &shard) => self.close(batch, &shard, &[]),
                None => {}
            }
        }
    }

    /// Returns true if a missing FlashJob was deleted: it has left results. Without results it may
    /// not have been created yet, and is created under the same name.
    fn was_deleted(&self, batch: usize, shard: &ShardStatus) -> bool {
        let states = &self.lists[batch].states[places(shard)];
        !self.goes_on || !states.iter().all(|state| state.awaits_result())
    }

    /// Returns true if all results of the FlashJobs are stored. Absence does not count: it is
    /// decided when a FlashJob ends.
    pub fn has_stored_results(mut self) -> bool {
        for (batch, shard) in self.shards() {
            if let Some(child) = self.child(batch, &shard) {
                let sound = self.is_sound(batch, &shard, child);
                self.read_child(batch, &shard, child, sound);
            }
        }
        (0..self.lists.len()).all(|batch| self.is_stored(batch))
    }

    /// Reads the results of a FlashJob. Returns the places of devices that were absent.
    fn read_child(
        &mut self,
        batch: usize,
        shard: &ShardStatus,
        child: &'a Child<'a>,
        sound: bool,
    ) -> Vec<usize> {
        let mut absent = Vec::new();
        if self.speaks_of_this_run(child) {
            let uids = self.uids(batch, shard, child, sound);
            self.note_begun(batch, child, &uids);
            self.read(batch, child, &uids, &mut absent);
        }
        absent
    }

    fn follow_child(&mut self, batch: usize, shard: &ShardStatus, child: &'a Child<'a>) {
        let sound = self.is_sound(batch, shard, child);
        let absent = self.read_child(batch, shard, child, sound);
        if !sound && !child.deleting {
            self.edited.push(child);
        } else if child.has_ended() && !child.deleting && self.speaks_of_this_run(child) {
            self.close(batch, shard, &absent);
        }
    }

    /// Notes which devices this run has begun to flash, in case the FlashJob is lost.
    fn note_begun(&mut self, batch: usize, child: &Child<'_>, uids: &HashMap<&str, usize>) {
        for record in child.status.devices.iter().filter(|record| record.has_begun()) {
            if let Some(&place) = uids.get(record.uid.as_str()) {
                let state = &mut self.lists[batch].states[place];
                *state = state.tried();
            }
        }
    }

    /// Place in the list, by uid: follows the order of the FlashJob's uids; if these were edited,
    /// the uids that the devices have now.
    fn uids(
        &self,
        batch: usize,
        shard: &ShardStatus,
        child: &'a Child<'a>,
        sound: bool,
    ) -> HashMap<&'a str, usize> {
        if sound {
            return child.spec.uuid.iter().map(String::as_str).zip(places(shard)).collect();
        }
        let names = &self.lists[batch].names;
        places(shard).filter_map(|place| Some((self.device(names[place])?.uid, place))).collect()
    }

    fn read(
        &mut self,
        batch: usize,
        child: &'a Child<'a>,
        uids: &HashMap<&'a str, usize>,
        absent: &mut Vec<usize>,
    ) {
        let status = child.status;
        let records: HashMap<&str, &DeviceStatus> =
            status.devices.iter().map(|device| (device.uid.as_str(), device)).collect();
        let lists = [
            (&status.completed_uuids, Member::Completed),
            (&status.failed_uuids, Member::Failed),
            (&status.skipped_uuids, Member::Skipped),
        ];
        for (list, kind) in lists {
            for uid in list {
                let Some(&place) = uids.get(uid.as_str()) else { continue };
                // Stored results are counted already, and a device that is to be retried has
                // already failed.
                let state = self.lists[batch].states[place];
                if !state.awaits_result() {
                    continue;
                }
                let record = records.get(uid.as_str()).copied();
                let name = self.lists[batch].names[place];
                let cause = record
                    .and_then(|record| record.reason.as_deref())
                    .unwrap_or_else(|| unnamed(child));
                match self.outcome(kind, state, name, child, record) {
                    Outcome::Absent => absent.push(place),
                    Outcome::Left => {}
                    Outcome::Is(member, message) => {
                        self.lists[batch].states[place] = member;
                        match member {
                            Member::Failed => self.fail(batch, name, cause, message),
                            Member::Skipped if record.is_some() => self.count(cause),
                            Member::Skipped => self.count(reason::ALREADY_CURRENT.name),
                            _ => {}
                        }
                    }
                }
            }
        }
    }

    fn outcome(
        &self,
        kind: Member,
        state: Member,
        member: &str,
        child: &Child<'_>,
        record: Option<&DeviceStatus>,
    ) -> Outcome {
        let cause = record.and_then(|record| record.reason.as_deref());
        let message = record.and_then(|record| record.message.clone());
        let some = |reason: flashjob_api::Reason| child.status.reasons.contains_key(reason.name);
        let reports = || self.device(member).and_then(|device| device.version);
        match kind {
            Member::Completed => {
                // Only Required guarantees a report. In the other modes the proof is the version
                // that the device reports when its result is read.
                let mode = child.spec.verify.as_ref().and_then(|verify| verify.mode);
                let proven = mode == Some(VerifyMode::Required) || reports() == Some(self.version);
                let state = if proven { Member::Completed } else { Member::Unverified };
                Outcome::Is(state, None)
            }
            Member::Failed => {
                // The FlashJob lists up to 100 failed devices; for the others only the counts by
                // reason are known.
                let is_absent = match record {
                    Some(record) => {
                        cause == Some(reason::UNKNOWN_DEVICE.name) && record.attempt <= 1
                    }
                    None => some(reason::UNKNOWN_DEVICE) && self.present(member).is_none(),
                };
                if is_absent { Outcome::Absent } else { Outcome::Is(Member::Failed, message) }
            }
            _ => {
                let is_left = match cause {
                    Some(cause) => cause == reason::JOB_STOPPED.name,
                    None => some(reason::JOB_STOPPED) && reports() != Some(self.version),
                };
                // The version was flashed by this run: one of its FlashJobs had begun, and was
                // edited or deleted before it stored the result.
                let is_current = match cause {
                    Some(cause) => cause == reason::ALREADY_CURRENT.name,
                    None => some(reason::ALREADY_CURRENT) && reports() == Some(self.version),
                };
                match (is_left, state.is_tried() && is_current) {
                    (true, _) => Outcome::Left,
                    (_, true) => Outcome::Is(Member::Completed, None),
                    _ => Outcome::Is(Member::Skipped, message),
                }
            }
        }
    }

    /// Ends a shard: devices without a result move to the end of a list, for another FlashJob.
    fn close(&mut self, batch: usize, shard: &ShardStatus, absent: &[usize]) {
        self.lists[batch].shards.retain(|other| other.number != shard.number);
        if !self.goes_on {
            for &place in absent {
                self.lists[batch].states[place] = Member::Absent;
            }
            return;
        }
        let states = &self.lists[batch].states;
        let open: Vec<usize> = places(shard).filter(|place| states[*place].is_open()).collect();
        let is_absent: Vec<bool> = open.iter().map(|place| absent.contains(place)).collect();
        let entries = self.lists[batch].take(&open);
        for ((name, state), is_absent) in entries.into_iter().zip(is_absent) {
            match state {
                _ if is_absent => self.move_absent(batch, name, state),
                Member::Retry => self.lists[batch].push(name, Member::Tried),
                state => self.lists[batch].push(name, state),
            }
        }
    }

    /// Moves an absent device to the end of the last batch, where it gets one more chance.
    pub fn move_absent(&mut self, batch: usize, name: &'a str, state: Member) {
        let last = self.last();
        let state = match state.after_absence() {
            Some(again) => again,
            None if batch == last => Member::Absent,
            None => state,
        };
        self.lists[last].push(name, state);
    }
}
