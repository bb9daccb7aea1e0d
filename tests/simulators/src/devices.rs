//! Simulated microcontrollers: two firmware slots, `GET /info`, `POST /update`, and a TLS
//! connection back to the flasher that has the firmware. Devices of type wled receive uploads
//! instead.

mod device;
mod update;
mod upload;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use device::{Behaviour, Report, Settings};
use device::{Device, lock};

/// A group of identical devices: `type:application:version=count`.
#[derive(Clone, Debug)]
pub struct Group {
    /// Device type.
    pub device: String,
    /// Application.
    pub application: String,
    /// Version that they report at first.
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

/// Simulated devices of this process.
#[derive(Clone)]
pub struct Fleet {
    devices: Arc<Mutex<Vec<Arc<Device>>>>,
    settings: Settings,
    held: watch::Sender<bool>,
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
    /// No port is free, or no certificate can be created.
    pub async fn add(&self, group: &Group) -> anyhow::Result<()> {
        for _ in 0..group.count {
            let listener = TcpListener::bind((self.settings.address, 0)).await?;
            let mut devices = lock(&self.devices);
            let report = Report {
                id: format!("{}-{}", group.device, devices.len()),
                device: group.device.clone(),
                application: group.application.clone(),
                endpoint: listener.local_addr()?.to_string(),
                version: group.version.clone(),
                ..Report::default()
            };
            let device = Arc::new(Device::new(report, self.settings, self.held.subscribe())?);
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

    /// Returns each device's report about itself.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        lock(&self.devices).iter().map(|device| lock(&device.report).report.clone()).collect()
    }

    /// Holds the connections back of all devices, or releases them, so that all begin at the same
    /// time.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Sets the behaviour of a device. Returns false if there is no such device.
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

    /// Serves the interface for tests: `GET /devices`, `POST /devices`, `PUT
    /// /devices/{id}/behaviour`.
    ///
    /// # Errors
    /// The address is in use.
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
    Ok(Json(serde_json::json!({
        "device": report.device, "application": report.application, "version": report.version,
    })))
}
