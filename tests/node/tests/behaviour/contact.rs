//! Connections of a device back to its flash Pod.

use std::time::Duration;

use anyhow::ensure;
use flashjob_node::Node;
use flashjob_node::life::audited_attempts;
use serde_json::json;

use crate::standing::Site;

/// With a slow kube-proxy, a Service's rule for a new Pod comes up to ten seconds after the Pod
/// runs; until then the connection back of a device is refused.
pub async fn no_attempt_is_lost_while_kube_proxy_is_slow(node: &mut Node) -> anyhow::Result<()> {
    let site = Site::new(node, "slow-proxy", 2).await?;
    node.start_kube_proxy(Duration::from_secs(10))?;
    site.flash(node, json!({"backoffLimitPerDevice": 0})).await?;
    let namespace = site.namespace.clone();
    let flashed = site.all_flashed_once(node).await;
    node.start_kube_proxy(Duration::from_secs(1))?;
    flashed?;
    let attempts = audited_attempts(node, &namespace)?;
    ensure!(attempts == 2, "{attempts} flash Pods for 2 devices");
    Ok(())
}
