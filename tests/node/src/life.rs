//! The whole life of an operator, in which it uses each of its rights: it is configured, flashes
//! devices, reports failures, deletes objects whose time to live is over, and loses a plugin. The
//! tests of an installation run it in every namespace that the installation serves.

use anyhow::{Context, ensure};
use flashjob_api::{DevicePlugin, FlashJob, FlashJobStatus, FlashRollout, Phase, RolloutPhase};
use flashjob_simulators::devices::Report;
use flashjob_testbed::artifacts::push_plugin;
use flashjob_testbed::process::{eventually, repository};
use flashjob_testbed::testbed::FLASHER_IMAGE;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

use crate::installation::{Installation, LIMIT, configuration, ended, job, status_where, uids};
use crate::rights::differences;
use crate::{Devices, Node};

/// Takes an operator through its life, with devices in this namespace; the FlashJobs are deleted
/// at the end.
///
/// # Errors
/// A step has an unexpected result.
pub async fn live(
    node: &Node,
    installation: &Installation,
    namespace: &str,
) -> anyhow::Result<()> {
    installation.rolled_out(node).await?;
    installation.configure(node, &configuration(node, &["esp32", "esp32s2"])).await?;
    installation.serves(node, &["esp32", "esp32s2"]).await?;
    let devices = node.devices(namespace, &["esp32:thermo:0.1.0=2"]).await?;
    let lived = async {
        flash(node, namespace, &devices).await?;
        // A rejected configuration changes nothing, so all can run at the same time; each takes
        // about a minute.
        tokio::try_join!(
            fail(node, namespace),
            lose_a_pod(node, namespace),
            refuse_configurations(node, installation)
        )?;
        exchange_and_lose_a_plugin(node, installation).await?;
        let differences = differences(node, &installation.account()).await?;
        ensure!(differences.is_empty(), "{}", differences.join("\n"));
        anyhow::Ok(())
    };
    match lived.await {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(installation.state(node).await)),
    }
}

/// Flashes each device once: the first by a FlashJob, the others by a FlashRollout. Both objects
/// are then deleted after their time to live.
async fn flash(node: &Node, namespace: &str, devices: &Devices) -> anyhow::Result<()> {
    let all = uids(node, namespace, 2).await?;
    node.apply(&job(namespace, "first", &all[..1], json!({"ttlSecondsAfterFinished": 8}))).await?;
    let status = ended(node, namespace, "first").await?;
    ensure!(status.phase == Some(Phase::Completed), "{status:?}");
    let flashed = async || -> anyhow::Result<usize> {
        let reports = devices.fleet.reports().await?;
        let is_new = |report: &&Report| report.version == "0.2.0" && report.flashed == 1;
        Ok(reports.iter().filter(is_new).count())
    };
    ensure!(flashed().await? == 1, "{:?}", devices.fleet.reports().await?);
    roll_out(node, namespace).await?;
    ensure!(flashed().await? == 2, "{:?}", devices.fleet.reports().await?);
    let jobs: Api<FlashJob> = Api::namespaced(node.client.clone(), namespace);
    let no_jobs_left =
        || async { Ok(jobs.list(&ListParams::default()).await?.items.is_empty().then_some(())) };
    eventually("all FlashJobs are gone", LIMIT, no_jobs_left).await?;
    Ok(())
}

/// Applies a FlashRollout, which flashes the devices that do not report the version yet, and waits
/// until it is deleted after its time to live.
async fn roll_out(node: &Node, namespace: &str) -> anyhow::Result<()> {
    let rollout = json!({
        "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashRollout",
        "metadata": {"name": "fleet", "namespace": namespace},
        "spec": {
            "firmware": format!("{}/nubificus/firmware:0.2.0", node.registry.host),
            "version": "0.2.0", "selector": {"deviceTypes": ["esp32"]},
            "template": {"flashjobPodImage": FLASHER_IMAGE}, "ttlSecondsAfterFinished": 8,
        },
    });
    node.apply(&rollout).await?;
    let rollouts: Api<FlashRollout> = Api::namespaced(node.client.clone(), namespace);
    let done = || async {
        let status = rollouts.get("fleet").await?.status.unwrap_or_default();
        let is_over = status.completion_time.is_some();
        Ok(is_over.then_some(status))
    };
    let status = eventually("the FlashRollout is over", LIMIT, done).await;
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            return Err(error.context(format!("{:?}", rollouts.get("fleet").await?.status)));
        }
    };
    ensure!(status.phase == Some(RolloutPhase::Completed), "{status:?}");
    let no_rollout_left =
        || async { Ok(rollouts.get_opt("fleet").await?.is_none().then_some(())) };
    eventually("the FlashRollout is gone", LIMIT, no_rollout_left).await
}

/// Makes flashes fail repeatedly, and checks that the failed devices are reported.
async fn fail(node: &Node, namespace: &str) -> anyhow::Result<()> {
    let unknown = ["00000000-0000-0000-0000-000000000000".to_owned()];
    node.apply(&job(namespace, "unknown", &unknown, json!({}))).await?;
    let status = ended(node, namespace, "unknown").await?;
    ensure!(status.failed_uuids == unknown, "{status:?}");
    let first = uids(node, namespace, 1).await?;
    // This firmware is not published: every attempt fails, for the same reason.
    let broken =
        json!({"firmware": "harbor.nbfc.io/nubificus/firmware:9.9.9", "version": "9.9.9"});
    node.apply(&job(namespace, "broken", &first[..1], broken)).await?;
    status_where(node, namespace, "broken", "it failed", |status| !status.failed_uuids.is_empty())
        .await?;
    delete_jobs(node, namespace, &["unknown", "broken"]).await
}

/// Removes a Pod by force before its end was observed: its device fails once its node shows that it
/// no longer runs the Pod. The image does not exist, so the Pod is still there when it is removed.
async fn lose_a_pod(node: &Node, namespace: &str) -> anyhow::Result<()> {
    let device = uids(node, namespace, 2).await?.split_off(1);
    let spec = json!({
        "flashjobPodImage": "registry.invalid/nobody/flash:1", "version": "9.9.9",
        "backoffLimitPerDevice": 0, "verify": {"timeoutSeconds": 1},
    });
    node.apply(&job(namespace, "lost", &device, spec)).await?;
    let is_on_a_node = |status: &FlashJobStatus| {
        status.devices.iter().any(|device| device.node.is_some() && device.pod.is_some())
    };
    let status = status_where(node, namespace, "lost", "its Pod has a node", is_on_a_node).await?;
    let pod = status.devices[0].pod.clone().unwrap_or_default();
    node.kubectl(&["-n", namespace, "delete", "pod", &pod, "--force", "--grace-period=0"]).await?;
    let status = ended(node, namespace, "lost").await?;
    let reason = status.devices.first().and_then(|device| device.reason.as_deref());
    ensure!(reason == Some("PodLost"), "{status:?}");
    delete_jobs(node, namespace, &["lost"]).await
}

async fn delete_jobs(node: &Node, namespace: &str, names: &[&str]) -> anyhow::Result<()> {
    let delete = ["-n", namespace, "delete", "flashjobs", "--wait"];
    node.kubectl(&[&delete, names].concat()).await.map(|_| ())
}

/// Replaces a plugin with a newer one, then with two that are not published, and checks that its
/// DevicePlugin is gone when the configuration no longer names it.
async fn exchange_and_lose_a_plugin(
    node: &Node,
    installation: &Installation,
) -> anyhow::Result<()> {
    let plugins: Api<DevicePlugin> = Api::all(node.client.clone());
    let name = installation.device_plugin("esp32s2");
    let mut newer = configuration(node, &["esp32", "esp32s2"]);
    let image = publish_plugin(node, "esp32s2", "esp32s2:0.1.1").await?;
    newer["plugins"][1]["image"] = json!(image);
    installation.configure(node, &newer).await?;
    eventually("the newer plugin is shown", LIMIT, || async {
        Ok((plugins.get(&name).await?.spec.image == image).then_some(()))
    })
    .await?;
    let events: Api<Event> = Api::namespaced(node.client.clone(), "default");
    let about = ListParams::default().fields(&format!("regarding.name={name},type=Warning"));
    for (unpublished, together) in [("0.9.1", false), ("0.9.2", true)] {
        newer["plugins"][1]["image"] = json!(image.replace("0.1.1", unpublished));
        installation.configure(node, &newer).await?;
        wait_for_event(&events, &about, together).await.context(unpublished)?;
    }
    installation.configure(node, &configuration(node, &["esp32"])).await?;
    installation.device_plugin_is_deleted(node, "esp32s2").await
}

/// Checks that rejected configurations are reported by an event about the operator's own Pod, the
/// second one in the series of the first.
async fn refuse_configurations(node: &Node, installation: &Installation) -> anyhow::Result<()> {
    let events: Api<Event> = Api::namespaced(node.client.clone(), &installation.namespace);
    let refused = ListParams::default().fields("reason=ConfigurationRefused");
    for (unknown, together) in [("first", false), ("second", true)] {
        let mut invalid = configuration(node, &["esp32", "esp32s2"]);
        invalid[unknown] = json!(true);
        installation.configure(node, &invalid).await?;
        let event = wait_for_event(&events, &refused, together).await.context(unknown)?;
        // `kubectl describe pod` finds the events of a Pod by its uid.
        let about = event.regarding.unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(node.client.clone(), &installation.namespace);
        let pod = pods.get_metadata(about.name.as_deref().unwrap_or_default()).await?;
        ensure!(about.uid.is_some() && about.uid == pod.metadata.uid, "{about:?}");
    }
    installation.configure(node, &configuration(node, &["esp32", "esp32s2"])).await
}

/// Waits for an event; if `together`, for one with a series of several occurrences.
async fn wait_for_event(
    events: &Api<Event>,
    about: &ListParams,
    together: bool,
) -> anyhow::Result<Event> {
    eventually("an event tells of it", LIMIT, || async {
        let mut event_list = events.list(about).await?.items.into_iter();
        Ok(event_list.find(|event| event.series.is_some() || !together))
    })
    .await
}

/// Creates a namespace for devices and FlashJobs, which admits only restricted Pods.
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

/// Returns the number of flash Pods created in a namespace, from the API server's audit log.
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

/// Publishes a plugin of this repository under another name; returns its reference.
async fn publish_plugin(node: &Node, plugin: &str, name: &str) -> anyhow::Result<String> {
    let file = repository().join(format!("target/plugins/{plugin}.wasm"));
    push_plugin(&node.registry, &file, &format!("flashjob/{name}")).await?;
    Ok(format!("{}/flashjob/{name}", node.registry.host))
}

/// Publishes the plugin esp32s2, enlarged by this many bytes; returns its reference.
///
/// # Errors
/// The plugin was not built, or the registry refuses it.
pub async fn publish_large_plugin(node: &Node, bytes: u32) -> anyhow::Result<String> {
    let plugin = std::fs::read(repository().join("target/plugins/esp32s2.wasm"))?;
    let file = node.folder.join("large.wasm");
    std::fs::write(&file, flashjob_host_tests::components::padded(&plugin, bytes)?)?;
    push_plugin(&node.registry, &file, "flashjob/esp32s2:large").await
}
