//! Simulated microcontrollers: two firmware slots, `GET /info`, `POST /update`, a TLS connection
//! back to whoever holds the firmware; those of type wled are uploaded to.

mod update;
mod upload;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Context;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::firmware::Firmware;

/// How all devices of a fleet are built.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Settings {
    /// Address on which the devices listen.
    #[arg(long, default_value = "127.0.0.1")]
    pub address: IpAddr,
    /// Port on which a device calls back.
    #[arg(long, default_value_t = 4433)]
    pub callback_port: u16,
    /// Milliseconds that a device takes to reboot.
    #[arg(long, default_value_t = 300)]
    pub reboot_ms: u64,
    /// Milliseconds without an answer or a byte after which a device gives its update up.
    #[arg(long, default_value_t = 10_000)]
    pub receive_timeout_ms: u64,
}

/// Misbehaviour of a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Behaviour {
    /// Takes every request to update, also while an update is under way, as programs without an
    /// update state do.
    pub heedless: bool,
    /// Answers the request to update, and never calls back.
    pub no_callback: bool,
    /// Closes the connection half-way through the firmware.
    pub cut_transfer: bool,
    /// Throws the firmware away as if it were broken.
    pub refuse_image: bool,
    /// Never answers again after an update.
    pub never_back: bool,
    /// Goes on reporting its old version.
    pub stale_version: bool,
    /// For so many milliseconds after it was first asked, its connections back are refused: no
    /// node leads to the Pod yet.
    pub refused_ms: u64,
    /// Waits this long before it calls back, in milliseconds.
    pub callback_delay_ms: u64,
    /// Takes this long for the transfer, in milliseconds.
    pub transfer_ms: u64,
    /// Reads no firmware until it is told to behave otherwise.
    pub holds_transfer: bool,
    /// Misbehaves this often and is well then; absent: for ever.
    pub times: Option<u32>,
}

/// Report of a device about itself, for tests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Name of the device in the simulation.
    pub id: String,
    /// Device type.
    pub device: String,
    /// Application.
    pub application: String,
    /// `host:port` of its HTTP server.
    pub endpoint: String,
    /// The version that it reports.
    pub version: String,
    /// The version before the last update.
    pub previous_version: String,
    /// Requests to update.
    pub updates: u32,
    /// Connections back.
    pub callbacks: u32,
    /// Updates that came to their end: new firmware runs.
    pub flashed: u32,
    /// Images refused, or transfers that broke.
    pub refused: u32,
    /// Updates that ended because the flasher could not be connected to.
    pub unreached: u32,
    /// Requests to update from the flasher that the device was about to call.
    pub repeats: u32,
    /// Requests to update from another flasher, or in mid-transfer: two flashers at once.
    pub conflicts: u32,
    /// Time at which the last update came to its end.
    pub flashed_at: Option<Timestamp>,
}

struct Device {
    report: Mutex<Inner>,
    settings: Settings,
    held: watch::Receiver<bool>,
    certificate: CertificateDer<'static>,
}

#[derive(Default)]
struct Inner {
    report: Report,
    slots: [Option<Firmware>; 2],
    active: usize,
    update: Option<Update>,
    first_asked: Option<Instant>,
    down: bool,
    behaviour: Behaviour,
}

/// An update that is under way.
struct Update {
    /// Address at which the firmware is to be had.
    address: String,
    /// The device has reached the flasher.
    connected: bool,
}

/// A group of like devices: `type:application:version=count`.
#[derive(Clone, Debug)]
pub struct Group {
    /// Device type.
    pub device: String,
    /// Application.
    pub application: String,
    /// The version that they report at first.
    pub version: String,
    /// Number of devices.
    pub count: usize,
}

impl std::str::FromStr for Group {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let form =
            || format!("{text:?} is not type:application:version=count, as esp32:thermo:0.1.0=6");
        let (kind, count) = text.rsplit_once('=').with_context(form)?;
        let mut parts = kind.splitn(3, ':').map(str::to_owned);
        let mut part = || parts.next().filter(|part| !part.is_empty()).with_context(form);
        Ok(Self {
            device: part()?,
            application: part()?,
            version: part()?,
            count: count.parse().with_context(form)?,
        })
    }
}

/// Devices in this process.
#[derive(Clone)]
pub struct Fleet {
    devices: Arc<Mutex<Vec<Arc<Device>>>>,
    settings: Settings,
    held: watch::Sender<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleet {
    /// Returns a fleet without devices.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { devices: Arc::default(), settings, held: watch::Sender::new(false) }
    }

    /// Switches devices on.
    ///
    /// # Errors
    /// No port is free, or no certificate can be made.
    pub async fn add(&self, group: &Group) -> anyhow::Result<()> {
        for _ in 0..group.count {
            let listener = TcpListener::bind((self.settings.address, 0)).await?;
            let mut devices = lock(&self.devices);
            let id = format!("{}-{}", group.device, devices.len());
            let report = Report {
                id: id.clone(),
                device: group.device.clone(),
                application: group.application.clone(),
                endpoint: listener.local_addr()?.to_string(),
                version: group.version.clone(),
                ..Report::default()
            };
            let inner = Inner { report, ..Inner::default() };
            let device = Arc::new(Device {
                report: Mutex::new(inner),
                settings: self.settings,
                held: self.held.subscribe(),
                certificate: certificate(&id)?,
            });
            devices.push(device.clone());
            let routes = Router::new().route("/info", get(info));
            let routes = match group.device.starts_with("wled") {
                true => routes
                    .route("/update", post(upload::update))
                    .route("/json/info", get(upload::info))
                    .layer(DefaultBodyLimit::disable()),
                false => routes.route("/update", post(update::update)),
            };
            let routes = routes.with_state(device);
            tokio::spawn(async move { axum::serve(listener, routes).await });
        }
        Ok(())
    }

    /// Returns the reports of all devices about themselves.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        lock(&self.devices).iter().map(|device| lock(&device.report).report.clone()).collect()
    }

    /// Holds the calls back of all devices, or lets them go: so that all begin at the same time.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Makes a device misbehave, or behave. False: there is no such device.
    #[must_use]
    pub fn behave(&self, id: &str, behaviour: Behaviour) -> bool {
        let devices = lock(&self.devices);
        let device = devices.iter().find(|device| lock(&device.report).report.id == id);
        let behave = |device: &Arc<Device>| {
            let mut inner = lock(&device.report);
            inner.behaviour = behaviour;
            inner.first_asked = None;
        };
        device.map(behave).is_some()
    }

    /// Serves the tests' own interface: `GET /devices`, `POST /devices`, `PUT
    /// /devices/{id}/behaviour`.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn serve_admin(&self, address: SocketAddr) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let routes = Router::new()
            .route(
                "/devices",
                get(|State(fleet): State<Self>| async move { Json(fleet.reports()) }).post(add),
            )
            .route("/devices/{id}/behaviour", put(behave))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(address)
    }
}

async fn add(State(fleet): State<Fleet>, group: String) -> Result<(), (StatusCode, String)> {
    let bad = |error: anyhow::Error| (StatusCode::BAD_REQUEST, error.to_string());
    fleet.add(&group.parse().map_err(bad)?).await.map_err(bad)
}

async fn behave(
    State(fleet): State<Fleet>,
    Path(id): Path<String>,
    Json(behaviour): Json<Behaviour>,
) -> StatusCode {
    if fleet.behave(&id, behaviour) { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

async fn info(State(device): State<Arc<Device>>) -> Result<Json<serde_json::Value>, StatusCode> {
    let inner = lock(&device.report);
    if inner.down {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let report = &inner.report;
    Ok(Json(
        serde_json::json!({"device": report.device, "application": report.application, "version": report.version}),
    ))
}

/// The device's identity: a certificate in DER, of the size that a real one has.
fn certificate(id: &str) -> anyhow::Result<CertificateDer<'static>> {
    let mut parameters = rcgen::CertificateParams::new(vec![id.to_owned()])?;
    parameters.distinguished_name.push(rcgen::DnType::CommonName, id);
    parameters
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "simulated device identity ".repeat(16));
    let key = rcgen::KeyPair::generate()?;
    Ok(parameters.self_signed(&key)?.der().clone())
}
