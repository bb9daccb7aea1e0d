//! Parts that every case needs: a control plane, a registry with the plugin, Instances, a cheap
//! simulated kubelet and load balancer, and a fresh operator for each case.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use flashjob_api::akri::{Instance, InstanceSpec};
use flashjob_testbed::Options;
use flashjob_testbed::certificates::Authority;
use flashjob_testbed::control_plane::ControlPlane;
use flashjob_testbed::process::{Process, eventually, free_port, script, sibling};
use flashjob_testbed::registry::Registry;
use flashjob_testbed::testbed::{grant_rights, install_crds, publish};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

/// Number of addresses, far more than Services at any one time, so that no Service waits for one.
const ADDRESSES: u32 = 2000;
/// Application type of the devices that are flashed.
pub const APPLICATION: &str = "thermo";
/// Application type of the devices that are not flashed.
const OTHER_APPLICATION: &str = "hygro";
/// Number of Instances that are created concurrently.
const CREATES_AT_ONCE: usize = 32;

/// All parts except the operator.
pub struct Stage {
    /// Client with an administrator's rights.
    pub client: Client,
    /// The control plane.
    pub control_plane: ControlPlane,
    instances: Vec<String>,
    names: usize,
    kubelet: Option<(u64, Process)>,
    _balancer: Process,
    registry: Registry,
    folder: TempDir,
}

impl Stage {
    /// Starts all parts.
    pub async fn start(keep: bool) -> anyhow::Result<Self> {
        let programs = PathBuf::from(script("tests/control-plane/build.sh")?);
        let mut folder = tempfile::Builder::new().prefix("flashjob-bench-").tempdir()?;
        folder.disable_cleanup(keep);
        let authority = Authority::new(folder.path())?;
        let (control_plane, registry) = tokio::try_join!(
            ControlPlane::start(&programs, folder.path(), &authority),
            Registry::start(&programs, folder.path(), &authority)
        )?;
        let client = control_plane.client().await?;
        install_crds(&client).await?;
        grant_rights(&client, "role").await?;
        grant_all_to_client(&client).await?;
        let options = Options { plugins: vec!["esp32".to_owned()], ..Options::default() };
        let config = publish(&client, &registry, &options, &authority).await?;
        std::fs::write(folder.path().join("config.yaml"), serde_json::to_vec_pretty(&config)?)?;
        let mut command = Command::new(sibling("simulate")?);
        command.args([
            "--exit-with-stdin",
            "load-balancer",
            "--no-finalizer",
            "--first",
            "127.99.0.1",
            "--count",
            &ADDRESSES.to_string(),
        ]);
        command.env("KUBECONFIG", &control_plane.kubeconfig);
        let balancer = Process::start("load-balancer", command, folder.path())?;
        let mut stage = Self {
            client,
            control_plane,
            instances: Vec::new(),
            names: 0,
            kubelet: None,
            _balancer: balancer,
            registry,
            folder,
        };
        stage.set_pod_time(0).await?;
        Ok(stage)
    }

    /// Keeps the folder with all logs, and prints its path.
    pub fn keep(&mut self) {
        self.folder.disable_cleanup(true);
        eprintln!("logs are in {}", self.folder.path().display());
    }

    /// Returns a name that no job has had.
    pub fn next_name(&mut self, what: &str) -> String {
        self.names += 1;
        format!("{what}-{}", self.names)
    }

    /// Sets the time from a Pod's binding to its success, for all Pods from now on.
    pub async fn set_pod_time(&mut self, milliseconds: u64) -> anyhow::Result<()> {
        if self.kubelet.as_ref().is_some_and(|(now, _)| *now == milliseconds) {
            return Ok(());
        }
        if let Some((_, mut kubelet)) = self.kubelet.take() {
            kubelet.kill().await?;
        }
        let mut command = Command::new(sibling("simulate")?);
        command.args([
            "--exit-with-stdin",
            "kubelet",
            "--succeed-after-ms",
            &milliseconds.to_string(),
        ]);
        command
            .arg("--root")
            .arg(self.folder.path().join("pods"))
            .env("KUBECONFIG", &self.control_plane.kubeconfig);
        self.kubelet =
            Some((milliseconds, Process::start("kubelet", command, self.folder.path())?));
        let nodes: Api<Node> = Api::all(self.client.clone());
        eventually("the node takes Pods", Duration::from_secs(60), || async {
            let node = nodes.get_opt("simulated-node").await?;
            let free = |node: &Node| {
                node.spec
                    .as_ref()
                    .is_none_or(|spec| spec.taints.as_ref().is_none_or(Vec::is_empty))
            };
            Ok(node.filter(free).map(|_| ()))
        })
        .await
    }

    /// Returns the uids of this many Instances; creates those that are missing. Never removes one:
    /// the cases run with increasing numbers.
    pub async fn instances(&mut self, count: usize) -> anyhow::Result<Vec<String>> {
        self.fill(count, APPLICATION).await?;
        Ok(self.instances[..count].to_vec())
    }

    /// Adds Instances of another application type until there are this many in all.
    pub async fn other_instances(&mut self, count: usize) -> anyhow::Result<()> {
        self.fill(count, OTHER_APPLICATION).await
    }

    async fn fill(&mut self, count: usize, application: &str) -> anyhow::Result<()> {
        let api: Api<Instance> = Api::namespaced(self.client.clone(), "default");
        let missing = self.instances.len()..count.max(self.instances.len());
        let created = futures::stream::iter(missing)
            .map(|number| create_instance(&api, number, application))
            .buffered(CREATES_AT_ONCE);
        let created: Vec<String> = created.try_collect().await?;
        self.instances.extend(created);
        Ok(())
    }

    /// Returns the reference of firmware 0.2.0 in the registry.
    pub fn firmware(&self) -> String {
        format!("{}/nubificus/firmware:0.2.0", self.registry.host)
    }

    /// Returns the number of Instances.
    pub fn instance_count(&self) -> usize {
        self.instances.len()
    }

    /// Starts a fresh operator, and waits until it acts as the leader.
    pub async fn start_operator(&self) -> anyhow::Result<Process> {
        let folder = self.folder.path();
        let log = folder.join("operator.log");
        let before = std::fs::read_to_string(&log).unwrap_or_default().len();
        let mut command = Command::new(sibling("flashjob-operator")?);
        command
            .arg("--config")
            .arg(folder.join("config.yaml"))
            .arg("--cache")
            .arg(folder.join("cache"))
            .arg("--exit-with-stdin");
        command.args(["--health-address", &format!("127.0.0.1:{}", free_port()?)]);
        command.env("KUBECONFIG", &self.control_plane.operator_kubeconfig);
        let mut operator = Process::start("operator", command, folder)?;
        // It may be ready as a standby for a while before it leads.
        let acts = eventually("the operator acts", Duration::from_secs(90), || {
            let (ended, text) = (operator.check(), std::fs::read_to_string(&log));
            async move {
                ended?;
                let text = text?.split_off(before);
                Ok(["work begins", "the plugin is ready"]
                    .iter()
                    .all(|words| text.contains(words))
                    .then_some(()))
            }
        });
        acts.await?;
        Ok(operator)
    }
}

/// Ends an operator with SIGTERM, as a cluster would, so that the next one need not wait until its
/// Lease expires.
pub async fn finish(mut operator: Process) -> anyhow::Result<()> {
    let process = operator
        .id()
        .and_then(|id| Pid::from_raw(id.cast_signed()))
        .context("the operator has ended")?;
    kill_process(process, Signal::TERM)?;
    eventually("the operator has ended", Duration::from_secs(30), || {
        let ended = operator.check().is_err();
        async move { Ok(ended.then_some(())) }
    })
    .await
}

async fn create_instance(
    api: &Api<Instance>,
    number: usize,
    application: &str,
) -> anyhow::Result<String> {
    let name = format!("akri-esp32-{number:06x}");
    let endpoint = format!("10.{}.{}.{}:80", number >> 16 & 255, number >> 8 & 255, number & 255);
    let properties = [
        ("HOST_ENDPOINT", endpoint.as_str()),
        ("DEVICE", "esp32"),
        ("APPLICATION_TYPE", application),
        ("VERSION", "0.1.0"),
        ("AKRI_HTTP", "http"),
    ];
    let spec = InstanceSpec {
        configuration_name: "akri-esp32".to_owned(),
        capacity: 1,
        cdi_name: format!("akri.sh/akri-esp32={name}"),
        broker_properties: properties
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        nodes: vec!["simulated-node".to_owned()],
        shared: true,
        ..InstanceSpec::default()
    };
    Ok(api
        .create(&PostParams::default(), &Instance::new(&name, spec))
        .await?
        .uid()
        .unwrap_or_default())
}

/// Grants the rights through a role, as for the operator: the API server authorizes an
/// administrator's requests in fewer steps.
async fn grant_all_to_client(client: &Client) -> anyhow::Result<()> {
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "client"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "flashjob-operator",
        },
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "client"}],
    });
    bindings.patch("client", &PatchParams::apply("bench"), &Patch::Apply(binding)).await?;
    Ok(())
}
