//! The whole life of an operator, in which it uses each of its rights: it is configured, flashes devices, reports failures, deletes what
//! has had its time, and loses a plugin. Whoever installs goes through it in every namespace that the installation serves.

use anyhow::ensure;
use flashjob_api::{FlashJob, Phase};
use flashjob_testbed::artifacts::push_plugin;
use flashjob_testbed::process::eventually;
use kube::Api;
use serde_json::json;

use crate::installation::{Installation, LIMIT, configuration, ended, job, status_where, uids};
use crate::rights::differences;
use crate::{Devices, Node};

/// Goes through an operator's life, with devices in this namespace; the FlashJobs are deleted in the end.
///
/// # Errors
/// Something is not as it should be.
pub async fn live(node: &Node, installation: &Installation, namespace: &str) -> anyhow::Result<()> {
    installation.rolled_out(node).await?;
    installation.configure(node, &configuration(node, &["esp32", "esp32s2"])).await?;
    installation.serves(node, &["esp32", "esp32s2"]).await?;
    let devices = node.devices(namespace, &["esp32:thermo:0.1.0=2"]).await?;
    let lived = async {
        flash(node, namespace, &devices).await?;
        fail(node, namespace).await?;
        lose_a_plugin(node, installation).await?;
        let differences = differences(node, &installation.account()).await?;
        ensure!(differences.is_empty(), "{}", differences.join("\n"));
        anyhow::Ok(())
    };
    match lived.await {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(installation.state(node).await)),
    }
}

/// Each device runs the new firmware, flashed once; then the job goes by itself.
async fn flash(node: &Node, namespace: &str, devices: &Devices) -> anyhow::Result<()> {
    let all = uids(node, namespace, 2).await?;
    node.apply(&job(namespace, "first", &all, json!({"ttlSecondsAfterFinished": 8}))).await?;
    let status = ended(node, namespace, "first").await?;
    ensure!(status.phase == Some(Phase::Completed), "{status:?}");
    let jobs: Api<FlashJob> = Api::namespaced(node.client.clone(), namespace);
    let gone = || async { Ok(jobs.get_opt("first").await?.is_none().then_some(())) };
    eventually("FlashJob first is gone", LIMIT, gone).await?;
    let reports = devices.fleet.reports().await?;
    let flashed = reports.iter().filter(|report| report.version == "0.2.0" && report.flashed == 1);
    ensure!(flashed.count() == 2, "not every device was flashed once: {reports:?}");
    Ok(())
}

/// What cannot be flashed is reported, again and again.
async fn fail(node: &Node, namespace: &str) -> anyhow::Result<()> {
    let unknown = ["00000000-0000-0000-0000-000000000000".to_owned()];
    node.apply(&job(namespace, "unknown", &unknown, json!({}))).await?;
    let status = ended(node, namespace, "unknown").await?;
    ensure!(status.failed_uuids == unknown, "{status:?}");
    let first = uids(node, namespace, 1).await?;
    let broken = json!({"flashjobPodImage": "registry.invalid/nobody:1", "version": "0.3.0", "backoffLimitPerDevice": 1});
    node.apply(&job(namespace, "broken", &first[..1], broken)).await?;
    status_where(node, namespace, "broken", "it failed", |status| !status.failed_uuids.is_empty())
        .await?;
    node.kubectl(&["-n", namespace, "delete", "flashjobs", "--all", "--wait"]).await?;
    Ok(())
}

/// A plugin that the configuration no longer names is no longer shown.
async fn lose_a_plugin(node: &Node, installation: &Installation) -> anyhow::Result<()> {
    installation.configure(node, &configuration(node, &["esp32"])).await?;
    installation.forgets(node, "esp32s2").await
}

/// Makes a namespace for devices and FlashJobs, in which nothing but restricted Pods is let in.
///
/// # Errors
/// The API server refuses it.
pub async fn make_namespace(node: &Node, name: &str) -> anyhow::Result<()> {
    node.apply(&json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }))
    .await
}

/// Flash Pods that were created in a namespace, by the API server's audit log.
///
/// # Errors
/// The log cannot be read.
pub fn audited_attempts(node: &Node, namespace: &str) -> anyhow::Result<usize> {
    let user = Installation::default().account().user();
    let created = flashjob_testbed::audit::entries(&node.control_plane.audit_log, &user)?;
    let is_attempt = |entry: &&serde_json::Value| {
        entry["verb"] == "create"
            && entry["objectRef"]["resource"] == "pods"
            && entry["objectRef"]["namespace"] == namespace
            && entry["responseStatus"]["code"] == 201
    };
    Ok(created.iter().filter(is_attempt).count())
}

/// Publishes a component that is larger than most, and serves no device; returns its reference.
///
/// # Errors
/// The registry refuses it.
pub async fn publish_large_plugin(node: &Node, bytes: u32) -> anyhow::Result<String> {
    let file = node.folder.join("large.wasm");
    std::fs::write(&file, flashjob_host_tests::components::large(bytes))?;
    push_plugin(&node.registry, &file, "flashjob/large:0.1.0").await
}
