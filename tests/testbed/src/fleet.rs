//! The simulated devices, through the simulators' test interface.

use std::collections::HashMap;

use flashjob_api::akri::Instance;
use flashjob_simulators::akri::instance_name;
use flashjob_simulators::devices::{Behaviour, Report};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

/// The devices of a testbed.
#[derive(Clone)]
pub struct Fleet {
    http: reqwest::Client,
    devices: String,
    akri: String,
}

impl Fleet {
    /// Returns the fleet whose simulators serve their test interfaces at `devices` and `akri`.
    ///
    /// # Errors
    /// The HTTP client cannot be created.
    pub fn new(devices: &str, akri: &str) -> anyhow::Result<Self> {
        Ok(Self {
            http: reqwest::Client::builder().no_proxy().build()?,
            devices: devices.to_owned(),
            akri: akri.to_owned(),
        })
    }

    /// Returns each device's report about itself.
    ///
    /// # Errors
    /// The simulator does not answer.
    pub async fn reports(&self) -> anyhow::Result<Vec<Report>> {
        Ok(self
            .http
            .get(format!("http://{}/devices", self.devices))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?)
    }

    /// Returns the uid of each device's Instance in a namespace, with the device's report.
    ///
    /// # Errors
    /// The API server or the simulator does not answer.
    pub async fn devices(
        &self,
        client: &Client,
        namespace: &str,
    ) -> anyhow::Result<Vec<(String, Report)>> {
        let instances: Api<Instance> = Api::namespaced(client.clone(), namespace);
        let instances = instances.list(&ListParams::default()).await?;
        let uids: HashMap<String, String> = instances
            .into_iter()
            .map(|instance| (instance.name_any(), instance.uid().unwrap_or_default()))
            .collect();
        let reports = self.reports().await?;
        Ok(reports
            .into_iter()
            .filter_map(|report| Some((uids.get(&instance_name(&report))?.clone(), report)))
            .collect())
    }

    /// Sets the behaviour of a device.
    ///
    /// # Errors
    /// There is no such device.
    pub async fn behave(&self, id: &str, behaviour: &Behaviour) -> anyhow::Result<()> {
        let request = self
            .http
            .put(format!("http://{}/devices/{id}/behaviour", self.devices))
            .json(behaviour);
        request.send().await?.error_for_status()?;
        Ok(())
    }

    /// Recreates, removes or returns the Instance of a device.
    ///
    /// # Errors
    /// Akri does not know the verb, or the cluster refuses.
    pub async fn akri(&self, report: &Report, verb: &str) -> anyhow::Result<()> {
        let request = self.http.post(format!(
            "http://{}/instances/{}/{verb}",
            self.akri,
            instance_name(report)
        ));
        request.send().await?.error_for_status()?;
        Ok(())
    }
}
