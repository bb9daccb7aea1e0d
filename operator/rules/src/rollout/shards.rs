//! Assigns the devices of a batch to FlashJobs: at most 1,000 to each; the next is created when
//! the previous one can no longer use all places.

use flashjob_api::ShardStatus;

use super::draft::Draft;
use super::member_states::{Member, places};

/// Maximum number of devices in one FlashJob: its status holds a uid for each. In tests it is so
/// low that random fleets have several FlashJobs per batch.
pub(super) const MOST_OF_SHARD: usize = if cfg!(test) { 10 } else { 1000 };

impl<'a> Draft<'a> {
    /// Begins another shard if devices wait for one. Returns true if it did.
    pub(super) fn begin_shard(&mut self, batch: usize) -> bool {
        let list = &self.lists[batch];
        let working = |shard: &ShardStatus| {
            list.states[places(shard)].iter().filter(|state| state.is_open()).count()
        };
        let working: usize = list.shards.iter().map(working).sum();
        // The next FlashJob is created before this one has ended: its last devices could not use
        // all places.
        if working >= self.most_in_flight(batch) {
            return false;
        }
        let first = list.shards.iter().map(|shard| places(shard).end).max().unwrap_or(0);
        let count = self.line_up(batch, first);
        if count == 0 {
            return false;
        }
        let list = &mut self.lists[batch];
        let finals = list.states[first..].iter().take_while(|state| !state.is_open()).count();
        list.shards_made += 1;
        list.shards.push(ShardStatus {
            number: list.shards_made,
            first: u32::try_from(first + finals).unwrap_or(u32::MAX),
            count: u32::try_from(count).unwrap_or(u32::MAX),
        });
        true
    }

    /// Sorts the part of a list that no FlashJob works on: devices with a result, then those that
    /// are next, then the others, each in their previous order. Absent devices move to the end of
    /// the last batch. Returns the number of devices that are next.
    fn line_up(&mut self, batch: usize, first: usize) -> usize {
        let names = self.lists[batch].names.split_off(first);
        let states = self.lists[batch].states.split_off(first);
        let (mut finals, mut next, mut remainder) = (Vec::new(), Vec::new(), Vec::new());
        let mut absent = Vec::new();
        for entry in names.into_iter().zip(states) {
            let (name, state) = entry;
            if !state.is_open() {
                finals.push(entry);
            } else if next.len() == MOST_OF_SHARD {
                remainder.push(entry);
            } else if self.present(name).is_some() {
                next.push(entry);
            } else {
                absent.push(entry);
            }
        }
        let count = next.len();
        let list = &mut self.lists[batch];
        for (name, state) in finals.into_iter().chain(next).chain(remainder) {
            list.push(name, state);
        }
        for (name, state) in absent {
            self.move_absent(batch, name, state);
        }
        count
    }

    /// Retries devices that failed, were absent or regressed. Those of the batch in progress move
    /// to its end, those of batches that passed to the end of the last one.
    pub(super) fn try_again(&mut self) {
        let current = self.current();
        let mut again = Vec::new();
        let mut in_progress = false;
        for batch in 0..self.lists.len() {
            let target = if batch == current { current } else { self.last() };
            let (waits, entries) = self.take_unsuccessful(batch);
            in_progress |= batch == current && (waits || !entries.is_empty());
            again.extend(entries.into_iter().map(|(name, state)| (target, name, state)));
        }
        self.forget_failures();
        for (target, name, state) in again {
            // A failed device may report the version late, and a regressed one may return to it.
            let state = if state == Member::Absent { Member::Open } else { Member::Tried };
            self.lists[target].push(name, state);
            self.reopen(target);
        }
        // No device of a batch that proved nothing can be retried: then the person's new `retry`
        // means that the run continues without that proof.
        if !in_progress && self.proved_nothing(current) {
            self.pass(current);
        }
    }

    /// Removes devices from a list that failed, were absent or regressed. Devices whose FlashJob
    /// is still open are only marked, because it relies on their places; returns true if any is.
    fn take_unsuccessful(&mut self, batch: usize) -> (bool, Vec<(&'a str, Member)>) {
        let list = &mut self.lists[batch];
        let inside = list.in_shards();
        let mut outside = Vec::new();
        let mut marked = false;
        for (place, (state, inside)) in list.states.iter_mut().zip(inside).enumerate() {
            if !matches!(state, Member::Failed | Member::Absent | Member::Regressed) {
                continue;
            }
            if inside {
                *state = Member::Retry;
                marked = true;
            } else {
                outside.push(place);
            }
        }
        (marked, list.take(&outside))
    }
}
