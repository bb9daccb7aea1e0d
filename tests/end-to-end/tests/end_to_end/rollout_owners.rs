//! Fields of a FlashRollout that Git and people own, under server-side apply.

use anyhow::{Context, ensure};
use flashjob_api::{FlashRollout, FlashRolloutStatus, RolloutPhase};
use flashjob_end_to_end::rollouts::{ended, flashed, rollout, rollouts, status_where};
use flashjob_testbed::{Options, Testbed};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

/// Applies as a field manager that does not force conflicts.
async fn apply_as(testbed: &Testbed, manager: &str, object: &Value) -> kube::Result<FlashRollout> {
    rollouts(testbed).patch("fleet", &PatchParams::apply(manager), &Patch::Apply(object)).await
}

/// Returns the manifest that a person applies: one approval and nothing else.
fn approval(of: &str) -> Value {
    json!({
        "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashRollout",
        "metadata": {"name": "fleet"}, "spec": {"approvals": [of]},
    })
}

async fn waits_for(testbed: &Testbed, batch: &str) -> anyhow::Result<FlashRolloutStatus> {
    let approval = format!("approval of batch {batch}");
    status_where(testbed, "fleet", &approval, |status| {
        status.waiting_for.as_deref() == Some(approval.as_str())
    })
    .await
}

fn approvals(rollout: &FlashRollout) -> Vec<&str> {
    let mut approvals: Vec<&str> =
        rollout.spec.approvals.iter().flatten().map(String::as_str).collect();
    approvals.sort_unstable();
    approvals
}

/// Returns the approvals that a field manager owns, as the managed fields name them.
fn owned_approvals(rollout: &FlashRollout, manager: &str) -> Vec<String> {
    let entries = rollout.metadata.managed_fields.iter().flatten();
    let of_manager = entries.filter(|entry| entry.manager.as_deref() == Some(manager));
    let owned = of_manager.filter_map(|entry| {
        let fields = &entry.fields_v1.as_ref()?.0;
        fields["f:spec"]["f:approvals"].as_object().cloned()
    });
    owned.flatten().map(|(key, _)| key).filter(|key| key != ".").collect()
}

#[tokio::test]
async fn git_applies_its_manifest_again_and_an_approval_of_a_person_stays() -> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=4".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    testbed.start_operator().await?;
    let batches = json!([
        {"name": "canary", "size": 1, "approval": true},
        {"name": "half", "size": "50%", "approval": true},
        {"name": "all", "approval": true},
    ]);
    let mut manifest = rollout(&testbed, "fleet", json!({"batches": batches}));
    apply_as(&testbed, "git", &manifest).await?;
    let run = waits_for(&testbed, "canary").await?.run.context("a run")?;
    let [canary, half, all] = ["canary", "half", "all"].map(|batch| format!("{batch}@{run}"));

    apply_as(&testbed, "anna", &approval(&canary)).await?;
    waits_for(&testbed, "half").await?;
    // Git applies without approvals, and with a changed value of a field that it owns.
    manifest["spec"]["parallelism"] = json!(2);
    let applied = apply_as(&testbed, "git", &manifest).await?;
    ensure!(approvals(&applied) == [&canary], "{:?}", applied.spec.approvals);
    ensure!(applied.spec.parallelism == Some(2));

    // Git applies with an approval of its own beside that of the person.
    manifest["spec"]["approvals"] = json!([half]);
    let applied = apply_as(&testbed, "git", &manifest).await?;
    ensure!(approvals(&applied) == [&canary, &half], "{:?}", applied.spec.approvals);
    let owned = |manager| owned_approvals(&applied, manager);
    ensure!(owned("anna") == [format!("v:\"{canary}\"")], "{:?}", owned("anna"));
    ensure!(owned("git") == [format!("v:\"{half}\"")], "{:?}", owned("git"));
    waits_for(&testbed, "all").await?;

    // `kubectl flashjob rollout approve` writes the list and owns what it added.
    let list = Patch::Merge(json!({"spec": {"approvals": [canary, half, all]}}));
    let parameters = PatchParams { field_manager: Some("bert".to_owned()), ..Default::default() };
    let patched = rollouts(&testbed).patch("fleet", &parameters, &list).await?;
    ensure!(owned_approvals(&patched, "bert") == [format!("v:\"{all}\"")]);
    let status = ended(&testbed, "fleet").await?;
    ensure!(status.phase == Some(RolloutPhase::Completed), "{status:?}");
    ensure!(flashed(&testbed).await? == [1; 4]);
    let applied = apply_as(&testbed, "git", &manifest).await?;
    ensure!(approvals(&applied) == [&all, &canary, &half], "{:?}", applied.spec.approvals);
    // A change by a person to a field that Git owns is a conflict.
    let mut paused = approval(&all);
    paused["spec"]["parallelism"] = json!(7);
    let conflict = apply_as(&testbed, "anna", &paused).await;
    ensure!(
        matches!(&conflict, Err(kube::Error::Api(status)) if status.code == 409),
        "{conflict:?}"
    );
    Ok(())
}
