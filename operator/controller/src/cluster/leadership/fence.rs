//! Fence below the client's buffer: lets a mutating request through only while this process
//! certainly holds the Lease.
//!
//! A process that was suspended and resumes still sends the requests that waited in its client. So
//! the lease time is checked where a request leaves, and again at each step of it (connecting,
//! authentication, the client's own retries), not where the request was created. In: requests.
//! Out: the same requests, with a timeout for the API server. Reads pass, but with a limit on the
//! wait for their response. No I/O of its own.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use http::{Method, Request, Uri};
use kube::client::Body;
use tower::{BoxError, Layer, Service};

/// Time that the API server may take for a mutating request; sent with the request, so that it
/// cannot take effect later.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Remaining lease time below which no mutating request leaves: [`REQUEST_TIMEOUT`], and a second
/// for clocks that run at different rates.
pub const MARGIN: Duration = Duration::from_secs(6);
/// Longest wait for the response to a mutating request; after it the API server has finished or is
/// unreachable.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait until the response to a read begins: the API server itself ends a list after a
/// minute. Without this limit, a read from a server that hangs would wait forever.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// Interval of checks for requests in flight when the process ends.
const REST_INTERVAL: Duration = Duration::from_millis(10);

/// Reason for which a request was held back or timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FenceError {
    /// This process is a standby, or a leader that could not renew.
    #[error(
        "the request was stopped: this operator does not hold the Lease, or the Lease expires too \
         soon"
    )]
    NotHeld,
    /// The process ends.
    #[error("the request was not sent: this operator is shutting down")]
    Ending,
    /// A mutating request timed out. It may have taken effect; the caller has to find out.
    #[error(
        "the API server did not answer a write request within {} s",
        ANSWER_LIMIT.as_secs()
    )]
    NoAnswer,
    /// A read timed out; the caller retries.
    #[error(
        "the API server did not begin to answer a read request within {} s",
        READ_LIMIT.as_secs()
    )]
    NoAnswerToRead,
    /// This part of the address cannot carry the timeout.
    #[error("the request was not sent: cannot add a timeout to the {0} of its URL")]
    Address(&'static str),
}

impl FenceError {
    /// Returns true if the fence stopped the request, false if the API server did not answer it in
    /// time. A request under way when the Lease is lost is stopped too.
    #[must_use]
    pub fn is_stop(&self) -> bool {
        !matches!(self, Self::NoAnswer | Self::NoAnswerToRead)
    }
}

/// Period in which mutating requests may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Never,
    Until(Instant),
    Always,
}

#[derive(Debug)]
struct Gate {
    open: Open,
    ending: bool,
    in_flight: usize,
    /// Time until which a request that ended without a response may still take effect.
    unsettled_until: Option<Instant>,
}

/// The fence; all clones share their state.
#[derive(Clone, Debug)]
pub struct Fence(Arc<Mutex<Gate>>);

impl Fence {
    fn new(open: Open) -> Self {
        Self(Arc::new(Mutex::new(Gate {
            open,
            ending: false,
            in_flight: 0,
            unsettled_until: None,
        })))
    }

    /// Returns a fence that is closed until the Lease is held.
    #[must_use]
    pub fn shut() -> Self {
        Self::new(Open::Never)
    }

    /// Returns a fence that is always open, for operation without a Lease.
    #[must_use]
    pub fn unguarded() -> Self {
        Self::new(Open::Always)
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the fence for a Lease that this process holds until `end`: its duration after the
    /// instant *before* the request that acquired or renewed it was sent.
    pub fn hold_until(&self, end: Instant) {
        self.gate().open = end.checked_sub(MARGIN).map_or(Open::Never, Open::Until);
    }

    /// Closes the fence at once, when the Lease is lost or about to be released.
    pub fn shut_now(&self) {
        self.gate().open = Open::Never;
    }

    /// Refuses new mutating requests; those in flight continue while the Lease is held.
    pub fn refuse_new(&self) {
        self.gate().ending = true;
    }

    /// Returns true if mutating requests may leave.
    #[must_use]
    pub fn is_open(&self, now: Instant) -> bool {
        self.check(now).is_ok()
    }

    /// Waits until no mutating request of this process can take effect any more.
    pub async fn rest(&self) {
        while !self.is_at_rest(Instant::now()) {
            tokio::time::sleep(REST_INTERVAL).await;
        }
    }

    fn is_at_rest(&self, now: Instant) -> bool {
        let gate = self.gate();
        gate.in_flight == 0 && gate.unsettled_until.is_none_or(|until| until <= now)
    }

    /// Admits a new request.
    fn admit(&self, now: Instant) -> Result<InFlight, FenceError> {
        self.check(now)?;
        let mut gate = self.gate();
        if gate.ending {
            return Err(FenceError::Ending);
        }
        gate.in_flight += 1;
        Ok(InFlight { fence: self.clone(), answered: false })
    }

    /// Checks that a request may proceed.
    fn check(&self, now: Instant) -> Result<(), FenceError> {
        match self.gate().open {
            Open::Always => Ok(()),
            Open::Until(end) if now < end => Ok(()),
            Open::Until(_) | Open::Never => Err(FenceError::NotHeld),
        }
    }

    /// Returns the instant of the next check of a request that began at `began`, if nothing
    /// happens before.
    fn next_check(&self, began: Instant) -> Instant {
        let limit = began + ANSWER_LIMIT;
        match self.gate().open {
            Open::Until(end) => end.min(limit),
            Open::Always | Open::Never => limit,
        }
    }
}

/// A request in flight.
struct InFlight {
    fence: Fence,
    answered: bool,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut gate = self.fence.gate();
        gate.in_flight -= 1;
        // It may have reached the API server, which abandons it only after this time.
        if !self.answered {
            gate.unsettled_until = Some(Instant::now() + REQUEST_TIMEOUT);
        }
    }
}

impl<S> Layer<S> for Fence {
    type Service = Fenced<S>;

    fn layer(&self, inner: S) -> Fenced<S> {
        Fenced { fence: self.clone(), inner }
    }
}

/// A client's service behind the fence.
#[derive(Clone, Debug)]
pub struct Fenced<S> {
    fence: Fence,
    inner: S,
}

impl<S> Service<Request<Body>> for Fenced<S>
where
    S: Service<Request<Body>>,
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError> + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // Safe methods (RFC 9110, section 9.2.1): a standby needs them to keep its caches warm.
        if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
            let answer = self.inner.call(request);
            return Box::pin(async move {
                // The limit covers the head of the response only: a watch stays open for minutes.
                match tokio::time::timeout(READ_LIMIT, answer).await {
                    Ok(answer) => answer.map_err(Into::into),
                    Err(_) => Err(FenceError::NoAnswerToRead.into()),
                }
            });
        }
        let began = Instant::now();
        // Without a timeout in the URL the API server applies its own (`--request-timeout`, 60 s),
        // which is longer than a Lease usually lasts.
        let admitted = self.fence.admit(began).and_then(|in_flight| {
            *request.uri_mut() = with_timeout(request.uri())?;
            Ok(in_flight)
        });
        match admitted {
            Ok(in_flight) => Box::pin(guarded(in_flight, began, self.inner.call(request))),
            Err(refused) => Box::pin(async move { Err(refused.into()) }),
        }
    }
}

/// Drives a request, and checks the fence before each step of it.
async fn guarded<A, E: Into<BoxError>>(
    mut in_flight: InFlight,
    began: Instant,
    request: impl Future<Output = Result<A, E>>,
) -> Result<A, BoxError> {
    let fence = in_flight.fence.clone();
    let mut request = std::pin::pin!(request);
    let mut alarm = std::pin::pin!(tokio::time::sleep_until(fence.next_check(began).into()));
    let outcome = poll_fn(|context| {
        loop {
            let now = Instant::now();
            // A process that was suspended resumes at some poll: what has not been sent by then
            // must not be sent after the Lease has expired.
            fence.check(now)?;
            if let Poll::Ready(answer) = request.as_mut().poll(context) {
                return Poll::Ready(answer.map_err(Into::into));
            }
            if alarm.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if now.duration_since(began) >= ANSWER_LIMIT {
                return Poll::Ready(Err(FenceError::NoAnswer.into()));
            }
            // Either the Lease was renewed meanwhile, or the next iteration finds that it was not.
            alarm.as_mut().reset(fence.next_check(began).into());
        }
    });
    let outcome: Result<A, BoxError> = outcome.await;
    // After an error the request may have been sent all the same, and only its response lost.
    in_flight.answered = outcome.is_ok();
    outcome
}

/// Returns the address with the timeout for the API server.
fn with_timeout(uri: &Uri) -> Result<Uri, FenceError> {
    let mut parts = uri.clone().into_parts();
    let path = parts.path_and_query.as_ref().map_or("/", PathAndQuery::as_str);
    let separator = if path.contains('?') { '&' } else { '?' };
    let text = format!("{path}{separator}timeout={}s", REQUEST_TIMEOUT.as_secs());
    parts.path_and_query = Some(text.parse().map_err(|_| FenceError::Address("path"))?);
    Uri::from_parts(parts).map_err(|_| FenceError::Address("host"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Test server: counts requests, keeps the last address, and responds always or never.
    #[derive(Clone, Default)]
    struct Server {
        reached: Arc<AtomicUsize>,
        address: Arc<Mutex<String>>,
        silent: bool,
    }

    impl Service<Request<Body>> for Server {
        type Response = ();
        type Error = BoxError;
        type Future = BoxFuture<'static, Result<(), BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let (reached, silent) = (self.reached.clone(), self.silent);
            *self.address.lock().unwrap() = request.uri().to_string();
            Box::pin(async move {
                reached.fetch_add(1, Ordering::SeqCst);
                if silent { std::future::pending().await } else { Ok(()) }
            })
        }
    }

    fn request(method: Method) -> Request<Body> {
        Request::builder()
            .method(method)
            .uri("/api/v1/namespaces/fleet/pods?&fieldManager=test")
            .body(Body::empty())
            .unwrap()
    }

    fn reason(error: &BoxError) -> Option<FenceError> {
        error.downcast_ref::<FenceError>().copied()
    }

    #[test]
    fn requests_leave_until_six_seconds_before_the_lease_ends_and_not_after() {
        let (fence, sent) = (Fence::shut(), Instant::now());
        assert_eq!(fence.check(sent), Err(FenceError::NotHeld));
        fence.hold_until(sent + 15 * SECOND);
        assert_eq!(fence.check(sent), Ok(()));
        assert_eq!(fence.check(sent + 9 * SECOND - Duration::from_nanos(1)), Ok(()));
        assert_eq!(fence.check(sent + 9 * SECOND), Err(FenceError::NotHeld));
        // A renewal moves the end.
        fence.hold_until(sent + 2 * SECOND + 15 * SECOND);
        assert_eq!(fence.check(sent + 10 * SECOND), Ok(()));
        fence.shut_now();
        assert_eq!(fence.check(sent), Err(FenceError::NotHeld));
    }

    #[test]
    fn it_is_at_rest_when_all_is_answered_and_what_was_given_up_can_have_no_effect_any_more() {
        let fence = Fence::unguarded();
        let begin = Instant::now();
        let (mut answered, given_up) = (fence.admit(begin).unwrap(), fence.admit(begin).unwrap());
        answered.answered = true;
        drop(answered);
        assert!(!fence.is_at_rest(begin));
        drop(given_up);
        assert!(!fence.is_at_rest(begin + REQUEST_TIMEOUT - SECOND));
        assert!(fence.is_at_rest(Instant::now() + REQUEST_TIMEOUT));
    }

    #[tokio::test]
    async fn a_standby_reads_and_none_of_its_changes_reach_the_server() {
        let server = Server::default();
        let mut client = Fence::shut().layer(server.clone());
        client.call(request(Method::GET)).await.unwrap();
        assert_eq!(server.reached.load(Ordering::SeqCst), 1);
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let refused = client.call(request(method)).await.unwrap_err();
            assert_eq!(reason(&refused), Some(FenceError::NotHeld));
        }
        assert_eq!(server.reached.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_nobody_answers_is_given_up() {
        let server = Server { silent: true, ..Server::default() };
        let unanswered = Fence::unguarded().layer(server).call(request(Method::GET)).await;
        assert_eq!(reason(&unanswered.unwrap_err()), Some(FenceError::NoAnswerToRead));
    }

    #[tokio::test]
    async fn a_change_carries_its_time_and_a_read_does_not() {
        let server = Server::default();
        let mut client = Fence::unguarded().layer(server.clone());
        client.call(request(Method::POST)).await.unwrap();
        assert!(server.address.lock().unwrap().ends_with("/pods?&fieldManager=test&timeout=5s"));
        client.call(request(Method::GET)).await.unwrap();
        assert!(server.address.lock().unwrap().ends_with("/pods?&fieldManager=test"));
    }

    #[tokio::test]
    async fn a_change_that_was_admitted_and_then_waited_does_not_leave_once_the_lease_is_lost() {
        let (server, fence) = (Server::default(), Fence::shut());
        fence.hold_until(Instant::now() + 60 * SECOND);
        let waiting = fence.layer(server.clone()).call(request(Method::POST));
        fence.shut_now();
        assert_eq!(reason(&waiting.await.unwrap_err()), Some(FenceError::NotHeld));
        assert_eq!(server.reached.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_change_without_answer_is_given_up_when_the_fence_shuts() {
        let (server, fence) = (Server { silent: true, ..Server::default() }, Fence::shut());
        let begin = Instant::now();
        fence.hold_until(begin + MARGIN + Duration::from_millis(50));
        let given_up = fence.layer(server.clone()).call(request(Method::PUT)).await.unwrap_err();
        assert_eq!(reason(&given_up), Some(FenceError::NotHeld));
        assert!(begin.elapsed() < ANSWER_LIMIT);
        assert_eq!(server.reached.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_process_that_ends_begins_nothing_and_lets_what_is_under_way_finish() {
        let (server, fence) = (Server::default(), Fence::unguarded());
        let mut client = fence.layer(server.clone());
        let under_way = client.call(request(Method::POST));
        fence.refuse_new();
        assert_eq!(
            reason(&client.call(request(Method::POST)).await.unwrap_err()),
            Some(FenceError::Ending)
        );
        assert!(!fence.is_at_rest(Instant::now()));
        under_way.await.unwrap();
        fence.rest().await;
        assert_eq!(server.reached.load(Ordering::SeqCst), 1);
    }
}
