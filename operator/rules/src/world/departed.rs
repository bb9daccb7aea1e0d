//! Objects that are gone, by a watch or a 404. A late answer to one of our requests may still show
//! such an object; put into the cache, no later event would remove it.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// More than can go while one request is under way.
const REMEMBERED: usize = 8192;

/// The objects that went last, and the version with which they went. A uid is never used again.
#[derive(Debug, Default)]
pub struct Departed {
    versions: HashMap<u64, String>,
    order: VecDeque<u64>,
}

impl Departed {
    /// Remembers that this object went, or lost the labels that it is watched by, in that version.
    pub fn note(&mut self, uid: &str, version: &str) {
        let key = key(uid);
        if self.versions.insert(key, version.to_owned()).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.versions.remove(&oldest);
        }
    }

    /// Returns true if this object went. One that is watched by no label never comes back.
    pub fn has(&self, uid: &str) -> bool {
        self.versions.contains_key(&key(uid))
    }

    /// Returns true if this state of an object is from before it went.
    pub fn is_older(&self, uid: &str, version: &str) -> bool {
        self.versions
            .get(&key(uid))
            .is_some_and(|departed| super::version::newer(departed, version))
    }
}

fn key(uid: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::Departed;

    #[test]
    fn only_states_from_before_an_object_went_are_old() {
        let mut departed = Departed::default();
        departed.note("a", "120");
        assert!(departed.is_older("a", "100"));
        // One that only lost its labels is read again, in the version that the watch lost it with
        // or a later one.
        assert!(!departed.is_older("a", "120") && !departed.is_older("a", "130"));
        assert!(!departed.is_older("b", "100"));
        assert!(departed.has("a") && !departed.has("b"));
    }
}
