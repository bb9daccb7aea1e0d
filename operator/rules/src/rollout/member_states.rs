//! Typed members of the batches, and their stored form: a name and one letter each.

use flashjob_api::{BatchMembers, FlashRolloutStatus, ShardStatus};

/// State of one device in its rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// Not tried yet, or in flight.
    Open,
    /// Open, after it was absent once: if it is absent again, that is its result.
    OpenAgain,
    /// Open, and this run has begun to flash it: if its FlashJob is lost before the result is
    /// read, the new version that it reports is the work of this run.
    Tried,
    /// Tried, after it was absent once.
    TriedAgain,
    /// Reported the version.
    Completed,
    /// Completed without proof.
    Unverified,
    /// Failed permanently.
    Failed,
    /// Not flashed.
    Skipped,
    /// Absent when its turn came.
    Absent,
    /// Completed, and later reported another version.
    Regressed,
    /// Failed, and to be retried when its FlashJob has ended.
    Retry,
}

impl Member {
    /// Returns the letter under which the state is stored.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Open => '.',
            Self::OpenAgain => ':',
            Self::Tried => ',',
            Self::TriedAgain => ';',
            Self::Completed => 'C',
            Self::Unverified => 'U',
            Self::Failed => 'F',
            Self::Skipped => 'S',
            Self::Absent => 'A',
            Self::Regressed => 'R',
            Self::Retry => 'T',
        }
    }

    /// Parses a letter. An unknown letter, from a later version, means a device without a result.
    #[must_use]
    pub fn of(letter: char) -> Self {
        match letter {
            ':' => Self::OpenAgain,
            ',' => Self::Tried,
            ';' => Self::TriedAgain,
            'C' => Self::Completed,
            'U' => Self::Unverified,
            'F' => Self::Failed,
            'S' => Self::Skipped,
            'A' => Self::Absent,
            'R' => Self::Regressed,
            'T' => Self::Retry,
            _ => Self::Open,
        }
    }

    /// Returns true if the device still has to be flashed.
    #[must_use]
    pub fn is_open(self) -> bool {
        self.awaits_result() || self == Self::Retry
    }

    /// Returns true if the next result of the device counts. A device that is to be retried has
    /// failed already.
    #[must_use]
    pub fn awaits_result(self) -> bool {
        matches!(self, Self::Open | Self::OpenAgain | Self::Tried | Self::TriedAgain)
    }

    /// Returns true if the device is open, and this run has begun to flash it.
    #[must_use]
    pub fn is_tried(self) -> bool {
        matches!(self, Self::Tried | Self::TriedAgain)
    }

    /// The state once this run has begun to flash the device.
    #[must_use]
    pub fn tried(self) -> Self {
        match self {
            Self::Open => Self::Tried,
            Self::OpenAgain => Self::TriedAgain,
            other => other,
        }
    }

    /// The state of an open device that gets another chance after it was absent. None: it was
    /// absent before.
    #[must_use]
    pub fn after_absence(self) -> Option<Self> {
        match self {
            Self::OpenAgain | Self::TriedAgain => None,
            // Absence does not undo that this run has begun with the device: a new version that it
            // reports later is still the work of this run.
            Self::Tried | Self::Retry => Some(Self::TriedAgain),
            _ => Some(Self::OpenAgain),
        }
    }
}

/// The devices of one batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct List<'a> {
    /// Names, as [`member_name`] writes them.
    pub names: Vec<&'a str>,
    /// State of each.
    pub states: Vec<Member>,
    /// Shards, on each of which one FlashJob works, in order.
    pub shards: Vec<ShardStatus>,
    /// Number of FlashJobs so far.
    pub shards_made: u32,
}

impl<'a> List<'a> {
    /// Parses the stored form. A missing letter means a device without a result, and a shard that
    /// extends past the end of the list is ignored.
    pub(super) fn of(stored: &'a BatchMembers) -> Self {
        let letters =
            stored.results.chars().map(Member::of).chain(std::iter::repeat(Member::Open));
        let length = stored.instances.len();
        let fits = |shard: &&ShardStatus| {
            (shard.first as usize)
                .checked_add(shard.count as usize)
                .is_some_and(|end| end <= length)
        };
        Self {
            // Borrowed: a run has up to 10,000 names, and every plan reads them.
            names: stored.instances.iter().map(String::as_str).collect(),
            states: letters.take(length).collect(),
            shards: stored.shards.iter().filter(fits).copied().collect(),
            shards_made: stored.shards_made,
        }
    }

    /// Returns true if [`Self::store`] would return the same value.
    pub(super) fn is(&self, stored: &BatchMembers) -> bool {
        self.shards_made == stored.shards_made
            && self.shards == stored.shards
            && self.names.len() == stored.instances.len()
            && self.states.iter().map(|state| state.letter()).eq(stored.results.chars())
            && self.names.iter().zip(&stored.instances).all(|(name, stored)| name == stored)
    }

    /// Returns the stored form.
    pub(super) fn store(&self) -> BatchMembers {
        BatchMembers {
            instances: self.names.iter().map(|name| (*name).to_owned()).collect(),
            results: self.states.iter().map(|state| state.letter()).collect(),
            shards: self.shards.clone(),
            shards_made: self.shards_made,
        }
    }

    /// Number of devices in a state.
    pub(super) fn count(&self, member: Member) -> usize {
        self.states.iter().filter(|state| **state == member).count()
    }

    /// Number of devices that still have to be flashed.
    pub(super) fn open(&self) -> usize {
        self.states.iter().filter(|state| state.is_open()).count()
    }

    /// Appends a device.
    pub(super) fn push(&mut self, name: &'a str, state: Member) {
        self.names.push(name);
        self.states.push(state);
    }

    /// Removes and returns devices that no open FlashJob works on. `taken_places` holds their
    /// places, ascending.
    pub(super) fn take(&mut self, taken_places: &[usize]) -> Vec<(&'a str, Member)> {
        for shard in &mut self.shards {
            let before = taken_places.partition_point(|place| *place < shard.first as usize);
            shard.first -= u32::try_from(before).unwrap_or(shard.first);
        }
        let mut remaining_places = taken_places.iter().copied().peekable();
        let (mut names, mut states) = (Vec::with_capacity(self.names.len()), Vec::new());
        let mut out = Vec::with_capacity(taken_places.len());
        for (place, entry) in self.names.iter().zip(&self.states).enumerate() {
            let (name, state) = (*entry.0, *entry.1);
            if remaining_places.next_if_eq(&place).is_some() {
                out.push((name, state));
            } else {
                names.push(name);
                states.push(state);
            }
        }
        (self.names, self.states) = (names, states);
        out
    }

    /// For every place, true if an open FlashJob works on it.
    pub(super) fn in_shards(&self) -> Vec<bool> {
        let mut inside = vec![false; self.names.len()];
        for shard in &self.shards {
            inside[places(shard)].fill(true);
        }
        inside
    }
}

/// Returns true if two lists differ in anything other than the results.
pub(super) fn differ_beyond_results(one: &[BatchMembers], other: &[BatchMembers]) -> bool {
    let same = |(one, other): (&BatchMembers, &BatchMembers)| {
        one.instances == other.instances
            && one.shards == other.shards
            && one.shards_made == other.shards_made
    };
    one.len() != other.len() || !one.iter().zip(other).all(same)
}

/// Places of a shard in its batch's list.
pub(super) fn places(shard: &ShardStatus) -> std::ops::Range<usize> {
    let first = shard.first as usize;
    first..first + shard.count as usize
}

/// Name of a member: that of its Instance, with the namespace if it is not the rollout's.
pub(super) fn member_name(rollout_namespace: &str, namespace: &str, name: &str) -> String {
    if rollout_namespace == namespace { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// Namespace and name of a member's Instance.
#[must_use]
pub(super) fn instance_of<'a>(rollout_namespace: &'a str, member: &'a str) -> (&'a str, &'a str) {
    member.split_once('/').unwrap_or((rollout_namespace, member))
}

/// Namespaces and names of the Instances that a rollout still has to flash, for which other
/// rollouts wait. Empty if it is finished.
pub(crate) fn open_members<'a>(
    namespace: &'a str,
    status: &'a FlashRolloutStatus,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    // A run that has ended starts nothing more, so rollouts behind it need not wait for the
    // devices that it left open.
    let over = status.phase.is_some_and(flashjob_api::RolloutPhase::is_final);
    let lists = status.members.iter().filter(move |_| !over);
    let members = lists.flat_map(|list| {
        let letters = list.results.chars().map(Member::of).chain(std::iter::repeat(Member::Open));
        list.instances.iter().zip(letters)
    });
    members.filter(|(_, state)| state.is_open()).map(move |(name, _)| instance_of(namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_comes_back_from_its_letter() {
        for letter in ".:,;CUFSART".chars() {
            assert_eq!(Member::of(letter).letter(), letter);
        }
        assert_eq!(Member::of('?'), Member::Open);
    }

    #[test]
    fn a_list_is_stored_as_it_was_read_and_what_is_missing_is_open() {
        let stored = BatchMembers {
            instances: vec!["a".into(), "other/b".into(), "c".into()],
            results: "C.F".into(),
            shards: vec![ShardStatus { number: 1, first: 0, count: 3 }],
            shards_made: 1,
        };
        let list = List::of(&stored);
        assert!(list.is(&stored));
        assert_eq!(list.store(), stored);
        let torn = BatchMembers { results: "C".into(), ..stored };
        assert_eq!(List::of(&torn).states, [Member::Completed, Member::Open, Member::Open]);
        assert!(!List::of(&torn).is(&torn));
    }

    #[test]
    fn what_a_rollout_still_has_to_flash_is_open_until_it_is_over() {
        let members = BatchMembers {
            instances: vec!["a".into(), "other/b".into(), "c".into()],
            results: "C:T".into(),
            ..BatchMembers::default()
        };
        let mut status =
            FlashRolloutStatus { members: vec![members], ..FlashRolloutStatus::default() };
        let open: Vec<_> = open_members("fleet", &status).collect();
        assert_eq!(open, [("other", "b"), ("fleet", "c")]);
        status.phase = Some(flashjob_api::RolloutPhase::Aborted);
        assert_eq!(open_members("fleet", &status).count(), 0);
    }
}
