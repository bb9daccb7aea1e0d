//! Deletion of a Pod: a client requests it, and the kubelet confirms it once the containers have
//! ended.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;

/// Waits until the Pod's deletion is requested. Returns an error if the Pod is gone.
pub(super) async fn requested(
    states: &mut watch::Receiver<Option<Pod>>,
) -> Result<(), watch::error::RecvError> {
    let deleted = |pod: &Option<Pod>| {
        pod.as_ref().is_some_and(|pod| pod.metadata.deletion_timestamp.is_some())
    };
    states.wait_for(deleted).await.map(|_| ())
}

/// Removes the object of a Pod whose containers have ended, once its deletion is requested, as a
/// real kubelet does.
pub(super) async fn confirm(
    client: &Client,
    pod: &Pod,
    states: &mut watch::Receiver<Option<Pod>>,
) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    while let Ok(()) = requested(states).await {
        let preconditions = Preconditions { uid: pod.uid(), resource_version: None };
        let at_once = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        match pods.delete(&pod.name_any(), &at_once).await {
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => break,
            Ok(_) => break,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
