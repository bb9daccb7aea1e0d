//! Hands the devices of a batch to FlashJobs: at most 1,000 to each, the next when the one before
//! can no longer use all places.

use flashjob_api::ShardStatus;

use super::draft::Draft;
use super::status::{Member, places};

/// Most devices of one FlashJob: its status holds a uid for each.
pub(super) const MOST_OF_SHARD: usize = 1000;

impl<'a> Draft<'a> {
    /// Begins another shard, where devices wait for one. Returns true if it did.
    pub(super) fn begin_shard(&mut self, batch: usize) -> bool {
        let list = &self.lists[batch];
        let working = |shard: &ShardStatus| {
            list.states[places(shard)].iter().filter(|state| state.is_open()).count()
        };
        let working: usize = list.shards.iter().map(working).sum();
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

    /// Sorts the part of a list that no FlashJob works on: those with a result, those that are
    /// next, the others; each in their order. Those that are away now go to the end of the last
    /// batch. Returns how many are next.
    fn line_up(&mut self, batch: usize, first: usize) -> usize {
        let names = self.lists[batch].names.split_off(first);
        let states = self.lists[batch].states.split_off(first);
        let (mut finals, mut next, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let mut absent = Vec::new();
        for entry in names.into_iter().zip(states) {
            let (name, state) = entry;
            if !state.is_open() {
                finals.push(entry);
            } else if next.len() == MOST_OF_SHARD {
                others.push(entry);
            } else if self.present(name).is_some() {
                next.push(entry);
            } else {
                absent.push(entry);
            }
        }
        let count = next.len();
        let list = &mut self.lists[batch];
        for (name, state) in finals.into_iter().chain(next).chain(others) {
            list.push(name, state);
        }
        for (name, state) in absent {
            self.move_absent(batch, name, state);
        }
        count
    }

    /// Tries devices again that failed, were absent or went back. Those of the batch in progress go
    /// to its end, those of batches that passed to the end of the last one.
    pub(super) fn try_again(&mut self) {
        let current = self.current();
        let mut again = Vec::new();
        let mut in_progress = 0;
        for batch in 0..self.lists.len() {
            let is_again = |state: Member| {
                matches!(state, Member::Failed | Member::Absent | Member::Regressed)
            };
            let inside = self.lists[batch].in_shards();
            let mut outside = Vec::new();
            for place in 0..self.lists[batch].states.len() {
                if !is_again(self.lists[batch].states[place]) {
                    continue;
                }
                in_progress += usize::from(batch == current);
                if inside[place] {
                    self.lists[batch].states[place] = Member::Retry;
                } else {
                    outside.push(place);
                }
            }
            let target = if batch == current { current } else { self.last() };
            let taken = self.lists[batch].take(&outside);
            again.extend(taken.into_iter().map(|(name, _)| (target, name)));
        }
        self.forget_failures();
        for (target, name) in again {
            self.lists[target].push(name, Member::Open);
            self.reopen(target);
        }
        // Nobody of a batch that proved nothing can be tried again: then the person goes on
        // without that proof.
        if in_progress == 0 && self.proved_nothing(current) {
            self.pass(current);
        }
    }
}
