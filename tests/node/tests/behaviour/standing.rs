//! Parts that the tests of this program share: one installation, and for each test a namespace
//! with its own devices.

use anyhow::ensure;
use flashjob_api::{FlashJobStatus, Phase};
use flashjob_node::installation::{Installation, LIMIT, configuration, ended, job, uids};
use flashjob_node::{Devices, Node, life};
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::process::repository;
use serde_json::{Value, json};
use tokio::process::Command;

/// Installs the operator, unless an earlier test did, and waits until it serves.
///
/// # Errors
/// The operator does not become ready.
pub async fn installed(node: &Node) -> anyhow::Result<Installation> {
    let installation = Installation::default();
    if node
        .kubectl(&["-n", &installation.namespace, "get", "deployment", &installation.name])
        .await
        .is_err()
    {
        let mut make = Command::new("make");
        make.args(["--silent", "deploy", &format!("IMG={}", flashjob_node::images::OPERATOR)]);
        make.current_dir(repository());
        node.run(make).await?;
    }
    installation.configure(node, &configured(node, &["esp32"])).await?;
    installation.rolled_out(node).await?;
    installation.serves(node, &["esp32"]).await?;
    // A plugin that an earlier test configured in addition.
    installation.device_plugin_is_deleted(node, "esp32s2").await?;
    Ok(installation)
}

/// Returns a configuration with a shorter timeout than by default for a Pod that does not start.
#[must_use]
pub fn configured(node: &Node, plugins: &[&str]) -> Value {
    let mut configured = configuration(node, plugins);
    configured["periods"]["imagePullSeconds"] = json!(45);
    configured
}

/// A namespace of one test, with devices of type esp32 that are discovered there.
pub struct Site {
    /// Name of the namespace.
    pub namespace: String,
    /// The devices.
    pub devices: Devices,
    /// Uids of their Instances.
    pub uids: Vec<String>,
}

impl Site {
    /// Creates a namespace for restricted Pods, and this many devices.
    ///
    /// # Errors
    /// A simulator does not start.
    pub async fn new(node: &Node, namespace: &str, devices: usize) -> anyhow::Result<Self> {
        installed(node).await?;
        life::make_namespace(node, namespace).await?;
        let simulated_devices =
            node.devices(namespace, &[&format!("esp32:thermo:0.1.0={devices}")]).await?;
        let uids = uids(node, namespace, devices).await?;
        Ok(Self { namespace: namespace.to_owned(), devices: simulated_devices, uids })
    }

    /// Applies a FlashJob for all devices.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn flash(&self, node: &Node, spec: Value) -> anyhow::Result<()> {
        node.apply(&job(&self.namespace, "job", &self.uids, spec)).await
    }

    /// Waits until the FlashJob has ended.
    ///
    /// # Errors
    /// The FlashJob does not end in time.
    pub async fn ended(&self, node: &Node) -> anyhow::Result<FlashJobStatus> {
        ended(node, &self.namespace, "job").await
    }

    /// Waits until every device runs the new firmware, flashed exactly once, and deletes what the
    /// test created.
    ///
    /// # Errors
    /// A device does not run the new firmware, or was flashed more than once.
    pub async fn all_flashed_once(self, node: &Node) -> anyhow::Result<FlashJobStatus> {
        let status = self.ended(node).await?;
        ensure!(status.phase == Some(Phase::Completed), "{status:?}");
        let reports = self.devices.fleet.reports().await?;
        let good = |report: &&flashjob_simulators::devices::Report| {
            report.version == "0.2.0" && report.flashed == 1 && report.conflicts == 0
        };
        ensure!(reports.iter().all(|report| good(&report)), "{reports:?}");
        self.delete(node).await?;
        Ok(status)
    }

    /// Deletes the namespace and all in it.
    ///
    /// # Errors
    /// The namespace is not gone in time.
    pub async fn delete(self, node: &Node) -> anyhow::Result<()> {
        let limit = format!("--timeout={}s", LIMIT.as_secs());
        node.kubectl(&["delete", "namespace", &self.namespace, &limit]).await.map(|_| ())
    }

    /// Has all devices hold their transfers until [`Self::release_transfers`].
    ///
    /// # Errors
    /// A device does not exist.
    pub async fn hold_transfers(&self) -> anyhow::Result<()> {
        self.behave(Behaviour::holding()).await
    }

    /// Lets all transfers go on.
    ///
    /// # Errors
    /// A device does not exist.
    pub async fn release_transfers(&self) -> anyhow::Result<()> {
        self.behave(Behaviour::default()).await
    }

    async fn behave(&self, behaviour: Behaviour) -> anyhow::Result<()> {
        for report in self.devices.fleet.reports().await? {
            self.devices.fleet.behave(&report.id, &behaviour).await?;
        }
        Ok(())
    }
}

/// Returns a FlashJob's spec without additional fields.
#[must_use]
pub fn empty_spec() -> Value {
    json!({})
}
