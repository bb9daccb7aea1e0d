//! The parts of Pods and Services that the caches keep. Everything else is skipped while decoding:
//! most of a Pod's text was added by defaulting, admission and other programs. No I/O.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, EnvVar, PersistentVolumeClaimVolumeSource, Pod, PodSpec,
    PodStatus, SecretVolumeSource, Service, ServicePort, ServiceSpec, ServiceStatus, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::Deserialize;

use super::Readable;

impl Readable for Pod {
    fn read(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text).map(PodPart::into)
    }
}

impl Readable for Service {
    fn read(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text).map(ServicePart::into)
    }
}

#[derive(Deserialize)]
struct PodPart {
    metadata: MetadataPart,
    spec: Option<PodSpecPart>,
    status: Option<PodStatus>,
}

#[derive(Deserialize)]
struct ServicePart {
    metadata: MetadataPart,
    spec: Option<ServiceSpecPart>,
    status: Option<ServiceStatus>,
}

#[derive(Deserialize)]
struct ServiceSpecPart {
    // A Service with other ports than its plugin's latest answer is replaced.
    ports: Option<Vec<ServicePort>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetadataPart {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<Time>,
    // A container may run for as long after the Pod's deletion.
    deletion_grace_period_seconds: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpecPart {
    node_name: Option<String>,
    // Both bound the time for which a container may still run whose Pod vanished unseen.
    active_deadline_seconds: Option<i64>,
    termination_grace_period_seconds: Option<i64>,
    containers: Option<Vec<ContainerPart>>,
    // A Pod that waits for a volume does not name the missing object in its status.
    volumes: Option<Vec<VolumePart>>,
}

#[derive(Deserialize)]
struct ContainerPart {
    name: String,
    // Pods of the Go operator have no annotations: device and firmware are in their environment.
    env: Option<Vec<VariablePart>>,
}

#[derive(Deserialize)]
struct VariablePart {
    name: String,
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VolumePart {
    name: String,
    secret: Option<SecretVolumeSource>,
    config_map: Option<ConfigMapVolumeSource>,
    persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource>,
}

impl From<PodPart> for Pod {
    fn from(part: PodPart) -> Self {
        let PodPart { metadata, spec, status } = part;
        Self { metadata: metadata.into(), spec: spec.map(PodSpecPart::into), status }
    }
}

impl From<ServicePart> for Service {
    fn from(part: ServicePart) -> Self {
        let ServicePart { metadata, spec, status } = part;
        Self { metadata: metadata.into(), spec: spec.map(ServiceSpecPart::into), status }
    }
}

impl From<ServiceSpecPart> for ServiceSpec {
    fn from(part: ServiceSpecPart) -> Self {
        Self { ports: part.ports, ..Self::default() }
    }
}

impl From<MetadataPart> for ObjectMeta {
    fn from(part: MetadataPart) -> Self {
        Self {
            name: part.name,
            namespace: part.namespace,
            uid: part.uid,
            resource_version: part.resource_version,
            deletion_timestamp: part.deletion_timestamp,
            deletion_grace_period_seconds: part.deletion_grace_period_seconds,
            labels: part.labels,
            annotations: part.annotations,
            owner_references: part.owner_references,
            ..Self::default()
        }
    }
}

impl From<PodSpecPart> for PodSpec {
    fn from(part: PodSpecPart) -> Self {
        let containers = part.containers.unwrap_or_default();
        Self {
            node_name: part.node_name,
            active_deadline_seconds: part.active_deadline_seconds,
            termination_grace_period_seconds: part.termination_grace_period_seconds,
            containers: containers.into_iter().map(ContainerPart::into).collect(),
            volumes: part.volumes.map(|all| all.into_iter().map(VolumePart::into).collect()),
            ..Self::default()
        }
    }
}

impl From<ContainerPart> for Container {
    fn from(part: ContainerPart) -> Self {
        let env = part.env.map(|all| all.into_iter().map(VariablePart::into).collect());
        Self { name: part.name, env, ..Self::default() }
    }
}

impl From<VariablePart> for EnvVar {
    fn from(part: VariablePart) -> Self {
        Self { name: part.name, value: part.value, ..Self::default() }
    }
}

impl From<VolumePart> for Volume {
    fn from(part: VolumePart) -> Self {
        Self {
            name: part.name,
            secret: part.secret,
            config_map: part.config_map,
            persistent_volume_claim: part.persistent_volume_claim,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use flashjob_rules::flashjob::observed;
    use serde_json::{Value, json};

    use super::*;

    fn metadata() -> Value {
        let group = flashjob_api::GROUP;
        json!({
            "name": "fj-a-1", "namespace": "fleet", "uid": "u-1", "resourceVersion": "77",
            "creationTimestamp": "2026-01-01T00:00:00Z", "generateName": "x", "generation": 3,
            "deletionTimestamp": "2026-01-01T00:01:00Z", "deletionGracePeriodSeconds": 30,
            "finalizers": ["example.com/f"],
            "labels": {
                "app": "a", "uuid": "d-1", (format!("{group}/run")): "r", "other": "x",
                (format!("{group}/attempt")): "2", (format!("{group}/slot")): "s",
            },
            "annotations": {
                (format!("{group}/device-identity")): "endpoint/10.0.0.1:80",
                (format!("{group}/plugin")): "esp32",
                (format!("{group}/plugin-digest")): format!("sha256:{}", "0".repeat(64)),
                (format!("{group}/pool")): "esp32", "mesh": "injected",
            },
            "ownerReferences": [{
                "apiVersion": format!("{group}/v1alpha1"), "kind": "FlashJob", "name": "a",
                "uid": "j-1", "controller": true,
            }],
            "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}],
        })
    }

    /// A Pod with all parts from which a flash Pod is made, in one of many states.
    fn pod(status: &Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata(),
            "spec": {
                "nodeName": "n", "activeDeadlineSeconds": 700, "hostNetwork": true,
                "terminationGracePeriodSeconds": 7, "serviceAccountName": "default",
                "containers": [
                    {"name": "proxy", "image": "p", "env": [{"name": "MESH", "value": "m"}]},
                    {"name": "flash", "image": "f", "ports": [{"containerPort": 4433}], "env": [
                        {"name": "FIRMWARE", "value": "registry/f:1"},
                        {"name": "VERSION", "value": "1"},
                        {"name": "TOKEN", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}},
                    ]},
                ],
                "initContainers": [{"name": "init", "image": "i"}],
                "volumes": [
                    {"name": "a", "secret": {"secretName": "keys", "items": []}},
                    {"name": "b", "configMap": {"name": "settings"}},
                    {"name": "c", "persistentVolumeClaim": {"claimName": "disk"}},
                    {"name": "d", "projected": {"sources": []}},
                ],
            },
            "status": status,
        })
    }

    #[test]
    fn a_flash_pod_is_the_same_as_from_the_whole_object_in_every_state() {
        let started = "2026-01-01T00:00:10Z";
        let waits = |reason: &str| json!({"waiting": {"reason": reason, "message": "m"}});
        let ended = json!({"terminated": {
            "exitCode": 3, "reason": "Error", "message": "FIRMWARE=registry/f:1\nno answer",
        }});
        let containers = |state: &Value| {
            let flash = json!({
                "name": "flash", "state": state, "ready": false, "restartCount": 0, "image": "f",
                "imageID": "", "lastState": {"terminated": {"exitCode": 1, "startedAt": started}},
            });
            let init = json!({
                "name": "init", "state": {"terminated": {"exitCode": 9, "message": "i"}},
                "ready": false, "restartCount": 0, "image": "i", "imageID": "",
            });
            json!({
                "phase": "Pending", "startTime": started, "containerStatuses": [flash],
                "initContainerStatuses": [init],
            })
        };
        let mut states = vec![
            json!({}),
            json!({"phase": "Failed", "reason": "Evicted", "message": "memory"}),
            json!({"phase": "Failed", "conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            }]}),
            containers(&waits("ErrImagePull")),
            containers(&waits("ContainerCreating")),
            containers(&ended),
        ];
        let mut failed = containers(&waits("PodInitializing"));
        failed["phase"] = json!("Failed");
        states.push(failed);
        let mut volumes = containers(&waits("ContainerCreating"));
        volumes["conditions"] = json!([{"type": "PodReadyToStartContainers", "status": "False"}]);
        states.push(volumes);
        for status in &states {
            for by_go_operator in [false, true] {
                let mut object = pod(status);
                if by_go_operator {
                    let labels = object["metadata"]["labels"].as_object_mut().expect("labels");
                    labels.retain(|name, _| !name.contains('/'));
                    object["metadata"]["annotations"] = json!({});
                }
                let whole: Pod = serde_json::from_value(object.clone()).expect("a Pod");
                let part = Pod::read(&object.to_string()).expect("a part of a Pod");
                let (whole, part) = (observed::Pod::of(&whole), observed::Pod::of(&part));
                assert!(whole.is_some());
                assert_eq!(part, whole, "{status}");
            }
        }
    }

    #[test]
    fn a_flash_service_is_the_same_as_from_the_whole_object() {
        let object = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata(),
            "spec": {
                "type": "LoadBalancer", "clusterIP": "10.1.2.3",
                "ports": [{"port": 4433}, {"name": "tftp", "port": 69, "protocol": "UDP"}],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}, {"hostname": "lb"}]}},
        });
        let whole: Service = serde_json::from_value(object.clone()).expect("a Service");
        let part = Service::read(&object.to_string()).expect("a part of a Service");
        let whole = observed::Service::of(&whole).expect("a flash Service");
        let ports: Vec<u16> = whole.ports.iter().map(|(_, number)| *number).collect();
        assert_eq!(ports, [4433, 69]);
        assert_eq!(observed::Service::of(&part), Some(whole));
    }
}
