//! Tests updates over HTTP, with the options that the plugin http-push generates, against servers
//! that answer as each firmware's documentation says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::world::plugin::DeviceRequest;
use axum::body::Bytes;
use axum::extract::{Multipart, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use flashjob_flasher::Stage;
use flashjob_flasher::arguments::{Command, Http};
use flashjob_flasher::http::flash;
use flashjob_flasher::outcome::{AttemptFailure, Code, Sent};
use flashjob_plugin_http_push::{HttpPush, PRESETS};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Bytes that a device has received; it reports the version at their beginning.
type Slot = Arc<Mutex<Vec<u8>>>;

/// Firmware: its version, a line break, and padding.
fn firmware() -> Vec<u8> {
    [b"2.0.0\n".to_vec(), vec![7; 3 << 20]].concat()
}

fn version(slot: &Slot) -> String {
    let bytes = slot.lock().expect("not poisoned");
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.is_empty() { "1.0.0".to_owned() } else { String::from_utf8_lossy(line).into_owned() }
}

/// A device, a registry, and the options of the plugin for them.
struct Place {
    slot: Slot,
    options: Http,
    _device_request: DeviceRequest,
}

impl Place {
    async fn new(host: &str, device_type: &str, settings: &Value, device: Router<Slot>) -> Self {
        let listener = TcpListener::bind((host, 0)).await.expect("a loopback address");
        let endpoint = listener.local_addr().expect("bound").to_string();
        let slot = Slot::default();
        let routes =
            device.layer(axum::extract::DefaultBodyLimit::max(16 << 20)).with_state(slot.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let device_request =
            DeviceRequest::new(device_type, endpoint, settings, &firmware()).await;
        let more = [
            format!("--login-directory={}", device_request.folder.path().display()),
            format!("--listen={host}"),
        ];
        let command = device_request.command::<HttpPush>(host, &more);
        let Command::Http(mut options) = command else { panic!("http") };
        options.restart_timeout = options.restart_timeout.min(Duration::from_secs(3));
        Self { slot, options: *options, _device_request: device_request }
    }

    async fn flash(&self) -> Result<Sent, AttemptFailure> {
        flash(&self.options, &watch::channel(Stage::Preparing).0).await
    }

    fn received(&self) -> usize {
        self.slot.lock().expect("not poisoned").len()
    }
}

/// Accepts the file of a form, as WLED and ESPHome do.
async fn form(State(slot): State<Slot>, mut form: Multipart) -> StatusCode {
    let mut file_bytes = None;
    while let Ok(Some(field)) = form.next_field().await {
        if field.name() == Some("update") && field.file_name().is_some() {
            file_bytes = field.bytes().await.ok();
        }
    }
    let Some(bytes) = file_bytes else { return StatusCode::BAD_REQUEST };
    *slot.lock().expect("not poisoned") = bytes.to_vec();
    StatusCode::OK
}

/// Fetches from the URL in a query, as a device does.
async fn fetch(slot: Slot, url: String) {
    let answer = reqwest::get(url).await.expect("answered");
    assert_eq!(answer.content_length(), Some(firmware().len() as u64));
    *slot.lock().expect("not poisoned") = answer.bytes().await.expect("fetched").to_vec();
}

fn wled() -> Router<Slot> {
    let info = |State(slot): State<Slot>| async move {
        Json(json!({"ver": version(&slot), "vid": 2_410_000, "brand": "WLED"}))
    };
    Router::new().route("/update", post(form)).route("/json/info", get(info))
}

fn tasmota() -> Router<Slot> {
    #[derive(serde::Deserialize)]
    struct Commands {
        cmnd: String,
    }
    let command = |State(slot): State<Slot>, Query(commands): Query<Commands>| async move {
        let cmnd = commands.cmnd;
        if cmnd == "Status 2" {
            return Json(json!({"StatusFWR": {"Version": version(&slot), "Core": "3.1"}}));
        }
        let url = cmnd
            .strip_prefix("Backlog OtaUrl ")
            .and_then(|rest| rest.strip_suffix(";Upgrade 1"))
            .map(str::to_owned);
        let Some(url) = url else { return Json(json!({"Command": "Unknown"})) };
        tokio::spawn(fetch(slot, url));
        Json(json!({}))
    };
    Router::new().route("/cm", get(command))
}

fn esphome() -> Router<Slot> {
    Router::new().route("/update", post(form))
}

fn shelly() -> Router<Slot> {
    #[derive(serde::Deserialize)]
    struct Ota {
        url: String,
    }
    let ota = |State(slot): State<Slot>, Query(Ota { url }): Query<Ota>| async move {
        tokio::spawn(fetch(slot, url));
        Json(json!({"status": "updating", "has_update": false}))
    };
    let shelly = |State(slot): State<Slot>| async move {
        Json(json!({"type": "SHPLG-S", "mac": "A", "auth": false, "fw": version(&slot)}))
    };
    Router::new().route("/ota", get(ota)).route("/shelly", get(shelly))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_preset_updates_a_device_that_behaves_as_its_documentation_says() {
    for (index, name) in PRESETS.iter().enumerate() {
        let device = match *name {
            "wled" => wled(),
            "tasmota" => tasmota(),
            "esphome" => esphome(),
            "shelly" => shelly(),
            name => panic!("preset {name} has no test"),
        };
        let host = format!("127.80.1.{}", index + 1);
        let place = Place::new(&host, name, &json!({}), device).await;
        let sent = place.flash().await.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert_eq!(place.received(), firmware().len(), "{name}: {sent:?}");
        // ESPHome does not report its version.
        assert_eq!(sent.proven, *name != "esphome", "{name}: {sent:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_its_own_kind_needs_settings_alone() {
    let update = |State(slot): State<Slot>, headers: HeaderMap, body: Bytes| async move {
        // Like small servers: it requires a content length and a login.
        let length = headers.get("content-length").and_then(|length| length.to_str().ok());
        let login = headers.get("authorization").and_then(|login| login.to_str().ok());
        if length != Some(&body.len().to_string()) || login != Some("Basic cm9vdDpzZWNyZXQ=") {
            return StatusCode::UNAUTHORIZED;
        }
        if headers.get("x-key").is_none_or(|key| key != "k") {
            return StatusCode::FORBIDDEN;
        }
        *slot.lock().expect("not poisoned") = body.to_vec();
        StatusCode::FOUND
    };
    let version = |State(slot): State<Slot>| async move { version(&slot) };
    let device = Router::new().route("/flash", put(update)).route("/version", get(version));
    let settings = json!({
        "method": "PUT", "path": "/flash", "headers": {"X-Key": "k"}, "success": [302],
        "versionPath": "/version",
    });
    let place = Place::new("127.80.1.10", "http-kiln", &settings, device).await;
    let failure = place.flash().await.expect_err("it asks for a login");
    assert_eq!(failure.code, Code::DeviceRefused, "{failure}");
    for (file, text) in [("username", "root\n"), ("password", "secret\n")] {
        std::fs::write(place.options.login_directory.join(file), text).expect("written");
    }
    let sent = place.flash().await.expect("flashed");
    assert!(sent.proven && sent.message.contains("reports version 2.0.0"), "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_fail_has_its_code_and_names_the_device() {
    let answers = |status: StatusCode| {
        Router::new().route("/update", post(move |_: Bytes| async move { status }))
    };
    let silent = Router::new().route("/ota", get(|| async { "ok" }));
    let stale = Router::new()
        .route("/update", post(|_: Bytes| async { StatusCode::OK }))
        .route("/json/info", get(|| async { Json(json!({"ver": "1.0.0"})) }));
    let no_version =
        Router::new().route("/json/info", get(|| async { Json(json!({"version": "1.0.0"})) }));
    for (index, (kind, settings, device, code)) in [
        ("http", json!({}), answers(StatusCode::NOT_FOUND), Code::DeviceRefused),
        ("http", json!({}), answers(StatusCode::CONFLICT), Code::DeviceBusy),
        ("http", json!({}), answers(StatusCode::INTERNAL_SERVER_ERROR), Code::TransferBroken),
        (
            "http",
            json!({"body": "url", "method": "GET", "path": "/ota?u={url}"}),
            silent,
            Code::NoCallback,
        ),
        ("wled", json!({}), stale, Code::VerifyFailed),
        ("wled", json!({}), no_version, Code::BadConfiguration),
    ]
    .into_iter()
    .enumerate()
    {
        let host = format!("127.80.2.{}", index + 1);
        let mut place = Place::new(&host, kind, &settings, device).await;
        place.options.callback_timeout = Duration::from_millis(300);
        let failure = place.flash().await.expect_err("not flashed");
        assert_eq!(failure.code, code, "{index}: {failure}");
    }
    // Missing options are reported before anything is fetched.
    let fetches = json!({"body": "url", "path": "/ota?u={url}"});
    let mut place = Place::new("127.80.2.18", "http", &fetches, Router::new()).await;
    place.options.external_ip = None;
    place.options.pull.firmware = "127.0.0.1:9/a/b:1".to_owned();
    let failure = place.flash().await.expect_err("no address");
    assert_eq!(failure.code, Code::BadConfiguration, "{failure}");
    // A server that closes the connection midway.
    let server = TcpListener::bind("127.80.2.19:0").await.expect("a loopback address");
    let mut place = Place::new("127.80.2.19", "http", &json!({}), Router::new()).await;
    place.options.host_endpoint = server.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        let (mut stream, _) = server.accept().await.expect("connected");
        stream.read_exact(&mut vec![0; 1 << 20]).await.expect("read");
    });
    let failure = place.flash().await.expect_err("it ends the connection");
    assert_eq!(failure.code, Code::TransferBroken, "{failure}");
    assert!(failure.bytes.is_some_and(|bytes| bytes >= 1 << 19), "{:?}", failure.bytes);
    let mut place = Place::new("127.80.2.20", "http", &json!({}), Router::new()).await;
    place.options.host_endpoint = "127.80.2.20:9".to_owned();
    let failure = place.flash().await.expect_err("nobody answers");
    assert_eq!(failure.code, Code::DeviceUnreachable, "{failure}");
}
