//! Leadership: one process acts, the others stand by. In: the outcome of the election. Out:
//! whether this process leads, and the fence that holds its mutating requests back when it does
//! not. No I/O here: that is in [`election`].
//!
//! A process leads at most once. If it loses its Lease to another process, it ends, and Kubernetes
//! restarts it as a standby: its plans, questions and locks, and the requests that its tasks still
//! wait for, are certain to end with it. If its Lease expires while the API server is unavailable,
//! it keeps the Lease unless another process took it: every write names the resourceVersion that
//! it replaces, so a successful renewal proves that no other process has acted meanwhile.

pub mod election;
pub mod fence;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use fence::Fence;

/// Time within which a process without competitors becomes the leader, so that it need neither
/// list nor load twice.
pub(crate) const FIRST_ROUND: Duration = Duration::from_secs(1);
/// Time without a new round after which the election counts as stuck. A round takes a few seconds.
const ROUND_LIMIT: Duration = Duration::from_secs(60);

/// State of this process in the election: leader or standby.
#[derive(Debug)]
pub struct Leadership {
    fence: Fence,
    leads: watch::Sender<bool>,
    /// Start of the last round of the election; None without leader election.
    round: Option<Mutex<Instant>>,
}

impl Leadership {
    /// Returns the leadership of a standby, which leads once it wins the election.
    #[must_use]
    pub fn standby() -> Arc<Self> {
        Arc::new(Self {
            fence: Fence::shut(),
            leads: watch::Sender::new(false),
            round: Some(Mutex::new(Instant::now())),
        })
    }

    /// Returns the leadership of a process without election: the deployment ensures that there is
    /// only one process.
    #[must_use]
    pub fn alone() -> Arc<Self> {
        Arc::new(Self { fence: Fence::unguarded(), leads: watch::Sender::new(true), round: None })
    }

    /// Returns true if this process leads.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        *self.leads.borrow()
    }

    /// Waits until this process leads.
    pub async fn leads(&self) {
        // `self` keeps the sender alive.
        let _ = self.leads.subscribe().wait_for(|leads| *leads).await;
    }

    /// Returns the fence that holds mutating requests back.
    #[must_use]
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Returns true if the election makes progress, or there is none.
    #[must_use]
    pub fn is_alive(&self, now: Instant) -> bool {
        let last =
            self.round.as_ref().map(|round| *round.lock().unwrap_or_else(PoisonError::into_inner));
        last.is_none_or(|last| now.duration_since(last) < ROUND_LIMIT)
    }

    fn lead(&self) {
        // `send` would keep the old value while nobody is subscribed.
        self.leads.send_replace(true);
    }

    fn note_round(&self, now: Instant) {
        if let Some(round) = &self.round {
            *round.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_standby_waits_until_it_leads_and_is_alive_while_its_election_goes_round() {
        let leadership = Leadership::standby();
        assert!(!leadership.is_leading());
        let waits = leadership.clone();
        let waits = tokio::spawn(async move { waits.leads().await });
        leadership.lead();
        waits.await.unwrap();
        assert!(leadership.is_leading());
        let now = Instant::now();
        leadership.note_round(now);
        assert!(leadership.is_alive(now + ROUND_LIMIT - Duration::from_secs(1)));
        assert!(!leadership.is_alive(now + ROUND_LIMIT));
        assert!(Leadership::alone().is_alive(now + 2 * ROUND_LIMIT));
    }
}
