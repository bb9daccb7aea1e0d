//! Says over HTTP whether the process lives, whether its caches are filled, whether it leads, and what it counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::leadership::Leadership;
use crate::metrics;
use crate::operator::Operator;
use crate::watch::Kind;

/// Serves `/healthz`, `/readyz` and `/metrics` until the process ends.
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
    let counting = operator.clone();
    let ready = move || async move { ready(&operator.not_synced(), role(&operator.leadership)) };
    let count = move || async move {
        let text = counting
            .metrics_text()
            .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()));
        text.map(|text| ([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], text)).into_response()
    };
    let routes = Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(count));
    let listener = TcpListener::bind(address).await?;
    axum::serve(listener, routes).await
}

fn role(leadership: &Leadership) -> &'static str {
    match (leadership.is_leading(), leadership.fence().is_open(Instant::now())) {
        (false, _) => "standby",
        (true, true) => "leader",
        (true, false) => "leader, held back until its Lease is renewed",
    }
}

fn ready(missing: &[Kind], role: &str) -> (StatusCode, String) {
    if missing.is_empty() {
        return (StatusCode::OK, role.to_owned());
    }
    let names: Vec<&str> = missing.iter().map(|kind| kind.plural()).collect();
    let text = format!(
        "not ready: the first list of these is not in yet: {}; the log says why a list fails",
        names.join(", ")
    );
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_the_caches_that_are_missing() {
        let (code, text) = ready(&[Kind::Instance, Kind::Pod], "standby");
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            text.contains("Instances of Akri, flash Pods;") && !text.contains("FlashJobs"),
            "{text}"
        );
        assert_eq!(ready(&[], "standby"), (StatusCode::OK, "standby".to_owned()));
    }
}
