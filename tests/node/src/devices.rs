//! Simulated devices, and their Akri Instances in one namespace. The devices listen on the node's
//! address.

use std::path::Path;

use anyhow::Context;
use flashjob_testbed::Fleet;
use flashjob_testbed::process::{Process, sibling};
use serde_json::Value;
use tokio::process::Command;

use crate::network::{HOSTNAME, NODE};

/// Devices that are discovered in one namespace. Dropping this value stops them; their Instances
/// stay until the namespace is deleted.
pub struct Devices {
    /// The devices themselves.
    pub fleet: Fleet,
    _simulators: [Process; 2],
}

impl Devices {
    /// Switches devices on, each group as `type:application:version=count`.
    ///
    /// # Errors
    /// A simulator does not start.
    pub async fn start(
        kubeconfig: &Path,
        folder: &Path,
        namespace: &str,
        groups: &[&str],
    ) -> anyhow::Result<Self> {
        let simulator = |name: &str| -> anyhow::Result<Command> {
            let mut command = Command::new(sibling("simulate")?);
            command.args(["--exit-with-stdin", name]).env("KUBECONFIG", kubeconfig);
            Ok(command)
        };
        let at = |addresses: &Value| {
            addresses["admin"].as_str().map(str::to_owned).context("no address")
        };
        let mut devices = simulator("devices")?;
        devices.args(["--address", &NODE.to_string()]);
        for group in groups {
            devices.args(["--devices", group]);
        }
        let name = format!("devices-{namespace}");
        let (devices, addresses) = Process::start_and_listen(&name, devices, folder).await?;
        let address = at(&addresses)?;
        let mut akri = simulator("akri")?;
        akri.args(["--devices", &address, "--namespace", namespace, "--node", HOSTNAME]);
        let name = format!("akri-{namespace}");
        let (akri, addresses) = Process::start_and_listen(&name, akri, folder).await?;
        Ok(Self { fleet: Fleet::new(&address, &at(&addresses)?)?, _simulators: [devices, akri] })
    }
}
