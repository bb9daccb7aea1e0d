//! A Pod that vanished from the API server before its end was observed, and what its node shows
//! about its container. Removal from the API server stops no container by itself: the kubelet ends
//! it once it learns of the removal, and a node without connection goes on until the Pod's
//! deadline.

use jiff::Timestamp;

use super::super::instant::after;

/// State of a node, as far as it tells which containers it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// Name of the node.
    pub node: String,
    /// Time just before the node and its Lease were read.
    pub asked_at: Timestamp,
    /// Time at which the node was created, by the clock of the API server; `None` if there is no
    /// such node.
    pub created_at: Option<Timestamp>,
    /// True if its condition Ready is True. The kubelet of a node whose container runtime does not
    /// work renews its Lease, and cannot end containers.
    pub is_ready: bool,
    /// True if somebody declared that the node is powered off, with the taint
    /// `node.kubernetes.io/out-of-service`.
    pub is_out_of_service: bool,
    /// Its Lease, which its kubelet renews; `None` if it has none.
    pub lease: Option<NodeLease>,
}

/// State of a node's Lease. The times in it are not used, as the clock of the node may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLease {
    /// Resource version, which each renewal increases.
    pub version: u128,
    /// Seconds after a renewal until which the node counts as connected.
    pub duration_seconds: i64,
}

/// Disappearance of a Pod from the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Time at which it was seen last, from which its deadline is counted.
    pub last_seen: Timestamp,
    /// Latest time at which it certainly existed.
    existed_at: Timestamp,
    /// Time since when it is certain that the API server no longer has it.
    confirmed_at: Option<Timestamp>,
    renewals: Option<Renewals>,
    stopped_at: Option<Timestamp>,
}

/// Renewals of a node's Lease since its Pod vanished.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Renewals {
    /// Resource version of the latest one.
    latest: u128,
    /// Time after which the latest one happened: the previous one was read then.
    renewed_after: Timestamp,
    /// Time just before the latest one was read last: the next one happens after it.
    asked_at: Timestamp,
    /// Time since which the kubelet has renewed the Lease without interruption.
    since: Option<Timestamp>,
}

impl Gone {
    /// A Pod that was last seen at this time.
    #[must_use]
    pub fn last_seen(at: Timestamp) -> Self {
        Self::unseen(at, at)
    }

    /// A Pod that this process never saw: the time from which its deadline is counted, and the
    /// latest time at which it certainly existed.
    #[must_use]
    pub fn unseen(last_seen: Timestamp, existed_at: Timestamp) -> Self {
        Self { last_seen, existed_at, confirmed_at: None, renewals: None, stopped_at: None }
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

    /// Notes the state of its node. The container has ended once the kubelet was connected and
    /// able to work, without interruption, for `seconds` after the Pod was gone: it ends the
    /// containers of Pods that the API server no longer has. Returns true if that is so from now
    /// on.
    pub(crate) fn note_node(&mut self, node: &NodeState, seconds: i64, now: Timestamp) -> bool {
        // What was read before the Pod was gone proves nothing.
        let is_later = self.confirmed_at.is_some_and(|confirmed| node.asked_at > confirmed);
        if self.stopped_at.is_some() || !is_later {
            return false;
        }
        // Another machine may have registered under the name of the Pod's node, which may still
        // run without connection.
        if node.created_at.is_none_or(|created| created > self.existed_at) {
            self.renewals = None;
            return false;
        }
        // Only a node that is not ready can be powered off: the taint may have been forgotten.
        let is_off = node.is_out_of_service && !node.is_ready;
        if is_off || self.has_renewed_for(node, seconds, now) {
            self.stopped_at = Some(now);
        }
        self.stopped_at.is_some()
    }

    fn has_renewed_for(&mut self, node: &NodeState, seconds: i64, now: Timestamp) -> bool {
        let Some(lease) = node.lease.filter(|_| node.is_ready) else {
            self.renewals = None;
            return false;
        };
        let Some(renewals) = &mut self.renewals else {
            let asked_at = node.asked_at;
            let latest = lease.version;
            self.renewals =
                Some(Renewals { latest, renewed_after: asked_at, asked_at, since: None });
            return false;
        };
        // Answers may arrive in another order than their requests were sent, so that one of them
        // shows an earlier renewal.
        if lease.version <= renewals.latest {
            renewals.asked_at = renewals.asked_at.max(node.asked_at);
            return false;
        }
        let is_unbroken = after(renewals.renewed_after, lease.duration_seconds) >= now;
        let since = renewals.since.filter(|_| is_unbroken).unwrap_or(now);
        // The renewal happened after the previous reading, perhaps immediately.
        let has_lasted = after(since, seconds) <= renewals.asked_at;
        *renewals = Renewals {
            latest: lease.version,
            renewed_after: renewals.asked_at,
            asked_at: renewals.asked_at.max(node.asked_at),
            since: Some(since),
        };
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

    fn reading(second: i64, version: Option<i64>) -> NodeState {
        let lease = |version: i64| NodeLease {
            version: u128::try_from(version).expect("a version"),
            duration_seconds: 40,
        };
        NodeState {
            node: "node-1".into(),
            asked_at: at(second),
            created_at: Some(at(-1000)),
            is_ready: true,
            is_out_of_service: false,
            lease: version.map(lease),
        }
    }

    fn gone() -> Gone {
        Gone::last_seen(at(0)).confirmed(at(0))
    }

    /// Reads the node every five seconds, and returns the second at which the container has ended.
    fn stopped(read: impl Fn(i64) -> NodeState) -> Option<i64> {
        let mut gone = gone();
        (0..600).step_by(5).find(|second| gone.note_node(&read(*second), NEEDED, at(*second)))
    }

    #[test]
    fn the_container_has_ended_once_the_kubelet_was_connected_for_long_enough() {
        // The first renewal is read at 10 s, and the one after 80 s at 90 s.
        assert_eq!(stopped(|second| reading(second, Some(second / 10))), Some(90));
    }

    #[test]
    fn a_node_that_renews_no_lease_shows_nothing() {
        assert_eq!(stopped(|second| reading(second, Some(1))), None);
        assert_eq!(stopped(|second| reading(second, None)), None);
    }

    #[test]
    fn after_an_interruption_the_time_begins_again() {
        let version = |second: i64| match second {
            31..=200 => 3,
            _ => second / 10,
        };
        assert_eq!(stopped(|second| reading(second, Some(version(second)))), Some(280));
        let rare = |second: i64| reading(second, Some(second / 50));
        assert_eq!(stopped(rare), None, "each renewal comes after the Lease has expired");
    }

    #[test]
    fn a_kubelet_that_cannot_end_containers_shows_nothing() {
        let version = |second: i64| Some(second / 10);
        let never = |second| NodeState { is_ready: false, ..reading(second, version(second)) };
        assert_eq!(stopped(never), None);
        // Its container runtime was restarted.
        let once =
            |second| NodeState { is_ready: second != 60, ..reading(second, version(second)) };
        assert_eq!(stopped(once), Some(150));
    }

    #[test]
    fn readings_far_apart_are_no_proof_of_an_unbroken_connection() {
        let mut gone = gone();
        for (second, version) in [(5, 1), (10, 2)] {
            gone.note_node(&reading(second, Some(version)), NEEDED, at(second));
        }
        // The renewal that is read at 45 may have happened at 11, and the next one at 84.
        for (second, version, ended) in [(45, 3, false), (84, 3, false), (85, 4, false)] {
            let node = reading(second, Some(version));
            assert_eq!(gone.note_node(&node, NEEDED, at(second)), ended, "{second}");
        }
    }

    #[test]
    fn an_answer_that_arrives_late_is_no_renewal() {
        let mut gone = gone();
        for second in (0..80).step_by(5) {
            gone.note_node(&reading(second, Some(second / 10)), NEEDED, at(second));
        }
        for second in [80, 85] {
            assert!(!gone.note_node(&reading(second, Some(7)), NEEDED, at(second)));
        }
        assert!(!gone.note_node(&reading(64, Some(6)), NEEDED, at(86)));
        assert!(gone.note_node(&reading(87, Some(8)), NEEDED, at(87)));
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
    fn another_machine_of_the_same_name_shows_nothing() {
        let newer =
            |second| NodeState { created_at: Some(at(1)), ..reading(second, Some(second / 10)) };
        assert_eq!(stopped(newer), None);
        let none = |second| NodeState { created_at: None, ..reading(second, Some(second / 10)) };
        assert_eq!(stopped(none), None);
    }

    #[test]
    fn on_a_node_that_is_out_of_service_nothing_runs_unless_it_is_ready() {
        let node = |is_ready| NodeState { is_out_of_service: true, is_ready, ..reading(3, None) };
        let mut gone = gone();
        assert!(!gone.note_node(&node(true), NEEDED, at(4)));
        assert!(gone.note_node(&node(false), NEEDED, at(5)));
        assert_eq!(gone.stopped_at(), Some(at(5)));
        assert!(!gone.note_node(&node(false), NEEDED, at(9)), "reported once");
    }
}
