//! The operator at work in the model cluster: the real caches, snapshots and plans, with requests
//! that are slow, lost or refused, events that come late, and an operator that is killed. What must
//! always hold is checked at every step.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use flashjob_api::{
    DeviceState, FINALIZER, FirmwarePolicy, FlashJob, FlashJobStatus, Phase, VerifyMode,
};
use flashjob_types::plugin::{Proof, Verdict};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube_core::ResourceExt;

use super::fixture;
use super::model::{Cluster, Event, address};
use crate::firmware::{FirmwareState, ResolvedFirmware};
use crate::flashjob::labels::{annotation, label};
use crate::flashjob::observed::{
    Built, Instance, Job, Judged, Meaning, Pod, Question, Refusal, Refused, Service, after,
};
use crate::flashjob::plan::{Plan, Step, plan};
use crate::world::World;

/// Faults that can occur, each as often as its number says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub crashes: usize,
    pub pods: usize,
    pub services: usize,
    pub specs: usize,
    pub instances: usize,
    /// Share of requests that fail, in percent.
    pub requests: usize,
}

enum Request {
    Step(Arc<Job>, Step),
    Status(Arc<Job>, Box<FlashJobStatus>),
    /// Asks what became of a status whose answer was lost.
    Settle(Arc<Job>),
}

const LOUD: bool = false;

pub struct Simulation {
    pub cluster: Cluster,
    pub world: World,
    faults: Faults,
    may_crash: bool,
    /// True if nobody but the operator removes Pods, Services and jobs, and it is not killed: what
    /// a slot was used for last is not stored.
    undisturbed: bool,
    requests: Vec<Request>,
    due: BTreeSet<String>,
    wake: HashMap<String, Timestamp>,
    /// The most devices that a job was ever allowed in flight.
    most: HashMap<String, usize>,
    /// Results that were stored, by job, run and uid; a uid that left the list is new when it comes
    /// back.
    stored: HashSet<(String, String, String)>,
    /// Names of Services whose deletion was answered, and that were not made again.
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

    /// A new process, and a fresh list of everything.
    pub fn restart(&mut self) {
        if LOUD {
            println!("CRASH");
        }
        self.requests.clear();
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

    /// One thing of all that could happen now. False: nothing can.
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
        let made = plan(&observed);
        let again = plan(&observed);
        assert_eq!(made.status, again.status, "two plans of one snapshot differ");
        assert_eq!(keys(&made), keys(&again), "two plans of one snapshot differ");
        self.check_status(&name, &observed.job, &made);
        check_firmware(&observed.job, &made);
        if self.world.set_holds(&key, made.holds.clone()) {
            self.due.extend(self.world.waiting_jobs().into_iter().map(|job| job.name));
        }
        if LOUD {
            println!(
                "{} plan {name}: {:?} wake {:?} q{} status {:?} {:?} holds {:?}",
                self.cluster.now,
                made.steps.iter().map(Step::key).collect::<Vec<_>>(),
                made.wake_at,
                made.questions.len(),
                made.status.as_ref().and_then(|s| s.message.clone()),
                made.status.as_ref().map(|s| s
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
                made.holds.len()
            );
        }
        self.wake.remove(&name);
        made.wake_at.map(|at| self.wake.insert(name.clone(), at));
        let memory = self.world.memory.entry(key).or_default();
        for step in made.steps {
            if memory.begin(&step) {
                self.requests.push(Request::Step(observed.job.clone(), step));
            }
        }
        if let Some(question) = memory.firmware.follow(made.firmware) {
            let digest = Some("sha256:0a".to_owned());
            let resolved = ResolvedFirmware { digest, ..ResolvedFirmware::default() };
            memory.firmware.take(&question, FirmwareState::Resolved(resolved));
            self.due.insert(name.clone());
        }
        for question in made.questions {
            consult(memory, question);
            self.due.insert(name.clone());
        }
        if let Some(status) =
            made.status.filter(|status| *status != observed.job.status && !memory.pace.writing)
        {
            memory.write_begins(&observed.job, &status);
            self.requests.push(Request::Status(observed.job.clone(), Box::new(status)));
        }
        true
    }

    /// One request reaches the API server, or does not; its answer comes, or is lost.
    fn answer(&mut self) -> bool {
        if self.requests.is_empty() {
            return false;
        }
        let at = self.cluster.dice.below(self.requests.len());
        let request = self.requests.swap_remove(at);
        let fails = self.cluster.dice.percent(self.faults.requests);
        if LOUD {
            println!(
                "  answer {} fails={fails}",
                match &request {
                    Request::Step(_, s) => s.key(),
                    Request::Status(j, _) =>
                        format!("status {} at {}", j.key.name, j.resource_version),
                    Request::Settle(j) =>
                        format!("settle {} at {}", j.key.name, j.resource_version),
                }
            );
        }
        let arrives = !fails || self.cluster.dice.percent(50);
        let job = match &request {
            Request::Step(job, _) | Request::Status(job, _) | Request::Settle(job) => job.clone(),
        };
        self.due.insert(job.key.name.clone());
        match request {
            Request::Status(job, status) => {
                if arrives {
                    self.store(&job, &status, !fails);
                }
                self.world.memory.entry(job.key.clone()).or_default().pace.writing = false;
                if fails {
                    self.requests.push(Request::Settle(job));
                }
            }
            Request::Settle(job) if fails => self.requests.push(Request::Settle(job)),
            Request::Settle(job) => {
                if let Some(fresh) = self.cluster.jobs.get(&job.key.name).cloned() {
                    self.world.see_job(Job::of(fresh));
                }
                self.world.memory.entry(job.key.clone()).or_default().writes_are_settled(&job);
            }
            Request::Step(job, step) => {
                let knows = |world: &World| {
                    step.key()
                        .strip_prefix("pod/")
                        .is_some_and(|name| world.knows_pod(&job.key, name))
                };
                // A create whose Pod was seen meanwhile is not sent again.
                let sent = arrives && !(step.creates() && knows(&self.world));
                let refused = sent && self.carry_out(&job, &step, !fails);
                let seen = knows(&self.world);
                if fails && step.creates() && !refused && !seen {
                    // Of unknown outcome: sent again until it is clear.
                    self.requests.push(Request::Step(job, step));
                } else if let Some(memory) = self.world.memory.get_mut(&job.key) {
                    memory.count(&step, fails.then(|| "the answer was lost".to_owned()));
                    memory.end(&step.key());
                }
            }
        }
        true
    }

    fn store(&mut self, job: &Job, status: &FlashJobStatus, answered: bool) {
        let name = &job.key.name;
        let Some(mut stored) = self.cluster.jobs.get(name).cloned() else { return };
        if stored.resource_version().as_deref() == Some(&job.resource_version) {
            let run = status.run.clone().unwrap_or_default();
            let lists = status
                .completed_uuids
                .iter()
                .chain(&status.failed_uuids)
                .chain(&status.skipped_uuids);
            self.stored.extend(lists.map(|uid| (name.clone(), run.clone(), uid.clone())));
            stored.status = Some(status.clone());
            self.cluster.put_job(stored);
        }
        if answered {
            let fresh = self.cluster.jobs[name].clone();
            self.world.see_job(Job::of(fresh));
        }
    }

    /// True: the API server refused it.
    fn carry_out(&mut self, job: &Job, step: &Step, answered: bool) -> bool {
        let name = &job.key.name;
        let now = self.cluster.now;
        match step {
            Step::AddFinalizer | Step::RemoveFinalizer => {
                let Some(mut stored) = self.cluster.jobs.get(name).cloned() else { return false };
                if stored.resource_version().as_deref() == Some(&job.resource_version) {
                    let adding = matches!(step, Step::AddFinalizer);
                    stored.metadata.finalizers = adding.then(|| vec![FINALIZER.to_owned()]);
                    let over = stored.metadata.deletion_timestamp.is_some() && !adding;
                    self.cluster.put_job(stored);
                    if over {
                        self.cluster.remove_job(name);
                    }
                }
                if answered && let Some(fresh) = self.cluster.jobs.get(name).cloned() {
                    self.world.see_job(Job::of(fresh));
                }
            }
            Step::DeleteJob => self.delete_job(name),
            Step::CreateService(service) => {
                self.deleted_services.remove(&service.name_any());
                let created = self.cluster.create_service(*service.clone());
                let seen =
                    created.or_else(|| self.cluster.services.get(&service.name_any()).cloned());
                if answered {
                    seen.as_ref()
                        .and_then(Service::of)
                        .map(|service| self.world.see_service(service));
                }
            }
            Step::CreatePod(pod) => {
                if self.cluster.dice.percent(self.faults.requests / 3)
                    && !self.cluster.pods.contains_key(&pod.name_any())
                {
                    let meaning = match self.cluster.dice.percent(20) {
                        true => Meaning::Final,
                        false if self.cluster.dice.percent(50) => Meaning::MayPass,
                        false => Meaning::Quota { unused_since: None },
                    };
                    let refusal =
                        Refusal { object: Refused::Pod, meaning, message: "quota".into(), at: now };
                    let memory = self.world.memory.entry(job.key.clone()).or_default();
                    memory.refuse(&pod.name_any(), refusal);
                    return true;
                }
                self.check_create(name, pod);
                let created = self.cluster.create_pod(*pod.clone());
                let seen = created.or_else(|| self.cluster.pods.get(&pod.name_any()).cloned());
                if answered {
                    self.world.memory.entry(job.key.clone()).or_default().accept(&pod.name_any());
                    seen.as_ref().and_then(Pod::of).map(|pod| self.world.see_pod(pod));
                }
            }
            Step::DeleteService { name, .. } => {
                self.cluster.remove_service(name);
                if answered {
                    self.deleted_services.insert(name.clone());
                }
            }
            Step::DeletePod { name, uid } => {
                let deleted = self
                    .cluster
                    .pods
                    .get(name)
                    .is_some_and(|pod| pod.uid().as_deref() == Some(uid));
                let deleted = if deleted { self.cluster.delete_pod(name) } else { None };
                match deleted.as_ref().and_then(Pod::of) {
                    Some(pod) if answered => self.world.see_deleted_pod(pod),
                    None if answered => self.world.lose_pod(&job.key, name, uid, now),
                    _ => {}
                }
            }
            Step::Protect(_) | Step::Unprotect { .. } => {
                let memory = self.world.memory.entry(job.key.clone()).or_default();
                memory.is_protected = matches!(step, Step::Protect(_));
            }
            Step::ConfirmPod { name, device } => {
                if answered && !self.cluster.pods.contains_key(name) {
                    self.world.confirm_gone(&job.key, name, device, now);
                }
            }
        }
        false
    }

    fn delete_job(&mut self, name: &str) {
        let Some(mut job) = self.cluster.jobs.get(name).cloned() else { return };
        if job.metadata.finalizers.is_none() {
            self.cluster.remove_job(name);
        } else if job.metadata.deletion_timestamp.is_none() {
            job.metadata.deletion_timestamp = Some(Time(self.cluster.now));
            self.cluster.put_job(job);
        }
    }

    /// Jumps to the next instant at which something happens. False: there is none.
    fn pass_time(&mut self) -> bool {
        let waking = self.wake.values().copied();
        let ends =
            self.cluster.containers.values().map(|container| container.ends.min(container.dies));
        let Some(next) = waking.chain(ends).min() else { return false };
        self.cluster.now = next.max(after(self.cluster.now, 1));
        let now = self.cluster.now;
        let due = self.wake.iter().filter(|(_, at)| **at <= now).map(|(job, _)| job.clone());
        self.due.extend(due.collect::<Vec<_>>());
        self.wake.retain(|_, at| *at > now);
        self.cluster.finish_orphans();
        self.show_devices();
        true
    }

    fn break_something(&mut self) {
        if !self.cluster.dice.percent(3) {
            return;
        }
        let pods: Vec<String> = self.cluster.pods.keys().cloned().collect();
        let pod = pods.get(self.cluster.dice.below(pods.len())).cloned();
        let services: Vec<String> = self.cluster.services.keys().cloned().collect();
        let service = services.get(self.cluster.dice.below(services.len())).cloned();
        match self.cluster.dice.below(5) {
            0 if self.faults.crashes > 0 => {
                self.faults.crashes -= 1;
                // What was sent may have been carried out, and nobody hears of it.
                for request in std::mem::take(&mut self.requests) {
                    match request {
                        _ if self.cluster.dice.percent(50) => {}
                        Request::Status(job, status) => self.store(&job, &status, false),
                        Request::Step(job, step) => drop(self.carry_out(&job, &step, false)),
                        Request::Settle(_) => {}
                    }
                }
                self.restart();
            }
            1 if self.faults.pods > 0 => {
                let Some(pod) = pod else { return };
                // One that vanishes before either watch or answer told of it is the window that no
                // operator can close.
                let job = self.cluster.pods[&pod].labels()[label::APP].clone();
                if !self.world.knows_pod(&fixture::key(&job), &pod) {
                    return;
                }
                self.faults.pods -= 1;
                let kind = self.cluster.dice.below(4);
                if self.may_crash && matches!(kind, 0..=2) && !self.is_stored_flashing(&pod) {
                    // Nobody can know of a Pod that vanished before anything was stored of it, when
                    // the operator dies too.
                    return;
                }
                if LOUD {
                    println!("POD FAULT {kind} {pod}");
                }
                match kind {
                    0 => drop(self.cluster.delete_pod(&pod)),
                    1 => self.cluster.remove_pod(&pod),
                    2 => self.cluster.lose_node(&pod),
                    _ => self.cluster.evict(&pod),
                }
            }
            2 if self.faults.services > 0 => {
                let Some(service) = service else { return };
                self.faults.services -= 1;
                self.cluster.remove_service(&service);
            }
            3 if self.faults.specs > 0 => {
                self.faults.specs -= 1;
                self.change_a_spec();
            }
            4 if self.faults.instances > 0 => {
                self.faults.instances -= 1;
                let index = self.cluster.dice.below(self.cluster.devices.len());
                let uid = self.cluster.devices[index].uids[0].clone();
                let jobs = self.world.devices.lose(&uid);
                self.due.extend(jobs.into_iter().map(|job| job.name));
            }
            _ => {}
        }
    }

    fn is_stored_flashing(&self, pod: &str) -> bool {
        let devices = self
            .cluster
            .jobs
            .values()
            .filter_map(|job| job.status.as_ref())
            .flat_map(|status| &status.devices);
        let mut devices = devices.filter(|device| device.pod.as_deref() == Some(pod));
        devices.any(|device| device.state == DeviceState::Flashing)
    }

    fn change_a_spec(&mut self) {
        let names: Vec<String> = self.cluster.jobs.keys().cloned().collect();
        let Some(name) = names.get(self.cluster.dice.below(names.len())) else { return };
        let mut job = self.cluster.jobs[name].clone();
        match self.cluster.dice.below(7) {
            0 => job.spec.parallelism = Some(1 + self.cluster.dice.below(4) as i32),
            1 => job.spec.suspend = Some(!job.spec.suspend.unwrap_or(false)),
            2 => job.spec.run_id = Some(format!("run-{}", self.cluster.version)),
            3 if job.spec.uuid.len() > 1 => {
                let at = self.cluster.dice.below(job.spec.uuid.len());
                let uid = job.spec.uuid.remove(at);
                self.stored.retain(|(of, _, known)| of != name || *known != uid);
                self.cluster.forget_created();
            }
            4 => return self.delete_job(name),
            5 => {
                let policy = job.spec.firmware_policy.take();
                job.spec.firmware_policy = policy.is_none().then(FirmwarePolicy::default);
            }
            _ => {
                let all: Vec<String> =
                    self.cluster.devices.iter().flat_map(|device| device.uids.clone()).collect();
                let uid = all[self.cluster.dice.below(all.len())].clone();
                if !job.spec.uuid.contains(&uid) {
                    job.spec.uuid.push(uid);
                    // A create that was on its way when the uid left may have landed since.
                    self.cluster.forget_created();
                }
            }
        }
        job.metadata.generation = job.metadata.generation.map(|generation| generation + 1);
        self.cluster.put_job(job);
    }

    /// Ends the faults, so that what is left can end too.
    pub fn calm_down(&mut self) {
        self.faults = Faults::default();
        let suspended: Vec<FlashJob> = self
            .cluster
            .jobs
            .values()
            .filter(|job| job.spec.suspend == Some(true))
            .cloned()
            .collect();
        for mut job in suspended {
            job.spec.suspend = None;
            self.cluster.put_job(job);
        }
        self.show_devices();
    }

    // ---- what must hold at every step ----

    fn check(&mut self) {
        let mut flashers: HashMap<usize, usize> = HashMap::new();
        for container in self.cluster.containers.values() {
            *flashers.entry(container.device).or_default() += 1;
        }
        assert!(flashers.values().all(|count| *count <= 1), "two flashers on one device");
        assert!(self.cluster.created.values().all(|count| *count <= 1), "an attempt had two Pods");
        for (name, job) in &self.cluster.jobs {
            let parallelism = job.spec.parallelism.unwrap_or(10) as usize;
            let most = self.most.entry(name.clone()).or_default();
            *most = (*most).max(parallelism);
            let owned = self.cluster.pods.values().filter(|pod| {
                pod.labels().get(label::APP) == Some(name) && pod.labels().contains_key(label::RUN)
            });
            let ended = |pod: &&k8s_openapi::api::core::v1::Pod| {
                !matches!(
                    pod.status.as_ref().and_then(|status| status.phase.as_deref()),
                    Some("Succeeded" | "Failed")
                )
            };
            let at_work = owned.filter(ended).count();
            assert!(at_work <= *most, "{at_work} Pods at work, {most} allowed");
            let pooled = self.cluster.services.values().filter(|service| {
                service.labels().get(label::APP) == Some(name)
                    && service.annotations().contains_key(annotation::POOL)
            });
            assert!(pooled.count() <= *most, "more pooled Services than allowed");
        }
    }

    fn check_create(&mut self, job: &str, pod: &k8s_openapi::api::core::v1::Pod) {
        let (uid, run) = (pod.labels()[label::UUID].clone(), pod.labels()[label::RUN].clone());
        let known = self.stored.contains(&(job.to_owned(), run, uid.clone()));
        assert!(
            !known || self.cluster.pods.contains_key(&pod.name_any()),
            "device {uid} has a stored result and starts again"
        );
        assert!(
            !self.deleted_services.contains(&pod.name_any()),
            "device {uid} starts at the address of a Service that was deleted"
        );
        let (device, now) = (self.cluster.device_of(&uid), self.cluster.now);
        let address = address(pod);
        let mut late = self.cluster.unflashed.iter().filter(|(of, other, at)| {
            Some(of) == address.as_ref() && *other != device && after(*at, 60) > now
        });
        assert!(
            !self.undisturbed || late.next().is_none(),
            "a late callback would reach the next device's Pod {} of {job}: {:?} at {now}",
            pod.name_any(),
            self.cluster.unflashed
        );
    }

    fn check_status(&self, name: &str, job: &Job, made: &Plan) {
        let (Some(status), Ok(spec)) = (&made.status, &job.spec) else { return };
        let Some(counts) = status.counts else { return };
        if status.run.as_ref() != Some(&spec.run) {
            return;
        }
        let sum = counts.pending
            + counts.active
            + counts.verifying
            + counts.completed
            + counts.failed
            + counts.skipped;
        assert_eq!(sum, counts.total, "the counts do not add up: {counts:?}");
        assert_eq!(counts.total as usize, spec.uuid.len());
        for (list, count) in [
            (&status.completed_uuids, counts.completed),
            (&status.failed_uuids, counts.failed),
            (&status.skipped_uuids, counts.skipped),
        ] {
            assert_eq!(list.len(), count as usize, "a list and its count differ");
        }
        let over = counts.completed + counts.failed + counts.skipped == counts.total;
        assert_eq!(over, status.phase != Some(Phase::InProgress));
        let most = self.most.get(name).copied().unwrap_or(0).max(spec.parallelism);
        let busy = (counts.active + counts.verifying) as usize;
        if spec.verify.mode == Some(VerifyMode::Required) {
            assert!(busy <= most, "{busy} devices in flight or unproven, {most} allowed");
        }
        assert!(counts.verifying as usize <= 2 * most);
        let failed = counts.failed as usize;
        if spec.max_failed_devices.is_some_and(|budget| failed > budget.of(spec.uuid.len())) {
            let started =
                status.devices.iter().filter(|device| device.state == DeviceState::Exposing);
            let waited = |uid: &str| {
                job.record(uid).is_none_or(|record| record.state == DeviceState::Pending)
            };
            let new = started.filter(|device| {
                waited(&device.uid)
                    && !self.world.memory[&job.key]
                        .in_making
                        .contains_key(&format!("pod/{}", device.pod.as_deref().unwrap_or_default()))
            });
            assert_eq!(new.count(), 0, "a device starts though the failure budget is exceeded");
        }
    }
}

fn check_firmware(job: &Job, made: &Plan) {
    let is_policed = job.spec.as_ref().is_ok_and(|spec| spec.firmware_policy.is_some());
    let mut creates = made.steps.iter().filter(|step| matches!(step, Step::CreatePod(_)));
    assert!(
        !is_policed || job.status.firmware.is_some() || creates.next().is_none(),
        "a device is flashed with firmware that is not proven"
    );
}

fn consult(memory: &mut crate::world::Memory, question: Question) {
    match question {
        Question::Build { attempt, plugin, digest, request } => {
            let built = Built {
                attempt,
                plugin,
                digest,
                firmware: request.firmware.clone(),
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

fn keys(plan: &Plan) -> (Vec<String>, Vec<(String, String)>, Option<Timestamp>) {
    let holds = plan.holds.iter().map(|(identity, uid)| (identity.to_string(), uid.clone()));
    (plan.steps.iter().map(Step::key).collect(), holds.collect(), plan.wake_at)
}
