//! Pooled Services of a job while its plan is being made.

use std::collections::BTreeMap;

use flashjob_types::plugin::Port;
use hashbrown::{HashMap, HashSet};

use crate::flashjob::observed::{Address, AddressWish, Service};

/// The pooled Services of a job, and the decisions of this plan about them.
#[derive(Default)]
pub struct Pools<'a> {
    /// Services that no attempt uses, by pool.
    pub free: BTreeMap<&'a str, Vec<&'a Service>>,
    /// Names of the Services whose creation is in flight and that this plan does not request, by
    /// pool.
    pub in_creation: BTreeMap<&'a str, Vec<&'a str>>,
    /// Pools of the Services that this plan creates, by name of the Service.
    pub new_services: HashMap<String, String>,
    /// Devices that found no free Service, by pool.
    pub waiting: HashMap<String, usize>,
    /// Devices that could use a Service next, by pool.
    pub queued: HashMap<String, usize>,
    /// Such devices whose ports their plugin has not named yet, by plugin and device type.
    pub queued_without_ports: HashMap<String, usize>,
    /// Number of pooled Services, including those that are being deleted.
    pub total: usize,
    pub deleting: usize,
    /// Number of Services that pools lack because no more are allowed.
    pub short: usize,
    /// Slots that a Pod has, may have, or had until recently.
    pub taken_slots: HashSet<String>,
}

impl Pools<'_> {
    /// Addresses of the pool's free Services.
    pub fn addresses(&self, pool: &str) -> Vec<Address> {
        let free = self.free.get(pool).into_iter().flatten();
        free.flat_map(|service| service.addresses.iter().cloned()).collect()
    }

    /// Number of devices that could use a Service of this pool next.
    pub fn next_users(&self, pool: &str) -> usize {
        let queued = self.queued.get(pool).copied().unwrap_or(0);
        let kind = kind_of_pool(pool);
        let without_ports = self.queued_without_ports.get(kind).copied().unwrap_or(0);
        let is_needed = queued > 0 || self.waiting.contains_key(pool);
        let mut needed = self.waiting.keys().chain(self.queued.keys());
        // A changed plugin names the same other ports for the whole queue. The Services with the
        // previous ports must not hold addresses until it has answered for all of it.
        if without_ports > 0 && !is_needed && needed.any(|other| kind_of_pool(other) == kind) {
            return 0;
        }
        queued + without_ports
    }

    /// Takes a free Service with a suitable address; returns its slot and its address.
    pub fn take(&mut self, pool: &str, wish: &AddressWish) -> Option<(String, String)> {
        let free = self.free.get_mut(pool)?;
        let at = free.iter().position(|service| wish.choose(&service.addresses).is_some())?;
        let service = free.remove(at);
        Some((service.slot.clone()?, wish.choose(&service.addresses)?.text.clone()))
    }
}

/// Name of the pool of devices of this kind whose plugin names these ports.
pub fn pool_of(kind: &str, ports: &[Port]) -> String {
    let mut ports: Vec<String> =
        ports.iter().map(|port| format!("{}:{}", port.protocol.name(), port.number)).collect();
    ports.sort_unstable();
    format!("{kind}/{}", ports.join(","))
}

/// Plugin and device type of a pool.
fn kind_of_pool(pool: &str) -> &str {
    pool.rsplit_once('/').map_or(pool, |(kind, _)| kind)
}
