//! Helpers that apply FlashRollouts as users do, and wait until a condition holds.

use flashjob_api::{FlashRollout, FlashRolloutStatus};
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::Testbed;
use flashjob_testbed::process::eventually;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::{LIMIT, jobs};

/// Returns the API of the testbed's FlashRollouts.
#[must_use]
pub fn rollouts(testbed: &Testbed) -> Api<FlashRollout> {
    Api::namespaced(testbed.client.clone(), "default")
}

/// Returns a FlashRollout with the fields that every test needs, and those that `spec` adds or
/// changes.
#[must_use]
pub fn rollout(testbed: &Testbed, name: &str, spec: Value) -> Value {
    let mut rollout = json!({
        "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashRollout",
        "metadata": {"name": name, "namespace": "default"},
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

/// Applies a FlashRollout with server-side apply.
///
/// # Errors
/// The API server refuses it.
pub async fn apply(testbed: &Testbed, rollout: &Value) -> anyhow::Result<()> {
    let name = rollout["metadata"]["name"].as_str().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(
        testbed.client.clone(),
        "default",
        &ApiResource::erase::<FlashRollout>(&()),
    );
    api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(rollout)).await?;
    Ok(())
}

/// Waits until the status of a FlashRollout meets a condition.
///
/// # Errors
/// The condition does not hold within [`LIMIT`].
pub async fn status_where(
    testbed: &Testbed,
    name: &str,
    what: &str,
    holds: impl Fn(&FlashRolloutStatus) -> bool,
) -> anyhow::Result<FlashRolloutStatus> {
    let api = rollouts(testbed);
    let outcome = eventually(&format!("FlashRollout {name}: {what}"), LIMIT, || async {
        Ok(api.get(name).await?.status.filter(|status| holds(status)))
    })
    .await;
    match outcome {
        Ok(status) => Ok(status),
        Err(error) => {
            let jobs = jobs(testbed).list(&ListParams::default()).await?;
            let jobs: Vec<_> =
                jobs.items.iter().map(|job| (job.name_any(), &job.spec, &job.status)).collect();
            Err(error.context(format!("{:?}\n{jobs:?}", api.get(name).await?.status)))
        }
    }
}

/// Changes fields of a rollout's spec, as a user other than the one who applied it.
///
/// # Errors
/// The API server refuses it.
pub async fn change(testbed: &Testbed, name: &str, spec: Value) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"spec": spec}));
    rollouts(testbed).patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Waits until a FlashRollout has ended.
///
/// # Errors
/// The FlashRollout does not end within [`LIMIT`].
pub async fn ended(testbed: &Testbed, name: &str) -> anyhow::Result<FlashRolloutStatus> {
    status_where(testbed, name, "it ends", |status| status.completion_time.is_some()).await
}

/// Returns the number of times that each device was flashed.
///
/// # Errors
/// The simulators do not answer.
pub async fn flashed(testbed: &Testbed) -> anyhow::Result<Vec<u32>> {
    Ok(testbed.fleet.reports().await?.iter().map(|report| report.flashed).collect())
}

/// Sets the behaviour of all devices.
///
/// # Errors
/// The simulators do not answer.
pub async fn behave(testbed: &Testbed, behaviour: &Behaviour) -> anyhow::Result<()> {
    for report in testbed.fleet.reports().await? {
        testbed.fleet.behave(&report.id, behaviour).await?;
    }
    Ok(())
}
