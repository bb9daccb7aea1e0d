//! Distributes parallelism and the failure budget over the open FlashJobs.
//!
//! A FlashJob observes a change with a delay, so a place is given to it only once no other
//! FlashJob is observed to use it.

use flashjob_api::ShardStatus;

use super::draft::Draft;
use super::make::Allowance;
use super::member_states::places;
use super::plan::Step;
use super::snapshot::Child;

/// One open shard.
struct Live<'a> {
    batch: usize,
    shard: ShardStatus,
    child: Option<&'a Child<'a>>,
    open: usize,
}

/// Number of devices that a FlashJob may have begun before it is next observed.
fn usage(child: &Child<'_>) -> usize {
    if child.has_ended() || (child.is_observed() && child.spec.suspend == Some(true)) {
        return if child.has_ended() { 0 } else { child.begun_devices() };
    }
    // Between two observations it can start as many devices as it was granted. 10 is the default
    // of `parallelism`.
    let granted = usize::try_from(child.spec.parallelism.unwrap_or(10)).unwrap_or(1);
    granted.max(child.places())
}

impl<'a> Draft<'a> {
    /// Maximum number of devices in flight or verifying.
    pub(super) fn most_in_flight(&self, batch: usize) -> usize {
        let batch_limit = self.policy(batch).parallelism.unwrap_or(usize::MAX);
        batch_limit.min(self.spec.parallelism)
    }

    fn live(&self) -> Vec<Live<'a>> {
        let sound =
            |child: &&Child<'_>| !self.edited.iter().any(|edited| edited.name == child.name);
        let shards = self.shards().into_iter();
        shards
            .map(|(batch, shard)| {
                let states = &self.lists[batch].states[places(&shard)];
                let open = states.iter().filter(|state| state.is_open()).count();
                Live { batch, shard, child: self.child(batch, &shard), open }
            })
            .filter(|live| live.child.is_none_or(|child| sound(&child)))
            .collect()
    }

    /// Creates the FlashJobs whose shards are stored, and gives every open one its share; with
    /// `hold` none gets a share. Returns the name of a FlashJob that exists and does not belong to
    /// this rollout, if there is one.
    pub(super) fn share(&mut self, current: usize, hold: bool) -> Option<String> {
        let live = self.live();
        let most = if hold { 0 } else { self.most_in_flight(current) };
        let mut used: usize = self.snapshot.children.iter().map(usage).sum();
        let mut remainder = most;
        let mut taken_name = None;
        for (place, open) in live.iter().enumerate() {
            // The last FlashJob gets the remainder, so that its share does not change with each
            // device.
            let share = if place + 1 == live.len() { remainder } else { open.open.min(remainder) };
            remainder -= share;
            let granted = self.grant(open, share, most, &mut used);
            let max_failed = self.max_failed(open);
            match open.child {
                Some(child) if child.has_ended() || child.deleting => {}
                Some(child) => {
                    let suspend = granted == 0;
                    // Its parallelism is unchanged while it is suspended: less to write, and to
                    // explain.
                    let parallelism = if suspend { stored_parallelism(child) } else { granted };
                    let allowance = Allowance { parallelism, suspend, max_failed };
                    self.restore(open.batch, &open.shard, child, allowance);
                }
                None if granted == 0 || !self.is_in_store(open.batch, &open.shard) => {}
                None => {
                    let name = self.child_name(open.batch, &open.shard);
                    if self.snapshot.world.is_taken(&name) {
                        taken_name = Some(name);
                        continue;
                    }
                    let allowance = Allowance { parallelism: granted, suspend: false, max_failed };
                    let job = self.new_child(open.batch, &open.shard, allowance);
                    self.step(Step::CreateChild(Box::new(job)));
                }
            }
        }
        taken_name
    }

    /// Returns how much of its share a FlashJob gets now. A decrease applies at once, an increase
    /// only if no other FlashJob can still use those places.
    fn grant(&self, open: &Live<'_>, share: usize, most: usize, used: &mut usize) -> usize {
        let current = match open.child {
            Some(child) if child.spec.suspend != Some(true) => stored_parallelism(child),
            _ => 0,
        };
        if share <= current {
            return share;
        }
        let children = self.snapshot.children.iter();
        let own_name = open.child.map(|child| child.name);
        // A FlashJob that is being deleted starts nothing, and may never be observed again.
        let mut unobserved = children.filter(|child| {
            Some(child.name) != own_name && !child.is_observed() && !child.deleting
        });
        if unobserved.next().is_some() {
            return current.min(share);
        }
        let own_usage = open.child.map_or(0, usage);
        let room = most.saturating_sub(used.saturating_sub(own_usage));
        let granted = share.min(room).max(current);
        *used = used.saturating_sub(own_usage) + own_usage.max(granted);
        granted
    }

    /// Failures that a FlashJob may have: those that it has, plus the rest of its batch's budget.
    fn max_failed(&self, open: &Live<'_>) -> usize {
        let own_failures = open.child.map_or(0, |child| child.status.failed_uuids.len());
        (own_failures + self.allowed_failures(open.batch))
            .saturating_sub(self.failures(open.batch))
    }

    /// Returns true if the shard is stored: only then may its FlashJob be created.
    fn is_in_store(&self, batch: usize, shard: &ShardStatus) -> bool {
        let stored = self.stored.members.get(batch);
        let same = |other: &&ShardStatus| other.number == shard.number;
        let stored = stored.and_then(|list| list.shards.iter().find(same).map(|at| (list, at)));
        stored.is_some_and(|(list, at)| {
            list.instances.get(places(at)).is_some_and(|names| {
                names.iter().eq(self.lists[batch].names[places(shard)].iter())
            })
        })
    }
}

fn stored_parallelism(child: &Child<'_>) -> usize {
    usize::try_from(child.spec.parallelism.unwrap_or(10)).unwrap_or(1)
}
