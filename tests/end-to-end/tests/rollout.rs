//! FlashRollouts through the whole operator: batches, gates, failures, and firmware that moves.

use flashjob_api::{FlashRollout, FlashRolloutStatus, RolloutPhase};
use flashjob_end_to_end::{LIMIT, jobs};
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::process::eventually;
use flashjob_testbed::{Options, Testbed};
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

fn rollouts(testbed: &Testbed) -> Api<FlashRollout> {
    Api::namespaced(testbed.client.clone(), "default")
}

/// A FlashRollout with what every one here needs, and what `spec` adds or changes.
fn rollout(testbed: &Testbed, name: &str, spec: Value) -> Value {
    let mut rollout = json!({
        "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashRollout", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "firmware": format!("{}/nubificus/firmware:0.2.0", testbed.registry.host),
            "version": "0.2.0", "selector": {"all": true},
        },
    });
    if let (Some(spec), Value::Object(changes)) = (rollout["spec"].as_object_mut(), spec) {
        spec.extend(changes);
    }
    rollout
}

async fn apply(testbed: &Testbed, rollout: &Value) -> anyhow::Result<()> {
    let name = rollout["metadata"]["name"].as_str().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(
        testbed.client.clone(),
        "default",
        &ApiResource::erase::<FlashRollout>(&()),
    );
    api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(rollout)).await?;
    Ok(())
}

async fn status_where(
    testbed: &Testbed,
    name: &str,
    what: &str,
    holds: impl Fn(&FlashRolloutStatus) -> bool,
) -> anyhow::Result<FlashRolloutStatus> {
    let api = rollouts(testbed);
    let found = eventually(&format!("FlashRollout {name}: {what}"), LIMIT, || async {
        Ok(api.get(name).await?.status.filter(|status| holds(status)))
    })
    .await;
    match found {
        Ok(status) => Ok(status),
        Err(error) => {
            let jobs = jobs(testbed).list(&ListParams::default()).await?;
            let jobs: Vec<_> =
                jobs.items.iter().map(|job| (job.name_any(), &job.spec, &job.status)).collect();
            Err(error.context(format!("{:?}\n{jobs:#?}", api.get(name).await?.status)))
        }
    }
}

#[tokio::test]
async fn a_fleet_is_flashed_batch_by_batch_with_the_digest_that_the_tag_had() -> anyhow::Result<()>
{
    let devices = vec!["esp32:thermo:0.1.0=4".to_owned(), "esp32s2:thermo:0.1.0=3".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    testbed.start_operator().await?;
    let batches = json!([
        {"name": "canary", "size": 1, "soakSeconds": 1},
        {"name": "third", "size": "34%"},
    ]);
    apply(&testbed, &rollout(&testbed, "fleet", json!({"batches": batches}))).await?;
    let status = status_where(&testbed, "fleet", "it ends", |status| {
        status.phase.is_some_and(RolloutPhase::is_final)
    })
    .await?;
    assert_eq!(status.phase, Some(RolloutPhase::Completed), "{status:?}");
    let names: Vec<_> =
        status.batches.iter().map(|batch| (batch.name.as_str(), batch.counts.completed)).collect();
    assert_eq!(names, [("canary", 1), ("third", 2), ("rest", 4)], "{status:?}");
    for report in testbed.fleet.reports().await? {
        assert_eq!((report.flashed, report.version.as_str()), (1, "0.2.0"), "{report:?}");
    }
    let digest = status.firmware.and_then(|firmware| firmware.digest).expect("a digest");
    let jobs = jobs(&testbed).list(&ListParams::default()).await?.items;
    assert_eq!(jobs.len(), 3, "{jobs:?}");
    let pinned = format!("{}/nubificus/firmware@{digest}", testbed.registry.host);
    assert!(jobs.iter().all(|job| job.spec.firmware == pinned), "{jobs:?}");
    Ok(())
}
