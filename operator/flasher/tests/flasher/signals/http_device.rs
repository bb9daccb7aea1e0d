//! Device that is updated over HTTP, and stops at a step until the test lets it continue.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use futures::StreamExt;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::Step;
use crate::world::run::until;

/// Number of firmware bytes after which it stops.
const PART: usize = 1 << 20;

/// The device.
pub struct HttpDevice {
    /// Host and port.
    pub endpoint: String,
    inner: Arc<Inner>,
}

struct Inner {
    /// Firmware that it runs.
    bytes: Mutex<Vec<u8>>,
    /// Step that it stops at.
    step: Step,
    has_stopped: AtomicBool,
    goes_on: watch::Sender<bool>,
}

#[derive(serde::Deserialize)]
struct Address {
    u: String,
}

impl HttpDevice {
    pub async fn start(host: &str, step: Step) -> Self {
        let listener = TcpListener::bind((host, 0)).await.expect("a loopback address");
        let endpoint = listener.local_addr().expect("bound").to_string();
        let inner = Arc::new(Inner {
            bytes: Mutex::default(),
            step,
            has_stopped: AtomicBool::new(false),
            goes_on: watch::channel(false).0,
        });
        let routes = Router::new()
            .route("/update", post(upload))
            .route("/ota", get(fetch))
            .route("/version", get(version))
            .with_state(inner.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { endpoint, inner }
    }

    /// Waits until the device has stopped at its step.
    pub async fn stops(&self) {
        let has_stopped = || self.inner.has_stopped.load(Ordering::Relaxed);
        until(has_stopped, || format!("it stops at {:?}", self.inner.step)).await;
    }

    pub fn go_on(&self) {
        self.inner.goes_on.send_replace(true);
    }

    pub fn has(&self, firmware: &[u8]) -> bool {
        *self.inner.bytes.lock().expect("not poisoned") == firmware
    }
}

impl Inner {
    /// Stops here, if this is the configured step.
    async fn step(&self, step: Step) {
        if step == self.step {
            self.has_stopped.store(true, Ordering::Relaxed);
            self.goes_on.subscribe().wait_for(|goes_on| *goes_on).await.expect("it is there");
        }
    }

    /// Receives firmware; a partial one changes nothing.
    async fn take(&self, body: Body) -> Result<(), axum::Error> {
        let (mut bytes, mut parts) = (Vec::new(), body.into_data_stream());
        while let Some(part) = parts.next().await {
            let before = bytes.len();
            bytes.extend_from_slice(&part?);
            if before < PART && bytes.len() >= PART {
                self.step(Step::Sending).await;
            }
        }
        *self.bytes.lock().expect("not poisoned") = bytes;
        Ok(())
    }
}

async fn upload(State(device): State<Arc<Inner>>, body: Body) -> StatusCode {
    match device.take(body).await {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

/// Fetches the firmware after it has answered, as devices do.
async fn fetch(State(device): State<Arc<Inner>>, Query(Address { u }): Query<Address>) {
    tokio::spawn(async move {
        device.step(Step::Told).await;
        let answer = reqwest::get(u).await.and_then(reqwest::Response::error_for_status);
        if let Ok(answer) = answer {
            let _ = device.take(Body::from_stream(answer.bytes_stream())).await;
        }
    });
}

async fn version(State(device): State<Arc<Inner>>) -> String {
    let text = {
        let bytes = device.bytes.lock().expect("not poisoned");
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        String::from_utf8_lossy(line).into_owned()
    };
    if text.is_empty() {
        device.step(Step::Asking).await;
        return "1.0.0".to_owned();
    }
    device.step(Step::Proving).await;
    text
}
