//! Connections to the API server. Does I/O.
//!
//! kube's own stack supports only HTTP/1.1: each request in flight has a connection of its own,
//! with buffers and a TLS session. Here all requests of a client share one HTTP/2 connection, as
//! those of Kubernetes' own components do; for a server or proxy that does not offer HTTP/2 (ALPN,
//! RFC 7301), HTTP/1.1 is used.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::Config;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt, DynBody, RustlsTlsError};
use tower::limit::ConcurrencyLimitLayer;
use tower::retry::RetryLayer;
use tower::util::BoxService;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_http::ServiceExt as _;

/// Interval of pings, and timeout of their answer: without pings, every new request would be sent
/// on a connection that is dead. A server that is only busy has enough time.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for which the kernel keeps data that the other side does not acknowledge
/// (`TCP_USER_TIMEOUT`). Otherwise a request from before a network partition could be delivered
/// after it, when the fence no longer waits for it.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_secs(5);

/// Requests of a client that may wait for their answers at the same time. The API server allows
/// 100 streams in a connection (`--http2-max-streams-per-connection`), of which watches, and
/// answers that are still read, need some. One request more would be queued below the fence, and
/// could be sent after the Lease has expired.
const REQUESTS_IN_FLIGHT: usize = 80;

/// Service that sends requests to the API server.
pub type Connection = BoxService<Request<Body>, Response<Box<DynBody>>, BoxError>;

/// Returns the layer that limits a client's requests to the streams of one connection. It belongs
/// outside of the fence, so that a request that waits here has not passed the fence yet.
pub fn limit() -> ConcurrencyLimitLayer {
    ConcurrencyLimitLayer::new(REQUESTS_IN_FLIGHT)
}

/// Returns the builder of a client of the API server, without the operator's own layers.
///
/// # Errors
/// Certificates or credentials cannot be read.
pub fn client(config: &Config) -> kube::Result<ClientBuilder<Connection>> {
    // Only a kubeconfig that names a proxy gets here. kube's own stack can connect through one.
    if config.proxy_url.is_some() {
        return ClientBuilder::try_from(config.clone());
    }
    let mut connector = HttpConnector::new();
    // The connector would refuse `https` URLs: TLS is a layer around it.
    connector.enforce_http(false);
    // Requests are small. Nagle's algorithm (RFC 896) would hold them back until earlier data is
    // acknowledged.
    connector.set_nodelay(true);
    connector.set_connect_timeout(config.connect_timeout);
    #[cfg(target_os = "linux")]
    connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED_LIMIT));
    let mut tls = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config()?)
        .https_or_http();
    let invalid_name = |error| kube::Error::RustlsTls(RustlsTlsError::InvalidServerName(error));
    // `tls-server-name` of the kubeconfig: through a tunnel, the API server is reached by an
    // address that its certificate does not contain.
    let name = config.tls_server_name.clone().map(TryInto::try_into).transpose();
    if let Some(name) = name.map_err(invalid_name)? {
        tls = tls.with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(name));
    }
    let client = Client::builder(TokioExecutor::new())
        // hyper has no clock of its own: the pings need the first timer, and the pool the second
        // one to drop idle connections.
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        // A connection that died while it had no stream has to be noticed before the next request
        // is sent on it.
        .http2_keep_alive_while_idle(true)
        .build(tls.enable_all_versions().wrap_connector(connector));
    // As in kube's own stack: 429, 503 and 504 are retried, after `Retry-After` (RFC 9110, section
    // 10.2.3) if the server sends it. The fence is outside, and checks the Lease before each try.
    let retries = config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry()));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(retries)
        // The kubelet replaces the token of a ServiceAccount before it expires; this layer reads
        // the file again.
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(client)
        .map_response_body(|body: Incoming| Box::new(body.map_err(BoxError::from)) as Box<DynBody>)
        .boxed();
    Ok(ClientBuilder::new(service, config.default_namespace.clone()))
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Instant;

    use futures::FutureExt;
    use tower::{Service, service_fn};

    use super::*;
    use crate::cluster::leadership::fence::{Fence, FenceError};

    fn create() -> Request<Body> {
        Request::post("/api/v1/namespaces/fleet/pods").body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn a_request_beyond_the_limit_has_not_passed_the_fence() {
        let fence = Fence::shut();
        fence.hold_until(Instant::now() + Duration::from_secs(60));
        let silent = service_fn(|_: Request<Body>| pending::<Result<(), BoxError>>());
        let mut client = ServiceBuilder::new().layer(limit()).layer(fence.clone()).service(silent);
        let mut in_flight = Vec::new();
        for _ in 0..REQUESTS_IN_FLIGHT {
            let ready = ServiceExt::<Request<Body>>::ready(&mut client).await.unwrap();
            in_flight.push(ready.call(create()));
        }
        let next = ServiceExt::<Request<Body>>::ready(&mut client).now_or_never().is_some();
        assert!(!next, "a request beyond the limit was let through");
        fence.shut_now();
        in_flight.clear();
        let ready = ServiceExt::<Request<Body>>::ready(&mut client).await.unwrap();
        let refused = ready.call(create()).await.unwrap_err();
        assert_eq!(refused.downcast_ref::<FenceError>(), Some(&FenceError::NotHeld));
    }
}
