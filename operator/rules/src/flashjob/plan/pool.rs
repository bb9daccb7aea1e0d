//! Pooled exposure: at most `parallelism` Services, each passed with its address from device to
//! device.
//!
//! A Service is kept while a Pod has its slot, for a while after an attempt whose device may still
//! connect, and as long as a device of its pool can use it next. A pool that waits for a Service
//! replaces one that another pool does not use. Devices share a pool if they have the same plugin,
//! type and ports.

use flashjob_api::{DeviceState, reason};
use hashbrown::HashSet;

use super::draft::{Draft, pool_of};
use super::objects::DescribedAttempt;
use super::steps::Step;
use crate::flashjob::make::pool_name;
use crate::flashjob::observed::{Address, Observed, PluginView, Service, after};

impl<'a> Draft<'a> {
    /// Sorts the pooled Services into free and taken ones before any is assigned.
    pub(super) fn sort_pools(&mut self) {
        let observed: &'a Observed = self.observed;
        // A create without an answer may have succeeded: its Service counts, also when no device
        // of its pool needs it any more.
        for (name, pool) in &observed.services_in_creation {
            if self.service(name).is_none() {
                self.pools.in_creation.entry(pool).or_default().push(name);
            }
        }
        let mut pooled =
            observed.services.iter().filter(|service| service.pool.is_some()).peekable();
        if pooled.peek().is_none() {
            return;
        }
        self.pools.taken_slots = self.taken_slots();
        for service in pooled {
            self.pools.total += 1;
            // A Service in deletion still counts: its address is given back only when the load
            // balancer has removed its finalizer.
            if service.deleting {
                self.pools.deleting += 1;
                continue;
            }
            let is_taken =
                service.slot.as_ref().is_none_or(|slot| self.pools.taken_slots.contains(slot));
            if !is_taken && service.run.as_deref() == Some(&self.spec.run) {
                self.pools
                    .free
                    .entry(service.pool.as_deref().unwrap_or_default())
                    .or_default()
                    .push(service);
            }
        }
    }

    /// Slots that are taken: while a Pod with that label may be running or being created, and for
    /// a while after an attempt whose device may still connect. An ended Pod is no longer an
    /// endpoint of its Service, so one that was judged as flashed, or never started, does not keep
    /// its slot.
    fn taken_slots(&mut self) -> HashSet<String> {
        let observed = self.observed;
        let run = self.spec.run.as_str();
        let pods = observed.pods.iter().filter(|pod| pod.gone.is_none() || pod.may_run());
        let at_work = pods.filter(|pod| {
            pod.ended.is_none()
                || pod.run.as_deref() != Some(run)
                || self.may_call_back(&pod.device, pod.attempt)
        });
        let mut slots: HashSet<String> = at_work.filter_map(|pod| pod.slot.clone()).collect();
        // A create without an answer may have succeeded.
        slots.extend(observed.pods_in_creation.values().flatten().cloned());
        for (slot, last) in observed.slot_uses.iter() {
            let quiet = after(last.last_seen, self.observed.periods.late_callback_seconds);
            if quiet > self.now() && self.may_call_back(&last.device, last.attempt) {
                self.wake(quiet);
                slots.insert(slot.clone());
            }
        }
        slots
    }

    /// Plugin and type of a device.
    fn device_kind(&self, uid: &str, plugin: &PluginView) -> String {
        let kind = self.device_type(uid).map(|kind| kind.to_string()).unwrap_or_default();
        format!("{}/{kind}", plugin.name)
    }

    /// Takes a free Service of the device's pool, or creates one if there is room.
    pub(super) fn expose_pooled(&mut self, described: DescribedAttempt<'_>) {
        let uid = described.uid;
        let pool = pool_of(&self.device_kind(uid, described.plugin), &described.flash.ports);
        let wish = self.address_wish(uid, described.flash.needs_ip);
        if let Some((slot, address)) = self.pools.take(&pool, &wish) {
            return self.make_pod(described, Some(&address), &slot);
        }
        let waiting = self.pools.waiting.entry(pool.clone()).or_default();
        *waiting += 1;
        let mut service_name = None;
        let coming = self.pools.free.get(pool.as_str()).map_or(0, Vec::len)
            + self.pools.new_services.values().filter(|of| **of == pool).count();
        // One new Service for each device that waits, less those that are free or requested
        // already: more would take addresses that nobody uses.
        if coming < *waiting {
            match self.next_name(&pool) {
                Some(name) => {
                    self.make_service(described, &name, Some(&pool));
                    service_name = Some(name);
                }
                None => self.pools.short += 1,
            }
        }
        // If the Service was refused, the attempt may have ended.
        if self.records.get(uid).is_some_and(|record| record.state == DeviceState::Exposing) {
            let addresses: Vec<Address> = self.pools.addresses(&pool);
            // A new Service would exceed the quota; one of the pool's Services may become free
            // before.
            let why = self.records.get(uid).and_then(|record| record.reason.clone());
            if why.as_deref() != Some(reason::WAITING_FOR_QUOTA.name) || service_name.is_none() {
                self.await_address(uid, &wish, &addresses);
            }
            if let Some(name) = service_name {
                self.note_failing(uid, &name);
            }
        }
    }

    /// Counts a device that waits for its turn and could start: a free Service of its pool will be
    /// used.
    pub(super) fn note_queued(&mut self, uid: &str) {
        if self.pools.total == 0 {
            return;
        }
        let Some(plugin) = self.plugin_for(uid) else { return };
        let kind = self.device_kind(uid, plugin);
        let observed: &'a Observed = self.observed;
        let answer = observed.answers.built.get(uid);
        let answer = answer.filter(|built| built.plugin == plugin.name);
        match answer.and_then(|built| built.pod.as_ref().ok()) {
            // It needs no Service.
            Some(flash) if flash.ports.is_empty() => {}
            Some(flash) => {
                *self.pools.queued.entry(pool_of(&kind, &flash.ports)).or_default() += 1;
            }
            None => *self.pools.queued_without_ports.entry(kind).or_default() += 1,
        }
    }

    /// Name of a Service of the pool that is being created, or for a new one if one more is
    /// allowed.
    fn next_name(&mut self, pool: &str) -> Option<String> {
        if let Some(name) = self.pools.in_creation.get_mut(pool).and_then(Vec::pop) {
            return Some(name.to_owned());
        }
        let in_creation: usize = self.pools.in_creation.values().map(Vec::len).sum();
        let total = self.pools.total + in_creation + self.pools.new_services.len();
        if total >= self.most_in_flight() {
            return None;
        }
        let job = &self.observed.job;
        // One name more than there can be Services, so one of them is free.
        let mut names = (0..=total).map(|index| pool_name(&job.key.name, &job.uid, pool, index));
        names.find(|name| {
            self.service(name).is_none() && !self.pools.new_services.contains_key(name)
        })
    }

    /// Deletes the pooled Services that no device can use.
    pub(super) fn clean_pools(&mut self, with_pod: &HashSet<&str>) {
        let run = self.spec.run.clone();
        let observed = self.observed;
        let pooled =
            observed.services.iter().filter(|service| service.pool.is_some() && !service.deleting);
        let stale = pooled
            .filter(|service| service.run.as_deref() != Some(&run) || service.slot.is_none());
        let stale = stale
            .filter(|service| service.slot.as_deref().is_none_or(|slot| !with_pod.contains(slot)));
        let mut useless: Vec<&Service> = stale.map(AsRef::as_ref).collect();
        // More than zero once `parallelism` was lowered; then even a Service that a device waits
        // for has to go.
        let over = (self.pools.total - self.pools.deleting).saturating_sub(self.most_in_flight());
        // Each Service in deletion makes room for one that a pool lacks.
        let lacking = self.pools.short.saturating_sub(self.pools.deleting);
        let mut surplus = over.max(lacking);
        let next_users: Vec<usize> =
            self.pools.free.keys().map(|pool| self.pools.next_users(pool)).collect();
        let pools = &mut self.pools;
        for ((pool, free), queued) in pools.free.iter_mut().zip(next_users) {
            let waiting = pools.waiting.get(*pool).copied().unwrap_or(0);
            while free.len() > waiting + queued {
                useless.extend(free.pop());
                surplus = surplus.saturating_sub(1);
            }
            while surplus > 0 && (free.len() > waiting || over > 0 && !free.is_empty()) {
                useless.extend(free.pop());
                surplus -= 1;
            }
        }
        for service in useless {
            self.step(Step::DeleteService {
                name: service.name.clone(),
                uid: service.uid.clone(),
            });
        }
    }

    /// Slots of the pooled Services.
    pub(super) fn pooled_slots(&self) -> HashSet<&'a str> {
        let observed: &'a Observed = self.observed;
        observed
            .services
            .iter()
            .filter(|service| service.pool.is_some())
            .filter_map(|service| service.slot.as_deref())
            .collect()
    }
}
