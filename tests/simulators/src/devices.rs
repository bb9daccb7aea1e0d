//! Simulated microcontrollers: two firmware slots, `GET /info`, `POST /update`, a TLS connection back to whoever holds the firmware.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::firmware::Firmware;

/// How a device misbehaves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Behaviour {
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
    /// Waits this long before it calls back, in milliseconds.
    pub callback_delay_ms: u64,
    /// Takes this long for the transfer, in milliseconds.
    pub transfer_ms: u64,
    /// Misbehaves this often and is well then; absent: for ever.
    pub times: Option<u32>,
}

/// What a device tells of itself to tests.
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
    /// Requests to update while one was under way: two flashers at once.
    pub conflicts: u32,
    /// When the last update came to its end.
    pub flashed_at: Option<Timestamp>,
}

struct Device {
    report: Mutex<Inner>,
    callback_port: u16,
    reboot: Duration,
    certificate: CertificateDer<'static>,
}

#[derive(Default)]
struct Inner {
    report: Report,
    slots: [Option<Firmware>; 2],
    active: usize,
    updating: bool,
    down: bool,
    behaviour: Behaviour,
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
    /// How many.
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
    address: IpAddr,
    callback_port: u16,
    reboot: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleet {
    /// No devices yet; they will listen on this address, call back to this port, and take so long to reboot.
    #[must_use]
    pub fn new(address: IpAddr, callback_port: u16, reboot: Duration) -> Self {
        Self { devices: Arc::default(), address, callback_port, reboot }
    }

    /// Switches devices on.
    ///
    /// # Errors
    /// No port is free, or no certificate can be made.
    pub async fn add(&self, group: &Group) -> anyhow::Result<()> {
        for _ in 0..group.count {
            let listener = TcpListener::bind((self.address, 0)).await?;
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
                callback_port: self.callback_port,
                reboot: self.reboot,
                certificate: certificate(&id)?,
            });
            devices.push(device.clone());
            let routes = Router::new()
                .route("/info", get(info))
                .route("/update", post(update))
                .with_state(device);
            tokio::spawn(async move { axum::serve(listener, routes).await });
        }
        Ok(())
    }

    /// What all devices tell of themselves.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        lock(&self.devices).iter().map(|device| lock(&device.report).report.clone()).collect()
    }

    /// Makes a device misbehave, or behave. False: there is no such device.
    #[must_use]
    pub fn behave(&self, id: &str, behaviour: Behaviour) -> bool {
        let devices = lock(&self.devices);
        let device = devices.iter().find(|device| lock(&device.report).report.id == id);
        device.map(|device| lock(&device.report).behaviour = behaviour).is_some()
    }

    /// Serves the tests' own interface: `GET /devices`, `POST /devices`, `PUT /devices/{id}/behaviour`.
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

async fn update(State(device): State<Arc<Device>>, body: String) -> (StatusCode, String) {
    let Some(address) = body.trim().strip_prefix("ip:").map(|address| address.trim().to_owned())
    else {
        return (StatusCode::BAD_REQUEST, "expected the text ip: <address>".to_owned());
    };
    {
        let mut inner = lock(&device.report);
        if inner.down {
            return (StatusCode::SERVICE_UNAVAILABLE, String::new());
        }
        if inner.updating {
            inner.report.conflicts += 1;
            return (StatusCode::CONFLICT, "an update is under way".to_owned());
        }
        inner.report.updates += 1;
        inner.updating = true;
    }
    tokio::spawn(async move {
        let behaviour = device.take_behaviour();
        if let Err(error) = device.clone().receive(&address, &behaviour).await {
            tracing::info!(%error, "an update came to nothing");
            lock(&device.report).report.refused += 1;
        }
        lock(&device.report).updating = false;
    });
    (StatusCode::OK, "updating".to_owned())
}

impl Device {
    /// Misbehaviour for a limited number of times is used up.
    fn take_behaviour(&self) -> Behaviour {
        let mut inner = lock(&self.report);
        let behaviour = inner.behaviour.clone();
        match &mut inner.behaviour.times {
            Some(0) => return Behaviour::default(),
            Some(times) => *times -= 1,
            None => {}
        }
        behaviour
    }

    async fn receive(self: Arc<Self>, address: &str, behaviour: &Behaviour) -> anyhow::Result<()> {
        if behaviour.no_callback {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(behaviour.callback_delay_ms)).await;
        let stream = TcpStream::connect((address, self.callback_port))
            .await
            .with_context(|| format!("cannot call back to {address}"))?;
        lock(&self.report).report.callbacks += 1;
        let config = rustls::ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_no_client_auth();
        let name = ServerName::try_from("flasher")?;
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.write_all(&self.certificate).await?;
        stream.flush().await?;
        let mut image = Vec::new();
        if behaviour.cut_transfer {
            let mut half = [0; 64];
            stream.read_exact(&mut half).await?;
            anyhow::bail!("the device cut the transfer");
        }
        tokio::time::sleep(Duration::from_millis(behaviour.transfer_ms)).await;
        stream.read_to_end(&mut image).await?;
        stream.shutdown().await?;
        let firmware = Firmware::decode(&image)?;
        ensure!(!behaviour.refuse_image, "the device refuses the image");
        self.reboot_into(firmware, behaviour).await
    }

    async fn reboot_into(&self, firmware: Firmware, behaviour: &Behaviour) -> anyhow::Result<()> {
        {
            let mut inner = lock(&self.report);
            ensure!(
                firmware.device == inner.report.device,
                "the firmware is for {}",
                firmware.device
            );
            let spare = 1 - inner.active;
            inner.slots[spare] = Some(firmware.clone());
            inner.active = spare;
            inner.down = true;
        }
        tokio::time::sleep(self.reboot).await;
        let mut inner = lock(&self.report);
        inner.down = behaviour.never_back;
        inner.report.flashed += 1;
        inner.report.flashed_at = Some(Timestamp::now());
        inner.report.previous_version = inner.report.version.clone();
        if !behaviour.stale_version {
            inner.report.version = firmware.version;
        }
        Ok(())
    }
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

/// The devices do not know the flash container's certificate.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
