//! Pod status in the form that a kubelet writes.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

/// Result of a container that has ended.
pub(super) struct End {
    pub code: i32,
    pub message: String,
    /// Reason why the kubelet ended the Pod, if it did.
    pub pod_reason: Option<&'static str>,
}

/// Writes a Pod's status as a kubelet does, without touching conditions of others. Retries for as
/// long as the API server is away, and returns if the Pod is gone.
pub(super) async fn report(client: &Client, pod: &Pod, status: Value) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    loop {
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": status});
        match pods
            .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch))
            .await
        {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => return,
            Err(error) => {
                tracing::debug!(%error, "a Pod's status could not be written and is written again")
            }
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

fn times(pod: &Pod) -> (Value, String, String) {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    let name = container.map(|container| container.name.clone()).unwrap_or_default();
    let image = container.and_then(|container| container.image.clone()).unwrap_or_default();
    (json!(now()), name, image)
}

/// Returns the current time in whole seconds, in the format of the API.
pub(super) fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

fn conditions(ready: bool) -> Value {
    let word = if ready { "True" } else { "False" };
    let since = now();
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "lastTransitionTime": since,
        })
    };
    json!([
        condition("PodScheduled", "True"),
        condition("Initialized", "True"),
        condition("Ready", word),
        condition("ContainersReady", word)
    ])
}

fn status(pod: &Pod, phase: &str, ready: bool, state: Value) -> Value {
    let (_, name, image) = times(pod);
    json!({
        "phase": phase, "hostIP": "127.0.0.1", "podIP": "127.0.0.1",
        "podIPs": [{"ip": "127.0.0.1"}],
        "conditions": conditions(ready),
        "containerStatuses": [{
            "name": name, "image": image, "imageID": "", "ready": ready, "started": ready,
            "restartCount": 0, "state": state,
        }],
    })
}

pub(super) fn pulling_fails(pod: &Pod, reason: &str) -> Value {
    let (started, _, image) = times(pod);
    let mut status = status(
        pod,
        "Pending",
        false,
        json!({
            "waiting": {
                "reason": reason, "message": format!("no program stands for image {image:?}"),
            },
        }),
    );
    status["startTime"] = started;
    status
}

pub(super) fn running(pod: &Pod) -> Value {
    let (started, ..) = times(pod);
    let mut status = status(pod, "Running", true, json!({"running": {"startedAt": started}}));
    status["startTime"] = started;
    status
}

pub(super) fn ended(pod: &Pod, end: &End, started: &str) -> Value {
    let phase = if end.code == 0 && end.pod_reason.is_none() { "Succeeded" } else { "Failed" };
    let reason = if end.code == 0 { "Completed" } else { "Error" };
    let terminated = json!({
        "exitCode": end.code, "reason": reason, "message": end.message, "startedAt": started,
        "finishedAt": now(),
    });
    let mut status = status(
        pod,
        phase,
        false,
        json!({"running": null, "waiting": null, "terminated": terminated}),
    );
    status["reason"] = json!(end.pod_reason);
    status
}

/// Status of a Pod that never started, because its deletion was requested before.
pub(super) fn never_started(pod: &Pod) -> Value {
    let terminated = json!({
        "exitCode": 137, "reason": "ContainerStatusUnknown",
        "message": "The container could not be located when the pod was terminated",
    });
    status(pod, "Failed", false, json!({"waiting": null, "terminated": terminated}))
}

/// Status of a Pod that ran before this kubelet started.
pub(super) fn lost(pod: &Pod) -> Value {
    never_started(pod)
}

pub(super) fn succeeded(pod: &Pod) -> Value {
    let end = End { code: 0, message: String::new(), pod_reason: None };
    let mut status = ended(pod, &end, &now());
    status["startTime"] = json!(now());
    status
}

pub(super) fn node_info() -> Value {
    let names = [
        "machineID",
        "systemUUID",
        "bootID",
        "kernelVersion",
        "osImage",
        "containerRuntimeVersion",
        "kubeProxyVersion",
    ];
    let mut info: serde_json::Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), json!("simulated"))).collect();
    info.insert("kubeletVersion".to_owned(), json!("v1.36.0"));
    info.insert("operatingSystem".to_owned(), json!("linux"));
    info.insert("architecture".to_owned(), json!("amd64"));
    info.into()
}
