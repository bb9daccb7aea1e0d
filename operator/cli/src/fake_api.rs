//! API server of unit tests: a function answers each request.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use crate::cluster::Place;

/// Returns the namespace `fleet` of an API server that answers with the result of a function of
/// method, path and body. None: the request is never answered.
pub fn place(
    answer: impl Fn(&Method, &str, &Value) -> Option<(StatusCode, Value)> + Send + Sync + 'static,
) -> Place {
    let answer = Arc::new(answer);
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap_or_default();
            // A read has no body, which becomes null.
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let answered = answer(&head.method, head.uri.path(), &body);
            let Some((code, value)) = answered else { return std::future::pending().await };
            let mut response = Response::new(Body::from(value.to_string().into_bytes()));
            *response.status_mut() = code;
            Ok::<_, Infallible>(response)
        }
    });
    Place { client: Client::new(service, "fleet"), namespace: "fleet".to_owned() }
}

/// Returns an answer that rejects a request about an object.
pub fn rejection(code: StatusCode, reason: &str, name: &str) -> Option<(StatusCode, Value)> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("{name}: {reason}"), "reason": reason, "code": code.as_u16(),
        "details": {"name": name},
    });
    Some((code, status))
}
