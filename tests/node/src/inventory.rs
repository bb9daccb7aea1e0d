//! Inventory of all objects of the cluster, to find what an installation leaves behind. Uses
//! kubectl.

use std::collections::BTreeSet;

use flashjob_testbed::process::eventually;

use crate::Node;
use crate::installation::LIMIT;

/// Kinds whose objects come and go by themselves: events and leases.
const FLEETING: [&str; 3] = ["events", "events.events.k8s.io", "leases.coordination.k8s.io"];

/// Returns the kind, namespace and name of each object of the cluster.
///
/// # Errors
/// The API server does not answer.
pub async fn inventory(node: &Node) -> anyhow::Result<BTreeSet<String>> {
    let kinds = node.kubectl(&["api-resources", "--verbs=list", "-o", "name"]).await?;
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !FLEETING.contains(kind)).collect();
    let columns = "custom-columns=:.kind,:.metadata.namespace,:.metadata.name";
    let all = node
        .kubectl(&["get", &kinds.join(","), "-A", "-o", columns, "--ignore-not-found"])
        .await?;
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(all.lines().map(words).filter(|line| !line.is_empty()).collect())
}

/// Waits until no object is left that was not there before.
///
/// # Errors
/// A new object is left.
pub async fn nothing_new(node: &Node, before: &BTreeSet<String>) -> anyhow::Result<()> {
    let compare = || async {
        // A kind may be removed between the two requests.
        let now = inventory(node).await.unwrap_or_default();
        let new: Vec<String> = now.difference(before).cloned().collect();
        anyhow::Ok((now, new))
    };
    let removal = eventually("nothing is left of the installation", LIMIT, || async {
        let (now, new) = compare().await?;
        Ok((!now.is_empty() && new.is_empty()).then_some(()))
    });
    match removal.await {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(format!("still there: {:?}", compare().await?.1))),
    }
}
