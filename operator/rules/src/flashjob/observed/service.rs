//! A flash Service, reduced to the fields that decisions need.

use std::net::IpAddr;

use flashjob_types::plugin::{Port, Protocol};
use k8s_openapi::api::core::v1 as core;
use kube_core::ResourceExt;

use super::job::JobKey;
use crate::flashjob::labels::label;

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
    /// The run it was created in. None: created by the Go operator.
    pub run: Option<String>,
    /// The attempt it is for, in PerDevice exposure.
    pub attempt: Option<u32>,
    /// Slot, by which it selects its Pods.
    pub slot: Option<String>,
    /// Plugin, device type and ports that share it, in Pooled exposure.
    pub pool: Option<String>,
    /// Protocols and numbers of the ports that it forwards.
    pub ports: Vec<(Protocol, u16)>,
    /// Its addresses, once assigned: IP addresses before host names.
    pub addresses: Vec<Address>,
    /// True if it is being deleted.
    pub deleting: bool,
}

/// An external address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// IP address or host name, as the load balancer wrote it.
    pub text: String,
    /// The IP address; `None`: a host name.
    pub ip: Option<IpAddr>,
}

/// Requirements on an address, so that a device can connect to it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AddressWish {
    /// True if the plugin requires an IP address.
    pub needs_ip: bool,
    /// The address that the job requests.
    pub requested_ip: Option<IpAddr>,
    /// Address of the device: an address of the same family is preferred.
    pub device: Option<IpAddr>,
}

impl AddressWish {
    /// Returns the best of these addresses; `None` if none is suitable.
    #[must_use]
    pub fn choose<'a>(&self, addresses: &'a [Address]) -> Option<&'a Address> {
        if self.requested_ip.is_some() {
            return addresses.iter().find(|address| address.ip == self.requested_ip);
        }
        let mut fitting = addresses.iter().filter(|address| self.fits(address));
        let same_family = |address: &&Address| match (address.ip, self.device) {
            (Some(ip), Some(device)) => ip.is_ipv4() == device.is_ipv4(),
            _ => false,
        };
        fitting.clone().find(same_family).or_else(|| fitting.next())
    }

    /// Returns true if the plugin can use an address.
    #[must_use]
    pub fn fits(&self, address: &Address) -> bool {
        address.ip.is_some() || !self.needs_ip
    }
}

impl Service {
    /// Reads a Service. None: no FlashJob owns it.
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
            pool: service.annotations().get(crate::flashjob::labels::annotation::POOL).cloned(),
            ports: ports(service),
            addresses: addresses(service),
            deleting: service.metadata.deletion_timestamp.is_some(),
        })
    }

    /// Returns true if it forwards all of these ports. Admission may have added others.
    #[must_use]
    pub fn forwards(&self, ports: &[Port]) -> bool {
        let forwards = |port: &Port| {
            self.ports
                .iter()
                .any(|(protocol, number)| *protocol == port.protocol && *number == port.number)
        };
        ports.iter().all(forwards)
    }
}

fn ports(service: &core::Service) -> Vec<(Protocol, u16)> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let port = |port: &core::ServicePort| {
        // TCP is the default of Kubernetes.
        let name = port.protocol.as_deref().unwrap_or(Protocol::Tcp.name());
        // There is also SCTP, which no plugin can ask for.
        let protocol =
            [Protocol::Tcp, Protocol::Udp].into_iter().find(|one| one.name() == name)?;
        Some((protocol, u16::try_from(port.port).ok()?))
    };
    ports.filter_map(port).collect()
}

/// Addresses that the load balancer assigned, except those for which it reports an error on a
/// port.
fn addresses(service: &core::Service) -> Vec<Address> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    // With an error on a port, the load balancer has assigned the address but does not serve that
    // port.
    let works = |entry: &&core::LoadBalancerIngress| {
        entry.ports.iter().flatten().all(|port| port.error.as_ref().is_none_or(String::is_empty))
    };
    let entries = ingress.iter().filter(works);
    let ips = entries
        .clone()
        .filter_map(|entry| entry.ip.as_ref())
        .filter_map(|text| Some(Address { text: text.clone(), ip: Some(text.parse().ok()?) }));
    let names = entries.filter_map(|entry| entry.hostname.clone()).filter(|name| !name.is_empty());
    ips.chain(names.map(|text| Address { text, ip: None })).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn addresses_of(ingress: &Value) -> Vec<Address> {
        let service = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        addresses(&serde_json::from_value(service).expect("a Service"))
    }

    #[test]
    fn the_family_of_the_device_comes_first_and_a_port_with_an_error_is_no_address() {
        let dual_stack =
            addresses_of(&json!([{"ip": "2001:db8::5"}, {"ip": "192.0.2.8"}, {"hostname": "lb"}]));
        let wish =
            |device: &str| AddressWish { device: device.parse().ok(), ..Default::default() };
        for (device, expected) in
            [("10.0.0.1", "192.0.2.8"), ("fd00::1", "2001:db8::5"), ("a-name", "2001:db8::5")]
        {
            let chosen = wish(device).choose(&dual_stack).map(|address| address.text.as_str());
            assert_eq!(chosen, Some(expected), "{device}");
        }
        let broken = json!({
            "ip": "192.0.2.8", "ports": [{"port": 1, "protocol": "TCP", "error": "Conflict"}],
        });
        assert_eq!(addresses_of(&json!([broken])), []);
        assert_eq!(addresses_of(&json!([{"ip": ""}, {"hostname": ""}])), []);
    }

    #[test]
    fn only_the_address_that_was_asked_for_will_do() {
        let wish = AddressWish { requested_ip: "2001:db8::5".parse().ok(), ..Default::default() };
        assert!(
            wish.choose(&addresses_of(&json!([{"ip": "192.0.2.8"}, {"hostname": "lb"}])))
                .is_none()
        );
        assert!(wish.choose(&addresses_of(&json!([{"ip": "2001:DB8:0::5"}]))).is_some());
    }

    #[test]
    fn a_host_name_will_not_do_where_an_ip_address_is_needed() {
        let named = addresses_of(&json!([{"hostname": "lb.example.com"}]));
        let wish = |needs_ip| AddressWish { needs_ip, ..Default::default() };
        assert!(wish(true).choose(&named).is_none());
        assert!(wish(false).choose(&named).is_some());
    }
}
