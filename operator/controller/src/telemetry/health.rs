//! HTTP endpoints for liveness, for readiness with the reason or the role, and for metrics.
//!
//! Each part that needs the API server reports whether it works: [`problem`] has the problems and
//! their messages, [`keeper`] receives the reports, [`record`] decides which problems are
//! announced and whether the operator is ready. [`opened`] reports watches that work, [`advice`]
//! what the configuration lacks.

pub mod advice;
pub mod keeper;
pub mod opened;
pub mod problem;
pub mod record;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::operator::Operator;
use crate::telemetry::metrics::{self, Fleet};
use record::Readiness;

/// Serves `/healthz`, `/readyz` and `/metrics` until the process ends.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(
    address: SocketAddr,
    operator: Arc<Operator>,
    readiness: watch::Receiver<Readiness>,
) -> std::io::Result<()> {
    let leadership = operator.leadership.clone();
    // Liveness depends on nothing outside of the process: a restart would not bring an API server
    // back.
    let healthy = move || async move {
        if leadership.is_alive(Instant::now()) {
            (StatusCode::OK, "ok")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the leader election is stuck")
        }
    };
    let counting = operator.clone();
    let ready = move || async move { ready(&readiness.borrow(), role(&operator)) };
    let count = move || async move {
        let text = metrics_text(&counting).await;
        text.map(|text| ([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], text)).into_response()
    };
    let routes = Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(count));
    let listener = TcpListener::bind(address).await?;
    axum::serve(listener, routes).await
}

/// Returns the metrics as text, with the current state of all jobs in the loop's caches.
async fn metrics_text(operator: &Operator) -> Result<String, (StatusCode, String)> {
    let counted = operator
        .ask(|world| (Fleet::of(world.jobs.values().map(|job| &**job)), world.plugins.clone()));
    let ends = || (StatusCode::SERVICE_UNAVAILABLE, "the operator is shutting down".to_owned());
    let (fleet, plugins) = counted.await.ok_or_else(ends)?;
    let text = operator.metrics.text(fleet, &plugins);
    text.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn role(operator: &Operator) -> &'static str {
    let leadership = &operator.leadership;
    let held = leadership.fence().is_open(Instant::now());
    match (leadership.is_leading(), held, operator.is_planning()) {
        (false, ..) => "standby",
        (true, true, true) => "leader",
        (true, true, false) => "leader, listing afresh",
        (true, false, _) => "leader, held back until its Lease is renewed",
    }
}

fn ready(readiness: &Readiness, role: &str) -> (StatusCode, String) {
    match readiness {
        Readiness::Ready => (StatusCode::OK, role.to_owned()),
        Readiness::NotReady(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_says_the_role_or_why_it_is_not_ready() {
        assert_eq!(ready(&Readiness::Ready, "standby"), (StatusCode::OK, "standby".to_owned()));
        let why = Readiness::NotReady("pods: forbidden".to_owned());
        let (code, text) = ready(&why, "standby");
        assert_eq!((code.as_u16(), text.as_str()), (503, "not ready: pods: forbidden"));
    }
}
