//! State of a job that this process keeps in memory only. It is rebuilt after a restart.

mod objects;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use flashjob_api::{DeviceStatus, FlashJobStatus};
use hashbrown::{HashMap, HashSet};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kube_core::ResourceExt;

use super::pace::Pace;
use crate::flashjob::labels::{annotation, label};
use crate::flashjob::observed::{
    Answers, Identity, Inquiry, Instance, Job, Meaning, Refusal, Refused, Service, SlotUse, Stage,
    after,
};
use crate::flashjob::plan::Step;

/// Seconds after which a transient refusal is forgotten. A refusal because of a quota is renewed
/// whenever the device has its turn.
const REFUSAL_SECONDS: i64 = 30;
/// Seconds after which a final refusal is forgotten. Before that, the end of the attempt is
/// stored.
const FINAL_REFUSAL_SECONDS: i64 = 600;

/// Number of consecutive failures from which a fault counts as lasting: after about a second.
const TOLD_FAILURES: u32 = 3;

/// Memory of one job. Data that plans read is shared with their snapshots, not copied.
#[derive(Debug, Default)]
pub struct Memory {
    /// Time since when a uid has no Instance, by uid.
    pub missing_since: HashMap<String, Timestamp>,
    /// Time since when an Instance is unreachable, by uid.
    pub unreachable: Arc<HashMap<String, Timestamp>>,
    /// Time since when a Pod cannot make progress, by name.
    pub stuck_pods: Arc<HashMap<String, Timestamp>>,
    /// Stage of each Pod, and the time since when it is in it, by name.
    pub stages: Arc<HashMap<String, (Stage, Timestamp)>>,
    /// Last known Instance with nodes of each device that has begun, by uid.
    pub last_instances: Arc<HashMap<String, Arc<Instance>>>,
    /// Time since when a Service has no Pod, by name.
    pub idle_services: Arc<HashMap<String, Timestamp>>,
    /// Most recent attempt that used the slot of a pooled Service, by slot.
    pub slot_uses: Arc<HashMap<String, SlotUse>>,
    /// Time at which this process observed the start of a device's first attempt, by uid.
    begin_times: HashMap<String, Instant>,
    /// Answers of plugins about devices and Pods that are still open.
    pub answers: Arc<Answers>,
    /// Pods whose creation is in flight, by key of the step.
    pub pods_in_creation: HashMap<String, PodInCreation>,
    /// Pooled Services whose creation is in flight: name and pool, by key of the step.
    pub services_in_creation: HashMap<String, (String, String)>,
    /// Keys of the questions that a plugin is answering.
    pub asked: HashSet<String>,
    /// Question to the registry about the firmware.
    pub firmware: Inquiry,
    /// Keys of the steps in flight, or in backoff after a failure.
    pub busy: HashSet<String>,
    /// Services whose deletion was started here, by uid: the watch may not have reported it yet,
    /// and a Pod must not be given their address. The value is the Service marked as being
    /// deleted, cached so that not every snapshot copies it.
    leaving_services: HashMap<String, Option<Arc<Service>>>,
    /// Uids of Pods whose delete request is in flight or has succeeded: no second one is sent.
    pub leaving_pods: Arc<HashSet<String>>,
    /// Pace of the status writes.
    pub pace: Pace,
    /// Status whose changed fields are all missing from the API server's definition, with the
    /// resource version of the object: it is not written to that version again.
    pub dropped: Option<(String, FlashJobStatus)>,
    /// Status writes that may still succeed.
    unsettled: Vec<Unsettled>,
    /// True if this process created the job's PodDisruptionBudget, false if it deleted it or the
    /// job cannot have one; None if an earlier process may have left one.
    pub is_protected: Option<bool>,
    /// Time before which the job is not planned again.
    pub next_plan: Option<Instant>,
    /// Objects whose creation keeps failing, by name, with the API server's error message.
    pub failing: Arc<HashMap<String, String>>,
    /// Other steps that keep failing, by key: a sentence that names the step and the error.
    pub failing_steps: Arc<BTreeMap<String, String>>,
    /// True if a snapshot had steps that keep failing: the stored message may mention them.
    pub has_reported_failing_steps: bool,
    failures: HashMap<String, u32>,
    refused: Arc<HashMap<String, Refusal>>,
}

impl Memory {
    /// The remembered answers, to add one.
    pub fn answers_mut(&mut self) -> &mut Answers {
        Arc::make_mut(&mut self.answers)
    }

    /// Notes that a status write, planned from this state of the job, has started.
    pub fn write_begins(&mut self, job: &Job, status: &FlashJobStatus, now: Instant) {
        self.pace.writing = true;
        self.note_begun(job, status, now);
        let kept: HashSet<&str> = pods_in_flight(status).collect();
        // A write that times out may still be stored later. Until that is settled, no Pod may be
        // created for an attempt that it takes back.
        let withdrawn: HashSet<String> = pods_in_flight(&job.status)
            .filter(|pod| !kept.contains(pod))
            .map(str::to_owned)
            .collect();
        let begun: HashSet<&str> = devices_in_flight(&job.status).collect();
        let beginning: HashSet<String> = devices_in_flight(status)
            .filter(|uid| !begun.contains(uid))
            .map(str::to_owned)
            .collect();
        if !withdrawn.is_empty() || !beginning.is_empty() {
            self.unsettled.push(Unsettled {
                base: job.resource_version.clone(),
                withdrawn: Arc::new(withdrawn),
                beginning: Arc::new(beginning),
            });
        }
    }

    /// Notes which devices begin their first attempt with this status, and forgets those whose
    /// result is stored, or that were removed from the job.
    fn note_begun(&mut self, job: &Job, status: &FlashJobStatus, now: Instant) {
        // A device that ended in one run must not have its time in the next run measured from
        // there.
        let same_run = job.status.run == status.run;
        self.begin_times.retain(|uid, _| same_run && job.stored.contains_key(uid));
        let was_begun = |device: &DeviceStatus| {
            let stored = job.record(&device.uid).filter(|_| same_run);
            stored.is_some_and(|stored| stored.is_locked() && stored.attempt == device.attempt)
        };
        let begin = status.devices.iter().filter(|device| device.is_locked());
        for device in begin.filter(|device| device.attempt <= 1 && !was_begun(device)) {
            self.begin_times.entry(device.uid.clone()).or_insert(now);
        }
    }

    /// Time at which the first attempt of each of these devices began, as far as this process
    /// observed it.
    #[must_use]
    pub fn begun<'a>(
        &self,
        devices: impl Iterator<Item = &'a String>,
    ) -> HashMap<String, Instant> {
        let began = |uid: &'a String| Some((uid.clone(), *self.begin_times.get(uid)?));
        devices.filter_map(began).collect()
    }

    /// Forgets the writes that were planned from this state of the job: their outcome is known.
    pub fn writes_are_settled(&mut self, job: &Job) {
        self.unsettled.retain(|write| write.base != job.resource_version);
    }

    /// Forgets the status writes that were not planned from this version of the job: each write
    /// names the resource version that it replaces, so a newer one means that it was stored or
    /// answered with a conflict.
    pub fn forget_settled_writes(&mut self, job: &Job) {
        self.unsettled.retain(|write| write.base == job.resource_version);
    }

    /// Pods whose attempts are withdrawn by a status write in flight.
    #[must_use]
    pub fn withdrawn(&self) -> Arc<HashSet<String>> {
        self.of_unsettled(|write| &write.withdrawn)
    }

    /// Devices whose attempts begin with a status write in flight, by uid.
    #[must_use]
    pub fn beginning(&self) -> Arc<HashSet<String>> {
        self.of_unsettled(|write| &write.beginning)
    }

    fn of_unsettled(
        &self,
        names: impl Fn(&Unsettled) -> &Arc<HashSet<String>>,
    ) -> Arc<HashSet<String>> {
        match self.unsettled.as_slice() {
            [] => Arc::default(),
            [write] => names(write).clone(),
            writes => {
                Arc::new(writes.iter().flat_map(|write| names(write).iter().cloned()).collect())
            }
        }
    }

    /// Remembers a refusal of the API server.
    pub fn refuse(&mut self, name: &str, mut refusal: Refusal) {
        // Each turn of the device renews the refusal; the time since when nobody uses the quota
        // must not start again with it.
        if let Meaning::Quota { unused_since } = &mut refusal.meaning
            && let Some(Refusal { meaning: Meaning::Quota { unused_since: before }, .. }) =
                self.refused.get(name)
        {
            *unused_since = *before;
        }
        Arc::make_mut(&mut self.refused).insert(name.to_owned(), refusal);
    }

    /// Forgets a refusal: the API server accepted the object.
    pub fn accept(&mut self, name: &str) {
        if self.refused.contains_key(name) {
            Arc::make_mut(&mut self.refused).remove(name);
        }
    }

    /// Returns true if anything waits for a quota.
    pub fn waits_for_quota(&self) -> bool {
        self.refused.values().any(|refusal| matches!(refusal.meaning, Meaning::Quota { .. }))
    }

    /// Notes since when none of our objects in the namespace uses the exhausted quotas.
    pub fn note_quota(&mut self, in_use: impl Fn(Refused) -> bool, now: Timestamp) {
        for refusal in Arc::make_mut(&mut self.refused).values_mut() {
            let object = refusal.object;
            if let Meaning::Quota { unused_since } = &mut refusal.meaning {
                *unused_since = (!in_use(object)).then(|| unused_since.unwrap_or(now));
            }
        }
    }

    /// Refusals that have not expired.
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

    /// Begins a step, and returns the number of its consecutive failures so far. None: the step is
    /// already in flight or in backoff.
    pub fn begin(&mut self, step: &Step) -> Option<u32> {
        let key = step.key();
        if self.busy.contains(&key) {
            return None;
        }
        if let Step::CreatePod(pod) = step {
            self.pods_in_creation.insert(key.clone(), PodInCreation::of(pod));
        }
        if let Step::CreateService(service) = step
            && let Some(pool) = service.annotations().get(annotation::POOL)
        {
            self.services_in_creation.insert(key.clone(), (service.name_any(), pool.clone()));
        }
        if let Step::DeleteService { uid, .. } = step {
            self.leaving_services.insert(uid.clone(), None);
        }
        if let Step::DeletePod { uid, .. } = step {
            Arc::make_mut(&mut self.leaving_pods).insert(uid.clone());
        }
        let failures = self.failures.get(&key).copied().unwrap_or_default();
        self.busy.insert(key);
        Some(failures)
    }

    /// Marks the Services whose deletion was started here, and forgets those that are gone.
    pub fn mark_leaving(&mut self, services: &mut [Arc<Service>]) {
        if self.leaving_services.is_empty() {
            return;
        }
        let mut leaving = std::mem::take(&mut self.leaving_services);
        for service in services.iter_mut() {
            let Some((uid, marked)) = leaving.remove_entry(&service.uid) else { continue };
            // Marking each Service in deletion anew for every snapshot, and wording a status in
            // every plan, took a tenth of the CPU time of a large job.
            let is_current =
                |marked: &Arc<Service>| marked.resource_version == service.resource_version;
            let marked = marked.filter(is_current).unwrap_or_else(|| {
                Arc::new(Service { deleting: true, ..Service::clone(service) })
            });
            *service = marked.clone();
            self.leaving_services.insert(uid, Some(marked));
        }
    }

    /// Counts the consecutive failures of a step. Repeated failures are reported in status.
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
        // The delete failed, so the Service keeps its address and can serve a Pod.
        if let Step::DeleteService { uid, .. } = step {
            self.leaving_services.remove(uid);
        }
        if let Step::DeletePod { uid, .. } = step {
            Arc::make_mut(&mut self.leaving_pods).remove(uid);
        }
        let failures = self.failures.entry(key.clone()).or_default();
        *failures += 1;
        if *failures < TOLD_FAILURES {
            return;
        }
        if let Some(name) = step.created_name() {
            Arc::make_mut(&mut self.failing).insert(name.to_owned(), error);
        } else {
            let message = format!("{step} keeps failing: {error}");
            Arc::make_mut(&mut self.failing_steps).insert(key, message);
        }
    }

    /// Forgets failures of steps that the last plan no longer needs. Returns true if any of them
    /// had been reported.
    pub fn forget_failing_steps(&mut self, needed: &[Step]) -> bool {
        let before = self.failing_steps.len();
        if before == 0 {
            return false;
        }
        let needed: HashSet<String> = needed.iter().map(Step::key).collect();
        let (busy, failures) = (&self.busy, &mut self.failures);
        Arc::make_mut(&mut self.failing_steps).retain(|key, _| {
            // A step that no plan needs is not tried again, so nothing else would take its failure
            // out of the status.
            let is_open = needed.contains(key) || busy.contains(key);
            if !is_open {
                failures.remove(key);
            }
            is_open
        });
        self.failing_steps.len() < before
    }

    /// Notes that a step is over, and its outcome known.
    pub fn end(&mut self, step: &str) {
        self.pods_in_creation.remove(step);
        self.services_in_creation.remove(step);
        self.busy.remove(step);
    }
}

/// A Pod whose creation is in flight: its slot is taken and its device locked, whatever later
/// plans decide about the device.
#[derive(Debug)]
pub struct PodInCreation {
    /// Its name.
    pub name: String,
    /// Slot, by which its Service selects it.
    pub slot: Option<String>,
    /// All identities of the device.
    pub identities: Vec<Identity>,
    /// The device's uid in the spec.
    pub device: String,
}

impl PodInCreation {
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

/// A status write that may still succeed.
#[derive(Debug)]
struct Unsettled {
    /// Resource version of the job from which it was planned: if the job has a newer version, the
    /// write has either succeeded or been rejected with a conflict.
    base: String,
    /// Names of Pods whose attempts it withdraws.
    withdrawn: Arc<HashSet<String>>,
    /// Uids of devices whose attempts it begins.
    beginning: Arc<HashSet<String>>,
}

/// Uids of the devices whose attempt has begun.
fn devices_in_flight(status: &FlashJobStatus) -> impl Iterator<Item = &str> {
    let devices = status.devices.iter().filter(|device| device.is_locked());
    devices.map(|device| device.uid.as_str())
}

fn pods_in_flight(status: &FlashJobStatus) -> impl Iterator<Item = &str> {
    status
        .devices
        .iter()
        .filter(|device| device.is_locked())
        .filter_map(|device| device.pod.as_deref())
}
