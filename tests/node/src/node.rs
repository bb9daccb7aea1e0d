//! The node: control plane, registry, containerd, kubelet, kube-proxy and MetalLB's controller, in
//! the namespaces of this process.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use flashjob_testbed::certificates::Authority;
use flashjob_testbed::control_plane::ControlPlane;
use flashjob_testbed::process::{LIMIT, Process, eventually, script};
use flashjob_testbed::registry::Registry;
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::{Api, Client};
use serde_json::json;
use tokio::process::Command;

use crate::devices::Devices;
use crate::isolation::Isolation;
use crate::network::HOSTNAME;
use crate::runtime::Runtime;
use crate::{artifacts, images, network};

/// Namespace of MetalLB.
const BALANCER_NAMESPACE: &str = "metallb-system";

/// A running node with its cluster.
pub struct Node {
    /// Client with an administrator's rights.
    pub client: Client,
    /// The control plane.
    pub control_plane: ControlPlane,
    /// The registry; Pods reach it too.
    pub registry: Registry,
    /// Authority of all certificates.
    pub authority: Authority,
    /// containerd.
    pub runtime: Runtime,
    /// Temporary folder of all parts.
    pub folder: PathBuf,
    programs: PathBuf,
    cgroup: String,
    kubelet: Option<Process>,
    kube_proxy: Option<Process>,
    _balancer: Option<Process>,
}

impl Node {
    /// Starts all parts, and waits until the node is Ready and Services get addresses.
    ///
    /// # Errors
    /// A part does not start; the error contains its output.
    pub async fn start(isolation: &Isolation) -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        network::set_up()?;
        let programs = PathBuf::from(script("tests/node/build.sh")?);
        let plane_programs = PathBuf::from(script("tests/control-plane/build.sh")?);
        let folder = isolation.folder.clone();
        let authority = Authority::at(network::NODE, &folder)?;
        let (control_plane, registry, runtime) = tokio::try_join!(
            ControlPlane::start_with_node(&plane_programs, &folder, &authority, HOSTNAME),
            Registry::start(&plane_programs, &folder, &authority),
            Runtime::start(&programs, &folder),
        )?;
        images::import(&runtime, &programs, &folder, &registry, &authority.certificate).await?;
        let mut node = Self {
            client: control_plane.client().await?,
            control_plane,
            registry,
            authority,
            runtime,
            folder,
            programs,
            cgroup: isolation.cgroup.clone(),
            kubelet: None,
            kube_proxy: None,
            _balancer: None,
        };
        node.start_kubelet()?;
        node.start_kube_proxy(Duration::from_secs(1))?;
        node.wait_until_ready().await?;
        node.start_balancer().await?;
        flashjob_simulators::akri::install(&node.client).await?;
        artifacts::publish(&node.registry).await?;
        Ok(node)
    }

    /// Starts the kubelet, or restarts it after [`Self::kill_kubelet`].
    ///
    /// # Errors
    /// The kubelet cannot be started.
    pub fn start_kubelet(&mut self) -> anyhow::Result<()> {
        let folder = &self.folder;
        let config = folder.join("kubelet.json");
        let configuration = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "failCgroupV1": false, "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", self.cgroup), "failSwapOn": false,
            "resolvConf": "",
            "containerRuntimeEndpoint": format!("unix://{}", self.runtime.socket.display()),
            "podLogsDir": folder.join("pod-logs"),
            "authentication": {
                "anonymous": {"enabled": false}, "webhook": {"enabled": false},
                "x509": {"clientCAFile": self.authority.certificate},
            },
            "authorization": {"mode": "AlwaysAllow"},
            // Interval at which mounted ConfigMaps and Secrets are updated; a minute by default.
            "syncFrequency": "5s",
            // Nothing can be pulled here, so no image may be garbage-collected, however full the
            // disk is.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%",
                "nodefs.inodesFree": "1%",
            },
        });
        std::fs::write(&config, serde_json::to_vec_pretty(&configuration)?)?;
        let mut command = Command::new(self.programs.join("kubelet"));
        command.arg("--config").arg(&config);
        command.arg("--kubeconfig").arg(&self.control_plane.kubelet_kubeconfig);
        command.arg("--root-dir").arg(folder.join("kubelet"));
        command.arg("--cert-dir").arg(folder.join("kubelet-certificates"));
        command.args([
            format!("--hostname-override={HOSTNAME}"),
            format!("--node-ip={}", network::NODE),
        ]);
        self.kubelet = Some(Process::start("kubelet", command, folder)?);
        Ok(())
    }

    /// Kills the kubelet, as a crash would; its containers keep running.
    ///
    /// # Errors
    /// The kubelet could not be killed.
    pub async fn kill_kubelet(&mut self) -> anyhow::Result<()> {
        let mut kubelet = self.kubelet.take().context("the kubelet does not run")?;
        kubelet.kill().await
    }

    /// Starts kube-proxy, replacing a running one; `min_sync_period` is the minimum time between
    /// two updates of its rules.
    ///
    /// # Errors
    /// kube-proxy cannot be started.
    pub fn start_kube_proxy(&mut self, min_sync_period: Duration) -> anyhow::Result<()> {
        self.kube_proxy = None;
        let config = self.folder.join("kube-proxy.json");
        let configuration = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": {"kubeconfig": self.control_plane.kubeconfig},
            "hostnameOverride": HOSTNAME,
            "clusterCIDR": network::PODS, "conntrack": {"maxPerCore": 0},
            "nftables": {"minSyncPeriod": format!("{}ms", min_sync_period.as_millis())},
        });
        std::fs::write(&config, serde_json::to_vec_pretty(&configuration)?)?;
        let mut command = Command::new(self.programs.join("kube-proxy"));
        command.arg("--config").arg(&config);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
        command.env("PATH", std::env::join_paths(folders)?);
        self.kube_proxy = Some(Process::start("kube-proxy", command, &self.folder)?);
        Ok(())
    }

    /// Waits until the API server reports the node as ready.
    ///
    /// # Errors
    /// The node is not ready within the limit, or a part has ended.
    pub async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let nodes: Api<NodeObject> = Api::all(self.client.clone());
        let parts = [self.kubelet.as_mut(), self.kube_proxy.as_mut()];
        let mut parts: Vec<&mut Process> = parts.into_iter().flatten().collect();
        eventually("the node is ready", LIMIT, || {
            let ended = parts.iter_mut().try_for_each(|part| part.check());
            let nodes = nodes.clone();
            async move {
                ended?;
                let node = nodes.get_opt(HOSTNAME).await?;
                let status =
                    node.and_then(|node| node.status).and_then(|status| status.conditions);
                let ready = status
                    .unwrap_or_default()
                    .into_iter()
                    .any(|condition| condition.type_ == "Ready" && condition.status == "True");
                Ok(ready.then_some(()))
            }
        })
        .await
    }

    async fn start_balancer(&mut self) -> anyhow::Result<()> {
        let definitions = self.programs.join("metallb-crds").display().to_string();
        self.kubectl(&["apply", "--server-side", "--filename", &definitions]).await?;
        self.kubectl(&["create", "namespace", BALANCER_NAMESPACE]).await?;
        let mut command = Command::new(self.programs.join("metallb-controller"));
        command.args([
            "--webhook-mode",
            "disabled",
            "--disable-cert-rotation",
            "--namespace",
            BALANCER_NAMESPACE,
        ]);
        command
            .arg("--kubeconfig")
            .arg(&self.control_plane.kubeconfig)
            .env("METALLB_POD_NAME", "controller");
        self._balancer = Some(Process::start("metallb", command, &self.folder)?);
        let pool = json!({
            "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"name": "devices", "namespace": BALANCER_NAMESPACE},
            "spec": {"addresses": [network::EXTERNAL]},
        });
        eventually("the pool of addresses is taken", LIMIT, || async {
            Ok(self.apply(&pool).await.ok())
        })
        .await
    }

    /// Switches simulated devices on, with their Instances in this namespace.
    ///
    /// # Errors
    /// A simulator does not start.
    pub async fn devices(&self, namespace: &str, groups: &[&str]) -> anyhow::Result<Devices> {
        Devices::start(&self.control_plane.kubeconfig, &self.folder, namespace, groups).await
    }

    /// Runs kubectl with an administrator's rights, and returns its output.
    ///
    /// # Errors
    /// kubectl fails; the error contains its output.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(self.control_plane.programs.join("kubectl"));
        command.args(arguments);
        self.run(command).await
    }

    /// Applies an object.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn apply(&self, object: &serde_json::Value) -> anyhow::Result<()> {
        // Tests apply several objects at the same time.
        let file = tempfile::NamedTempFile::with_suffix_in(".json", &self.folder)?;
        std::fs::write(&file, object.to_string())?;
        self.kubectl(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            "--filename",
            &file.path().display().to_string(),
        ])
        .await
        .map(|_| ())
    }

    /// Runs a command of a user of this cluster, with the kubeconfig, and with kubectl in the
    /// search path. Returns its output.
    ///
    /// # Errors
    /// The command fails; the error contains its output.
    pub async fn run(&self, mut command: Command) -> anyhow::Result<String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders =
            [self.control_plane.programs.clone()].into_iter().chain(std::env::split_paths(&path));
        command
            .env("PATH", std::env::join_paths(folders)?)
            .env("KUBECONFIG", &self.control_plane.kubeconfig);
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, self.folder.join("helm"));
        }
        let command_line = format!("{:?}", command.as_std());
        let output = command
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context(command_line.clone())?;
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{command_line}: {}\n{stdout}\n{stderr}", output.status);
        Ok(stdout.into_owned())
    }

    /// Returns the path of the log of one of the node's parts.
    #[must_use]
    pub fn log(&self, part: &str) -> PathBuf {
        self.folder.join(format!("{part}.log"))
    }
}
