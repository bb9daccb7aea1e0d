//! A flash Service, trimmed to what decisions need.

use k8s_openapi::api::core::v1 as core;
use kube::ResourceExt;

use super::JobKey;
use crate::make::label;

/// A Service that exposes a flash Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The job that owns it.
    pub job: JobKey,
    /// Uid of the job that owns it.
    pub job_uid: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Version in the API server.
    pub resource_version: String,
    /// The device it is for, in PerDevice exposure.
    pub device: Option<String>,
    /// The run it was made in; None: made by the Go operator.
    pub run: Option<String>,
    /// The attempt it is for, in PerDevice exposure.
    pub attempt: Option<u32>,
    /// What its Pods are selected by.
    pub slot: Option<String>,
    /// Plugin and device type that share it, in Pooled exposure.
    pub pool: Option<String>,
    /// Its address, once it has one.
    pub address: Option<Address>,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// An external address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// IP address or host name.
    pub text: String,
    /// Whether it is an IP address.
    pub is_ip: bool,
}

impl Service {
    /// Reads a Service; None: no FlashJob owns it.
    #[must_use]
    pub fn of(service: &core::Service) -> Option<Self> {
        let owner = super::pod::owner(&service.metadata)?;
        let labels = service.labels();
        let text = |name: &str| labels.get(name).cloned();
        Some(Self {
            job: JobKey {
                namespace: service.namespace().unwrap_or_default(),
                name: owner.name.clone(),
            },
            job_uid: owner.uid.clone(),
            name: service.name_any(),
            uid: service.uid().unwrap_or_default(),
            resource_version: service.resource_version().unwrap_or_default(),
            device: text(label::UUID),
            run: text(label::RUN),
            attempt: text(label::ATTEMPT).and_then(|attempt| attempt.parse().ok()),
            slot: text(label::SLOT),
            pool: service.annotations().get(crate::make::annotation::POOL).cloned(),
            address: address(service),
            deleting: service.metadata.deletion_timestamp.is_some(),
        })
    }
}

/// An IP address is taken before a host name.
fn address(service: &core::Service) -> Option<Address> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let ip =
        ingress.iter().find_map(|entry| some(&entry.ip)).map(|text| Address { text, is_ip: true });
    ip.or_else(|| {
        ingress
            .iter()
            .find_map(|entry| some(&entry.hostname))
            .map(|text| Address { text, is_ip: false })
    })
}
