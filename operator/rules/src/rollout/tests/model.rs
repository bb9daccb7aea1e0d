//! The model cluster.

use std::collections::{BTreeMap, BTreeSet};

use flashjob_api::{
    BatchSpec, FlashJob, FlashJobSpec, FlashJobStatus, FlashRollout, FlashRolloutSpec,
    FlashRolloutStatus, RolloutPhase, RolloutSelector,
};
use hashbrown::HashMap;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::flash_job::run_job;
use crate::firmware::{FirmwareState, ResolveFirmware, ResolvedFirmware};
use crate::rollout::{Child, Device, OtherRollout, Plan, Rollout, Snapshot, Step, World, decide};

pub const NEW: &str = "2.0.0";
pub const OLD: &str = "1.0.0";

/// A device, and the effect of a flash on it.
#[derive(Clone, Debug)]
pub struct Part {
    pub uid: String,
    pub version: Option<String>,
    pub kind: String,
    pub nodes: Vec<String>,
    pub properties: BTreeMap<String, String>,
    pub identity: String,
    pub present: bool,
    /// True if flashing it fails.
    pub broken: bool,
}

/// Returns true if another rollout has the device.
type Holds<'a> = Box<dyn Fn(&str, &str) -> bool + 'a>;

/// A FlashJob, and the spec that its controller has observed.
#[derive(Clone, Debug)]
pub struct Job {
    pub object: FlashJob,
    pub observation: Option<(i64, FlashJobSpec)>,
}

/// Everything that is stored, and the devices.
pub struct Cluster {
    pub now: Timestamp,
    pub parts: BTreeMap<String, Part>,
    pub rollout: FlashRollout,
    pub jobs: BTreeMap<String, Job>,
    pub firmware: FirmwareState,
    pub trust: Option<String>,
    pub questions: BTreeSet<String>,
    pub foreign: BTreeSet<String>,
    pub other_rollouts: Vec<(String, Timestamp, BTreeSet<String>)>,
    /// Action of a person that the others wait for.
    pub others_await: Option<String>,
    pub deleted: bool,
    /// The API server's message where it refuses FlashJobs.
    pub refuses: Option<String>,
    /// True if the FlashJobs' controller keeps those that are being deleted.
    pub keeps_deleted: bool,
    next: u64,
}

impl World for Cluster {
    fn devices<'a>(&'a self) -> Box<dyn Iterator<Item = Device<'a>> + 'a> {
        Box::new(self.parts.iter().map(|(name, part)| view(name, part)))
    }

    fn device(&self, namespace: &str, name: &str) -> Option<Device<'_>> {
        let (name, part) = self.parts.get_key_value(name).filter(|_| namespace == "fleet")?;
        Some(view(name, part)).filter(|_| part.present)
    }

    fn device_by_uid(&self, uid: &str) -> Option<Device<'_>> {
        let (name, part) = self.parts.iter().find(|(_, part)| part.present && part.uid == uid)?;
        Some(view(name, part))
    }

    fn firmware(&self, _: &ResolveFirmware) -> FirmwareState {
        self.firmware.clone()
    }

    fn firmware_trust(&self, _: &str) -> Option<String> {
        self.trust.clone()
    }

    fn is_taken(&self, flash_job: &str) -> bool {
        self.foreign.contains(flash_job)
    }
}

fn view<'a>(name: &'a str, part: &'a Part) -> Device<'a> {
    Device {
        uid: &part.uid,
        namespace: "fleet",
        name,
        identity: &part.identity,
        device_type: Some(&part.kind),
        application_type: None,
        version: part.version.as_deref(),
        nodes: &part.nodes,
        properties: &part.properties,
        reachable: part.present,
    }
}

pub fn resolved() -> FirmwareState {
    let digest = Some("sha256:0a0b".to_owned());
    FirmwareState::Resolved(ResolvedFirmware { digest, ..ResolvedFirmware::default() })
}

/// A batch by name and size.
pub fn batch(name: &str, size: Option<i32>) -> BatchSpec {
    let size = size.map(IntOrString::Int);
    BatchSpec { name: name.to_owned(), size, ..BatchSpec::default() }
}

impl Cluster {
    /// Creates a fleet of `devices` devices with the old version, and a rollout of the new one to
    /// all.
    pub fn new(devices: usize) -> Self {
        let spec = FlashRolloutSpec {
            firmware: "r.io/f:2".to_owned(),
            version: NEW.to_owned(),
            selector: RolloutSelector { all: Some(true), ..RolloutSelector::default() },
            ..FlashRolloutSpec::default()
        };
        let now: Timestamp = "2026-06-01T12:00:00Z".parse().expect("a time");
        let mut rollout = FlashRollout::new("all", spec);
        rollout.metadata.namespace = Some("fleet".to_owned());
        rollout.metadata.uid = Some("rollout-uid".to_owned());
        rollout.metadata.generation = Some(1);
        rollout.metadata.creation_timestamp = Some(Time(now));
        let mut cluster = Self {
            now,
            parts: BTreeMap::new(),
            rollout,
            jobs: BTreeMap::new(),
            firmware: resolved(),
            trust: None,
            questions: BTreeSet::new(),
            foreign: BTreeSet::new(),
            other_rollouts: Vec::new(),
            others_await: None,
            deleted: false,
            refuses: None,
            keeps_deleted: false,
            next: 0,
        };
        for number in 0..devices {
            cluster.add(&format!("device-{number:04}"));
        }
        cluster
    }

    fn fresh_uid(&mut self) -> String {
        self.next += 1;
        format!("uid-{}", self.next)
    }

    pub fn add(&mut self, name: &str) {
        let part = Part {
            uid: self.fresh_uid(),
            version: Some(OLD.to_owned()),
            kind: "esp32".to_owned(),
            nodes: vec!["node".to_owned()],
            properties: BTreeMap::new(),
            identity: format!("endpoint/{name}:80"),
            present: true,
            broken: false,
        };
        self.parts.insert(name.to_owned(), part);
    }

    pub fn part(&mut self, name: &str) -> &mut Part {
        self.parts.get_mut(name).expect("a device")
    }

    /// Recreates the Instance of the device under the same name.
    pub fn returns(&mut self, name: &str) {
        let uid = self.fresh_uid();
        let part = self.part(name);
        if !part.present {
            (part.present, part.uid) = (true, uid);
        }
    }

    /// Changes the spec, as `kubectl apply` does.
    pub fn edit(&mut self, change: impl FnOnce(&mut FlashRolloutSpec)) {
        let before = self.rollout.spec.clone();
        change(&mut self.rollout.spec);
        if before != self.rollout.spec {
            *self.rollout.metadata.generation.get_or_insert(0) += 1;
        }
    }

    pub fn status(&self) -> FlashRolloutStatus {
        self.rollout.status.clone().unwrap_or_default()
    }

    pub fn phase(&self) -> RolloutPhase {
        self.status().phase.expect("a phase")
    }

    pub fn reason(&self) -> String {
        self.status().reason.unwrap_or_default()
    }

    pub fn run(&self) -> String {
        self.status().run.expect("a run")
    }

    /// Batch and letter of every member.
    pub fn members(&self) -> BTreeMap<String, (usize, char)> {
        let status = self.status();
        let mut members = BTreeMap::new();
        for (batch, list) in status.members.iter().enumerate() {
            for (name, letter) in list.instances.iter().zip(list.results.chars()) {
                let twice = members.insert(name.clone(), (batch, letter));
                assert_eq!(twice, None, "{name} is a member twice");
            }
        }
        members
    }

    /// Letters of one batch.
    pub fn letters(&self, batch: usize) -> String {
        self.status().members[batch].results.clone()
    }

    /// Decides from the stored state alone.
    pub fn decide(&self) -> Plan {
        let rollout = Rollout::of(self.rollout.clone());
        let none = FlashJobStatus::default();
        let jobs = self.jobs.values().map(|job| &job.object);
        let children =
            jobs.filter_map(|job| Child::of(job, job.status.as_ref().unwrap_or(&none))).collect();
        let holds: Vec<Holds<'_>> = self
            .other_rollouts
            .iter()
            .map(|(_, _, held)| {
                let holds = |_: &str, name: &str| held.contains(name);
                Box::new(holds) as Holds<'_>
            })
            .collect();
        let other_rollouts =
            self.other_rollouts.iter().zip(&holds).map(|((name, created, _), holds)| {
                let (created, awaits_person) = (Some(*created), self.others_await.as_deref());
                OtherRollout { namespace: "fleet", name, created, awaits_person, holds }
            });
        let other_rollouts = other_rollouts.collect();
        let (refused, now) = (self.refuses.as_deref(), self.now);
        decide(&Snapshot {
            rollout: &rollout,
            world: self,
            children,
            other_rollouts,
            refused,
            now,
        })
    }

    /// Stores a plan's status, and carries out its steps.
    pub fn apply(&mut self, plan: &Plan) {
        for step in &plan.steps {
            self.carry_out(step);
        }
        self.store(plan);
    }

    pub fn store(&mut self, plan: &Plan) {
        if let Some(question) = &plan.question {
            self.questions.insert(format!("{:?} {}", question.batch, question.reference));
        }
        if let Some(status) = &plan.status {
            // Through JSON, as the API server stores it.
            let text = serde_json::to_string(status).expect("writes");
            self.rollout.status = Some(serde_json::from_str(&text).expect("reads"));
        }
    }

    pub fn carry_out(&mut self, step: &Step) {
        match step {
            Step::CreateChild(_) if self.refuses.is_some() => {}
            Step::CreateChild(job) => {
                let name = job.metadata.name.clone().expect("a name");
                if !self.jobs.contains_key(&name) {
                    let mut object = (**job).clone();
                    object.metadata.uid = Some(self.fresh_uid());
                    object.metadata.generation = Some(1);
                    self.jobs.insert(name, Job { object, observation: None });
                }
            }
            Step::PatchChild { name, uid, spec, .. } => {
                let job = self.jobs.get_mut(name);
                if let Some(job) = job.filter(|job| job.object.metadata.uid.as_ref() == Some(uid))
                {
                    let mut value = serde_json::to_value(&job.object.spec).expect("writes");
                    merge(&mut value, &Value::Object(spec.clone()));
                    let next: FlashJobSpec = serde_json::from_value(value).expect("reads");
                    assert_ne!(next, job.object.spec, "a patch that changes nothing: {spec:?}");
                    job.object.spec = next;
                    *job.object.metadata.generation.get_or_insert(0) += 1;
                }
            }
            Step::DeleteChild { name, uid } => {
                let job = self.jobs.get_mut(name);
                let job = job.filter(|job| job.object.metadata.uid.as_ref() == Some(uid));
                match job {
                    // The API server increments the generation when a deletion begins.
                    Some(job) if self.keeps_deleted => {
                        job.object.metadata.deletion_timestamp = Some(Time(self.now));
                        *job.object.metadata.generation.get_or_insert(0) += 1;
                        job.observation = None;
                    }
                    Some(_) => drop(self.jobs.remove(name)),
                    None => {}
                }
            }
            Step::DeleteRollout => self.deleted = true,
        }
    }

    /// Lets the FlashJob's controller observe its spec.
    pub fn sync(&mut self, name: &str) {
        if let Some(job) = self.jobs.get_mut(name) {
            let generation = job.object.metadata.generation.unwrap_or_default();
            job.observation = Some((generation, job.object.spec.clone()));
        }
    }

    /// Lets the FlashJob's controller end up to `ends` devices, start others, and report.
    pub fn work(&mut self, name: &str, ends: usize) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        let Some((generation, spec)) = job.observation.clone() else { return };
        let run = spec.effective().map(|spec| spec.run).ok();
        let mut status = job.object.status.clone().unwrap_or_default();
        if status.run != run {
            status = FlashJobStatus { run, ..FlashJobStatus::default() };
        }
        run_job(&mut status, &spec, &mut self.parts, ends);
        status.observed_generation = Some(generation);
        job.object.status = Some(status);
    }

    /// Number of devices in flight.
    pub fn in_flight(&self) -> usize {
        let statuses = self.jobs.values().filter_map(|job| job.object.status.as_ref());
        statuses.map(|status| status.counts.unwrap_or_default().active as usize).sum()
    }

    /// Runs the rollout and every FlashJob once.
    pub fn round(&mut self) {
        let plan = self.decide();
        self.apply(&plan);
        let names: Vec<String> = self.jobs.keys().cloned().collect();
        for name in names {
            let job = &self.jobs[&name];
            if job.object.metadata.deletion_timestamp.is_none() {
                self.sync(&name);
                self.work(&name, 5);
            }
        }
    }

    pub fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            self.round();
        }
    }

    pub fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// Runs until nothing changes any more, for at most `most` rounds.
    pub fn settle(&mut self, most: usize) {
        for _ in 0..most {
            let before = self.fingerprint();
            self.round();
            let plan = self.decide();
            if before == self.fingerprint() && plan.steps.is_empty() && plan.status.is_none() {
                return;
            }
        }
        let plan = self.decide();
        panic!("does not come to rest: {:?}\n{:?}\n{plan:#?}", self.status(), self.jobs.keys());
    }

    fn fingerprint(&self) -> String {
        let jobs: HashMap<&String, _> = self
            .jobs
            .iter()
            .map(|(name, job)| (name, (&job.object.spec, &job.object.status)))
            .collect();
        let jobs: BTreeMap<_, _> = jobs.into_iter().collect();
        format!("{:?}{jobs:?}", self.rollout.status)
    }
}

fn merge(value: &mut Value, patch: &Value) {
    let (Value::Object(fields), Value::Object(patch)) = (&mut *value, patch) else {
        *value = patch.clone();
        return;
    };
    for (name, patch) in patch {
        match patch {
            Value::Null => drop(fields.remove(name)),
            patch => merge(fields.entry(name.clone()).or_insert(Value::Null), patch),
        }
    }
}
