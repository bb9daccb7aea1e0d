//! An installation of the operator, used as its users do: with kubectl, by the commands of the
//! documentation.

use anyhow::Context;
use flashjob_api::{DevicePlugin, FlashJob, FlashJobStatus, Phase, condition};
use flashjob_testbed::process::{eventually, repository};
use flashjob_testbed::registry::{PASSWORD, USER};
use flashjob_testbed::testbed::FLASHER_IMAGE;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::rights::Account;
use crate::{Node, images};

pub use flashjob_testbed::process::LIMIT;
/// ConfigMap with the operator's configuration.
pub const CONFIG_MAP: &str = "flashjob-operator-config";
/// Secret with the registry's password.
const SECRET: &str = "registry-robot";
/// File in the ConfigMap with the certificate authority of the registry.
const AUTHORITY: &str = "registry-ca.pem";

/// Namespaces of an installation, and the names of its objects.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Namespace of the operator.
    pub namespace: String,
    /// Name of the Deployment and the ServiceAccount.
    pub name: String,
    /// Name of the ConfigMap that it reads.
    pub config_map: String,
    /// Namespace that it watches; `None` for all.
    pub watched: Option<String>,
    /// Values of the Helm release, in addition to image and configuration; `None` if it is not a
    /// release of the Helm chart.
    pub values: Option<Value>,
}

impl Default for Installation {
    fn default() -> Self {
        Self {
            namespace: "flashjob-system".to_owned(),
            name: "flashjob-operator".to_owned(),
            config_map: CONFIG_MAP.to_owned(),
            watched: None,
            values: None,
        }
    }
}

impl Installation {
    /// Returns the account whose rights the operator has.
    #[must_use]
    pub fn account(&self) -> Account {
        Account { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// Returns the name of a plugin's DevicePlugin.
    #[must_use]
    pub fn device_plugin(&self, plugin: &str) -> String {
        self.watched
            .as_ref()
            .map_or_else(|| plugin.to_owned(), |namespace| format!("{plugin}.{namespace}"))
    }

    /// Waits until all replicas are ready.
    ///
    /// # Errors
    /// The replicas are not ready within [`LIMIT`].
    pub async fn rolled_out(&self, node: &Node) -> anyhow::Result<()> {
        let (deployment, limit) =
            (format!("deployment/{}", self.name), format!("--timeout={}s", LIMIT.as_secs()));
        let done =
            node.kubectl(&["-n", &self.namespace, "rollout", "status", &deployment, &limit]).await;
        match done {
            Ok(_) => Ok(()),
            Err(error) => Err(error.context(self.state(node).await)),
        }
    }

    /// Collects diagnostics for the message of a failed test.
    pub async fn state(&self, node: &Node) -> String {
        let mut report = String::new();
        let deployment = format!("deployment/{}", self.name);
        for arguments in [
            vec!["-n", &self.namespace, "get", "pods", "-o", "wide"],
            vec!["-n", &self.namespace, "describe", "pods"],
            vec![
                "-n",
                &self.namespace,
                "logs",
                &deployment,
                "--all-pods",
                "--prefix",
                "--tail",
                "40",
            ],
            vec!["get", "deviceplugins", "-o", "wide"],
            vec!["get", "flashjobs,pods,services", "-A", "-o", "wide"],
        ] {
            let output =
                node.kubectl(&arguments).await.unwrap_or_else(|error| format!("{error:#}"));
            report += &format!("$ kubectl {}\n{output}\n", arguments.join(" "));
        }
        report
    }

    /// Configures the operator: the registry's password in a Secret, the file and the certificate
    /// authority in the ConfigMap or in the values of the release.
    ///
    /// # Errors
    /// The API server refuses an object.
    pub async fn configure(&self, node: &Node, configuration: &Value) -> anyhow::Result<()> {
        let file = node.folder.join("my-config.yaml");
        std::fs::write(&file, serde_json::to_vec_pretty(configuration)?)?;
        let (namespace, host, map) = (&self.namespace, &node.registry.host, &self.config_map);
        let (file, authority) = (file.display(), node.authority.certificate.display());
        let set = if let Some(release_values) = &self.values {
            let (helm, name, chart) =
                (images::helm()?, &self.name, repository().join("deploy/chart"));
            // Fields without a chart value of their own are part of `config`.
            let values = node.folder.join("my-values.json");
            let mut rest = configuration.clone();
            if let Some(fields) = rest.as_object_mut() {
                fields.retain(|field, _| field != "apiVersion" && field != "kind");
            }
            let certificate = std::fs::read_to_string(&node.authority.certificate)?;
            let (repository, tag) = images::OPERATOR.rsplit_once(':').context("no tag")?;
            let mut text = json!({
                "image": {"repository": repository, "tag": tag},
                "config": rest, "caBundles": {AUTHORITY: certificate},
            });
            if let (Some(text), Value::Object(release_values)) =
                (text.as_object_mut(), release_values.clone())
            {
                text.extend(release_values);
            }
            std::fs::write(&values, text.to_string())?;
            format!(
                "{helm} upgrade {name} {} --namespace {namespace} --values {}",
                chart.display(),
                values.display()
            )
        } else {
            format!(
                "kubectl -n {namespace} create configmap {map} --from-file=config.yaml={file} \
                 --from-file={AUTHORITY}={authority} --dry-run=client -o yaml | kubectl apply -f -"
            )
        };
        let mut shell = Command::new("sh");
        shell.arg("-ec").arg(format!(
            "kubectl -n {namespace} create secret docker-registry {SECRET} --docker-server={host} \
             --docker-username={USER} --docker-password={PASSWORD} --dry-run=client -o yaml \
             | kubectl apply -f -\n{set}"
        ));
        node.run(shell).await.map(|_| ())
    }

    /// Waits until plugins are ready to serve.
    ///
    /// # Errors
    /// A plugin is not ready within [`LIMIT`].
    pub async fn serves(&self, node: &Node, plugins: &[&str]) -> anyhow::Result<()> {
        let api: Api<DevicePlugin> = Api::all(node.client.clone());
        for plugin in plugins {
            let name = self.device_plugin(plugin);
            let what = format!("DevicePlugin {name} is ready");
            let ready = eventually(&what, LIMIT, || async {
                let status = api.get_opt(&name).await?.and_then(|object| object.status);
                let conditions = status.map(|status| status.conditions).unwrap_or_default();
                Ok(condition::holds(&conditions, condition::READY).then_some(()))
            });
            if let Err(error) = ready.await {
                return Err(error.context(self.state(node).await));
            }
        }
        Ok(())
    }

    /// Waits until the DevicePlugin of a plugin that is no longer configured is gone, which shows
    /// that the configuration is in effect.
    ///
    /// # Errors
    /// The DevicePlugin is not gone within [`LIMIT`].
    pub async fn device_plugin_is_deleted(&self, node: &Node, plugin: &str) -> anyhow::Result<()> {
        let name = self.device_plugin(plugin);
        let api: Api<DevicePlugin> = Api::all(node.client.clone());
        let what = format!("DevicePlugin {name} is gone");
        eventually(&what, LIMIT, || async {
            Ok(api.get_opt(&name).await?.is_none().then_some(()))
        })
        .await
    }
}

/// Returns a configuration with these plugins and short timeouts.
#[must_use]
pub fn configuration(node: &Node, plugins: &[&str]) -> Value {
    let host = &node.registry.host;
    let plugins: Vec<Value> = plugins
        .iter()
        .map(|name| json!({"name": name, "image": format!("{host}/flashjob/{name}:0.1.0")}))
        .collect();
    json!({
        "apiVersion": "config.flashjob.nbfc.io/v1alpha1", "kind": "OperatorConfig",
        "plugins": plugins,
        "registries": [{
            "host": host, "credentials": {"secretName": SECRET},
            "caFile": format!("/etc/flashjob/{AUTHORITY}"),
        }],
        "trust": [{"match": format!("{host}/flashjob/**"), "allowUnsigned": true}],
        // A busy node takes long for a Pod's network and its image: those two timeouts stay long.
        "periods": {
            "unknownDeviceSeconds": 3, "lateCallbackSeconds": 1, "retrySeconds": 1,
            "lostPodMarginSeconds": 5,
        },
    })
}

/// Returns a FlashJob with the required fields, and those that `spec` adds or changes.
#[must_use]
pub fn job(namespace: &str, name: &str, uids: &[String], spec: Value) -> Value {
    let mut job = json!({
        "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "uuid": uids, "firmware": "harbor.nbfc.io/nubificus/firmware:0.2.0",
            "version": "0.2.0", "flashjobPodImage": FLASHER_IMAGE,
        },
    });
    if let (Some(spec), Value::Object(changes)) = (job["spec"].as_object_mut(), spec) {
        spec.extend(changes);
    }
    job
}

/// Waits until the status of a FlashJob meets a condition.
///
/// # Errors
/// The condition does not hold within [`LIMIT`].
pub async fn status_where(
    node: &Node,
    namespace: &str,
    name: &str,
    what: &str,
    holds: impl Fn(&FlashJobStatus) -> bool,
) -> anyhow::Result<FlashJobStatus> {
    let jobs: Api<FlashJob> = Api::namespaced(node.client.clone(), namespace);
    let outcome = eventually(&format!("FlashJob {name}: {what}"), LIMIT, || async {
        Ok(jobs.get(name).await?.status.filter(|status| holds(status)))
    })
    .await;
    match outcome {
        Ok(status) => Ok(status),
        Err(error) => {
            let last = jobs.get(name).await?.status;
            let pods = node
                .kubectl(&["-n", namespace, "describe", "pods,services"])
                .await
                .unwrap_or_default();
            Err(error.context(format!("{last:?}\n{pods}")))
        }
    }
}

/// Waits until a FlashJob has ended.
///
/// # Errors
/// The FlashJob does not end within [`LIMIT`].
pub async fn ended(node: &Node, namespace: &str, name: &str) -> anyhow::Result<FlashJobStatus> {
    status_where(node, namespace, name, "it is over", |status| {
        matches!(status.phase, Some(Phase::Completed | Phase::Failed))
    })
    .await
}

/// Returns the uids of the Instances of a namespace, sorted by the names of the Instances.
///
/// # Errors
/// The API server does not answer.
pub async fn uids(node: &Node, namespace: &str, count: usize) -> anyhow::Result<Vec<String>> {
    let instances: Api<flashjob_api::akri::Instance> =
        Api::namespaced(node.client.clone(), namespace);
    let what = format!("{count} devices have their Instances");
    eventually(&what, LIMIT, || async {
        let instance_list = instances.list(&kube::api::ListParams::default()).await?;
        Ok((instance_list.items.len() >= count)
            .then(|| instance_list.iter().filter_map(ResourceExt::uid).collect()))
    })
    .await
    .context(format!("namespace {namespace}"))
}
