//! Objects that were deleted, according to a watch or a 404. A late response to one of our
//! requests may still show such an object; if it were added to the cache, no later event would
//! remove it.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use hashbrown::HashMap;

/// Number of remembered objects: more than can be deleted while one request is in flight.
const REMEMBERED: usize = 8192;

/// The most recently deleted objects, and the version of each deletion. A uid is never reused.
#[derive(Debug, Default)]
pub struct Departed {
    versions: HashMap<u64, String>,
    order: VecDeque<u64>,
}

impl Departed {
    /// Notes that this object was deleted, or lost the labels that the watch selects, in that
    /// version.
    pub fn note(&mut self, uid: &str, version: &str) {
        let key = key(uid);
        // A Pod whose label is removed, put back and removed again departs more than once.
        if self.versions.insert(key, version.to_owned()).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.versions.remove(&oldest);
        }
    }

    /// Returns true if this object was deleted. Valid for kinds that are watched without a label
    /// selector.
    pub fn has(&self, uid: &str) -> bool {
        self.versions.contains_key(&key(uid))
    }

    /// Returns true if this state of an object is older than its deletion.
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
        // An object that only lost its labels is accepted again, in the version in which the watch
        // lost it or a later one.
        assert!(!departed.is_older("a", "120") && !departed.is_older("a", "130"));
        assert!(!departed.is_older("b", "100"));
        assert!(departed.has("a") && !departed.has("b"));
    }
}
