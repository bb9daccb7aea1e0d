//! Helpers that the end-to-end tests share: they apply FlashJobs as users do, and wait until a
//! condition holds.

pub mod counted;
pub mod rollouts;

use flashjob_api::{DevicePlugin, DevicePluginStatus, FlashJob, FlashJobStatus, Phase};
use flashjob_testbed::process::eventually;
use flashjob_testbed::testbed::FLASHER_IMAGE;
use flashjob_testbed::{Testbed, audit};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, ValidationDirective};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use serde_json::{Value, json};

pub use flashjob_testbed::process::LIMIT;

/// Returns a FlashJob with the required fields, and those that `spec` adds or changes.
#[must_use]
pub fn job(name: &str, uids: &[String], spec: Value) -> Value {
    let mut job = json!({
        "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "uuid": uids, "firmware": "harbor.nbfc.io/nubificus/firmware:0.2.0",
            "version": "0.2.0", "flashjobPodImage": FLASHER_IMAGE,
        },
    });
    if let (Some(spec), Value::Object(changes)) = (job["spec"].as_object_mut(), spec) {
        spec.extend(changes);
    }
    job
}

/// Returns the API of the testbed's FlashJobs, as typed objects.
#[must_use]
pub fn jobs(testbed: &Testbed) -> Api<FlashJob> {
    Api::namespaced(testbed.client.clone(), "default")
}

/// Returns the API of the testbed's FlashJobs, as untyped objects that may hold anything a user
/// writes.
#[must_use]
pub fn raw_jobs(testbed: &Testbed) -> Api<DynamicObject> {
    Api::namespaced_with(testbed.client.clone(), "default", &ApiResource::erase::<FlashJob>(&()))
}

/// Waits until the status of a DevicePlugin meets a condition.
///
/// # Errors
/// The condition does not hold within [`LIMIT`].
pub async fn plugin_where(
    testbed: &Testbed,
    name: &str,
    what: &str,
    holds: impl Fn(&DevicePluginStatus) -> bool,
) -> anyhow::Result<DevicePluginStatus> {
    let plugins: Api<DevicePlugin> = Api::all(testbed.client.clone());
    eventually(&format!("DevicePlugin {name}: {what}"), LIMIT, || async {
        Ok(plugins
            .get_opt(name)
            .await?
            .and_then(|plugin| plugin.status)
            .filter(|status| holds(status)))
    })
    .await
}

/// Creates a FlashJob from raw JSON.
///
/// # Errors
/// The API server refuses it.
pub async fn create(testbed: &Testbed, job: &Value) -> anyhow::Result<()> {
    let job: DynamicObject = serde_json::from_value(job.clone())?;
    raw_jobs(testbed).create(&PostParams::default(), &job).await?;
    Ok(())
}

/// Applies a FlashJob with server-side apply.
///
/// # Errors
/// The API server refuses it.
pub async fn apply(testbed: &Testbed, job: &Value) -> anyhow::Result<()> {
    let name = job["metadata"]["name"].as_str().unwrap_or_default();
    raw_jobs(testbed).patch(name, &PatchParams::apply("test").force(), &Patch::Apply(job)).await?;
    Ok(())
}

/// Waits until the status of a FlashJob meets a condition.
///
/// # Errors
/// The condition does not hold within [`LIMIT`].
pub async fn status_where(
    testbed: &Testbed,
    name: &str,
    what: &str,
    holds: impl Fn(&FlashJobStatus) -> bool,
) -> anyhow::Result<FlashJobStatus> {
    let jobs = jobs(testbed);
    let outcome = eventually(&format!("FlashJob {name}: {what}"), LIMIT, || async {
        Ok(jobs.get(name).await?.status.filter(|status| holds(status)))
    })
    .await;
    match outcome {
        Ok(status) => Ok(status),
        Err(error) => {
            let status = jobs.get(name).await?.status;
            let words = testbed.operator_log_tails();
            Err(error.context(format!("{status:?}; the operators said last:\n{words}")))
        }
    }
}

/// Waits until the status of a FlashJob is that of its present spec.
///
/// # Errors
/// The operator does not see the spec within [`LIMIT`].
pub async fn spec_seen(testbed: &Testbed, name: &str) -> anyhow::Result<FlashJobStatus> {
    let generation = jobs(testbed).get(name).await?.metadata.generation;
    status_where(testbed, name, "its spec is seen", |status| {
        status.observed_generation >= generation
    })
    .await
}

/// Waits until this many devices have connected to a flash Pod. Those that hold their transfers
/// are then in the middle of a flash.
///
/// # Errors
/// Fewer devices connect within [`LIMIT`].
pub async fn called(testbed: &Testbed, devices: usize) -> anyhow::Result<()> {
    eventually(&format!("{devices} devices call"), LIMIT, || async {
        let reports = testbed.fleet.reports().await?;
        let called = reports.iter().filter(|report| report.callbacks > 0).count();
        Ok((called >= devices).then_some(()))
    })
    .await
}

/// Waits until a FlashJob has ended.
///
/// # Errors
/// The FlashJob does not end within [`LIMIT`].
pub async fn ended(testbed: &Testbed, name: &str) -> anyhow::Result<FlashJobStatus> {
    status_where(testbed, name, "it is over", |status| {
        matches!(status.phase, Some(Phase::Completed | Phase::Failed))
    })
    .await
}

/// Waits until no flash Pod and no flash Service is left, and checks that the operator never made
/// a request that it has no right to.
///
/// # Errors
/// An object is left, or a request was forbidden.
pub async fn nothing_left(testbed: &Testbed) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::all(testbed.client.clone());
    let services: Api<Service> = Api::all(testbed.client.clone());
    let flash = ListParams::default().labels("app,uuid");
    eventually("no flash Pod and no flash Service is left", LIMIT, || async {
        let object_count =
            pods.list(&flash).await?.items.len() + services.list(&flash).await?.items.len();
        Ok((object_count == 0).then_some(()))
    })
    .await?;
    for request in audit::forbidden(&testbed.control_plane.audit_log, "operator")? {
        anyhow::ensure!(
            has_right(testbed, &request).await?,
            "the rights of deploy/rbac do not cover what the operator asks for: {request}"
        );
    }
    Ok(())
}

/// Returns true if the operator has the right to a request. The API server may have denied it all
/// the same: one that was just started does not know the RBAC rules yet.
async fn has_right(testbed: &Testbed, request: &audit::Request) -> anyhow::Result<bool> {
    let (resource, subresource) =
        request.resource.split_once('/').unwrap_or((&request.resource, ""));
    let review: SubjectAccessReview = serde_json::from_value(json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
        "spec": {"user": "operator", "resourceAttributes": {
            "verb": request.verb, "group": request.group, "resource": resource,
            "subresource": subresource, "namespace": request.namespace, "name": request.name,
        }},
    }))?;
    let reviews: Api<SubjectAccessReview> = Api::all(testbed.client.clone());
    let review = reviews.create(&PostParams::default(), &review).await?;
    Ok(review.status.is_some_and(|status| status.allowed))
}

/// Deletes a FlashJob, and waits until it is gone.
///
/// # Errors
/// The FlashJob is not gone within [`LIMIT`].
pub async fn delete(testbed: &Testbed, name: &str) -> anyhow::Result<()> {
    let jobs = jobs(testbed);
    jobs.delete(name, &DeleteParams::default()).await?;
    wait_until_gone(testbed, name).await
}

/// Waits until a FlashJob is gone.
///
/// # Errors
/// The FlashJob is not gone within [`LIMIT`].
pub async fn wait_until_gone(testbed: &Testbed, name: &str) -> anyhow::Result<()> {
    let jobs = jobs(testbed);
    let gone = eventually(&format!("FlashJob {name} is gone"), LIMIT, || async {
        Ok(jobs.get_opt(name).await?.is_none().then_some(()))
    })
    .await;
    let Err(error) = gone else { return Ok(()) };
    // The operator keeps its finalizer until the kubelet has removed the Pods, so the message shows
    // which of the two was waited for.
    let job = jobs.get_opt(name).await?.map(|job| (job.metadata.finalizers, job.status));
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), "default");
    let pods = pods.list(&ListParams::default().labels(&format!("app={name}"))).await?.items;
    let pods: Vec<_> = pods
        .into_iter()
        .map(|pod| (pod.metadata.name, pod.metadata.deletion_timestamp, pod.status))
        .collect();
    let words = testbed.operator_log_tails();
    Err(error.context(format!("{job:?}; Pods: {pods:?}; the operators said last:\n{words}")))
}

/// Waits until a Pod of a FlashJob meets a condition.
///
/// # Errors
/// No Pod meets the condition within [`LIMIT`].
pub async fn pod_where(
    testbed: &Testbed,
    job: &str,
    what: &str,
    holds: impl Fn(&Pod) -> bool,
) -> anyhow::Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), "default");
    let of_job = ListParams::default().labels(&format!("app={job}"));
    eventually(&format!("a Pod of FlashJob {job}: {what}"), LIMIT, || async {
        Ok(pods.list(&of_job).await?.items.into_iter().find(|pod| holds(pod)))
    })
    .await
}

/// Returns true if a Pod's container runs.
#[must_use]
pub fn runs(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
}

/// Returns the reason why a device failed, was skipped or waits.
#[must_use]
pub fn reason_of(status: &FlashJobStatus, uid: &str) -> Option<String> {
    status.devices.iter().find(|device| device.uid == uid).and_then(|device| device.reason.clone())
}

/// Returns the uids of the first devices of a type.
///
/// # Errors
/// The API server or the simulator does not answer.
pub async fn uids(testbed: &Testbed, device: &str, count: usize) -> anyhow::Result<Vec<String>> {
    let devices = testbed.devices().await?;
    let of_type = devices.into_iter().filter(|(_, report)| report.device == device);
    Ok(of_type.map(|(uid, _)| uid).take(count).collect())
}

/// Returns the messages of the events about a FlashJob.
///
/// # Errors
/// The API server does not answer.
pub async fn events(testbed: &Testbed, name: &str) -> anyhow::Result<Vec<String>> {
    let events: Api<k8s_openapi::api::events::v1::Event> =
        Api::namespaced(testbed.client.clone(), "default");
    let all = events.list(&ListParams::default()).await?;
    let about = all.items.into_iter().filter(|event| {
        event.regarding.as_ref().is_some_and(|about| about.name.as_deref() == Some(name))
    });
    Ok(about
        .map(|event| {
            format!(
                "{} {}",
                event.reason.clone().unwrap_or_default(),
                event.note.clone().unwrap_or_default()
            )
        })
        .collect())
}

/// Returns a condition's status and reason.
#[must_use]
pub fn condition(status: &FlashJobStatus, kind: &str) -> Option<(String, String)> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((condition.status.clone(), condition.reason.clone()))
}

/// Returns the objects of this kind in the YAML blocks of a Markdown page, or in a YAML file.
///
/// # Errors
/// A block is not valid YAML.
pub fn examples(text: &str, kind: &str) -> anyhow::Result<Vec<Value>> {
    let blocks: Vec<&str> = match text.contains("```yaml") {
        true => {
            text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
        }
        false => vec![text],
    };
    let mut objects = Vec::new();
    for block in blocks {
        let value: Value = serde_saphyr::from_str(block)?;
        if value["kind"] == kind {
            objects.push(value);
        }
    }
    Ok(objects)
}

/// Returns the parameters of an apply that changes nothing and rejects unknown fields.
#[must_use]
pub fn strict_dry_run() -> PatchParams {
    PatchParams {
        dry_run: true,
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply("test")
    }
}
