//! The operator in the model cluster: the real caches, snapshots and plans, with requests that are
//! slow, lost or refused, events that are late, and an operator that is killed. Invariants are
//! checked at every step.

mod checks;
mod faults;
mod requests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use flashjob_api::FlashJobStatus;
use flashjob_types::plugin::{Proof, Verdict};
use hashbrown::{HashMap, HashSet};
use jiff::Timestamp;
use kube_core::ResourceExt;

use super::fixture;
use super::model::{Cluster, Event};
use crate::firmware::{FirmwareState, ResolvedFirmware};
use crate::flashjob::observed::{Built, Instance, Job, Judged, Pod, Question, Service, after};
use crate::flashjob::plan::{Step, plan};
use crate::world::{Memory, World};
use checks::{check_firmware, keys};
pub use faults::Faults;

enum Request {
    Step(Arc<Job>, Step),
    Status(Arc<Job>, Box<FlashJobStatus>),
    /// Queries the outcome of a status write whose response was lost.
    Settle(Arc<Job>),
}

const LOUD: bool = false;

pub struct Simulation {
    pub cluster: Cluster,
    pub world: World,
    faults: Faults,
    may_crash: bool,
    /// True if only the operator deletes Pods, Services and jobs, and it is not killed: the latest
    /// use of a slot is not stored.
    undisturbed: bool,
    requests: Vec<Request>,
    /// Reads of nodes, which are repeated after a pause: the time, and the request.
    reads: Vec<(Timestamp, Request)>,
    due: BTreeSet<String>,
    wake: HashMap<String, Timestamp>,
    /// Highest parallelism that each job ever had.
    most: HashMap<String, usize>,
    /// Results that were stored, by job, run and uid; a uid that was removed from the list counts
    /// as new when it is added again.
    stored: HashSet<(String, String, String)>,
    /// Names of Services whose deletion was acknowledged, and that were not created again.
    deleted_services: HashSet<String>,
    pub steps: usize,
}

impl Simulation {
    pub fn new(cluster: Cluster, faults: Faults) -> Self {
        let mut simulation = Self {
            cluster,
            world: fixture::world(),
            faults,
            may_crash: faults.crashes > 0,
            undisturbed: faults.pods + faults.services + faults.specs + faults.crashes == 0,
            requests: Vec::new(),
            reads: Vec::new(),
            due: BTreeSet::new(),
            wake: HashMap::new(),
            most: HashMap::new(),
            stored: HashSet::new(),
            deleted_services: HashSet::new(),
            steps: 0,
        };
        simulation.restart();
        simulation
    }

    /// Starts a new process, which lists everything again.
    pub fn restart(&mut self) {
        if LOUD {
            println!("CRASH");
        }
        self.requests.clear();
        self.reads.clear();
        self.cluster.events.iter_mut().for_each(std::collections::VecDeque::clear);
        self.world = fixture::world();
        self.wake.clear();
        self.show_devices();
        for job in self.cluster.jobs.values() {
            self.world.see_job(Job::of(job.clone()));
        }
        for pod in self.cluster.pods.values() {
            Pod::of(pod).map(|pod| self.world.see_pod(pod));
        }
        for service in self.cluster.services.values() {
            Service::of(service).map(|service| self.world.see_service(service));
        }
        self.world.lock_what_is_stored();
        self.due = self.cluster.jobs.keys().cloned().collect();
    }

    fn show_devices(&mut self) {
        for (index, device) in self.cluster.devices.iter().enumerate() {
            let endpoint = format!("10.0.0.{index}:80");
            for uid in &device.uids {
                let mut properties =
                    vec![("DEVICE", "esp32"), ("HOST_ENDPOINT", endpoint.as_str())];
                properties.extend(device.version.as_deref().map(|version| ("VERSION", version)));
                let instance = Instance::new(
                    "fleet",
                    &format!("akri-{uid}"),
                    uid,
                    vec!["node".into()],
                    properties.into_iter(),
                );
                let jobs = self.world.devices.see(instance);
                self.due.extend(jobs.into_iter().map(|job| job.name));
            }
        }
    }

    /// Runs until nothing is left to do.
    pub fn run(&mut self) {
        loop {
            self.steps += 1;
            assert!(
                self.steps < 60_000,
                "the jobs do not end: {:?}",
                self.cluster
                    .jobs
                    .values()
                    .map(|job| job.status.clone().and_then(|status| status.message))
                    .collect::<Vec<_>>()
            );
            self.break_something();
            if !self.move_on() && !self.pass_time() {
                return;
            }
            self.check();
        }
    }

    /// Does one of the things that could happen now. False: nothing can.
    fn move_on(&mut self) -> bool {
        let start = self.cluster.dice.below(6);
        (start..start + 6).any(|turn| match turn % 6 {
            kind @ 0..=2 => self.deliver(kind),
            3 => self.answer(),
            4 => self.plan_one(),
            _ => self.cluster_moves(),
        })
    }

    fn cluster_moves(&mut self) -> bool {
        self.cluster.finish_orphans();
        let names: Vec<String> = self.cluster.pods.keys().cloned().collect();
        let start = self.cluster.dice.below(names.len());
        let moved =
            (0..names.len()).any(|turn| self.cluster.keep(&names[(start + turn) % names.len()]));
        self.show_devices();
        moved || self.cluster.collect_garbage() || self.cluster.balance()
    }

    fn deliver(&mut self, kind: usize) -> bool {
        let Some(event) = self.cluster.events[kind].pop_front() else { return false };
        if LOUD {
            match &event {
                Event::Pod(p) => println!(
                    "  event pod {} {:?} del={}",
                    p.name_any(),
                    p.status.as_ref().and_then(|s| s.phase.clone()),
                    p.metadata.deletion_timestamp.is_some()
                ),
                Event::PodGone(p) => println!("  event podgone {}", p.name_any()),
                Event::Job(j) => {
                    println!("  event job {} rv {:?}", j.name_any(), j.metadata.resource_version)
                }
                _ => {}
            }
        }
        let now = self.cluster.now;
        let world = &mut self.world;
        match event {
            Event::Job(job) => {
                let name = job.name_any();
                world.see_job(Job::of(*job));
                self.due.insert(name);
            }
            Event::JobGone(job) => {
                world.forget_job(&fixture::key(&job.name_any()));
                self.due.extend(world.waiting_jobs().into_iter().map(|job| job.name));
            }
            Event::Pod(pod) => {
                Pod::of(&pod)
                    .and_then(|pod| world.see_pod(pod))
                    .map(|job| self.due.insert(job.name));
                self.due.extend(world.waiting_jobs().into_iter().map(|job| job.name));
            }
            Event::PodGone(pod) => {
                let pod = Pod::of(&pod).expect("owned");
                let (job, name, uid) = (pod.job.clone(), pod.name.clone(), pod.uid.clone());
                world.note_departure(&uid, &pod.resource_version);
                world.see_pod(pod);
                world.lose_pod(&job, &name, &uid, now);
                self.due.insert(job.name);
                self.due.extend(world.waiting_jobs().into_iter().map(|job| job.name));
            }
            Event::Service(service) => {
                Service::of(&service)
                    .and_then(|service| world.see_service(service))
                    .map(|job| self.due.insert(job.name));
            }
            Event::ServiceGone(service) => {
                let service = Service::of(&service).expect("owned");
                world.note_departure(&service.uid, &service.resource_version);
                world.lose_service(&service.job, &service.name, &service.uid);
                self.due.insert(service.job.name);
            }
        }
        true
    }

    fn plan_one(&mut self) -> bool {
        let names: Vec<String> = self.due.iter().cloned().collect();
        if names.is_empty() {
            return false;
        }
        let name = names[self.cluster.dice.below(names.len())].clone();
        self.due.remove(&name);
        let key = fixture::key(&name);
        let Some(observed) = self.world.observe(&key, self.cluster.now) else { return true };
        let first_plan = plan(&observed);
        let again = plan(&observed);
        assert_eq!(first_plan.status, again.status, "two plans of one snapshot differ");
        assert_eq!(keys(&first_plan), keys(&again), "two plans of one snapshot differ");
        self.check_status(&name, &observed.job, &first_plan);
        check_firmware(&observed.job, &first_plan);
        if self.world.set_holds(&key, first_plan.holds.clone()) {
            self.due.extend(self.world.waiting_jobs().into_iter().map(|job| job.name));
        }
        if LOUD {
            println!(
                "{} plan {name}: {:?} wake {:?} q{} status {:?} {:?} holds {:?}",
                self.cluster.now,
                first_plan.steps.iter().map(Step::key).collect::<Vec<_>>(),
                first_plan.wake_at,
                first_plan.questions.len(),
                first_plan.status.as_ref().and_then(|s| s.message.clone()),
                first_plan.status.as_ref().map(|s| s
                    .devices
                    .iter()
                    .map(|d| format!(
                        "{} {:?} a{} {:?} nb{:?}",
                        d.uid,
                        d.state,
                        d.attempt,
                        d.reason,
                        d.not_before.as_ref().map(|t| t.0)
                    ))
                    .collect::<Vec<_>>()),
                first_plan.holds.len()
            );
        }
        self.wake.remove(&name);
        first_plan.wake_at.map(|at| self.wake.insert(name.clone(), at));
        let memory = self.world.memory.entry(key).or_default();
        for step in first_plan.steps {
            if memory.begin(&step).is_some() {
                let at = after(self.cluster.now, 5);
                match step {
                    Step::ReadNode { .. } => {
                        self.reads.push((at, Request::Step(observed.job.clone(), step)))
                    }
                    step => self.requests.push(Request::Step(observed.job.clone(), step)),
                }
            }
        }
        if let Some(question) = memory.firmware.follow(first_plan.firmware) {
            let digest = Some("sha256:0a".to_owned());
            let resolved = ResolvedFirmware { digest, ..ResolvedFirmware::default() };
            memory.firmware.take(&question, FirmwareState::Resolved(resolved));
            self.due.insert(name.clone());
        }
        for question in first_plan.questions {
            consult(memory, question);
            self.due.insert(name.clone());
        }
        if let Some(status) = first_plan
            .status
            .filter(|status| *status != observed.job.status && !memory.pace.writing)
        {
            memory.write_begins(&observed.job, &status, Instant::now());
            self.requests.push(Request::Status(observed.job.clone(), Box::new(status)));
        }
        true
    }

    /// Jumps to the next instant at which something happens. False: there is none.
    fn pass_time(&mut self) -> bool {
        let waking = self.wake.values().copied();
        let ends =
            self.cluster.containers.values().map(|container| container.ends.min(container.dies));
        let reads = self.reads.iter().map(|(at, _)| *at);
        let Some(next) = waking.chain(ends).chain(reads).min() else { return false };
        self.cluster.now = next.max(after(self.cluster.now, 1));
        let now = self.cluster.now;
        let due = self.wake.iter().filter(|(_, at)| **at <= now).map(|(job, _)| job.clone());
        self.due.extend(due.collect::<Vec<_>>());
        self.wake.retain(|_, at| *at > now);
        let reads = self.reads.extract_if(.., |(at, _)| *at <= now);
        self.requests.extend(reads.map(|(_, request)| request));
        self.cluster.finish_orphans();
        self.show_devices();
        true
    }
}

fn consult(memory: &mut Memory, question: Question) {
    match question {
        Question::Build { attempt, plugin, digest, instance, configuration, request } => {
            let built = Built {
                attempt,
                plugin,
                digest,
                firmware: request.firmware.clone(),
                instance,
                configuration,
                pod: Ok(fixture::flash_pod(&request.version)),
            };
            memory.answers_mut().built.insert(request.device.uid, Arc::new(built));
        }
        Question::Judge { pod_uid, outcome, .. } => {
            let verdict = match outcome.exit_code {
                Some(0) => Verdict::Flashed(Proof::ReportedVersion),
                Some(3) => Verdict::GiveUp("it makes no sense".into()),
                _ => Verdict::Retry("it broke".into()),
            };
            memory.answers_mut().judged.insert(pod_uid, Arc::new(Judged::Asked(Ok(verdict))));
        }
    }
}
