//! The operator's own Pods are deleted or replaced, hang, or get too little memory.

use anyhow::{Context, ensure};
use flashjob_node::Node;
use flashjob_node::installation::{Installation, LIMIT};
use flashjob_testbed::process::eventually;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

use crate::nodes::transfers_are_under_way;
use crate::standing::{Site, configured, installed};

async fn pods(node: &Node, installation: &Installation) -> anyhow::Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(node.client.clone(), &installation.namespace);
    let of_operator = ListParams::default().labels("app.kubernetes.io/name=flashjob-operator");
    Ok(pods.list(&of_operator).await?.items)
}

fn restarts(pods: &[Pod]) -> i32 {
    let statuses = pods.iter().filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref());
    statuses.flatten().map(|status| status.restart_count).sum()
}

/// Deletes all operator Pods at once, while some devices are being flashed and others wait.
pub async fn operator_pods_deleted_in_mid_flash_flash_nothing_twice(
    node: &mut Node,
) -> anyhow::Result<()> {
    let site = Site::new(node, "deleted", 4).await?;
    site.hold_transfers().await?;
    site.flash(node, json!({"parallelism": 2})).await?;
    transfers_are_under_way(&site, 1).await?;
    let label = "app.kubernetes.io/name=flashjob-operator";
    node.kubectl(&[
        "-n",
        "flashjob-system",
        "delete",
        "pods",
        "-l",
        label,
        "--grace-period=0",
        "--force",
    ])
    .await?;
    site.release_transfers().await?;
    Installation::default().rolled_out(node).await?;
    site.all_flashed_once(node).await.map(|_| ())
}

/// Replaces both replicas, one after the other.
pub async fn a_rollout_in_mid_job_flashes_nothing_twice(node: &mut Node) -> anyhow::Result<()> {
    let site = Site::new(node, "rolled", 4).await?;
    site.hold_transfers().await?;
    site.flash(node, json!({"parallelism": 2})).await?;
    transfers_are_under_way(&site, 1).await?;
    node.kubectl(&["-n", "flashjob-system", "rollout", "restart", "deployment/flashjob-operator"])
        .await?;
    site.release_transfers().await?;
    Installation::default().rolled_out(node).await?;
    site.all_flashed_once(node).await.map(|_| ())
}

/// The liveness probe ends a process that no longer answers.
pub async fn an_operator_that_hangs_is_started_again(node: &mut Node) -> anyhow::Result<()> {
    let installation = installed(node).await?;
    let before = restarts(&pods(node, &installation).await?);
    let stopped = stop_one_operator()?;
    ensure!(stopped, "no operator runs on the node");
    eventually("the kubelet starts it again", LIMIT, || async {
        Ok((restarts(&pods(node, &installation).await?) > before).then_some(()))
    })
    .await?;
    installation.rolled_out(node).await
}

/// Stops an operator's process as a debugger would.
fn stop_one_operator() -> anyhow::Result<bool> {
    // The kernel truncates names to 15 characters.
    let Some(id) = first_process("flashjob-operat")? else { return Ok(false) };
    let id = rustix::process::Pid::from_raw(id).context("no process id")?;
    rustix::process::kill_process(id, rustix::process::Signal::STOP)?;
    Ok(true)
}

/// Returns the id of a process with this name, if there is any; all processes of the node are in
/// this PID namespace.
///
/// # Errors
/// The processes cannot be listed.
fn first_process(name: &str) -> anyhow::Result<Option<i32>> {
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let number = entry.file_name();
        let Some(id) = number.to_str().and_then(|text| text.parse::<i32>().ok()) else { continue };
        let command = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if command.trim() == name {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Sets the memory limit of the operator's container.
async fn memory_limit(node: &Node, limit: &str) -> anyhow::Result<()> {
    let limits = format!("--limits=memory={limit}");
    node.kubectl(&[
        "-n",
        "flashjob-system",
        "set",
        "resources",
        "deployment/flashjob-operator",
        &limits,
    ])
    .await
    .map(|_| ())
}

/// The compiler is a separate process, which gets the memory that the container has left.
pub async fn a_component_of_12_mb_is_compiled_in_a_container_of_128_mib(
    node: &mut Node,
) -> anyhow::Result<()> {
    let installation = installed(node).await?;
    memory_limit(node, "128Mi").await?;
    installation.rolled_out(node).await?;
    let large = flashjob_node::life::publish_large_plugin(node, 12 << 20).await?;
    let mut with_large = configured(node, &["esp32"]);
    with_large["plugins"]
        .as_array_mut()
        .context("plugins")?
        .push(json!({"name": "esp32s2", "image": large}));
    installation.configure(node, &with_large).await?;
    installation.serves(node, &["esp32", "esp32s2"]).await?;
    let now = pods(node, &installation).await?;
    ensure!(restarts(&now) == 0, "an operator was restarted: {now:?}");
    memory_limit(node, "512Mi").await?;
    installation.configure(node, &configured(node, &["esp32"])).await?;
    installation.rolled_out(node).await
}

/// A namespace that is deleted while its devices are in flight is soon gone.
pub async fn a_namespace_deleted_in_mid_flash_goes_away(node: &mut Node) -> anyhow::Result<()> {
    let site = Site::new(node, "going", 2).await?;
    site.hold_transfers().await?;
    site.flash(node, json!({})).await?;
    transfers_are_under_way(&site, 2).await?;
    site.delete(node).await
}
