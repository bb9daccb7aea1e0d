//! One operator acts, the others stand by. In: the election's outcome. Out: whether this process
//! leads, and the fence that holds its changing requests back when it does not. No I/O here: that
//! is in [`election`].
//!
//! A process leads at most once. One that loses its Lease to another ends, and is started again as
//! a standby by Kubernetes: what it had planned, asked and locked, and the requests that its tasks
//! still wait for, are gone with it for certain. One whose Lease ran out while the API server was
//! away keeps it where nobody else took it: every write names the version that it replaces, so a
//! renewal that succeeds proves that nobody acted meanwhile.

pub mod election;
pub mod fence;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use fence::Fence;

/// A process that is alone leads well within this time, and need neither list nor load twice.
pub(crate) const FIRST_ROUND: Duration = Duration::from_secs(1);
/// An election that did not get round within this time is stuck. A round is a few seconds.
const ROUND_LIMIT: Duration = Duration::from_secs(60);

/// State of this process in the election: leader or standby.
#[derive(Debug)]
pub struct Leadership {
    fence: Fence,
    leads: watch::Sender<bool>,
    /// Time at which the election last went round; none where there is no election.
    round: Option<Mutex<Instant>>,
}

impl Leadership {
    /// A standby, until the election says otherwise.
    #[must_use]
    pub fn standby() -> Arc<Self> {
        Arc::new(Self {
            fence: Fence::shut(),
            leads: watch::Sender::new(false),
            round: Some(Mutex::new(Instant::now())),
        })
    }

    /// A leader without election: there is one process, and somebody else sees to that.
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
        // The sender lives as long as this.
        let _ = self.leads.subscribe().wait_for(|leads| *leads).await;
    }

    /// Fence that holds changing requests back.
    #[must_use]
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Returns true if the election goes round.
    #[must_use]
    pub fn is_alive(&self, now: Instant) -> bool {
        let last =
            self.round.as_ref().map(|round| *round.lock().unwrap_or_else(PoisonError::into_inner));
        last.is_none_or(|last| now.duration_since(last) < ROUND_LIMIT)
    }

    fn lead(&self) {
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
