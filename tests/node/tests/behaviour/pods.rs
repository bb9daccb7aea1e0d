//! Flash Pods that do not run, run out of something, or run beside others.

use anyhow::{Context, ensure};
use flashjob_api::Phase;
use flashjob_node::Node;
use flashjob_node::installation::{LIMIT, status_where};
use flashjob_simulators::firmware::Firmware;
use flashjob_testbed::artifacts::{firmware, push_firmware};
use flashjob_testbed::process::eventually;
use serde_json::{Value, json};

use crate::standing::{Site, configured, empty_spec, installed};

/// Tests a Service for each device, and pooled Services that are reused.
pub async fn devices_of_a_restricted_namespace_are_flashed_with_either_exposure(
    node: &mut Node,
) -> anyhow::Result<()> {
    for (namespace, spec) in
        [("per-device", empty_spec()), ("pooled", json!({"exposure": "Pooled", "parallelism": 2}))]
    {
        let site = Site::new(node, namespace, 6).await?;
        site.flash(node, spec).await?;
        site.all_flashed_once(node).await.context(namespace)?;
    }
    Ok(())
}

/// Waits until the first device of a job reports why it waits, before the job has ended; then
/// until the job has failed for this reason.
async fn waits_then_fails(
    node: &Node,
    site: Site,
    words: &[&str],
    reason: &str,
) -> anyhow::Result<()> {
    let waiting_status =
        status_where(node, &site.namespace, "job", "the device says why it waits", |status| {
            status.devices.iter().any(|device| {
                let message = device.message.clone().unwrap_or_default();
                words.iter().any(|word| message.contains(word))
            })
        })
        .await?;
    ensure!(
        waiting_status.phase == Some(Phase::InProgress),
        "said only when it was over: {waiting_status:?}"
    );
    let status = site.ended(node).await?;
    let device = status.devices.first().context("no device")?;
    ensure!(device.reason.as_deref() == Some(reason), "{device:?}");
    site.delete(node).await
}

/// The image does not exist.
pub async fn an_image_that_cannot_be_pulled_is_said_at_once_and_fails_the_device(
    node: &mut Node,
) -> anyhow::Result<()> {
    let site = Site::new(node, "no-image", 1).await?;
    let spec =
        json!({"flashjobPodImage": "registry.invalid/nobody/flash:1", "backoffLimitPerDevice": 0});
    site.flash(node, spec).await?;
    waits_then_fails(node, site, &["ErrImagePull", "ImagePullBackOff"], "ImageUnavailable").await
}

/// The certificates of the flash container are in a Secret that does not exist.
pub async fn a_secret_that_is_missing_is_said_at_once_and_fails_the_device(
    node: &mut Node,
) -> anyhow::Result<()> {
    let installation = installed(node).await?;
    // Once the second plugin is loaded, the configuration is in effect.
    let mut with_certificates = configured(node, &["esp32", "esp32s2"]);
    with_certificates["plugins"][0]["settings"] = json!({"certificates": true});
    with_certificates["plugins"][0]["grants"] = json!({
        "images": ["harbor.nbfc.io/**"],
        "secrets": [{
            "slot": "ota-tls", "secretName": "nobody-made-it",
            "keys": ["server.crt", "server.key"],
        }],
    });
    let site = Site::new(node, "no-secret", 1).await?;
    installation.configure(node, &with_certificates).await?;
    installation.serves(node, &["esp32", "esp32s2"]).await?;
    site.flash(node, json!({"backoffLimitPerDevice": 0})).await?;
    waits_then_fails(node, site, &["nobody-made-it"], "VolumeUnavailable").await
}

/// The kernel kills a container that exceeds its memory limit.
pub async fn a_container_that_runs_out_of_memory_is_a_failed_attempt_that_says_so(
    node: &mut Node,
) -> anyhow::Result<()> {
    let site = Site::new(node, "no-memory", 1).await?;
    // More than the container's limit, and less than the 64 MiB that a layer may have.
    let payload = vec![0; 48 << 20];
    let large = Firmware { payload, ..firmware("esp32", "thermo", "0.2.0") };
    push_firmware(&node.registry, "nubificus/large:0.2.0", &[large]).await?;
    let spec = json!({
        "firmware": "harbor.nbfc.io/nubificus/large:0.2.0",
        "backoffLimitPerDevice": 0,
        "podOverrides": {
            "resources": {"limits": {"memory": "32Mi"}, "requests": {"memory": "32Mi"}},
        },
    });
    site.flash(node, spec).await?;
    let status = site.ended(node).await?;
    let device = status.devices.first().context("no device")?;
    let message = device.message.clone().unwrap_or_default();
    ensure!(device.reason.as_deref() == Some("PodFailed"), "{device:?}");
    ensure!(message.contains("OOMKilled") || message.contains("out of memory"), "{message}");
    site.delete(node).await
}

/// Has the API server inject a container into each Pod of a namespace, as a service mesh does;
/// `add` is the JSON patch, with CONTAINER for the container. Returns when the policy is in
/// effect.
async fn inject(node: &Node, namespace: &str, kind: &str, add: &str) -> anyhow::Result<()> {
    let name = format!("inject-{namespace}");
    let expression = format!("[{}]", add.replace("CONTAINER", &bystander(kind)));
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["pods"],
            }]},
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        },
    });
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "matchResources": {"namespaceSelector": selector}},
    });
    node.apply(&policy).await?;
    node.apply(&binding).await?;
    // The API server takes a moment to apply a policy.
    let words = ["run", "trial", "--image=a:1", "--dry-run=server", "-o", "yaml", "-n", namespace];
    let trial = [&words[..], &["--overrides", TRIAL]].concat();
    eventually("the container is injected", LIMIT, || async {
        let output = node.kubectl(&trial).await?;
        Ok(output.contains("name: bystander").then_some(()))
    })
    .await
}

/// Fields that a restricted namespace requires of a Pod.
const TRIAL: &str = r#"{"spec": {
    "securityContext": {
        "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}
    },
    "containers": [{
        "name": "trial", "image": "a:1",
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}
    }]
}}"#;

async fn inject_no_more(node: &Node, namespace: &str) -> anyhow::Result<()> {
    let name = format!("inject-{namespace}");
    let kinds = "mutatingadmissionpolicies,mutatingadmissionpolicybindings";
    node.kubectl(&["delete", kinds, &name]).await.map(|_| ())
}

/// Returns a container that only waits, and complies with the restricted profile.
fn bystander(kind: &str) -> String {
    let of = format!("Object.spec.{kind}");
    let restart = if kind == "initContainers" { "restartPolicy: \"Always\"," } else { "" };
    format!(
        "{of}{{name: \"bystander\", image: \"{}\", imagePullPolicy: \"IfNotPresent\", {restart}
           securityContext: {of}.securityContext{{runAsUser: 65532, runAsNonRoot: true,
             allowPrivilegeEscalation: false,
             capabilities: {of}.securityContext.capabilities{{drop: [\"ALL\"]}}}}}}",
        flashjob_node::runtime::PAUSE
    )
}

/// The mesh's proxy is the first container in the Pod and never ends by itself.
pub async fn an_injected_container_neither_judges_the_device_nor_keeps_the_job_waiting(
    node: &mut Node,
) -> anyhow::Result<()> {
    let add = r#"JSONPatch{op: "add", path: "/spec/containers/0", value: CONTAINER}"#;
    flashed_beside(node, "injected", "containers", add).await
}

/// A native Kubernetes sidecar: an init container with the restart policy Always.
pub async fn a_native_sidecar_does_not_keep_the_job_waiting(
    node: &mut Node,
) -> anyhow::Result<()> {
    // With the container in the value of a single patch, this version of the API server panics.
    let add = r#"JSONPatch{op: "add", path: "/spec/initContainers", value: []},
        JSONPatch{op: "add", path: "/spec/initContainers/-", value: CONTAINER}"#;
    flashed_beside(node, "sidecar", "initContainers", add).await
}

async fn flashed_beside(
    node: &mut Node,
    namespace: &str,
    kind: &str,
    add: &str,
) -> anyhow::Result<()> {
    let site = Site::new(node, namespace, 2).await?;
    inject(node, namespace, kind, add).await?;
    site.flash(node, json!({"deviceTimeoutSeconds": 600})).await?;
    let flashed = site.all_flashed_once(node).await;
    inject_no_more(node, namespace).await?;
    flashed.map(|_| ())
}

/// Only one Pod at a time fits into the quota; no device fails because of that.
pub async fn a_quota_is_a_turn_to_wait_for(node: &mut Node) -> anyhow::Result<()> {
    let site = Site::new(node, "quota", 3).await?;
    let quota: Value = json!({
        "apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "one-pod", "namespace": site.namespace},
        "spec": {"hard": {"pods": "1", "services.loadbalancers": "2"}},
    });
    node.apply(&quota).await?;
    site.flash(node, json!({"backoffLimitPerDevice": 0, "parallelism": 3})).await?;
    site.all_flashed_once(node).await.map(|_| ())
}
