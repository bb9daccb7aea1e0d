//! A simulated chip on the serial port of the testbed's node, and the image that would flash it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use flashjob_api::akri::Instance;
use flashjob_simulators::serial::loader::{Report, hexadecimal};
use kube::{Api, ResourceExt};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::Testbed;
use crate::process::{Process, eventually, sibling};

/// The firmware image: esptool is its entry point, and it carries the firmware.
pub const IMAGE: &str = "harbor.nbfc.io/nubificus/esp-serial-firmware:0.2.0";

/// A chip. It is unplugged when this goes.
pub struct SerialChip {
    /// Uid of its Instance.
    pub uid: String,
    /// Name of its Instance.
    pub instance: String,
    /// Its file on the node.
    pub port: String,
    admin: String,
    http: reqwest::Client,
    _process: Process,
}

/// The folder that stands for the root of [`IMAGE`].
pub(crate) fn image_root(folder: &Path) -> PathBuf {
    folder.join("serial-image")
}

impl SerialChip {
    /// Plugs a chip into the testbed's node, and puts this firmware into [`IMAGE`].
    ///
    /// # Errors
    /// The simulator does not start, or the cluster refuses its Instance.
    pub async fn plug_in(testbed: &Testbed, firmware: &[u8]) -> anyhow::Result<Self> {
        let folder = image_root(testbed.folder()).join("firmware");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("firmware.bin"), firmware)?;
        let mut command = Command::new(sibling("simulate")?);
        command
            .args(["--exit-with-stdin", "serial"])
            .env("KUBECONFIG", &testbed.control_plane.kubeconfig);
        let (process, said) =
            Process::start_and_listen("serial", command, testbed.folder()).await?;
        let text = |key: &str| {
            said[key]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("the serial chip does not say its {key}"))
        };
        let (instance, port, admin) = (text("instance")?, text("port")?, text("admin")?);
        let instances: Api<Instance> = Api::namespaced(testbed.client.clone(), "default");
        let uid = eventually("the chip has its Instance", Duration::from_secs(20), || async {
            Ok(instances.get_opt(&instance).await?.and_then(|found| found.uid()))
        });
        let uid = uid.await?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { uid, instance, port, admin, http, _process: process })
    }

    /// Returns the report of the chip about itself.
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

/// SHA-256 of some firmware, as a chip reports it.
#[must_use]
pub fn digest(firmware: &[u8]) -> String {
    hexadecimal(&Sha256::digest(firmware))
}
