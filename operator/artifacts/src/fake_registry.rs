//! Fake registry for tests: it gives configured answers and records the requests.
#![allow(missing_docs, clippy::expect_used)]

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use tokio::net::TcpListener;

use crate::Digest;
use crate::config::RegistryConfig;

type Requests = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// Fake registry on loopback that computes its answers from path and authorization, and records
/// the requests.
pub struct Fake {
    pub host: String,
    requests: Requests,
}

pub type Answer = (StatusCode, Vec<(&'static str, String)>, Vec<u8>);

pub fn answer(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    (StatusCode::from_u16(status).expect("a status"), Vec::new(), body.into())
}

pub fn with(mut answer: Answer, name: &'static str, value: impl Into<String>) -> Answer {
    answer.1.push((name, value.into()));
    answer
}

impl Fake {
    pub async fn start(
        respond: impl Fn(&str, &str, Option<&str>) -> Answer + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let requests = Requests::default();
        let (request_log, server_host) = (requests.clone(), host.clone());
        let app = axum::Router::new().fallback(move |uri: Uri, headers: HeaderMap| {
            let authorization = headers
                .get("authorization")
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned);
            let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
            let (status, headers, body) = respond(&server_host, &path, authorization.as_deref());
            request_log.lock().expect("not poisoned").push((path, authorization));
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            std::future::ready(response.body(Body::from(body)).expect("a response"))
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { host, requests }
    }

    pub fn config(&self) -> RegistryConfig {
        let config = serde_json::json!({"host": self.host, "plainHttp": true});
        serde_json::from_value(config).expect("a configuration")
    }

    pub fn asked(&self) -> Vec<(String, Option<String>)> {
        self.requests.lock().expect("not poisoned").clone()
    }
}

/// Manifest with one component and the size that it declares for it.
pub fn manifest(layer: &[u8], size: usize) -> String {
    serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"),
            "size": 2,
        },
        "layers": [{"mediaType": "application/wasm", "digest": Digest::of(layer), "size": size}],
    })
    .to_string()
}
