//! A Pod that vanished from the API server before its end was observed, and what its node shows
//! about its container. Removal from the API server stops no container by itself: the kubelet ends
//! it once it learns of the removal, and a node without connection goes on until the Pod's
//! deadline.

use jiff::Timestamp;

use super::super::after;

/// Longest time between two renewals of a node's Lease without which its kubelet was connected all
/// the time: `nodeLeaseDurationSeconds` of the kubelet, which renews it four times as often.
const LEASE_SECONDS: i64 = 40;

/// State of a node, as far as it tells which containers it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// Name of the node.
    pub node: String,
    /// Time just before the node and its Lease were read.
    pub asked_at: Timestamp,
    /// `renewTime` of its Lease, which its kubelet wrote; `None` if it has none. Two values are
    /// only ever compared for equality, as the clock of the node may be wrong.
    pub renewal: Option<String>,
    /// True if somebody declared that the node is powered off, with the taint
    /// `node.kubernetes.io/out-of-service`.
    pub is_out_of_service: bool,
}

/// Disappearance of a Pod from the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Time at which it was seen last.
    pub last_seen: Timestamp,
    /// Time since when it is certain that the API server no longer has it.
    confirmed_at: Option<Timestamp>,
    renewals: Option<Renewals>,
    stopped_at: Option<Timestamp>,
}

/// Renewals of a node's Lease since its Pod vanished.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Renewals {
    /// The latest one.
    latest: String,
    /// Time at which `latest` was read for the first time.
    changed_at: Timestamp,
    /// Time just before `latest` was read for the last time: the next renewal comes after it.
    asked_at: Timestamp,
    /// Time since which the kubelet has renewed the Lease without interruption.
    since: Option<Timestamp>,
}

impl Gone {
    /// A Pod that was last seen at this time.
    #[must_use]
    pub fn last_seen(at: Timestamp) -> Self {
        Self { last_seen: at, confirmed_at: None, renewals: None, stopped_at: None }
    }

    /// Notes that the API server was queried and no longer has the Pod.
    #[must_use]
    pub fn confirmed(mut self, now: Timestamp) -> Self {
        self.confirmed_at.get_or_insert(now);
        self
    }

    /// Returns true if the API server was queried and no longer has the Pod.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.confirmed_at.is_some()
    }

    /// Time since which its node shows that its container has ended.
    #[must_use]
    pub fn stopped_at(&self) -> Option<Timestamp> {
        self.stopped_at
    }

    /// Notes the state of its node. The container has ended once the kubelet was connected, without
    /// interruption, for `seconds` after the Pod was gone: a kubelet that is connected ends the
    /// containers of Pods that the API server no longer has. Returns true if that is so from now
    /// on.
    pub(crate) fn note_node(&mut self, node: &NodeState, seconds: i64, now: Timestamp) -> bool {
        // A renewal that was read before the Pod was gone would prove nothing.
        let is_later = self.confirmed_at.is_some_and(|confirmed| node.asked_at >= confirmed);
        if self.stopped_at.is_some() || !is_later {
            return false;
        }
        if node.is_out_of_service || self.has_renewed_for(node, seconds, now) {
            self.stopped_at = Some(now);
        }
        self.stopped_at.is_some()
    }

    fn has_renewed_for(&mut self, node: &NodeState, seconds: i64, now: Timestamp) -> bool {
        let NodeState { asked_at, renewal, .. } = node;
        let Some(latest) = renewal.clone() else {
            self.renewals = None;
            return false;
        };
        let next = |since| Renewals { latest, changed_at: now, asked_at: *asked_at, since };
        let Some(renewals) = &mut self.renewals else {
            self.renewals = Some(next(None));
            return false;
        };
        if renewals.latest == next(None).latest {
            renewals.asked_at = *asked_at;
            return false;
        }
        let is_unbroken = after(renewals.changed_at, LEASE_SECONDS) >= now;
        let since = renewals.since.filter(|_| is_unbroken).unwrap_or(now);
        // The renewal is at least as late as the previous reading, and may be no later.
        let has_lasted = after(since, seconds) <= renewals.asked_at;
        *renewals = next(Some(since));
        has_lasted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds that the kubelet has to be connected.
    const NEEDED: i64 = 70;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("an instant")
    }

    fn reading(second: i64, renewal: Option<i64>) -> NodeState {
        NodeState {
            node: "node-1".into(),
            asked_at: at(second),
            renewal: renewal.map(|number| number.to_string()),
            is_out_of_service: false,
        }
    }

    /// Reads the node every five seconds, and returns the second at which the container has ended.
    fn stopped(renewal_at: impl Fn(i64) -> Option<i64>) -> Option<i64> {
        let mut gone = Gone::last_seen(at(0)).confirmed(at(0));
        (0..600).step_by(5).find(|second| {
            gone.note_node(&reading(*second, renewal_at(*second)), NEEDED, at(*second))
        })
    }

    #[test]
    fn the_container_has_ended_once_the_kubelet_was_connected_for_long_enough() {
        // The first renewal is read at 10 s, and the one after 80 s at 90 s.
        assert_eq!(stopped(|second| Some(second / 10)), Some(90));
    }

    #[test]
    fn a_node_that_renews_no_lease_shows_nothing() {
        assert_eq!(stopped(|_| Some(1)), None);
        assert_eq!(stopped(|_| None), None);
    }

    #[test]
    fn after_an_interruption_the_time_begins_again() {
        let interrupted = |second: i64| match second {
            0..=30 => Some(second / 10),
            31..=200 => Some(3),
            _ => Some(second / 10),
        };
        assert_eq!(stopped(interrupted), Some(290));
        let rare = |second: i64| Some(second / 50);
        assert_eq!(stopped(rare), None, "each renewal comes after the Lease has expired");
    }

    #[test]
    fn what_was_read_before_the_pod_was_gone_counts_for_nothing() {
        let mut gone = Gone::last_seen(at(0));
        assert!(!gone.note_node(&reading(1, Some(1)), 0, at(1)));
        assert_eq!(gone, Gone::last_seen(at(0)), "not confirmed");
        gone = gone.confirmed(at(5));
        assert!(!gone.note_node(&reading(4, Some(2)), 0, at(6)));
        assert_eq!(gone, Gone::last_seen(at(0)).confirmed(at(5)), "asked before");
    }

    #[test]
    fn on_a_node_that_is_out_of_service_nothing_runs() {
        let mut gone = Gone::last_seen(at(0)).confirmed(at(0));
        let node = NodeState { is_out_of_service: true, ..reading(3, None) };
        assert!(gone.note_node(&node, NEEDED, at(4)));
        assert_eq!(gone.stopped_at(), Some(at(4)));
        assert!(!gone.note_node(&node, NEEDED, at(9)), "reported once");
    }
}
