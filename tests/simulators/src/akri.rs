//! Simulated Akri: an Instance for each device, whose VERSION follows the version that the device
//! reports.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use flashjob_api::akri::{Instance, InstanceSpec};
use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use crate::devices::Report;

/// Settings of Akri.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// The devices' own interface for tests, as `127.0.0.1:8000`.
    #[arg(long)]
    pub devices: String,
    /// Namespace of the Instances.
    #[arg(long, default_value = "default")]
    pub namespace: String,
    /// The node that sees the devices.
    #[arg(long, default_value = "simulated-node")]
    pub node: String,
    /// Milliseconds between two looks at a device.
    #[arg(long, default_value_t = 250)]
    pub interval_ms: u64,
    /// Delete the Instance of a device that has not answered so long, in milliseconds; it comes
    /// back under another uid. 0: keep it.
    #[arg(long, default_value_t = 0)]
    pub offline_after_ms: u64,
    /// Own interface for tests: POST /instances/{name}/recreate, /instances/{name}/remove,
    /// /instances/{name}/return.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub admin: SocketAddr,
}

/// A running simulation of Akri.
#[derive(Clone)]
pub struct Akri {
    instances: Api<Instance>,
    settings: Arc<Settings>,
    http: reqwest::Client,
    /// Names of Instances that a test keeps deleted.
    removed: Arc<Mutex<Vec<String>>>,
}

/// Installs the CustomResourceDefinition of Akri's Instance.
///
/// # Errors
/// The API server refuses it.
pub async fn install(client: &Client) -> anyhow::Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd: CustomResourceDefinition =
        serde_saphyr::from_str(include_str!("../akri/instances.yaml"))
            .context("the definition of Instance")?;
    crds.patch(
        "instances.akri.sh",
        &PatchParams::apply("akri-simulator").force(),
        &Patch::Apply(crd),
    )
    .await?;
    for _ in 0..200 {
        let established = crds
            .get("instances.akri.sh")
            .await?
            .status
            .and_then(|status| status.conditions)
            .unwrap_or_default();
        if established
            .iter()
            .any(|condition| condition.type_ == "Established" && condition.status == "True")
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("the CustomResourceDefinition of Instance was not established")
}

/// Returns the name of a device's Instance: `<configuration>-<6 hexadecimal digits of a hash of
/// the device's id>`.
#[must_use]
pub fn instance_name(report: &Report) -> String {
    let hash = Sha256::digest(report.endpoint.as_bytes());
    format!("akri-{}-{:02x}{:02x}{:02x}", report.device, hash[0], hash[1], hash[2])
}

/// Returns the Instance of a network device that this node discovers.
#[must_use]
pub fn instance<const COUNT: usize>(
    name: &str,
    device: &str,
    node: &str,
    properties: [(&str, String); COUNT],
) -> Instance {
    let spec = InstanceSpec {
        configuration_name: format!("akri-{device}"),
        capacity: 1,
        cdi_name: format!("akri.sh/akri-{device}={name}"),
        broker_properties: properties.map(|(key, value)| (key.to_owned(), value)).into(),
        device_usage: BTreeMap::new(),
        nodes: vec![node.to_owned()],
        shared: true,
    };
    Instance::new(name, spec)
}

impl Akri {
    /// Connects to the cluster.
    ///
    /// # Errors
    /// The HTTP client cannot be created.
    pub fn new(client: Client, settings: Settings) -> anyhow::Result<Self> {
        let http =
            reqwest::Client::builder().timeout(Duration::from_secs(2)).no_proxy().build()?;
        let instances = Api::namespaced(client, &settings.namespace);
        Ok(Self { instances, settings: Arc::new(settings), http, removed: Arc::default() })
    }

    /// Serves the interface for tests.
    ///
    /// # Errors
    /// The address is in use.
    pub async fn serve_admin(&self) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind(self.settings.admin).await?;
        let address = listener.local_addr()?;
        let routes =
            Router::new().route("/instances/{name}/{verb}", post(admin)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(address)
    }

    /// Polls all devices repeatedly.
    ///
    /// # Errors
    /// The API server cannot be reached at the start.
    pub async fn run(&self) -> anyhow::Result<()> {
        install(&self.instances.clone().into_client()).await?;
        let mut records: HashMap<String, DeviceRecord> = HashMap::new();
        loop {
            if let Err(error) = self.look(&mut records).await {
                tracing::warn!(%error, "a look at the devices failed");
            }
            tokio::time::sleep(Duration::from_millis(self.settings.interval_ms)).await;
        }
    }

    async fn look(&self, records: &mut HashMap<String, DeviceRecord>) -> anyhow::Result<()> {
        let reports: Vec<Report> = self
            .http
            .get(format!("http://{}/devices", self.settings.devices))
            .send()
            .await?
            .json()
            .await?;
        let looks = futures::stream::iter(reports).map(|report| async move {
            let info = self.info(&report.endpoint).await;
            (report, info)
        });
        let looks: Vec<(Report, Option<Value>)> = looks.buffer_unordered(32).collect().await;
        for (report, info) in looks {
            let name = instance_name(&report);
            let entry = records.entry(name.clone()).or_default();
            self.follow(&name, &report, info, entry)
                .await
                .with_context(|| format!("Instance {name}"))?;
        }
        Ok(())
    }

    async fn info(&self, endpoint: &str) -> Option<Value> {
        let answer = self.http.get(format!("http://{endpoint}/info")).send().await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }

    async fn follow(
        &self,
        name: &str,
        report: &Report,
        info: Option<Value>,
        record: &mut DeviceRecord,
    ) -> anyhow::Result<()> {
        let kept_away = self
            .removed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .any(|removed| removed == name);
        let Some(info) = info.filter(|_| !kept_away) else {
            record.missed_ms += self.settings.interval_ms;
            let limit = self.settings.offline_after_ms;
            if record.version.is_some() && (kept_away || limit > 0 && record.missed_ms >= limit) {
                record.version = None;
                self.remove(name).await?;
            }
            return Ok(());
        };
        record.missed_ms = 0;
        let version = info["version"].as_str().unwrap_or_default().to_owned();
        match &record.version {
            None => self.create(name, report, &info).await?,
            Some(before) if *before != version => {
                let patch = json!({"spec": {"brokerProperties": {"VERSION": version}}});
                self.instances.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            }
            Some(_) => return Ok(()),
        }
        record.version = Some(version);
        Ok(())
    }

    async fn create(&self, name: &str, report: &Report, info: &Value) -> anyhow::Result<()> {
        let text = |key: &str| info[key].as_str().unwrap_or_default().to_owned();
        let properties = [
            ("HOST_ENDPOINT", report.endpoint.clone()),
            ("DEVICE", text("device")),
            ("APPLICATION_TYPE", text("application")),
            ("VERSION", text("version")),
            ("AKRI_HTTP", "http".to_owned()),
        ];
        let instance = instance(name, &report.device, &self.settings.node, properties);
        match self.instances.create(&PostParams::default(), &instance).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            created => Ok(created.map(|_| ())?),
        }
    }

    async fn remove(&self, name: &str) -> anyhow::Result<()> {
        match self.instances.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            deleted => Ok(deleted.map(|_| ())?),
        }
    }

    /// Recreates the Instance of a device, with a new uid.
    async fn recreate(&self, name: &str) -> anyhow::Result<()> {
        let before = self.instances.get(name).await?;
        self.remove(name).await?;
        self.instances.create(&PostParams::default(), &Instance::new(name, before.spec)).await?;
        Ok(())
    }
}

#[derive(Default)]
struct DeviceRecord {
    version: Option<String>,
    missed_ms: u64,
}

async fn admin(
    State(akri): State<Akri>,
    Path((name, verb)): Path<(String, String)>,
) -> Result<(), (StatusCode, String)> {
    let mut kept_away = Vec::new();
    std::mem::swap(
        &mut kept_away,
        &mut akri.removed.lock().unwrap_or_else(PoisonError::into_inner),
    );
    kept_away.retain(|removed| *removed != name);
    if verb == "remove" {
        kept_away.push(name.clone());
    }
    *akri.removed.lock().unwrap_or_else(PoisonError::into_inner) = kept_away;
    match verb.as_str() {
        "recreate" => akri
            .recreate(&name)
            .await
            .map_err(|error| (StatusCode::BAD_GATEWAY, error.to_string())),
        "remove" | "return" => Ok(()),
        _ => Err((StatusCode::NOT_FOUND, "expected recreate, remove or return".to_owned())),
    }
}
