//! A simulated chip on a node's serial port: a pseudo-terminal behind which an ESP ROM loader
//! answers, the Instance that Akri's udev handler makes for it, and the extended resource that
//! Akri's device plugin offers on the node.

pub mod loader;
pub mod slip;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::routing::get;
use axum::{Json, Router};
use flashjob_api::akri::{Instance, InstanceSpec};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use loader::{Loader, Report};

/// How the device and its Akri are set up.
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

/// A chip that is switched on.
pub struct Chip {
    /// Its end of the cable, as `/dev/pts/3`.
    pub port: String,
    loader: Arc<Mutex<Loader>>,
    /// The cable stays plugged in: a terminal that nobody holds would report an error to the chip.
    _cable: OwnedFd,
}

impl Chip {
    /// Opens a pseudo-terminal and answers on it, in a thread of its own.
    ///
    /// # Errors
    /// No terminal is to be had.
    pub fn switch_on() -> anyhow::Result<Self> {
        let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)
            .context("cannot open a pseudo-terminal")?;
        grantpt(&own)?;
        unlockpt(&own)?;
        let port =
            ptsname(&own, Vec::new())?.into_string().context("the name of a pseudo-terminal")?;
        let cable = rustix::fs::open(port.as_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
        let mut raw = tcgetattr(&cable)?;
        raw.make_raw();
        tcsetattr(&cable, OptionalActions::Now, &raw)?;
        let loader = Arc::new(Mutex::new(Loader::default()));
        let answering = loader.clone();
        std::thread::spawn(move || answer(File::from(own), &answering));
        Ok(Self { port, loader, _cable: cable })
    }

    /// Returns the report of the chip about itself.
    #[must_use]
    pub fn report(&self) -> Report {
        self.loader.lock().unwrap_or_else(PoisonError::into_inner).report()
    }

    /// Serves the tests' own interface: `GET /device`.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn serve_admin(self: Arc<Self>, address: SocketAddr) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let routes =
            Router::new().route("/device", get(move || async move { Json(self.report()) }));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(address)
    }
}

fn answer(mut terminal: File, loader: &Mutex<Loader>) {
    let mut decoder = slip::Decoder::default();
    let mut bytes = [0; 4096];
    while let Ok(count) = terminal.read(&mut bytes) {
        for frame in decoder.feed(&bytes[..count]) {
            let answers = loader.lock().unwrap_or_else(PoisonError::into_inner).answer(&frame);
            for answer in answers {
                if terminal.write_all(&slip::encode(&answer)).is_err() {
                    return;
                }
            }
        }
    }
}

/// Makes the Instance, as Akri's udev handler would, and offers its resource on the node, as Akri's
/// device plugin would.
///
/// # Errors
/// The cluster refuses.
pub async fn announce(client: &Client, settings: &Settings, port: &str) -> anyhow::Result<String> {
    crate::akri::install(client).await?;
    let hash = Sha256::digest(format!("{}{}", settings.node, settings.devpath).as_bytes());
    let name = format!("akri-serial-{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2]);
    let properties = [("UDEV_DEVNODE", port), ("UDEV_DEVPATH", settings.devpath.as_str())];
    let spec = InstanceSpec {
        configuration_name: "akri-serial".to_owned(),
        capacity: 1,
        cdi_name: format!("akri.sh/akri-serial={name}"),
        broker_properties: properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        device_usage: BTreeMap::new(),
        nodes: vec![settings.node.clone()],
        shared: false,
    };
    offer(client, &settings.node, &name).await?;
    let instances: Api<Instance> = Api::namespaced(client.clone(), &settings.namespace);
    instances.create(&PostParams::default(), &Instance::new(&name, spec)).await?;
    Ok(name)
}

/// One Pod at a time may have the device. The node may not have registered yet.
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
