//! Simulated kubelet: a node that runs the container of each Pod bound to it as a local process,
//! and reports the real outcome.

mod container;
mod deletion;
mod status;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;

use crate::process;
use container::Runtime;

/// Interval between heartbeats, well below the 40 s after which a node counts as lost. Shorter
/// than a real kubelet's: after an outage of the API server no Pod is scheduled until the node has
/// reported that it is ready.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Settings of the kubelet.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// Name of the node.
    #[arg(long, default_value = "simulated-node")]
    pub node: String,
    /// Program of an image: `pattern=program arguments`, `*` for any text. An image that matches
    /// nothing cannot be pulled.
    #[arg(long = "image")]
    pub images: Vec<String>,
    /// Environment of every image: `NAME=value`.
    #[arg(long = "image-env")]
    pub image_env: Vec<String>,
    /// Folder for the Pods' files. Default: a temporary one.
    #[arg(long)]
    pub root: Option<PathBuf>,
    /// Run nothing: every Pod succeeds after so many milliseconds. For load tests.
    #[arg(long)]
    pub succeed_after_ms: Option<u64>,
}

/// A simulated node.
#[derive(Clone)]
pub struct Kubelet {
    settings: Arc<Settings>,
    runtime: Arc<Runtime>,
}

impl Kubelet {
    /// Connects to the cluster.
    ///
    /// # Errors
    /// The folder for the Pods' files cannot be created.
    pub fn new(client: Client, settings: Settings) -> anyhow::Result<Self> {
        let root = settings.root.clone().unwrap_or_else(|| {
            std::env::temp_dir().join(format!("kubelet-{}", std::process::id()))
        });
        std::fs::create_dir_all(&root).with_context(|| format!("folder {}", root.display()))?;
        let (images, image_env) = (settings.images.clone(), settings.image_env.clone());
        let runtime = Arc::new(Runtime { client, images, image_env, root });
        Ok(Self { settings: Arc::new(settings), runtime })
    }

    /// Registers the node and runs its Pods until the process ends.
    ///
    /// # Errors
    /// The node cannot be registered.
    pub async fn run(&self) -> anyhow::Result<()> {
        self.register().await?;
        let kubelet = self.clone();
        tokio::spawn(async move { kubelet.beat().await });
        let pods: Api<Pod> = Api::all(self.runtime.client.clone());
        let config =
            watcher::Config::default().fields(&format!("spec.nodeName={}", self.settings.node));
        let mut events =
            std::pin::pin!(watcher::watcher(pods, config).backoff(process::Pauses::default()));
        let mut running: HashMap<String, watch::Sender<Option<Pod>>> = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::InitApply(pod) | Event::Apply(pod)) => {
                    let uid = pod.uid().unwrap_or_default();
                    let sender = running.entry(uid).or_insert_with(|| {
                        let (sender, receiver) = watch::channel(None);
                        tokio::spawn(self.clone().keep(pod.clone(), receiver));
                        sender
                    });
                    sender.send_replace(Some(pod));
                }
                Ok(Event::Delete(pod)) => {
                    running.remove(&pod.uid().unwrap_or_default());
                }
                Ok(Event::Init | Event::InitDone) => {}
                Err(error) => tracing::warn!(%error, "the watch broke"),
            }
        }
        Ok(())
    }

    async fn register(&self) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.runtime.client.clone());
        let name = &self.settings.node;
        let node: Node = serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "labels": {
                    "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": "amd64",
                },
            }
        }))?;
        match nodes.create(&PostParams::default(), &node).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            created => {
                created?;
            }
        }
        self.say_ready().await
    }

    async fn say_ready(&self) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.runtime.client.clone());
        let now = jiff::Timestamp::now();
        let status = json!({"status": {
            "capacity": {"cpu": "64", "memory": "256Gi", "pods": "1000"},
            "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "1000"},
            "addresses": [
                {"type": "InternalIP", "address": "127.0.0.1"},
                {"type": "Hostname", "address": self.settings.node},
            ],
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady",
                "message": "simulated", "lastHeartbeatTime": now, "lastTransitionTime": now,
            }],
            "nodeInfo": status::node_info(),
        }});
        nodes
            .patch_status(&self.settings.node, &PatchParams::default(), &Patch::Strategic(status))
            .await?;
        // The node controller set taints while the node was not ready, and removes them only at
        // its next check; Pods need not wait for that.
        nodes
            .patch(
                &self.settings.node,
                &PatchParams::default(),
                &Patch::Merge(json!({"spec": {"taints": null}})),
            )
            .await?;
        Ok(())
    }

    async fn beat(&self) {
        let leases: Api<Lease> = Api::namespaced(self.runtime.client.clone(), "kube-node-lease");
        loop {
            let spec = json!({
                "holderIdentity": self.settings.node, "leaseDurationSeconds": 40,
                "renewTime": format!("{:.6}", jiff::Timestamp::now()),
            });
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": self.settings.node}, "spec": spec,
            });
            let manager = PatchParams::apply("kubelet-simulator").force();
            let heartbeat = async {
                leases.patch(&self.settings.node, &manager, &Patch::Apply(lease)).await?;
                if self.counts_as_lost().await? { self.say_ready().await } else { Ok(()) }
            };
            if let Err(error) = heartbeat.await {
                tracing::warn!(%error, "a heartbeat was lost");
            }
            tokio::time::sleep(HEARTBEAT).await;
        }
    }

    /// Returns true if the node controller considers this node lost, as during an outage of the
    /// API server.
    async fn counts_as_lost(&self) -> kube::Result<bool> {
        let nodes: Api<Node> = Api::all(self.runtime.client.clone());
        let Some(node) = nodes.get_opt(&self.settings.node).await? else { return Ok(false) };
        let tainted =
            node.spec.is_some_and(|spec| spec.taints.is_some_and(|taints| !taints.is_empty()));
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        Ok(tainted
            || !conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"))
    }

    /// Follows one Pod from its binding to its end.
    async fn keep(self, pod: Pod, mut states: watch::Receiver<Option<Pod>>) {
        let name = pod.name_any();
        if let Err(error) = self.keep_to_the_end(&pod, &mut states).await {
            tracing::warn!(pod = name, %error, "the container cannot be started");
            // A Pod without a container can be deleted all the same.
            if deletion::requested(&mut states).await.is_ok() {
                let client = &self.runtime.client;
                status::report(client, &pod, status::never_started(&pod)).await;
                deletion::confirm(client, &pod, &mut states).await;
            }
        }
    }

    async fn keep_to_the_end(
        &self,
        pod: &Pod,
        states: &mut watch::Receiver<Option<Pod>>,
    ) -> anyhow::Result<()> {
        let client = &self.runtime.client;
        let phase =
            pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
        match (phase, self.settings.succeed_after_ms) {
            ("Succeeded" | "Failed", _) => {}
            ("Running", _) => status::report(client, pod, status::lost(pod)).await,
            (_, Some(milliseconds)) => {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                status::report(client, pod, status::succeeded(pod)).await;
            }
            _ => {
                let ended = self.runtime.run(pod, states).await?;
                status::report(client, pod, ended).await;
            }
        }
        deletion::confirm(client, pod, states).await;
        Ok(())
    }
}
