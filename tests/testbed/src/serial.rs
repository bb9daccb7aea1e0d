//! A simulated chip on the serial port of the testbed's node, and its firmware in the registry.

use std::time::Duration;

use anyhow::Context;
use flashjob_api::akri::Instance;
use flashjob_simulators::firmware::Firmware;
use flashjob_simulators::serial::loader::{Report, hexadecimal};
use kube::{Api, ResourceExt};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::Testbed;
use crate::artifacts::push_firmware;
use crate::process::{Process, eventually, sibling};

/// Firmware of the chip.
pub const FIRMWARE: &str = "harbor.nbfc.io/nubificus/serial-firmware:0.2.0";

/// A simulated chip. Dropping this value unplugs it.
pub struct SerialChip {
    /// Uid of its Instance.
    pub uid: String,
    /// Name of its Instance.
    pub instance: String,
    /// Path of its serial port on the node.
    pub port: String,
    admin: String,
    http: reqwest::Client,
    _process: Process,
}

impl SerialChip {
    /// Plugs a chip into the testbed's node, and pushes this firmware as [`FIRMWARE`].
    ///
    /// # Errors
    /// The simulator does not start, the registry refuses the firmware, or the API server refuses
    /// the Instance.
    pub async fn plug_in(testbed: &Testbed, firmware: Firmware) -> anyhow::Result<Self> {
        let name = FIRMWARE.split_once('/').map_or(FIRMWARE, |(_, name)| name);
        push_firmware(&testbed.registry, name, &[firmware]).await?;
        let mut command = Command::new(sibling("simulate")?);
        command
            .args(["--exit-with-stdin", "serial"])
            .env("KUBECONFIG", &testbed.control_plane.kubeconfig);
        let (process, addresses) =
            Process::start_and_listen("serial", command, testbed.folder()).await?;
        let text = |key: &str| {
            addresses[key]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("the serial chip does not say its {key}"))
        };
        let (instance, port, admin) = (text("instance")?, text("port")?, text("admin")?);
        let instances: Api<Instance> = Api::namespaced(testbed.client.clone(), "default");
        let uid = eventually("the chip has its Instance", Duration::from_secs(20), || async {
            Ok(instances.get_opt(&instance).await?.and_then(|object| object.uid()))
        });
        let uid = uid.await?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { uid, instance, port, admin, http, _process: process })
    }

    /// Returns the chip's report about itself.
    ///
    /// # Errors
    /// The simulator does not answer.
    pub async fn report(&self) -> anyhow::Result<Report> {
        Ok(self
            .http
            .get(format!("http://{}/device", self.admin))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?)
    }
}

/// Returns the SHA-256 of firmware as a chip reports it: padded to a multiple of four bytes, the
/// unit of a write.
#[must_use]
pub fn digest(firmware: &[u8]) -> String {
    let mut written = firmware.to_vec();
    written.resize(firmware.len().next_multiple_of(4), 0xff);
    hexadecimal(&Sha256::digest(&written))
}
