//! A simulated chip on a node's serial port: a pseudo-terminal on which an ESP ROM loader answers,
//! the Instance that Akri's udev handler creates for it, and the extended resource that Akri's
//! device plugin offers on the node.
//!
//! A pseudo-terminal has no control lines, so nothing resets the chip: it answers as if its boot
//! button were held down.

pub mod loader;
pub mod slip;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::routing::get;
use axum::{Json, Router};
use flashjob_api::akri::{Instance, InstanceSpec};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use crate::terminal::Terminal;
use loader::{Loader, Report};

/// Settings of the device and its Akri.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// Namespace of the Instance.
    #[arg(long, default_value = "default")]
    pub namespace: String,
    /// The node that the device is plugged into; it registers itself.
    #[arg(long, default_value = "simulated-node")]
    pub node: String,
    /// Path of the device below /sys.
    #[arg(long, default_value = "/devices/platform/usb1/1-1/1-1:1.0/ttyUSB0/tty/ttyUSB0")]
    pub devpath: String,
    /// Own interface for tests: GET /device.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub admin: SocketAddr,
    /// Only the chip, without a cluster: to try a flash program by hand.
    #[arg(long)]
    pub alone: bool,
}

/// Misbehaviour of a chip after it has accepted some blocks.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    /// Number of blocks that it accepts before; with 0 it never answers.
    pub after_blocks: u32,
    /// Kind of misbehaviour.
    pub kind: TroubleKind,
}

/// Kinds of misbehaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// It stops answering.
    Silence,
    /// It sends bytes of all values without end, as at a wrong baud rate.
    Noise,
    /// It sends the same byte without end, as on a broken line.
    StuckLine,
    /// Its answers state a wrong length.
    WrongLength,
    /// Its cable is unplugged.
    Unplugged,
    /// It answers only after the test calls [`Chip::go_on`].
    Waits,
}

/// A chip that is switched on.
pub struct Chip {
    /// Path of its serial port on the node, such as `/dev/pts/3`.
    pub port: String,
    shared: Arc<Shared>,
    /// Keeps the cable plugged in: a terminal that no process holds open would report an error to
    /// the chip.
    cable: OwnedFd,
}

/// State of a chip that its thread and the tests share.
struct Shared {
    loader: Mutex<Loader>,
    trouble: Option<Trouble>,
    is_off: AtomicBool,
    may_go_on: Mutex<bool>,
    goes_on: Condvar,
}

impl Chip {
    /// Opens a pseudo-terminal and answers on it as an ESP32 in its loader, in a separate thread.
    ///
    /// # Errors
    /// No pseudo-terminal is available.
    pub fn switch_on() -> anyhow::Result<Self> {
        Self::with(loader::Settings::default(), None)
    }

    /// Switches on a chip with these settings, which misbehaves if `trouble` is given.
    ///
    /// # Errors
    /// No pseudo-terminal is available.
    pub fn with(settings: loader::Settings, trouble: Option<Trouble>) -> anyhow::Result<Self> {
        let Terminal { port, device, cable } = Terminal::open()?;
        let shared = Arc::new(Shared {
            loader: Mutex::new(Loader::new(settings)),
            trouble,
            is_off: AtomicBool::new(false),
            may_go_on: Mutex::new(false),
            goes_on: Condvar::new(),
        });
        let answering = shared.clone();
        std::thread::spawn(move || answering.answer(device));
        Ok(Self { port, shared, cable })
    }

    /// Returns the chip's report about itself.
    #[must_use]
    pub fn report(&self) -> Report {
        self.shared.loader().report()
    }

    /// Returns the content of a part of its flash.
    #[must_use]
    pub fn content(&self, offset: usize, size: usize) -> Vec<u8> {
        self.shared.loader().content(offset, size)
    }

    /// Restarts the chip into its ROM loader, as a person does by hand.
    pub fn reset(&self) {
        self.shared.loader().reset();
    }

    /// Lets a waiting chip continue.
    pub fn go_on(&self) {
        *self.shared.may_go_on.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.goes_on.notify_all();
    }

    /// Serves the interface for tests: `GET /device`.
    ///
    /// # Errors
    /// The address is in use.
    pub async fn serve_admin(self: Arc<Self>, address: SocketAddr) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let routes =
            Router::new().route("/device", get(move || async move { Json(self.report()) }));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(address)
    }
}

impl Drop for Chip {
    fn drop(&mut self) {
        self.shared.is_off.store(true, Ordering::Relaxed);
        self.go_on();
        // A byte from this end wakes up the thread.
        let _ = rustix::io::write(&self.cable, &[0]);
    }
}

impl Shared {
    fn loader(&self) -> MutexGuard<'_, Loader> {
        self.loader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers until the cable is unplugged.
    fn answer(&self, mut terminal: File) {
        let mut decoder = slip::Decoder::default();
        let mut bytes = [0; 4096];
        while let Ok(count) = terminal.read(&mut bytes) {
            if self.is_off.load(Ordering::Relaxed) {
                return;
            }
            for frame in decoder.feed(&bytes[..count]) {
                let (answers, blocks) = {
                    let mut loader = self.loader();
                    (loader.answer(&frame), loader.report().blocks)
                };
                let due = self.trouble.filter(|trouble| blocks >= trouble.after_blocks);
                match due.map(|trouble| trouble.kind) {
                    None | Some(TroubleKind::WrongLength) => {}
                    Some(TroubleKind::Silence) => continue,
                    Some(TroubleKind::Unplugged) => return,
                    Some(TroubleKind::Waits) => self.wait(),
                    Some(TroubleKind::StuckLine) => return self.flood(terminal, &[0x55]),
                    Some(TroubleKind::Noise) => {
                        let all: Vec<u8> =
                            (0..=u8::MAX).map(|byte| byte.wrapping_mul(91)).collect();
                        return self.flood(terminal, &all);
                    }
                }
                for mut answer in answers {
                    if due.is_some_and(|trouble| trouble.kind == TroubleKind::WrongLength)
                        && let Some(length) = answer.get_mut(2..4)
                    {
                        length.fill(0xff);
                    }
                    if terminal.write_all(&slip::encode(&answer)).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Sends these bytes repeatedly until the chip is off or the other end is closed.
    fn flood(&self, mut terminal: File, bytes: &[u8]) {
        while !self.is_off.load(Ordering::Relaxed) {
            if terminal.write_all(bytes).is_err() {
                return;
            }
        }
    }

    fn wait(&self) {
        let mut may = self.may_go_on.lock().unwrap_or_else(PoisonError::into_inner);
        while !*may {
            may = self.goes_on.wait(may).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Creates the Instance, as Akri's udev handler would, and offers its resource on the node, as
/// Akri's device plugin would.
///
/// # Errors
/// The API server refuses.
pub async fn announce(client: &Client, settings: &Settings, port: &str) -> anyhow::Result<String> {
    crate::akri::install(client).await?;
    let hash = Sha256::digest(format!("{}{}", settings.node, settings.devpath).as_bytes());
    let name = format!("akri-serial-{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2]);
    let properties = [("UDEV_DEVNODE", port), ("UDEV_DEVPATH", settings.devpath.as_str())];
    let spec = InstanceSpec {
        configuration_name: "akri-serial".to_owned(),
        capacity: 1,
        cdi_name: format!("akri.sh/akri-serial={name}"),
        broker_properties: properties
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        device_usage: BTreeMap::new(),
        nodes: vec![settings.node.clone()],
        shared: false,
    };
    offer(client, &settings.node, &name).await?;
    let instances: Api<Instance> = Api::namespaced(client.clone(), &settings.namespace);
    instances.create(&PostParams::default(), &Instance::new(&name, spec)).await?;
    Ok(name)
}

/// Offers the device to one Pod at a time. Retries until the node has registered.
async fn offer(client: &Client, node: &str, instance: &str) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let resource = json!({format!("akri.sh/{instance}"): "1"});
    let status = json!({"status": {"capacity": resource, "allocatable": resource}});
    loop {
        match nodes.patch_status(node, &PatchParams::default(), &Patch::Strategic(&status)).await {
            Err(kube::Error::Api(answer)) if answer.code == 404 => {
                tokio::time::sleep(Duration::from_millis(100)).await
            }
            patched => return Ok(patched.map(|_| ())?),
        }
    }
}
