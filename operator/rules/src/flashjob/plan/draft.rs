//! The plan while it is being made: the stored state of the job's devices, plus the decisions made
//! so far.

mod pools;
mod proven;
mod results;
mod retries;

use std::collections::BTreeMap;
use std::sync::Arc;

use flashjob_api::{DeviceState, DeviceStatus, EffectiveSpec, Reason, ResultDetails};
use hashbrown::{DefaultHashBuilder, HashMap, HashSet};
use indexmap::IndexMap;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::steps::{Plan, Step};
use crate::flashjob::make::attempt_name;
use crate::flashjob::observed::{
    Finish, Holder, Identity, Instance, Observed, PluginView, Pod, Question, Service, Sighting,
    Traits, after,
};
use pools::Pools;
pub(super) use pools::pool_of;
use proven::Proven;

/// Finding of the guards: the device's plugin, or the result that the device gets.
pub(super) type GuardFinding<'a> = Result<&'a PluginView, (Finish, Reason, String)>;

/// Records by uid, in the order of the stored status until one is removed. A plan looks hundreds of
/// them up, several times each.
pub(super) type Records = IndexMap<String, DeviceStatus, DefaultHashBuilder>;

pub(super) struct Draft<'a> {
    pub observed: &'a Observed,
    pub spec: &'a EffectiveSpec,
    /// True if the stored status refers to the current run.
    pub same_run: bool,
    /// Devices without a result that have a record, by uid.
    pub records: Records,
    /// Devices whose result was decided in this plan; see [`Draft::result`].
    pub results: HashMap<String, Finish>,
    /// Records of failed and skipped devices, oldest first.
    pub listed_devices: Vec<DeviceStatus>,
    /// Number of devices that failed or were skipped, by reason; not limited to those in
    /// `listed_devices`.
    pub reasons: BTreeMap<String, u32>,
    /// Details of the devices whose result was decided in this plan, by uid.
    pub details: BTreeMap<String, ResultDetails>,
    /// Number of devices that completed without proof.
    pub unverified: u32,
    /// Devices whose Pod has ended and is not judged yet: they are no longer in flight.
    pub released: HashSet<String>,
    /// Devices that wait without a begun attempt, by reason: their number, and one message.
    pub waiting: BTreeMap<&'static str, (usize, String)>,
    /// The endpoint of the device that was worked on last.
    pub last_endpoint: Option<String>,
    pub plan: Plan,
    /// Findings of the guards on devices without a begun attempt, by the traits they compare.
    pub(super) guarded: HashMap<Traits<'a>, GuardFinding<'a>>,
    /// Images of flash containers that are valid references.
    pub(super) valid_images: HashSet<String>,
    pub(super) pools: Pools<'a>,
    pub(super) proven: Proven<'a>,
    /// True if a device of this plan retries a quota that was exhausted.
    pub(super) tried_quota: bool,
    pods: HashMap<&'a str, &'a Arc<Pod>>,
    pods_of: HashMap<&'a str, Vec<&'a Arc<Pod>>>,
    services: HashMap<&'a str, &'a Arc<Service>>,
}

impl<'a> Draft<'a> {
    pub fn new(observed: &'a Observed, spec: &'a EffectiveSpec) -> Self {
        let status = &observed.job.status;
        let same_run = observed.job.same_run();
        let stored = status.devices.iter().filter(|_| same_run);
        let (records, listed_devices): (Vec<_>, Vec<_>) = stored.cloned().partition(|device| {
            !matches!(device.state, DeviceState::Failed | DeviceState::Skipped)
        });
        let mut pods_of: HashMap<&str, Vec<&Arc<Pod>>> = HashMap::new();
        for pod in &observed.pods {
            pods_of.entry(pod.device.as_str()).or_default().push(pod);
        }
        Self {
            observed,
            spec,
            same_run,
            records: records.into_iter().map(|device| (device.uid.clone(), device)).collect(),
            results: HashMap::new(),
            listed_devices: listed_devices
                .into_iter()
                .filter(|device| observed.job.place(&device.uid).is_some())
                .collect(),
            reasons: if same_run { result_reasons(observed) } else { BTreeMap::new() },
            details: BTreeMap::new(),
            unverified: if same_run { unverified(observed) } else { 0 },
            released: HashSet::new(),
            waiting: BTreeMap::new(),
            last_endpoint: status.host_endpoint.clone().filter(|_| same_run),
            plan: Plan::default(),
            guarded: HashMap::new(),
            valid_images: HashSet::new(),
            pools: Pools::default(),
            proven: Proven::of(observed, same_run),
            tried_quota: false,
            pods_of,
            pods: observed.pods.iter().map(|pod| (pod.name.as_str(), pod)).collect(),
            services: observed
                .services
                .iter()
                .map(|service| (service.name.as_str(), service))
                .collect(),
        }
    }

    /// A device's result, stored or decided in this plan.
    pub fn result(&self, uid: &str) -> Option<Finish> {
        let stored = || self.observed.job.result(uid).filter(|_| self.same_run);
        self.results.get(uid).copied().or_else(stored)
    }

    /// Like [`Self::result`], by the device's place in the spec.
    pub fn result_at(&self, place: usize) -> Option<Finish> {
        let stored = self.observed.job.finishes()[place].filter(|_| self.same_run);
        stored.or_else(|| {
            if self.results.is_empty() {
                None
            } else {
                self.results.get(&self.spec.uuid[place]).copied()
            }
        })
    }

    /// Number of devices that may be in flight at once: one, if the job requests a single address.
    pub fn most_in_flight(&self) -> usize {
        if self.spec.external_ip.is_some() { 1 } else { self.spec.parallelism }
    }

    /// Returns true if the device is in flight: from the start of an attempt until its Pod has
    /// ended.
    pub fn is_in_flight(&self, record: &DeviceStatus) -> bool {
        record.state.is_in_flight() && !self.released.contains(&record.uid)
    }

    /// Returns a Pod of another attempt that may be flashing the device: a Pod of another run, or
    /// of the Go operator.
    pub fn pod_in_the_way(&self, uid: &str) -> Option<&'a Arc<Pod>> {
        let pods = self.pods_of.get(uid)?;
        let attempt = self.records.get(uid).map_or(1, |record| record.attempt);
        // Its deadline has passed, and its attempt was given up.
        let over = |pod: &Pod| pod.gone.is_some() || self.observed.is_overdue(pod);
        let is_of_earlier_attempt = |pod: &Pod| {
            over(pod)
                && pod.run.as_deref() == Some(&self.spec.run)
                && pod.attempt.is_some_and(|of| of < attempt)
        };
        // Of another run, and ended by its kubelet, although the end was never observed.
        let is_past_deadline = |pod: &Pod| pod.is_ours() && self.observed.is_overdue(pod);
        let may_run =
            |pod: &Pod| pod.may_run() && !is_of_earlier_attempt(pod) && !is_past_deadline(pod);
        pods.iter().find(|pod| may_run(pod)).copied()
    }

    /// Returns a Pod of this run whose device has no record of it. The next attempt can have the
    /// same name, and the end of this Pod would count as its end.
    pub fn pod_without_record(&self, uid: &str) -> Option<&'a Arc<Pod>> {
        let pods = self.pods_of.get(uid)?;
        // The record of an attempt is stored before its Pod is created. So this Pod was there
        // before the uid was removed from the spec and added again, or before the run was replaced
        // by another one and requested again.
        if self.same_run && self.observed.stored(uid).is_some() {
            return None;
        }
        // A dead node's Pod never ends: it is given up like that of an attempt, and has no end that
        // could count.
        let counts = |pod: &Pod| {
            pod.run.as_deref() == Some(&self.spec.run) && !self.observed.is_past_its_end(pod)
        };
        pods.iter().find(|pod| counts(pod)).copied()
    }

    /// Another job that has locked the device.
    pub fn held_by_another(&self, uid: &str) -> Option<&'a Holder> {
        let holders = &self.observed.holders;
        if holders.is_empty() {
            return None;
        }
        self.identities(uid).iter().find_map(|identity| holders.get(identity))
    }

    /// Time at which a Pod of the Go operator is stopped: such Pods have no deadline of their own,
    /// and one that never ends would lock its device forever.
    pub fn foreign_ends_at(&self, pod: &Pod) -> Option<Timestamp> {
        if pod.is_ours() || pod.gone.is_some() {
            return None;
        }
        let stuck = self.observed.stuck_pods.get(&pod.name);
        let unscheduled = || stuck.map(|since| after(*since, pod.overdue_seconds()));
        self.observed.overdue_at(pod).or_else(unscheduled)
    }

    pub fn now(&self) -> Timestamp {
        self.observed.now
    }

    pub fn is_in_spec(&self, uid: &str) -> bool {
        self.observed.job.place(uid).is_some()
    }

    pub fn pod(&self, name: &str) -> Option<&'a Arc<Pod>> {
        self.pods.get(name).copied()
    }

    /// The Pods of a device, of any run.
    pub fn pods_of(&self, uid: &str) -> &[&'a Arc<Pod>] {
        self.pods_of.get(uid).map_or(&[], Vec::as_slice)
    }

    pub fn service(&self, name: &str) -> Option<&'a Arc<Service>> {
        self.services.get(name).copied()
    }

    /// The device's Instance, if Akri knows it and the job may flash it.
    pub fn instance(&self, uid: &str) -> Option<&'a Arc<Instance>> {
        match self.observed.sighting(uid) {
            Some(Sighting::Seen(instance)) => Some(instance),
            _ => None,
        }
    }

    /// The device's Instance, whether or not the job may flash it.
    fn own_instance(&self, uid: &str) -> Option<&'a Arc<Instance>> {
        match self.observed.sighting(uid)? {
            Sighting::Seen(instance) => Some(instance),
            // An overriding endpoint can be forbidden because of the Instance of another device.
            Sighting::Forbidden(instance) => Some(instance).filter(|found| found.uid == uid),
            Sighting::Missing(_) => None,
        }
    }

    /// The version that the device currently reports.
    pub fn reported(&self, uid: &str) -> Option<&'a str> {
        self.instance(uid).and_then(|instance| instance.version())
    }

    pub fn attempt_name(&self, uid: &str, attempt: u32) -> String {
        let job = &self.observed.job;
        attempt_name(&job.key.name, &job.uid, &self.spec.run, uid, attempt)
    }

    pub fn step(&mut self, step: Step) {
        self.plan.steps.push(step);
    }

    /// Queries whether a Pod that left the cache is really gone.
    pub fn confirm_pod(&mut self, name: &str, device: &str) {
        let (name, device) = (name.to_owned(), device.to_owned());
        self.step(Step::ConfirmPod { name, device, delete: false });
    }

    pub fn ask(&mut self, question: Question) {
        self.plan.questions.push(question);
    }

    /// Wakes this job no later than `at`.
    pub fn wake(&mut self, at: Timestamp) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Returns true if `seconds` have passed since `since`; otherwise wakes the job when they
    /// have.
    pub fn over(&mut self, since: Timestamp, seconds: i64) -> bool {
        let end = after(since, seconds);
        if end > self.now() {
            self.wake(end);
            return false;
        }
        true
    }

    /// Returns true if `activeDeadlineSeconds` of the job has passed.
    pub fn job_deadline_passed(&mut self) -> bool {
        let start = self
            .observed
            .job
            .status
            .start_time
            .as_ref()
            .filter(|_| self.same_run)
            .map(|time| time.0);
        // Until the new run is stored, the stored start is that of the previous run: measured from
        // there, a new run could be over before it begins.
        match (self.spec.active_deadline_seconds, start) {
            (Some(seconds), Some(start)) => self.over(start, seconds),
            _ => false,
        }
    }

    /// Records why a device without a begun attempt waits.
    pub fn waits(&mut self, reason: Reason, message: &str) {
        let entry = self.waiting.entry(reason.name).or_insert_with(|| (0, message.to_owned()));
        entry.0 += 1;
    }

    /// Changes a device's record.
    pub fn set(&mut self, uid: &str, state: DeviceState, change: impl FnOnce(&mut DeviceStatus)) {
        let now = self.now();
        let index = self.records.get_index_of(uid).unwrap_or_else(|| {
            let record =
                DeviceStatus { uid: uid.to_owned(), attempt: 1, ..DeviceStatus::default() };
            self.records.insert_full(uid.to_owned(), record).0
        });
        let record = &mut self.records[index];
        enter(record, state, now);
        change(record);
        if record.host_endpoint.is_some() && state != DeviceState::Pending {
            self.last_endpoint.clone_from(&record.host_endpoint);
        }
    }

    /// All identities that must be locked while the device is flashed.
    pub fn identities(&self, uid: &str) -> Vec<Identity> {
        let instance = self.instance(uid).map(AsRef::as_ref);
        match (self.records.get(uid), instance) {
            // A begun attempt keeps the identities under which it was locked, even if Akri reports
            // another endpoint now: its Pod still works with the previous one.
            (Some(record), _) if record.is_locked() => {
                self.observed.job.identities(record, instance)
            }
            (_, Some(instance)) => instance.identities(self.spec.host_endpoint.as_deref()),
            (Some(record), None) => self.observed.job.identities(record, None),
            (None, None) => Vec::new(),
        }
    }
}

/// Changes the state of a device, with its time, and the start time of a device in flight.
pub(super) fn enter(record: &mut DeviceStatus, state: DeviceState, now: Timestamp) {
    if record.state != state || record.since.is_none() {
        record.since = Some(Time(now));
    }
    record.state = state;
    if record.is_locked() {
        record.start_time.get_or_insert(Time(now));
    }
}

/// Stored number of devices that completed without proof, without devices that the spec no longer
/// names. Their details are dropped with the status that stores the new number, so none is
/// subtracted twice.
fn unverified(observed: &Observed) -> u32 {
    let status = &observed.job.status;
    let stored = status.counts.map_or(0, |counts| counts.unverified);
    let is_gone = |(uid, details): &(&String, &ResultDetails)| {
        details.unverified && observed.job.place(uid).is_none()
    };
    let gone = status.results.iter().filter(is_gone).count();
    stored.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX))
}

/// Stored reasons of results, without devices that the spec no longer names. A status written
/// before reasons were counted has those of the listed devices only.
fn result_reasons(observed: &Observed) -> BTreeMap<String, u32> {
    let status = &observed.job.status;
    let devices = status
        .devices
        .iter()
        .filter(|device| matches!(device.state, DeviceState::Failed | DeviceState::Skipped));
    let mut reasons = status.reasons.clone();
    let is_counted = !reasons.is_empty();
    for device in devices {
        let Some(reason) = &device.reason else { continue };
        match (is_counted, observed.job.place(&device.uid)) {
            (false, Some(_)) => *reasons.entry(reason.clone()).or_default() += 1,
            (true, None) => {
                if let Some(count) = reasons.get_mut(reason) {
                    *count = count.saturating_sub(1);
                }
            }
            _ => {}
        }
    }
    reasons.retain(|_, count| *count > 0);
    reasons
}
