//! A node that fails or is drained while flash Pods run on it.

use std::collections::BTreeSet;

use anyhow::ensure;
use flashjob_node::Node;
use flashjob_node::installation::{Installation, LIMIT, status_where};
use flashjob_node::network::HOSTNAME;
use flashjob_testbed::audit;
use flashjob_testbed::process::eventually;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

use crate::standing::Site;

/// Waits until this many devices receive firmware.
pub async fn transfers_are_under_way(site: &Site, devices: usize) -> anyhow::Result<()> {
    eventually("devices receive firmware", LIMIT, || async {
        let reports = site.devices.fleet.reports().await?;
        let receiving =
            reports.iter().filter(|report| report.callbacks > 0 && report.flashed == 0);
        Ok((receiving.count() >= devices).then_some(()))
    })
    .await
}

/// Containers keep running without their kubelet, which finds them again after its restart.
pub async fn a_kubelet_that_is_killed_and_comes_back_interrupts_nothing(
    node: &mut Node,
) -> anyhow::Result<()> {
    let site = Site::new(node, "kubelet", 2).await?;
    site.hold_transfers().await?;
    site.flash(node, json!({})).await?;
    transfers_are_under_way(&site, 2).await?;
    node.kill_kubelet().await?;
    site.release_transfers().await?;
    eventually("devices run the new firmware", LIMIT, || async {
        let reports = site.devices.fleet.reports().await?;
        Ok(reports.iter().all(|report| report.flashed == 1).then_some(()))
    })
    .await?;
    node.start_kubelet()?;
    node.wait_until_ready().await?;
    site.all_flashed_once(node).await.map(|_| ())
}

/// A drain waits until no device is being flashed; no device is interrupted.
pub async fn a_drain_lets_the_devices_in_flight_finish(node: &mut Node) -> anyhow::Result<()> {
    let site = Site::new(node, "drain", 3).await?;
    site.hold_transfers().await?;
    site.flash(node, json!({"parallelism": 2, "backoffLimitPerDevice": 0})).await?;
    transfers_are_under_way(&site, 2).await?;
    let limit = format!("--timeout={}s", LIMIT.as_secs());
    let drain =
        ["drain", HOSTNAME, "--ignore-daemonsets", "--delete-emptydir-data", "--force", &limit];
    let released = async {
        eventually("two evictions are refused", LIMIT, || async {
            Ok((refused_evictions(node, &site)?.len() == 2).then_some(()))
        })
        .await?;
        site.release_transfers().await
    };
    let (drained, released) = tokio::join!(node.kubectl(&drain), released);
    let interrupted =
        site.devices.fleet.reports().await?.iter().map(|report| report.refused).sum::<u32>();
    node.kubectl(&["uncordon", HOSTNAME]).await?;
    drained?;
    released?;
    ensure!(interrupted == 0, "{interrupted} devices were interrupted");
    Installation::default().rolled_out(node).await?;
    site.all_flashed_once(node).await.map(|_| ())
}

/// Returns the names of the Pods whose eviction the API server has answered with 429.
fn refused_evictions(node: &Node, site: &Site) -> anyhow::Result<BTreeSet<String>> {
    let entries = audit::entries(&node.control_plane.audit_log, "administrator")?;
    let refused = entries.iter().filter(|entry| {
        entry["objectRef"]["subresource"] == "eviction"
            && entry["objectRef"]["namespace"] == site.namespace
            && entry["responseStatus"]["code"] == 429
    });
    Ok(refused
        .filter_map(|entry| entry["objectRef"]["name"].as_str().map(str::to_owned))
        .collect())
}

/// The kubelet ends the container of a Pod that was removed by force, which its Lease then shows:
/// the device is flashed again long before the Pod's deadline.
pub async fn a_pod_removed_by_force_frees_its_device_once_the_kubelet_has_ended_it(
    node: &mut Node,
) -> anyhow::Result<()> {
    let site = Site::new(node, "forced", 1).await?;
    site.hold_transfers().await?;
    site.flash(node, json!({"deviceTimeoutSeconds": 3600, "verify": {"timeoutSeconds": 1}}))
        .await?;
    transfers_are_under_way(&site, 1).await?;
    let all = ["-n", "forced", "delete", "pods", "--all", "--force", "--grace-period=0"];
    node.kubectl(&all).await?;
    // The flash program that was told to end would finish a transfer that goes on.
    status_where(node, "forced", "job", "another attempt has begun", |status| {
        status.devices.iter().any(|device| device.attempt == 2)
    })
    .await?;
    site.release_transfers().await?;
    let status = site.ended(node).await?;
    let attempts: Vec<u32> = status.results.values().map(|result| result.attempts).collect();
    ensure!(attempts == [2], "{status:?}");
    // While its transfer was held, the device refused the second attempt, which asked again.
    let reports = site.devices.fleet.reports().await?;
    ensure!(reports.iter().all(|report| report.flashed == 1), "{reports:?}");
    site.delete(node).await
}

/// A node that is lost with a running Pod: the result of its container counts once the device
/// reports it, and no other Pod flashes the device meanwhile.
pub async fn a_node_that_is_lost_does_not_lock_its_devices_for_ever(
    node: &mut Node,
) -> anyhow::Result<()> {
    let site = Site::new(node, "lost", 1).await?;
    site.hold_transfers().await?;
    site.flash(node, json!({"deviceTimeoutSeconds": 120})).await?;
    transfers_are_under_way(&site, 1).await?;
    node.kill_kubelet().await?;
    node.kubectl(&["delete", "node", HOSTNAME]).await?;
    site.release_transfers().await?;
    let pods: Api<Pod> = Api::namespaced(node.client.clone(), &site.namespace);
    eventually("the garbage collector deletes the Pod", LIMIT, || async {
        Ok(pods.list(&ListParams::default()).await?.items.is_empty().then_some(()))
    })
    .await?;
    node.start_kubelet()?;
    node.wait_until_ready().await?;
    Installation::default().rolled_out(node).await?;
    site.all_flashed_once(node).await.map(|_| ())
}
