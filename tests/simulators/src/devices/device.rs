//! One simulated device: its settings, its misbehaviour, its report, and its two firmware slots.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::firmware::Firmware;

/// Settings of all devices of a fleet.
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
    /// Accepts every update request, even during an update, like programs without an update state.
    pub heedless: bool,
    /// Answers the update request, and never connects back.
    pub no_callback: bool,
    /// Closes the connection half-way through the firmware.
    pub cut_transfer: bool,
    /// Discards the firmware as if it were corrupt.
    pub refuse_image: bool,
    /// Never answers again after an update.
    pub never_back: bool,
    /// Keeps reporting its old version.
    pub stale_version: bool,
    /// Milliseconds after the first request during which its connections back are refused, as if
    /// no node routed to the Pod yet.
    pub refused_ms: u64,
    /// Milliseconds that it waits before it connects back.
    pub callback_delay_ms: u64,
    /// Duration of the transfer, in milliseconds.
    pub transfer_ms: u64,
    /// Reads no firmware until its behaviour is changed.
    pub holds_transfer: bool,
    /// Number of times that it misbehaves; absent: always.
    pub times: Option<u32>,
}

impl Behaviour {
    /// Returns the behaviour of a device that reads no firmware until its behaviour is changed.
    #[must_use]
    pub fn holding() -> Self {
        Self { holds_transfer: true, ..Self::default() }
    }
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
    /// Version that it reports.
    pub version: String,
    /// Version before the last update.
    pub previous_version: String,
    /// Number of update requests.
    pub updates: u32,
    /// Number of connections back.
    pub callbacks: u32,
    /// Number of updates that ended with the new firmware running.
    pub flashed: u32,
    /// Number of images refused and transfers that broke.
    pub refused: u32,
    /// Number of updates that ended because the device could not connect to the flasher.
    pub unreached: u32,
    /// Number of update requests from the flasher to which the device was about to connect.
    pub repeats: u32,
    /// Number of update requests from another flasher, or during a transfer: two flashers at once.
    pub conflicts: u32,
    /// Time at which the last update ended with the new firmware running.
    pub flashed_at: Option<Timestamp>,
}

/// A device.
pub(super) struct Device {
    pub report: Mutex<Inner>,
    pub settings: Settings,
    /// True while the device must not connect back.
    pub held: watch::Receiver<bool>,
    pub certificate: CertificateDer<'static>,
}

/// State of a device.
#[derive(Default)]
pub(super) struct Inner {
    pub report: Report,
    slots: [Option<Firmware>; 2],
    active: usize,
    pub update: Option<Update>,
    pub first_asked: Option<Instant>,
    pub down: bool,
    pub behaviour: Behaviour,
}

impl Inner {
    /// Returns the behaviour for the next update, and counts down its remaining times.
    pub fn take_behaviour(&mut self) -> Behaviour {
        let behaviour = self.behaviour.clone();
        match &mut self.behaviour.times {
            Some(0) => return Behaviour::default(),
            Some(times) => *times -= 1,
            None => {}
        }
        behaviour
    }
}

/// An update in progress.
pub(super) struct Update {
    /// Address of the flasher that has the firmware.
    pub address: String,
    /// True once the device has connected to the flasher.
    pub connected: bool,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    /// Returns a device that runs the firmware in its report; `held` tells it when not to connect
    /// back.
    ///
    /// # Errors
    /// No certificate can be created.
    pub fn new(
        report: Report,
        settings: Settings,
        held: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let certificate = certificate(&report.id)?;
        let inner = Inner { report, ..Inner::default() };
        Ok(Self { report: Mutex::new(inner), settings, held, certificate })
    }

    /// Boots firmware from the spare slot.
    pub async fn reboot_into(
        &self,
        firmware: Firmware,
        behaviour: &Behaviour,
    ) -> anyhow::Result<()> {
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
        tokio::time::sleep(Duration::from_millis(self.settings.reboot_ms)).await;
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

/// Returns the device's identity: a certificate in DER, as large as that of a real device.
fn certificate(id: &str) -> anyhow::Result<CertificateDer<'static>> {
    let mut parameters = rcgen::CertificateParams::new(vec![id.to_owned()])?;
    parameters.distinguished_name.push(rcgen::DnType::CommonName, id);
    parameters
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "simulated device identity ".repeat(16));
    let key = rcgen::KeyPair::generate()?;
    Ok(parameters.self_signed(&key)?.der().clone())
}
