//! The Service through which a device connects to its flash Pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use kube_core::ObjectMeta;

use super::attempt::Attempt;
use super::metadata::{labels, owner};
use crate::flashjob::labels::{annotation, label};
use crate::flashjob::policy::Policy;

/// Composes the Service with that name. With `pool` it is passed from device to device.
#[must_use]
pub fn service(attempt: &Attempt<'_>, name: &str, pool: Option<&str>, policy: &Policy) -> Service {
    let policy = &policy.services;
    let mut labels = labels(attempt);
    if pool.is_some() {
        // A pooled Service belongs to no single device; the label is kept because our watch
        // selects objects that have it.
        labels.insert(label::UUID.to_owned(), String::new());
        labels.remove(label::ATTEMPT);
    }
    // The slot selects, not the device: a pooled Service keeps its selector while it is passed
    // from device to device.
    let selector = [(label::APP, attempt.job.key.name.as_str()), (label::SLOT, attempt.slot)];
    let mut annotations = BTreeMap::from([
        (annotation::PLUGIN.to_owned(), attempt.plugin.to_owned()),
        (annotation::DIGEST.to_owned(), attempt.digest.to_string()),
    ]);
    annotations.extend(pool.map(|pool| (annotation::POOL.to_owned(), pool.to_owned())));
    let external_ip = attempt.spec.external_ip.clone();
    for (entries, defaults) in
        [(&mut labels, &policy.labels), (&mut annotations, &policy.annotations)]
    {
        for (key, value) in defaults {
            entries.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    // After the defaults, so that it replaces the same annotation in the configuration.
    if let Some((annotation, address)) =
        policy.external_ip_annotation.clone().zip(external_ip.clone())
    {
        annotations.insert(annotation, address);
    }
    let ports = attempt.flash.ports.iter().map(|port| ServicePort {
        name: Some(port.name.clone()),
        port: i32::from(port.number),
        protocol: Some(port.protocol.name().to_owned()),
        ..ServicePort::default()
    });
    Service {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(attempt.job.key.namespace.clone()),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![owner(attempt.job)]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: Some("LoadBalancer".to_owned()),
            selector: Some(selector.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ports: Some(ports.collect()),
            // Deprecated since Kubernetes 1.24, as load balancers do not treat it alike. MetalLB
            // rejects a Service that has both this field and the annotation.
            load_balancer_ip: external_ip.filter(|_| policy.external_ip_annotation.is_none()),
            // The device is triggered as soon as the container runs; the route to the container
            // must not wait until the kubelet has reported the Pod as ready, nor for the readiness
            // of a sidecar.
            publish_not_ready_addresses: Some(true),
            load_balancer_class: policy.load_balancer_class.clone(),
            allocate_load_balancer_node_ports: policy.allocate_load_balancer_node_ports,
            external_traffic_policy: policy
                .external_traffic_policy
                .map(|word| format!("{word:?}")),
            ip_family_policy: policy.ip_family_policy.map(|word| format!("{word:?}")),
            ip_families: policy
                .ip_families
                .as_ref()
                .map(|families| families.iter().map(|word| format!("{word:?}")).collect()),
            session_affinity: policy.session_affinity.map(|word| word.name().to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
