//! Memory of a job: what this process remembers and does not store. It is found out again after a
//! restart.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use flashjob_api::{DeviceStatus, FlashJobStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kube_core::ResourceExt;

use super::pace::Pace;
use crate::flashjob::labels::{annotation, label};
use crate::flashjob::observed::{
    Answers, Identity, Inquiry, Job, Meaning, Pod, Refusal, Refused, Service, Sighting, SlotUse,
    Stage, after,
};
use crate::flashjob::plan::Step;

/// Seconds after which a refusal that may pass is forgotten. One for a quota is renewed while the
/// device has its turns.
const REFUSAL_SECONDS: i64 = 30;
/// Seconds after which a final refusal is forgotten: the attempt that it ended is stored by then.
const FINAL_REFUSAL_SECONDS: i64 = 600;

/// After so many failures in a row it is more than a passing fault: about a second.
const TOLD_FAILURES: u32 = 3;

/// Memory of one job. What plans look at is shared with their snapshots, not copied.
#[derive(Debug, Default)]
pub struct Memory {
    /// Since when Akri does not know a uid.
    pub missing_since: HashMap<String, Timestamp>,
    /// Since when an Instance reaches nothing, by uid.
    pub unreachable: Arc<HashMap<String, Timestamp>>,
    /// Since when a Pod cannot get on, by name.
    pub stuck_pods: Arc<HashMap<String, Timestamp>>,
    /// Part of its life that each Pod is in, and since when, by name.
    pub stages: Arc<HashMap<String, (Stage, Timestamp)>>,
    /// Since when a Service has no Pod, by name.
    pub idle_services: Arc<HashMap<String, Timestamp>>,
    /// Attempt that used the slot of a pooled Service last, by slot.
    pub slot_uses: Arc<HashMap<String, SlotUse>>,
    /// Time at which this process saw a device's first attempt begin, by uid.
    begun: HashMap<String, Instant>,
    /// Answers of plugins to what is still open.
    pub answers: Arc<Answers>,
    /// Pods that are being created, by step.
    pub in_making: HashMap<String, InMaking>,
    /// Questions that are with a plugin.
    pub asked: HashSet<String>,
    /// Question about the firmware to its registry.
    pub firmware: Inquiry,
    /// Steps under way, or paused after a failure.
    pub busy: HashSet<String>,
    /// Services whose deletion was begun here, by uid: the watch may not have told it yet, and a
    /// Pod must not be given their address. With each its state, marked as in deletion, so that
    /// not each snapshot copies it.
    leaving_services: HashMap<String, Option<Arc<Service>>>,
    /// Pace of the status writes.
    pub pace: Pace,
    /// Status of which the API server's definition lacks all that was to be changed, and the
    /// version of the object that it was to change: it is not written to that again.
    pub dropped: Option<(String, FlashJobStatus)>,
    /// Status writes that may still be stored.
    unsettled: Vec<Unsettled>,
    /// True if this process had the job's PodDisruptionBudget made.
    pub is_protected: bool,
    /// Before this the job is not planned again.
    pub next_plan: Option<Instant>,
    /// Objects whose creation keeps failing, by name: what the API server says.
    pub failing: Arc<HashMap<String, String>>,
    /// Other steps that keep failing, by key: what cannot be done, and what the API server says.
    pub failing_steps: Arc<BTreeMap<String, String>>,
    /// True if a snapshot had steps that keep failing: the stored message may tell of them.
    pub has_told_failing: bool,
    failures: HashMap<String, u32>,
    refused: Arc<HashMap<String, Refusal>>,
}

impl Memory {
    /// Notes since when things are as they are, and forgets what is over.
    pub fn note(
        &mut self,
        job: &Job,
        pods: &[Arc<Pod>],
        services: &[Arc<Service>],
        devices: &[Option<Sighting>],
        now: Timestamp,
    ) {
        let stuck = pods.iter().filter(|pod| pod.is_stuck()).map(|pod| &pod.name);
        renew(&mut self.stuck_pods, stuck, now);
        self.note_stages(pods, now);
        let with_pod: HashSet<&String> = pods
            .iter()
            .filter(|pod| pod.gone.is_none())
            .filter_map(|pod| pod.slot.as_ref())
            .collect();
        let idle = services
            .iter()
            .filter(|service| service.slot.as_ref().is_some_and(|slot| !with_pod.contains(slot)));
        renew(&mut self.idle_services, idle.map(|service| &service.name), now);
        let is_unreachable = |sighting: &Option<Sighting>| match sighting {
            Some(Sighting::Seen(instance)) => !instance.reachable(None),
            _ => false,
        };
        let unreachable = job.uids().iter().zip(devices);
        let unreachable = unreachable.filter(|(_, sighting)| is_unreachable(sighting));
        renew(&mut self.unreachable, unreachable.map(|(uid, _)| uid), now);
        self.missing_since.retain(|uid, _| {
            job.place(uid)
                .is_some_and(|place| matches!(devices[place], Some(Sighting::Missing(_))))
        });
        self.note_slots(pods, services, now);
        self.prune(job, pods, now);
    }

    fn note_stages(&mut self, pods: &[Arc<Pod>], now: Timestamp) {
        let current: HashMap<&String, Stage> =
            pods.iter().filter_map(|pod| Some((&pod.name, pod.stage()?))).collect();
        let is_known = |(name, stage): (&&String, &Stage)| {
            self.stages.get(*name).is_some_and(|(known, _)| known == stage)
        };
        if current.len() == self.stages.len() && current.iter().all(is_known) {
            return;
        }
        let stages = Arc::make_mut(&mut self.stages);
        stages.retain(|name, (known, _)| current.get(name) == Some(known));
        for (name, stage) in current {
            stages.entry(name.clone()).or_insert((stage, now));
        }
    }

    fn note_slots(&mut self, pods: &[Arc<Pod>], services: &[Arc<Service>], now: Timestamp) {
        let pooled: HashSet<&str> = services
            .iter()
            .filter(|service| service.pool.is_some())
            .filter_map(|service| service.slot.as_deref())
            .collect();
        if pooled.is_empty() && self.slot_uses.is_empty() {
            return;
        }
        let uses = Arc::make_mut(&mut self.slot_uses);
        uses.retain(|slot, _| pooled.contains(slot.as_str()));
        for pod in pods.iter().filter(|pod| pod.gone.is_none()) {
            let Some(slot) = pod.slot.as_ref().filter(|slot| pooled.contains(slot.as_str()))
            else {
                continue;
            };
            uses.insert(
                slot.clone(),
                SlotUse { device: pod.device.clone(), attempt: pod.attempt, last_seen: now },
            );
        }
    }

    /// Answers to attempts that are over go.
    fn prune(&mut self, job: &Job, pods: &[Arc<Pod>], now: Timestamp) {
        let open = |uid: &String| {
            job.stored.contains_key(uid) || job.place(uid).is_some() && job.result(uid).is_none()
        };
        if self.answers.built.keys().any(|uid| !open(uid)) {
            self.answers_mut().built.retain(|uid, _| open(uid));
        }
        let there: HashSet<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
        if self.answers.judged.keys().any(|uid| !there.contains(uid.as_str())) {
            self.answers_mut().judged.retain(|uid, _| there.contains(uid.as_str()));
        }
        if self.answers.out_of_service.values().any(|until| *until <= now) {
            self.answers_mut().out_of_service.retain(|_, until| *until > now);
        }
    }

    /// The remembered answers, to add one.
    pub fn answers_mut(&mut self) -> &mut Answers {
        Arc::make_mut(&mut self.answers)
    }

    /// A status, planned from this state of the job, is on its way.
    pub fn write_begins(&mut self, job: &Job, status: &FlashJobStatus, now: Instant) {
        self.pace.writing = true;
        self.note_begun(job, status, now);
        let kept: HashSet<&str> = pods_in_flight(status).collect();
        let withdrawn: HashSet<String> = pods_in_flight(&job.status)
            .filter(|pod| !kept.contains(pod))
            .map(str::to_owned)
            .collect();
        if !withdrawn.is_empty() {
            self.unsettled.push(Unsettled {
                base: job.resource_version.clone(),
                withdrawn: Arc::new(withdrawn),
            });
        }
    }

    /// Notes which devices begin their first attempt with this status, and forgets those whose
    /// result is stored, or that were taken out of the job.
    fn note_begun(&mut self, job: &Job, status: &FlashJobStatus, now: Instant) {
        let same_run = job.status.run == status.run;
        self.begun.retain(|uid, _| same_run && job.stored.contains_key(uid));
        let was_begun = |device: &DeviceStatus| {
            let stored = job.record(&device.uid).filter(|_| same_run);
            stored.is_some_and(|stored| stored.is_locked() && stored.attempt == device.attempt)
        };
        let begin = status.devices.iter().filter(|device| device.is_locked());
        for device in begin.filter(|device| device.attempt <= 1 && !was_begun(device)) {
            self.begun.entry(device.uid.clone()).or_insert(now);
        }
    }

    /// Time at which the first attempt of each of these devices began, as far as this process saw
    /// it.
    #[must_use]
    pub fn begun<'a>(
        &self,
        devices: impl Iterator<Item = &'a String>,
    ) -> HashMap<String, Instant> {
        let began = |uid: &'a String| Some((uid.clone(), *self.begun.get(uid)?));
        devices.filter_map(began).collect()
    }

    /// It is clear what became of the writes that were planned from this state of the job.
    pub fn writes_are_settled(&mut self, job: &Job) {
        self.unsettled.retain(|write| write.base != job.resource_version);
    }

    /// Pods of attempts that a status write on its way takes back. Only what was planned from the
    /// job as it is can be stored.
    pub fn withdrawn(&mut self, job: &Job) -> Arc<HashSet<String>> {
        self.unsettled.retain(|write| write.base == job.resource_version);
        match self.unsettled.as_slice() {
            [] => Arc::default(),
            [write] => write.withdrawn.clone(),
            writes => {
                Arc::new(writes.iter().flat_map(|write| write.withdrawn.iter().cloned()).collect())
            }
        }
    }

    /// Remembers a refusal of the API server.
    pub fn refuse(&mut self, name: &str, mut refusal: Refusal) {
        if let Meaning::Quota { unused_since } = &mut refusal.meaning
            && let Some(Refusal { meaning: Meaning::Quota { unused_since: before }, .. }) =
                self.refused.get(name)
        {
            *unused_since = *before;
        }
        Arc::make_mut(&mut self.refused).insert(name.to_owned(), refusal);
    }

    /// The API server took an object that it may have refused before.
    pub fn accept(&mut self, name: &str) {
        if self.refused.contains_key(name) {
            Arc::make_mut(&mut self.refused).remove(name);
        }
    }

    /// Returns true if anything waits for a quota.
    pub fn waits_for_quota(&self) -> bool {
        self.refused.values().any(|refusal| matches!(refusal.meaning, Meaning::Quota { .. }))
    }

    /// Notes since when no object of ours in the namespace uses the quotas that were used up.
    pub fn note_quota(&mut self, in_use: impl Fn(Refused) -> bool, now: Timestamp) {
        for refusal in Arc::make_mut(&mut self.refused).values_mut() {
            let object = refusal.object;
            if let Meaning::Quota { unused_since } = &mut refusal.meaning {
                *unused_since = (!in_use(object)).then(|| unused_since.unwrap_or(now));
            }
        }
    }

    /// Refusals that still count.
    pub fn refusals(&mut self, now: Timestamp) -> Arc<HashMap<String, Refusal>> {
        let counts = |refusal: &Refusal| {
            let seconds = match refusal.meaning {
                Meaning::Final => FINAL_REFUSAL_SECONDS,
                Meaning::MayPass | Meaning::Quota { .. } => REFUSAL_SECONDS,
            };
            after(refusal.at, seconds) > now
        };
        if !self.refused.values().all(counts) {
            Arc::make_mut(&mut self.refused).retain(|_, refusal| counts(refusal));
        }
        self.refused.clone()
    }

    /// Takes a step up, and returns the number of its failures in a row so far. None: it is under
    /// way or paused.
    pub fn begin(&mut self, step: &Step) -> Option<u32> {
        let key = step.key();
        if self.busy.contains(&key) {
            return None;
        }
        if let Step::CreatePod(pod) = step {
            self.in_making.insert(key.clone(), InMaking::of(pod));
        }
        if let Step::DeleteService { uid, .. } = step {
            self.leaving_services.insert(uid.clone(), None);
        }
        let failures = self.failures.get(&key).copied().unwrap_or_default();
        self.busy.insert(key);
        Some(failures)
    }

    /// Marks the Services whose deletion was begun here, and forgets those that are gone.
    pub fn mark_leaving(&mut self, services: &mut [Arc<Service>]) {
        if self.leaving_services.is_empty() {
            return;
        }
        let mut leaving = std::mem::take(&mut self.leaving_services);
        for service in services.iter_mut() {
            let Some((uid, marked)) = leaving.remove_entry(&service.uid) else { continue };
            let is_current =
                |marked: &Arc<Service>| marked.resource_version == service.resource_version;
            let marked = marked.filter(is_current).unwrap_or_else(|| {
                Arc::new(Service { deleting: true, ..Service::clone(service) })
            });
            *service = marked.clone();
            self.leaving_services.insert(uid, Some(marked));
        }
    }

    /// Counts the failures of a step in a row. One that keeps failing is told to people.
    pub fn count(&mut self, step: &Step, error: Option<String>) {
        let key = step.key();
        let Some(error) = error else {
            self.failures.remove(&key);
            if let Some(name) = step.created_name().filter(|name| self.failing.contains_key(*name))
            {
                Arc::make_mut(&mut self.failing).remove(name);
            }
            if self.failing_steps.contains_key(&key) {
                Arc::make_mut(&mut self.failing_steps).remove(&key);
            }
            return;
        };
        if let Step::DeleteService { uid, .. } = step {
            self.leaving_services.remove(uid);
        }
        let failures = self.failures.entry(key.clone()).or_default();
        *failures += 1;
        if *failures < TOLD_FAILURES {
            return;
        }
        if let Some(name) = step.created_name() {
            Arc::make_mut(&mut self.failing).insert(name.to_owned(), error);
        } else {
            let told = format!("{step} keeps failing: {error}");
            Arc::make_mut(&mut self.failing_steps).insert(key, told);
        }
    }

    /// Forgets failures of steps that the last plan does not need any more. Returns true if it
    /// told of one that is over.
    pub fn forget_failing_steps(&mut self, needed: &[Step]) -> bool {
        let before = self.failing_steps.len();
        if before == 0 {
            return false;
        }
        let needed: HashSet<String> = needed.iter().map(Step::key).collect();
        let (busy, failures) = (&self.busy, &mut self.failures);
        Arc::make_mut(&mut self.failing_steps).retain(|key, _| {
            let is_open = needed.contains(key) || busy.contains(key);
            if !is_open {
                failures.remove(key);
            }
            is_open
        });
        self.failing_steps.len() < before
    }

    /// A step is over, and its outcome known.
    pub fn end(&mut self, step: &str) {
        self.in_making.remove(step);
        self.busy.remove(step);
    }
}

/// A Pod that is being created: its slot is taken and its device locked, whatever the plan makes
/// of the device meanwhile.
#[derive(Debug)]
pub struct InMaking {
    /// Its name.
    pub name: String,
    /// Slot, which joins it to its Service.
    pub slot: Option<String>,
    /// The device, by all its identities.
    pub identities: Vec<Identity>,
    /// The device's uid in the spec.
    pub device: String,
}

impl InMaking {
    fn of(pod: &core::Pod) -> Self {
        let label = |name: &str| pod.labels().get(name).cloned();
        let identities = pod
            .annotations()
            .get(annotation::IDENTITY)
            .into_iter()
            .flat_map(|text| text.split_whitespace());
        Self {
            name: pod.name_any(),
            slot: label(label::SLOT),
            identities: identities.filter_map(Identity::parse).collect(),
            device: label(label::UUID).unwrap_or_default(),
        }
    }
}

/// A status write that may still be stored.
#[derive(Debug)]
struct Unsettled {
    /// The job's version that it was planned from: if the job has moved on, the write was refused
    /// or is stored.
    base: String,
    /// Names of Pods whose attempts it takes back.
    withdrawn: Arc<HashSet<String>>,
}

fn pods_in_flight(status: &FlashJobStatus) -> impl Iterator<Item = &str> {
    status
        .devices
        .iter()
        .filter(|device| device.is_locked())
        .filter_map(|device| device.pod.as_deref())
}

/// Keeps the instants of what still is, adds what is new, drops the rest.
fn renew<'a>(
    since: &mut Arc<HashMap<String, Timestamp>>,
    names: impl Iterator<Item = &'a String>,
    now: Timestamp,
) {
    let next: HashMap<String, Timestamp> =
        names.map(|name| (name.clone(), since.get(name).copied().unwrap_or(now))).collect();
    if next != **since {
        *since = Arc::new(next);
    }
}
