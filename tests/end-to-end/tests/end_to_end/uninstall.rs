//! `make uninstall` in a cluster with FlashRollouts and FlashJobs: it refuses, or leaves nothing.

use std::process::Output;

use anyhow::ensure;
use flashjob_api::{FlashRolloutStatus, RolloutPhase};
use flashjob_end_to_end::rollouts::{apply, rollout, rollouts, status_where};
use flashjob_end_to_end::{jobs, nothing_left};
use flashjob_testbed::process::repository;
use flashjob_testbed::{Options, Testbed};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::process::Command;

/// Runs the script behind `make uninstall`; `wait` is the time for which it waits for an operator.
async fn uninstall(testbed: &Testbed, force: &str, wait: &str) -> anyhow::Result<Output> {
    let programs = testbed.control_plane.programs.clone();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&path)))?;
    let mut command = Command::new(repository().join("deploy/install/remove.sh"));
    command.env("PATH", path).env("KUBECONFIG", &testbed.control_plane.kubeconfig);
    Ok(command.env("FORCE", force).env("WAIT", wait).kill_on_drop(true).output().await?)
}

/// Creates a rollout of which one batch has passed and another waits, so that it has a FlashJob.
async fn half_done(testbed: &Testbed) -> anyhow::Result<()> {
    let batches = json!([{"name": "canary", "size": 1}, {"name": "all", "approval": true}]);
    apply(testbed, &rollout(testbed, "fleet", json!({"batches": batches}))).await?;
    let waits = |status: &FlashRolloutStatus| {
        status.waiting_for.as_deref() == Some("approval of batch all")
    };
    let status = status_where(testbed, "fleet", "it waits", waits).await?;
    ensure!(status.phase == Some(RolloutPhase::Waiting));
    ensure!(jobs(testbed).list(&ListParams::default()).await?.items.len() == 1);
    Ok(())
}

async fn definitions(testbed: &Testbed) -> anyhow::Result<Vec<String>> {
    let definitions: Api<CustomResourceDefinition> = Api::all(testbed.client.clone());
    let all = definitions.list(&ListParams::default()).await?;
    let names = all.items.iter().map(ResourceExt::name_any);
    Ok(names.filter(|name| name.starts_with("flash")).collect())
}

#[tokio::test]
async fn uninstalling_refuses_while_there_are_rollouts_and_takes_them_along_when_forced()
-> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=2".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    testbed.start_operator().await?;
    half_done(&testbed).await?;
    let output = uninstall(&testbed, "", "60s").await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && stderr.contains("there are 1 FlashRollouts"),
        "{output:?}"
    );
    ensure!(definitions(&testbed).await?.len() == 2, "the definitions stay");
    let stored = rollouts(&testbed).get("fleet").await?;
    ensure!(stored.metadata.deletion_timestamp.is_none(), "the rollout stays");
    let output = uninstall(&testbed, "1", "60s").await?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(definitions(&testbed).await?.is_empty(), "{output:?}");
    nothing_left(&testbed).await
}

#[tokio::test]
async fn without_an_operator_a_forced_uninstall_leaves_no_rollout_stuck() -> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=2".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    testbed.start_operator().await?;
    half_done(&testbed).await?;
    testbed.kill_operator().await?;
    // The rollout waits for its FlashJob, whose finalizer nothing removes, and for a tool that is
    // gone.
    let held = json!({"metadata": {"finalizers": ["example.com/held"]}});
    let parameters = PatchParams::default();
    rollouts(&testbed).patch("fleet", &parameters, &Patch::Merge(held)).await?;
    rollouts(&testbed).delete("fleet", &DeleteParams::foreground()).await?;
    let output = uninstall(&testbed, "1", "2s").await?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(definitions(&testbed).await?.is_empty(), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    for taken_off in ["FlashRollout default/fleet", "FlashJob default/fleet-"] {
        ensure!(stderr.contains(taken_off), "{stderr}");
    }
    Ok(())
}
