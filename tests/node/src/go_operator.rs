//! The Go operator from which users migrate. Its image is not available here: its Deployment runs
//! a container that only waits, and a test acts as its controller, with its rights. Definition and
//! rights are the original's, and its flash Pods really run.

use anyhow::Context;
use flashjob_api::{FINALIZER, FlashJob};
use flashjob_testbed::process::repository;
use kube::{Api, Resource};
use serde_json::{Value, json};

use crate::Node;

/// User name of its controller at the API server.
const USER: &str = "system:serviceaccount:operator-system:operator-controller-manager";
/// Timeout for an address or for a Pod's end, as an option of kubectl.
const LIMIT: &str = "--timeout=300s";
/// JSONPath of a Service's address.
const ADDRESS: &str = "jsonpath={.status.loadBalancer.ingress[0].ip}";

/// The Go operator, acting in one namespace.
pub struct GoOperator<'a> {
    node: &'a Node,
    namespace: &'a str,
}

/// Returns the path of its manifests.
#[must_use]
pub fn manifests() -> String {
    repository().join("tests/node/go-operator.yaml").display().to_string()
}

impl<'a> GoOperator<'a> {
    /// Installs it as its README says, and waits until its Pod runs.
    ///
    /// # Errors
    /// The API server refuses a manifest, or the Pod does not start.
    pub async fn install(node: &'a Node, namespace: &'a str) -> anyhow::Result<Self> {
        node.kubectl(&["apply", "-f", &manifests()]).await?;
        let deployment = "deployment/operator-controller-manager";
        node.kubectl(&["-n", "operator-system", "rollout", "status", deployment, LIMIT]).await?;
        Ok(Self { node, namespace })
    }

    /// Runs kubectl in the namespace with the rights of the controller.
    async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let options = ["--as", USER, "--namespace", self.namespace];
        self.node.kubectl(&[&options[..], arguments].concat()).await
    }

    async fn create(&self, object: &Value) -> anyhow::Result<()> {
        let file = self.node.folder.join("go-operator.json");
        std::fs::write(&file, object.to_string())?;
        self.kubectl(&["create", "-f", &file.display().to_string()]).await.map(|_| ())
    }

    /// Sets the finalizer of a FlashJob, and its status to Running with these devices completed.
    ///
    /// # Errors
    /// The API server refuses a change.
    pub async fn start_job(&self, job: &str, completed: &[String]) -> anyhow::Result<()> {
        let finalizer = json!({"metadata": {"finalizers": [FINALIZER]}}).to_string();
        self.kubectl(&["patch", "flashjob", job, "--type=merge", "--patch", &finalizer]).await?;
        self.set_status(job, "Running", "Created flashing pod", completed).await
    }

    async fn set_status(
        &self,
        job: &str,
        phase: &str,
        message: &str,
        completed: &[String],
    ) -> anyhow::Result<()> {
        let status = json!({"phase": phase, "message": message, "completedUUIDs": completed});
        let patch = json!({"status": status}).to_string();
        let status = ["--subresource=status", "--type=merge", "--patch", &patch];
        self.kubectl(&[&["patch", "flashjob", job][..], &status].concat()).await.map(|_| ())
    }

    /// Creates the Service and, once it has its address, the Pod of a device: two labels, an owner
    /// that is not a controller, all else in the environment. Returns the Pod's name.
    ///
    /// # Errors
    /// The API server refuses an object, or the Service gets no address.
    pub async fn flash(&self, job: &str, uid: &str, endpoint: &str) -> anyhow::Result<String> {
        let jobs: Api<FlashJob> = Api::namespaced(self.node.client.clone(), self.namespace);
        let owner = jobs.get(job).await?;
        let labels = json!({"app": job, "uuid": uid});
        let metadata = |name: &str| {
            json!({
                "name": name, "labels": labels,
                "ownerReferences": [{
                    "apiVersion": FlashJob::api_version(&()), "kind": FlashJob::kind(&()),
                    "name": job, "uid": owner.metadata.uid,
                }],
            })
        };
        let (service, pod) = names(job, uid);
        self.create(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata(&service),
            "spec": {
                "type": "LoadBalancer", "selector": labels,
                "ports": [{"port": 4433, "targetPort": 4433, "protocol": "TCP"}],
            },
        }))
        .await?;
        let (has_address, of) = (format!("--for={ADDRESS}"), format!("service/{service}"));
        self.kubectl(&["wait", &of, &has_address, LIMIT]).await?;
        let address = self.kubectl(&["get", &of, "-o", ADDRESS]).await?;
        let variables = [
            ("FIRMWARE", owner.spec.firmware.as_str()),
            ("UUID", uid),
            ("HOST_ENDPOINT", endpoint),
            ("DEVICE", "esp32"),
            ("APPLICATION_TYPE", "thermo"),
            ("VERSION", &owner.spec.version),
            ("EXTERNAL_IP", &address),
            // Flash programs of that time waited for a device without a limit.
            ("FLASHER_STALL_TIMEOUT", "15m"),
        ];
        let variables = variables.map(|(name, value)| json!({"name": name, "value": value}));
        let image = owner.spec.flashjob_pod_image.as_deref().context("no image")?;
        self.create(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata(&pod),
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "flash-container", "image": image, "env": variables}],
            },
        }))
        .await?;
        Ok(pod)
    }

    /// Waits until the Pod of a device has succeeded, stores that in the status, and deletes the
    /// Pod and its Service.
    ///
    /// # Errors
    /// The Pod does not succeed, or the API server refuses a change.
    pub async fn finish(&self, job: &str, uid: &str, completed: &[String]) -> anyhow::Result<()> {
        let (service, pod) = names(job, uid);
        let of = format!("pod/{pod}");
        self.kubectl(&["wait", &of, "--for=jsonpath={.status.phase}=Succeeded", LIMIT]).await?;
        let message = "Firmware flashing completed successfully";
        self.set_status(job, "Completed", message, completed).await?;
        self.kubectl(&["delete", &of, &format!("service/{service}")]).await.map(|_| ())
    }

    /// Removes the finalizer of a FlashJob that is being deleted.
    ///
    /// # Errors
    /// The API server refuses the change.
    pub async fn remove_finalizer(&self, job: &str) -> anyhow::Result<()> {
        let none = json!({"metadata": {"finalizers": null}}).to_string();
        let patch = ["patch", "flashjob", job, "--type=merge", "--patch", &none];
        self.kubectl(&patch).await.map(|_| ())
    }
}

/// Returns the names of a device's Service and Pod.
fn names(job: &str, uid: &str) -> (String, String) {
    (format!("{job}-service-{uid}"), format!("{job}-flashing-pod-{uid}"))
}
