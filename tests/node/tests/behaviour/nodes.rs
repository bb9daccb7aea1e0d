//! A node that comes and goes under the flash Pods.

use std::time::Duration;

use anyhow::ensure;
use flashjob_api::Phase;
use flashjob_node::Node;
use flashjob_node::installation::{Installation, LIMIT, status_where};
use flashjob_node::node::NAME;
use flashjob_testbed::process::eventually;
use serde_json::json;

use crate::standing::{Site, installed};

/// Waits until a transfer is under way at so many devices.
pub async fn transfers_are_under_way(site: &Site, devices: usize) -> anyhow::Result<()> {
    eventually("devices receive firmware", LIMIT, || async {
        let reports = site.devices.fleet.reports().await?;
        let receiving = reports.iter().filter(|report| report.callbacks > 0 && report.flashed == 0);
        Ok((receiving.count() >= devices).then_some(()))
    })
    .await
}

/// Containers go on without their kubelet, which finds them again.
pub async fn a_kubelet_that_is_killed_and_comes_back_interrupts_nothing(
    node: &mut Node,
) -> anyhow::Result<()> {
    let site = Site::new(node, "kubelet", 2).await?;
    site.transfers_take(5000).await?;
    site.flash(node, json!({})).await?;
    transfers_are_under_way(&site, 2).await?;
    node.kill_kubelet().await?;
    eventually("devices run the new firmware", LIMIT, || async {
        let reports = site.devices.fleet.reports().await?;
        Ok(reports.iter().all(|report| report.flashed == 1).then_some(()))
    })
    .await?;
    node.start_kubelet()?;
    node.wait_until_ready().await?;
    site.all_flashed_once(node).await.map(|_| ())
}

/// Whoever empties the node waits until nothing is being flashed; no device is interrupted.
pub async fn a_drain_lets_the_devices_in_flight_finish(node: &mut Node) -> anyhow::Result<()> {
    let site = Site::new(node, "drain", 3).await?;
    site.transfers_take(8000).await?;
    site.flash(node, json!({"parallelism": 2, "backoffLimitPerDevice": 0})).await?;
    transfers_are_under_way(&site, 2).await?;
    let drained = node
        .kubectl(&[
            "drain",
            NAME,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--force",
            "--timeout=120s",
        ])
        .await;
    let interrupted =
        site.devices.fleet.reports().await?.iter().map(|report| report.refused).sum::<u32>();
    node.kubectl(&["uncordon", NAME]).await?;
    drained?;
    ensure!(interrupted == 0, "{interrupted} devices were interrupted");
    Installation::default().rolled_out(node).await?;
    site.all_flashed_once(node).await.map(|_| ())
}

/// A node that went away with a running Pod locks that device until its deadline, and no longer.
pub async fn a_node_that_is_lost_does_not_lock_its_devices_for_ever(
    node: &mut Node,
) -> anyhow::Result<()> {
    let site = Site::new(node, "lost", 1).await?;
    site.transfers_take(600_000).await?;
    site.flash(node, json!({"deviceTimeoutSeconds": 30})).await?;
    transfers_are_under_way(&site, 1).await?;
    node.kill_kubelet().await?;
    node.kubectl(&["delete", "node", NAME]).await?;
    site.transfers_take(0).await?;
    tokio::time::sleep(Duration::from_millis(10)).await;
    node.start_kubelet()?;
    node.wait_until_ready().await?;
    let installation = installed(node).await?;
    installation.rolled_out(node).await?;
    let status = status_where(node, &site.namespace, "job", "it is over", |status| {
        matches!(status.phase, Some(Phase::Completed | Phase::Failed))
    })
    .await?;
    ensure!(status.phase == Some(Phase::Completed), "{status:?}");
    let reports = site.devices.fleet.reports().await?;
    ensure!(
        reports.iter().all(|report| report.conflicts == 0),
        "two flashers on one device: {reports:?}"
    );
    site.delete(node).await
}
