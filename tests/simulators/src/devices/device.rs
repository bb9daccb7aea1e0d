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

/// A device.
pub(super) struct Device {
    pub report: Mutex<Inner>,
    pub settings: Settings,
    /// True: the device holds its call back.
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

/// An update that is under way.
pub(super) struct Update {
    /// Address at which the firmware is to be had.
    pub address: String,
    /// The device has reached the flasher.
    pub connected: bool,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    /// A device that runs what its report says; `held` tells it when to hold its call back.
    ///
    /// # Errors
    /// No certificate can be made.
    pub fn new(
        report: Report,
        settings: Settings,
        held: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let certificate = certificate(&report.id)?;
        let inner = Inner { report, ..Inner::default() };
        Ok(Self { report: Mutex::new(inner), settings, held, certificate })
    }

    /// Misbehaviour for a limited number of times is used up.
    pub fn take_behaviour(&self) -> Behaviour {
        let mut inner = lock(&self.report);
        let behaviour = inner.behaviour.clone();
        match &mut inner.behaviour.times {
            Some(0) => return Behaviour::default(),
            Some(times) => *times -= 1,
            None => {}
        }
        behaviour
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
