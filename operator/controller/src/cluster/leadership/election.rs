//! Acquires, renews and releases the Lease. In: the Lease, read and written through a client of
//! its own, which the fence does not hold back. Out: the instant until which this process holds
//! the Lease, for the fence; the fact that it does, for [`Leadership`]. Does I/O.
//!
//! The crate kube-lease-manager is not used because it gives a fence no instant: it reports only
//! whether it leads, renews shortly before the end, relies on the clocks of other machines
//! (`renewTime` against its own time of day), and renews without the resourceVersion that it read,
//! so that a late renewal can extend the Lease of another holder. Here a standby counts from the
//! last change of the Lease that it observed, on its own clock; the holder counts from before it
//! sent the request; and every write names the resourceVersion that it replaces.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::oneshot;

use super::{Leadership, fence};
use crate::cluster::installation::Installation;
use crate::telemetry::health::keeper::Reports;
use crate::telemetry::health::problem::{LEASES, Problem, ProblemSource, Request, unreachable};

/// Name of the Lease, in the operator's own namespace; deploy/rbac contains it too.
pub const LEASE: &str = "flashjob-operator";
/// Interval at which the holder renews the Lease.
const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// Interval at which a standby reads the Lease, and a holder retries a failed renewal.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Timeout of one request about the Lease.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// Longest wait for requests in flight when the process ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(11);

/// Loss of the Lease to another process. All state of this process about the cluster may be stale.
#[derive(Debug, thiserror::Error)]
#[error(
    "the Lease {LEASE} is now held by {holder}: this operator exits, to be restarted as a standby"
)]
pub struct LostLease {
    /// Holder of the Lease.
    pub holder: String,
}

/// Failure of a request about the Lease; the request is retried.
#[derive(Debug)]
struct LeaseError {
    verb: &'static str,
    cause: LeaseCause,
}

#[derive(Debug)]
enum LeaseCause {
    Request(kube::Error),
    NoAnswer,
}

impl LeaseError {
    fn code(&self) -> Option<u16> {
        match &self.cause {
            LeaseCause::Request(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    fn problem(&self, installation: &Installation) -> Problem {
        match &self.cause {
            LeaseCause::Request(error) => {
                Request { verb: self.verb, resource: LEASES, installation }.problem(error)
            }
            LeaseCause::NoAnswer => {
                unreachable(&format!("no answer within {} s", ANSWER_LIMIT.as_secs()))
            }
        }
    }
}

/// Leader election, as one of its candidates.
pub struct Election {
    leases: Api<Lease>,
    identity: String,
    duration: Duration,
    leadership: Arc<Leadership>,
    installation: Installation,
    reports: Reports,
    observer: LeaseObserver,
}

impl Election {
    /// Returns a candidate. No other process, past or future, may have the same `identity`;
    /// `duration` is in whole seconds.
    #[must_use]
    pub fn new(
        client: Client,
        installation: &Installation,
        identity: String,
        duration: Duration,
        leadership: Arc<Leadership>,
        reports: Reports,
    ) -> Self {
        Self {
            leases: Api::namespaced(client, &installation.namespace),
            identity,
            duration,
            leadership,
            installation: installation.clone(),
            reports,
            observer: LeaseObserver::default(),
        }
    }

    /// Takes part in the election and leads until `stop` fires or is dropped, then releases the
    /// Lease once no request is in flight.
    ///
    /// # Errors
    /// Another process took the Lease.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) -> Result<(), LostLease> {
        let mut held = None;
        loop {
            self.leadership.note_round(Instant::now());
            let pause = match held.take() {
                None => {
                    let outcome = self.take().await;
                    self.note(outcome.as_ref().err());
                    held = outcome.unwrap_or_default();
                    if held.is_some() { RENEW_INTERVAL } else { RETRY_INTERVAL }
                }
                Some(lease) => {
                    let Renewed { lease, pause, error } = self.renew(lease).await?;
                    self.note(error.as_ref());
                    held = Some(lease);
                    pause
                }
            };
            tokio::select! {
                _ = &mut stop => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        if let Some(lease) = held {
            self.release(lease).await;
        }
        Ok(())
    }

    /// Reports the outcome of a round.
    fn note(&self, error: Option<&LeaseError>) {
        let problem = error.map(|error| error.problem(&self.installation));
        self.reports.state(ProblemSource::Lease, problem);
    }

    /// Acquires the Lease if it is free. Returns None if another process holds it.
    async fn take(&mut self) -> Result<Option<Lease>, LeaseError> {
        let current_lease = limited("get", self.leases.get_opt(LEASE)).await?;
        if !self.observer.is_free(
            current_lease.as_ref(),
            &self.identity,
            self.duration,
            Instant::now(),
        ) {
            return Ok(None);
        }
        match self
            .write(with_new_holder(
                current_lease.unwrap_or_default(),
                &self.identity,
                self.duration,
            ))
            .await
        {
            Ok(lease) => {
                tracing::info!(identity = self.identity, "the Lease was acquired");
                self.leadership.lead();
                Ok(Some(lease))
            }
            // Another process acquired it first.
            Err(error) if error.code() == Some(409) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Renews the Lease. If it expired meanwhile, it is not lost as long as no other process wrote
    /// it: the fence was closed, and opens again.
    async fn renew(&self, lease: Lease) -> Result<Renewed, LostLease> {
        let failed = |lease, error| Renewed { lease, pause: RETRY_INTERVAL, error: Some(error) };
        match self.write(renewed(lease.clone())).await {
            Ok(lease) => return Ok(Renewed { lease, pause: RENEW_INTERVAL, error: None }),
            Err(error) if matches!(error.code(), Some(404 | 409)) => {}
            // Nothing is given up: the fence closes by itself when the time of the Lease is over,
            // and a later renewal opens it again.
            Err(error) => return Ok(failed(lease, error)),
        }
        // The Lease was written by this process, in a request whose response was lost, or by
        // another process; or it was deleted.
        match limited("get", self.leases.get_opt(LEASE)).await {
            // A read proves nothing about the time of the Lease, so it is renewed at once, over
            // the version just read.
            Ok(Some(current_lease)) if holder(&current_lease) == Some(&self.identity) => {
                Ok(Renewed { lease: current_lease, pause: Duration::ZERO, error: None })
            }
            Ok(Some(current_lease)) => {
                // At once: the tasks of this process go on until it has ended.
                self.leadership.fence().shut_now();
                Err(LostLease { holder: holder(&current_lease).unwrap_or("nobody").to_owned() })
            }
            Ok(None) => {
                // A standby that observed the deleted Lease waits as long as that had left. Of two
                // processes that create it, one gets a 409.
                tracing::warn!("the Lease was deleted; creating it again");
                match self
                    .write(with_new_holder(Lease::default(), &self.identity, self.duration))
                    .await
                {
                    Ok(lease) => Ok(Renewed { lease, pause: RETRY_INTERVAL, error: None }),
                    Err(error) => Ok(failed(lease, error)),
                }
            }
            Err(error) => Ok(failed(lease, error)),
        }
    }

    /// Releases the Lease for the next leader. If a request of this process may still take effect,
    /// the Lease is left to expire.
    async fn release(&self, lease: Lease) {
        let fence = self.leadership.fence();
        fence.refuse_new();
        if tokio::time::timeout(DRAIN_TIMEOUT, fence.rest()).await.is_err() {
            tracing::warn!(
                "requests are still in flight: the Lease is not released, and expires by itself"
            );
            return;
        }
        fence.shut_now();
        // The next leader acts as soon as the Lease has no holder, so no request may leave after
        // this point.
        let resource = given_back(lease);
        match limited("update", self.leases.replace(LEASE, &PostParams::default(), &resource))
            .await
        {
            Ok(_) => tracing::info!("the Lease was released"),
            Err(error) => {
                let error = error.problem(&self.installation).message;
                tracing::warn!(error, "the Lease cannot be released, and expires by itself")
            }
        }
    }

    /// Creates or replaces the Lease with this process as holder, and opens the fence for the
    /// lease duration, counted from before the request was sent.
    async fn write(&self, lease: Lease) -> Result<Lease, LeaseError> {
        // The API server stores the Lease after this instant, so a standby counts from a later
        // one.
        let sent = Instant::now();
        // A create fails if the Lease exists, an update if it is of another version: of two
        // processes that take it at once, one gets a 409.
        let stored = match lease.metadata.resource_version {
            None => limited("create", self.leases.create(&PostParams::default(), &lease)).await?,
            Some(_) => {
                let parameters = PostParams::default();
                limited("update", self.leases.replace(LEASE, &parameters, &lease)).await?
            }
        };
        self.leadership.fence().hold_until(sent + self.duration);
        Ok(stored)
    }
}

async fn limited<T>(
    verb: &'static str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, LeaseError> {
    // An API server that hangs would otherwise stop the election, and with it the liveness of the
    // process.
    let cause = match tokio::time::timeout(ANSWER_LIMIT, request).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => LeaseCause::Request(error),
        Err(_) => LeaseCause::NoAnswer,
    };
    Err(LeaseError { verb, cause })
}

/// Result of a renewal.
struct Renewed {
    /// Stored Lease, as far as it is known.
    lease: Lease,
    /// Pause before the next renewal.
    pause: Duration,
    /// Error, if the renewal failed.
    error: Option<LeaseError>,
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// Returns the Lease with this process as its new holder.
fn with_new_holder(mut lease: Lease, identity: &str, duration: Duration) -> Lease {
    let now = Some(MicroTime(Timestamp::now()));
    lease.metadata = ObjectMeta { name: Some(LEASE.to_owned()), ..lease.metadata };
    let spec = lease.spec.get_or_insert_default();
    let transitions =
        spec.lease_transitions.map_or(0, |transitions| transitions.saturating_add(1));
    *spec = LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
        acquire_time: now.clone(),
        renew_time: now,
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    };
    lease
}

fn renewed(mut lease: Lease) -> Lease {
    lease.spec.get_or_insert_default().renew_time = Some(MicroTime(Timestamp::now()));
    lease
}

fn given_back(mut lease: Lease) -> Lease {
    let spec = lease.spec.get_or_insert_default();
    // A Lease without a holder is free at once, for other implementations (client-go) too.
    spec.holder_identity = None;
    spec.renew_time = Some(MicroTime(Timestamp::now()));
    lease
}

/// Lease as a standby last observed it.
#[derive(Debug, Default)]
struct LeaseObserver {
    last: Option<ObservedLease>,
}

#[derive(Debug)]
struct ObservedLease {
    version: String,
    since: Instant,
    lasts: Duration,
}

impl LeaseObserver {
    /// Returns true if the Lease may be acquired: nobody holds it, or its holder has not renewed
    /// it for its whole duration while this process observed it.
    fn is_free(
        &mut self,
        current_lease: Option<&Lease>,
        identity: &str,
        default: Duration,
        now: Instant,
    ) -> bool {
        if let Some(lease) = current_lease {
            match holder(lease) {
                None => return true,
                // This process acquired it, but the response was lost.
                Some(holder) if holder == identity => return true,
                Some(_) => self.note(lease, default, now),
            }
        }
        // The holder of a deleted Lease may still be active.
        self.last
            .as_ref()
            .is_none_or(|observation| now.duration_since(observation.since) >= observation.lasts)
    }

    fn note(&mut self, lease: &Lease, default: Duration, now: Instant) {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        // The holder has not written since, so its time runs on.
        if self.last.as_ref().is_some_and(|observation| observation.version == version) {
            return;
        }
        let seconds = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.lease_duration_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok());
        // A request that has left may take effect within the margin, however short the duration
        // that the holder wrote.
        let lasts = seconds.map_or(default, Duration::from_secs).max(fence::MARGIN);
        self.last = Some(ObservedLease { version, since: now, lasts });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DURATION: Duration = Duration::from_secs(15);

    fn lease(holder: Option<&str>, version: &str, seconds: i32) -> Lease {
        let spec = LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(seconds),
            ..LeaseSpec::default()
        };
        let metadata =
            ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() };
        Lease { metadata, spec: Some(spec) }
    }

    #[test]
    fn a_lease_that_nobody_has_is_free_at_once() {
        let now = Instant::now();
        let free = |current_lease: Option<Lease>| {
            LeaseObserver::default().is_free(current_lease.as_ref(), "me", DURATION, now)
        };
        assert!(free(None));
        assert!(free(Some(lease(None, "1", 15))));
        assert!(free(Some(lease(Some(""), "1", 15))));
        assert!(free(Some(lease(Some("me"), "1", 15))));
        assert!(!free(Some(lease(Some("other"), "1", 15))));
    }

    #[test]
    fn the_lease_of_another_is_waited_out_from_its_last_change_and_for_the_time_that_it_names() {
        let (mut observer, begin) = (LeaseObserver::default(), Instant::now());
        let mut free = |version: &str, now| {
            observer.is_free(Some(&lease(Some("other"), version, 20)), "me", DURATION, now)
        };
        assert!(!free("1", begin));
        assert!(!free("1", begin + 19 * SECOND));
        assert!(!free("2", begin + 20 * SECOND), "it was renewed");
        assert!(!free("2", begin + 39 * SECOND));
        assert!(free("2", begin + 40 * SECOND));
    }

    #[test]
    fn a_lease_that_is_deleted_under_its_holder_is_waited_out_too() {
        let (mut observer, begin) = (LeaseObserver::default(), Instant::now());
        assert!(!observer.is_free(Some(&lease(Some("other"), "1", 15)), "me", DURATION, begin));
        assert!(!observer.is_free(None, "me", DURATION, begin + 14 * SECOND));
        assert!(observer.is_free(None, "me", DURATION, begin + 15 * SECOND));
    }

    #[test]
    fn what_is_written_names_the_version_that_it_replaces() {
        let foreign_lease = lease(Some("other"), "7", 20);
        let ours = with_new_holder(foreign_lease, "me", DURATION);
        assert_eq!(
            (holder(&ours), ours.metadata.resource_version.as_deref()),
            (Some("me"), Some("7"))
        );
        assert_eq!(renewed(ours.clone()).metadata.resource_version.as_deref(), Some("7"));
        let free = given_back(ours);
        assert_eq!((holder(&free), free.metadata.resource_version.as_deref()), (None, Some("7")));
    }
}
