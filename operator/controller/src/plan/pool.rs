//! Pooled exposure: at most `parallelism` Services, each handed with its address from device to device.

use std::collections::HashSet;

use flashjob_plugin_host::Digest;
use flashjob_plugin_host::types::FlashPod;

use super::draft::Draft;
use super::expose::usable;
use crate::make::{pool_name, slot};
use crate::observed::{PluginView, Service};

impl Draft<'_> {
    /// Takes a free Service of the device's pool, or sees to it that there is one.
    pub(super) fn expose_pooled(&mut self, uid: &str, number: u32, plugin: &PluginView, digest: &Digest, flash: &FlashPod) {
        let kind = self.request(uid, number, None).device.device_type;
        let pool = format!("{}/{kind}", plugin.name);
        let free = self.free_service(&pool, flash.needs_ip);
        if let Some((slot, address)) = free {
            self.plan_takes(&slot);
            return self.make_pod(uid, number, plugin, digest, flash, Some(&address), &slot);
        }
        let waiting = 1 + self.pool_waiting(&pool);
        self.note_pool_wait(&pool);
        if let Some(name) = self.next_service(&pool, waiting) {
            self.make_service(uid, number, plugin, digest, flash, &name, Some(&pool));
        }
        self.await_address(uid);
    }

    /// Services of a pool that can be handed on.
    fn pool<'b>(&'b self, pool: &'b str) -> impl Iterator<Item = &'b Service> {
        let services = self.observed.services.iter().map(AsRef::as_ref);
        services.filter(move |service: &&Service| service.pool.as_deref() == Some(pool) && !service.deleting)
    }

    /// A slot is taken while a Pod with its label is there, ended or not, or is being made.
    fn taken(&self) -> HashSet<&str> {
        let pods = self.observed.pods.iter().filter(|pod| pod.gone.is_none() || pod.may_run());
        let slots = pods.filter_map(|pod| pod.slot.as_deref());
        slots.chain(self.slots_taken.iter().map(String::as_str)).chain(self.observed.slots_in_making.iter().map(String::as_str)).collect()
    }

    fn free_service(&self, pool: &str, needs_ip: bool) -> Option<(String, String)> {
        let taken = self.taken();
        let free = self.pool(pool).filter(|service| service.slot.as_deref().is_some_and(|slot| !taken.contains(slot)));
        let mut usable = free.filter_map(|service| Some((service.slot.clone()?, usable(service.address.as_ref(), needs_ip)?.text.clone())));
        usable.next()
    }

    /// The name of a Service to make, if more are waited for than are on their way and the pool may grow.
    fn next_service(&self, pool: &str, waiting: usize) -> Option<String> {
        let taken = self.taken();
        let coming = self.pool(pool).filter(|service| service.slot.as_deref().is_some_and(|slot| !taken.contains(slot))).count();
        let asked = self.services_asked.len();
        let all = self.observed.services.iter().filter(|service| service.pool.is_some()).count() + asked;
        if coming + asked >= waiting || all >= self.spec.parallelism {
            return None;
        }
        let job = &self.observed.job;
        let names = (0..self.spec.parallelism * 2).map(|index| pool_name(&job.key.name, &job.uid, pool, index));
        let mut unused = names.filter(|name| self.service(name).is_none() && !self.services_asked.contains(name));
        unused.next()
    }

    fn plan_takes(&mut self, slot: &str) {
        self.slots_taken.insert(slot.to_owned());
    }

    fn pool_waiting(&self, pool: &str) -> usize {
        self.pools_waiting.get(pool).copied().unwrap_or(0)
    }

    fn note_pool_wait(&mut self, pool: &str) {
        *self.pools_waiting.entry(pool.to_owned()).or_default() += 1;
    }

    /// Whether a pooled Service is still needed: devices without a result are left, and the slot is among the first `parallelism`.
    pub(super) fn pool_is_needed(&self, service: &Service) -> bool {
        let unfinished = self.spec.uuid.iter().any(|uid| !self.results.contains_key(uid));
        unfinished && service.run.as_deref() == Some(&self.spec.run)
    }

    /// Remembers a Service that this plan asks for.
    pub(super) fn note_service(&mut self, name: &str) {
        debug_assert!(!slot(name).is_empty());
        self.services_asked.insert(name.to_owned());
    }
}
