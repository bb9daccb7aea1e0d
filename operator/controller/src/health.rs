//! Says over HTTP whether the process lives, whether its caches are filled, and whether it leads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::operator::Operator;

/// Serves `/healthz` and `/readyz` until the process ends.
///
/// # Errors
/// The address is taken.
pub async fn serve(address: SocketAddr, operator: Arc<Operator>) -> std::io::Result<()> {
    let leadership = operator.leadership.clone();
    let healthy = move || async move {
        if leadership.is_alive(Instant::now()) {
            (StatusCode::OK, "ok")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the election is stuck")
        }
    };
    let ready = move || async move {
        if !operator.is_synced() {
            return (StatusCode::SERVICE_UNAVAILABLE, "the caches are being filled");
        }
        let role = match (operator.leadership.is_leading(), operator.leadership.fence().is_open(Instant::now())) {
            (false, _) => "standby",
            (true, true) => "leader",
            (true, false) => "leader, held back until its Lease is renewed",
        };
        (StatusCode::OK, role)
    };
    let routes = Router::new().route("/healthz", get(healthy)).route("/readyz", get(ready));
    let listener = TcpListener::bind(address).await?;
    axum::serve(listener, routes).await
}
