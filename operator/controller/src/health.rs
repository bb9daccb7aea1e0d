//! Says over HTTP whether the process lives and whether its caches are filled.

use std::net::SocketAddr;
use std::sync::Arc;

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
    let ready = move || async move {
        if operator.is_synced() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "the caches are being filled") }
    };
    let routes = Router::new().route("/healthz", get(|| async { "ok" })).route("/readyz", get(ready));
    let listener = TcpListener::bind(address).await?;
    axum::serve(listener, routes).await
}
