//! Client layer that counts requests to the API server, by Kubernetes verb and HTTP status code;
//! both labels have a bounded number of values. Requests that the fence stops are not counted.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use http::{Method, Request, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tower::{BoxError, Layer, Service};

use crate::cluster::leadership::fence::FenceError;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Answered {
    verb: &'static str,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Verb {
    verb: &'static str,
}

/// Metrics of requests, and the client layer that updates them.
#[derive(Clone, Debug)]
pub struct Requests {
    pub(super) count: Family<Answered, Counter>,
    /// Time until the response; for a watch, until it is open.
    pub(super) duration: Family<Verb, Histogram, fn() -> Histogram>,
}

impl Default for Requests {
    fn default() -> Self {
        let histogram = || Histogram::new(exponential_buckets(0.005, 2.0, 12));
        Self { count: Family::default(), duration: Family::new_with_constructor(histogram) }
    }
}

impl Requests {
    fn answered(&self, verb: &'static str, code: Option<u16>, since: Instant) {
        let code = code.map_or_else(|| "error".to_owned(), |code| code.to_string());
        self.count.get_or_create(&Answered { verb, code }).inc();
        self.duration.get_or_create(&Verb { verb }).observe(since.elapsed().as_secs_f64());
    }
}

impl<S> Layer<S> for Requests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { requests: self.clone(), inner }
    }
}

/// A client whose requests are counted.
#[derive(Clone, Debug)]
pub struct Counted<S> {
    requests: Requests,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let verb = verb(request.method(), request.uri());
        let (requests, since) = (self.requests.clone(), Instant::now());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            // A standby, or a leader that could not renew, would look like a failing API server.
            if !answer.as_ref().is_err_and(is_stopped) {
                let code = answer.as_ref().ok().map(|answer| answer.status().as_u16());
                requests.answered(verb, code, since);
            }
            answer
        })
    }
}

/// Returns true if the fence stopped the request, so that the API server did not fail it.
fn is_stopped(error: &BoxError) -> bool {
    error.downcast_ref::<FenceError>().is_some_and(FenceError::is_stop)
}

/// Returns the verb of a request, as RBAC rules name it.
fn verb(method: &Method, uri: &http::Uri) -> &'static str {
    let watches = || {
        uri.query().is_some_and(|query| {
            query.split('&').any(|part| matches!(part, "watch=true" | "watch=1" | "watch"))
        })
    };
    match method.as_str() {
        "GET" if watches() => "watch",
        "GET" if names_a_collection(uri.path()) => "list",
        "GET" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "other",
    }
}

/// Returns true for the path of a collection, such as `/api/v1/pods` or
/// `/apis/apps/v1/namespaces/a/deployments`; false for an object, a subresource or discovery.
fn names_a_collection(path: &str) -> bool {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let group = match parts.first() {
        Some(&"api") => 2,
        Some(&"apis") => 3,
        _ => return false,
    };
    parts.drain(..group.min(parts.len()));
    // `/api/v1/namespaces/a` is the object `a`, not a collection inside it.
    if parts.len() > 2 && parts[0] == "namespaces" {
        parts.drain(..2);
    }
    parts.len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_those_of_kubernetes() {
        let jobs = "/apis/application.flashjob.nbfc.io/v1alpha1";
        let cases = [
            ("GET", format!("{jobs}/flashjobs?limit=500"), "list"),
            ("GET", format!("{jobs}/flashjobs?watch=true&resourceVersion=1"), "watch"),
            ("GET", format!("{jobs}/namespaces/a/flashjobs"), "list"),
            ("GET", format!("{jobs}/namespaces/a/flashjobs/b"), "get"),
            ("PATCH", format!("{jobs}/namespaces/a/flashjobs/b/status"), "patch"),
            ("GET", "/api/v1/pods".to_owned(), "list"),
            ("GET", "/api/v1/namespaces/a/pods/b/log".to_owned(), "get"),
            ("GET", "/api/v1/namespaces/a".to_owned(), "get"),
            ("GET", "/version".to_owned(), "get"),
            ("POST", "/api/v1/namespaces/a/pods".to_owned(), "create"),
            ("DELETE", "/api/v1/namespaces/a/pods/b".to_owned(), "delete"),
        ];
        for (method, uri, expected) in cases {
            let found = verb(&method.parse().unwrap(), &uri.parse().unwrap());
            assert_eq!(found, expected, "{method} {uri}");
        }
    }

    #[tokio::test]
    async fn an_answer_is_counted_by_its_code_and_a_missing_one_as_error() {
        let requests = Requests::default();
        let answer = |request: Request<()>| async move {
            match request.uri().path() {
                "/broken" => Err(BoxError::from("broken")),
                "/unanswered" => Err(FenceError::NoAnswerToRead.into()),
                _ => Ok(Response::builder().status(409).body(()).unwrap()),
            }
        };
        let mut client = requests.layer(tower::service_fn(answer));
        for path in ["/api/v1/namespaces/a/pods/b", "/broken", "/unanswered"] {
            let _ = client.call(Request::get(path).body(()).unwrap()).await;
        }
        let count = |code: &str| {
            requests.count.get_or_create(&Answered { verb: "get", code: code.to_owned() }).get()
        };
        assert_eq!((count("409"), count("error")), (1, 2));
    }

    #[tokio::test]
    async fn a_request_that_the_fence_stops_is_not_counted() {
        let requests = Requests::default();
        for stop in [FenceError::NotHeld, FenceError::Ending, FenceError::Address("path")] {
            let answer =
                move |_: Request<()>| async move { Err::<Response<()>, _>(BoxError::from(stop)) };
            let mut client = requests.layer(tower::service_fn(answer));
            let request = Request::post("/api/v1/namespaces/a/pods").body(()).unwrap();
            let stopped = client.call(request).await.unwrap_err();
            assert_eq!(stopped.downcast_ref::<FenceError>(), Some(&stop));
        }
        let failed = Answered { verb: "create", code: "error".to_owned() };
        assert_eq!(requests.count.get_or_create(&failed).get(), 0);
    }
}
