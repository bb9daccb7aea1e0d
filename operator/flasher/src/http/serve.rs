//! Serves firmware that a device fetches from an unguessable URL, which is sent to the device.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use reqwest::Url;
use reqwest::header::CONTENT_LENGTH;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::body::{self, Progress};
use super::request::{Login, accepted, request};
use crate::Stage;
use crate::arguments::Http;
use crate::endpoint::Endpoint;
use crate::firmware::Firmware;
use crate::listen::listen;
use crate::outcome::{AttemptFailure, Code};

/// Placeholder for the firmware's URL in the path of the request.
const URL: &str = "{url}";
/// Interval between checks of the device's progress.
const LOOK: Duration = Duration::from_millis(50);
/// Time in which the last bytes leave this machine once they are handed to the network.
const LEAVE: Duration = Duration::from_secs(1);

/// Firmware, and the progress of each request that fetches it.
#[derive(Clone)]
struct Served {
    firmware: Arc<Firmware>,
    fetches: Arc<Mutex<Vec<Progress>>>,
    /// Stage of the attempt; the first fetch begins the transfer.
    stage: watch::Sender<Stage>,
}

impl Served {
    fn begin(&self) -> Progress {
        let progress = Progress::default();
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner).push(progress.clone());
        progress
    }

    /// Returns the progress of the most advanced fetch, in bytes: an interrupted one starts again.
    fn bytes(&self) -> u64 {
        let fetches = self.fetches.lock().unwrap_or_else(PoisonError::into_inner);
        fetches.iter().map(Progress::bytes).max().unwrap_or_default()
    }
}

/// Serves the firmware, sends its URL to the device, and waits until the device has fetched it.
///
/// # Errors
/// The device rejects the request, does not fetch the firmware, or fetches only a part.
pub(super) async fn fetched(
    options: &Http,
    endpoint: &Endpoint,
    login: &Login,
    firmware: &Arc<Firmware>,
    stage: &watch::Sender<Stage>,
) -> Result<(), AttemptFailure> {
    let address = address(options)?;
    let mut secret = [0; 16];
    // The port is reachable from outside, and only the device may fetch the firmware.
    SystemRandom::new().fill(&mut secret).map_err(|_| bad("cannot generate random bytes"))?;
    let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = format!("/{secret}/firmware.bin");
    let listener = listen(options.listen, options.port).await?;
    let served =
        Served { firmware: firmware.clone(), fetches: Arc::default(), stage: stage.clone() };
    let routes = Router::new().route(&path, get(serve)).with_state(served.clone());
    let server = tokio::spawn(async move { axum::serve(listener, routes).await });
    let url = Url::parse(&format!("http://{address}:{}{path}", options.port))
        .or_else(|_| Url::parse(&format!("http://[{address}]:{}{path}", options.port)))
        .map_err(|error| bad("cannot build the URL of the firmware").because(error))?;
    let encoded: String = url::form_urlencoded::byte_serialize(url.as_str().as_bytes()).collect();
    let url_request = request(options, endpoint, &options.path.replace(URL, &encoded), login)?;
    let answer = url_request.send().await.map_err(|error| {
        let message = format!("device {endpoint} does not answer");
        AttemptFailure::new(Code::DeviceUnreachable, message).because(error)
    });
    let ended = match answer {
        // A device that has begun to fetch may be too busy to answer.
        Err(failure) if served.bytes() == 0 => Err(failure),
        Ok(answer) => match accepted(options, endpoint, answer.status(), served.bytes()) {
            Ok(()) => wait(options, endpoint, &served).await,
            refused => refused,
        },
        Err(_) => wait(options, endpoint, &served).await,
    };
    // Later connections are refused: no device may fetch firmware after the end of the attempt.
    server.abort();
    ended
}

fn bad(message: &str) -> AttemptFailure {
    AttemptFailure::new(Code::BadConfiguration, message)
}

/// Checks that the options let the device learn the URL, and returns the address to fetch from.
///
/// # Errors
/// No address is given, or the request has no place for it.
pub(super) fn address(options: &Http) -> Result<IpAddr, AttemptFailure> {
    if !options.path.contains(URL) {
        return Err(bad(
            "--path does not contain {url}, so the device would not receive the URL of the \
             firmware",
        ));
    }
    options.external_ip.ok_or_else(|| {
        bad("EXTERNAL_IP is empty, but --body url requires the address that the device fetches \
             from")
    })
}

async fn serve(State(served): State<Served>) -> Result<impl IntoResponse, StatusCode> {
    // A second fetch finds the stage Sending, and is served; only an ended attempt refuses.
    if !Stage::begin(&served.stage) && *served.stage.borrow() == Stage::Ended {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let progress = served.begin();
    let firmware = served.firmware;
    // Some clients, such as ESP8266httpUpdate, reject an answer whose length is not announced.
    let length = (HeaderName::from_static(CONTENT_LENGTH.as_str()), firmware.size().to_string());
    Ok(([length], axum::body::Body::from_stream(body::stream(&firmware, progress))))
}

async fn wait(options: &Http, endpoint: &Endpoint, served: &Served) -> Result<(), AttemptFailure> {
    let started_at = Instant::now();
    loop {
        let bytes = served.bytes();
        if bytes >= served.firmware.size() {
            // The bytes are counted when they are taken for sending, and this process ends soon
            // after.
            sleep(LEAVE).await;
            return Ok(());
        }
        let waited = started_at.elapsed();
        if bytes == 0 && waited >= options.callback_timeout {
            let limit = options.callback_timeout;
            let message = format!(
                "device {endpoint} was sent the URL, but fetched nothing within {limit:?}"
            );
            return Err(AttemptFailure::new(Code::NoCallback, message));
        }
        if waited >= options.transfer_timeout {
            let limit = options.transfer_timeout;
            let message = format!("the transfer failed: not complete after {limit:?}");
            let failure = AttemptFailure::new(Code::TransferBroken, message);
            return Err(AttemptFailure { bytes: Some(bytes), ..failure });
        }
        sleep(LOOK).await;
    }
}
