//! The documented installations, done as users do them, with nothing but the documented edits; used up to flashed devices under the rights
//! that they grant, and undone.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use flashjob_node::images::OPERATOR;
use flashjob_node::installation::Installation;
use flashjob_node::{Node, inventory, life, suite, tests};
use flashjob_testbed::process::repository;
use tokio::process::Command;

/// Runs commands of the documentation in a copy of this repository's deploy folder.
async fn sh(node: &Node, folder: &Path, commands: &str) -> anyhow::Result<String> {
    let mut shell = Command::new("sh");
    shell.args(["-ec", commands]).current_dir(folder);
    node.run(shell).await
}

/// A copy of the folder `deploy` that a test may edit; returns the folder that it is in.
async fn copy(node: &Node, name: &str) -> anyhow::Result<PathBuf> {
    let folder = node.folder.join(name);
    std::fs::create_dir_all(&folder)?;
    let mut cp = Command::new("cp");
    cp.arg("-r").arg(repository().join("deploy")).arg(&folder);
    node.run(cp).await?;
    Ok(folder)
}

/// Puts the image's name into kustomization.yaml, as README says.
fn name_the_image(folder: &Path) -> anyhow::Result<()> {
    let file = folder.join("deploy/kustomization.yaml");
    let (name, tag) = OPERATOR.rsplit_once(':').context("no tag")?;
    let text = std::fs::read_to_string(&file)?;
    let text = text
        .replace("newName: flashjob-operator", &format!("newName: {name}"))
        .replace("newTag: 0.1.0", &format!("newTag: {tag}"));
    Ok(std::fs::write(file, text)?)
}

/// An operator is at work until its configuration names nothing more, and then undone.
async fn lives_and_goes(
    node: &mut Node,
    name: &str,
    install: &str,
    uninstall: &str,
) -> anyhow::Result<()> {
    let before = inventory::inventory(node).await?;
    let folder = copy(node, name).await?;
    name_the_image(&folder)?;
    sh(node, &folder, install).await?;
    let installation = Installation::default();
    life::make_namespace(node, name).await?;
    life::live(node, &installation, name).await?;
    sh(node, &folder, uninstall).await?;
    node.kubectl(&["delete", "namespace", name, "--timeout=180s"]).await?;
    inventory::nothing_new(node, &before).await
}

async fn kustomization_is_applied_used_and_undone(node: &mut Node) -> anyhow::Result<()> {
    lives_and_goes(
        node,
        "by-kustomization",
        "kubectl apply --server-side -k deploy",
        "kubectl delete -k deploy",
    )
    .await
}

async fn single_steps_are_applied_used_and_undone(node: &mut Node) -> anyhow::Result<()> {
    let install = format!(
        "kubectl apply --server-side -f deploy/crds
         kubectl apply -f deploy/manager -f deploy/rbac/role.yaml
         kubectl -n flashjob-system set image deployment/flashjob-operator operator={OPERATOR}"
    );
    let uninstall = "kubectl delete -f deploy/crds
         kubectl delete -f deploy/manager -f deploy/rbac/role.yaml";
    lives_and_goes(node, "by-steps", &install, uninstall).await
}

fn main() -> ExitCode {
    suite::main(tests![
        kustomization_is_applied_used_and_undone,
        single_steps_are_applied_used_and_undone,
    ])
}
