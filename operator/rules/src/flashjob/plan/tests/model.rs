//! Model of the operator's environment: an API server, kubelets, a load balancer and devices.
//! Deterministic for a given seed.

use std::collections::{BTreeMap, VecDeque};

use flashjob_api::FlashJob;
use hashbrown::HashMap;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube_core::ResourceExt;
use serde_json::{Value, json};

use crate::flashjob::labels::label;
use crate::flashjob::observed::after;

/// Pseudo-random numbers, the same for the same seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit.max(1) as u64).expect("small")
    }

    pub fn percent(&mut self, share: usize) -> bool {
        self.below(100) < share
    }
}

/// Event that a watch reports.
pub enum Event {
    Job(Box<FlashJob>),
    JobGone(Box<FlashJob>),
    Pod(Box<Pod>),
    PodGone(Box<Pod>),
    Service(Box<Service>),
    ServiceGone(Box<Service>),
}

/// The external address in a Pod's spec.
pub fn address(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.containers[0].args.as_ref()?.first().cloned()
}

/// Longest time in seconds that a connected kubelet takes to end a container whose Pod is gone.
const KUBELET_SECONDS: usize = 100;

/// Name of the node of a Pod; each has its own.
fn node_of(pod: &str) -> String {
    format!("node-of-{pod}")
}

/// Predetermined course of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Updates,
    /// The container succeeds, but the device is unchanged.
    Pretends,
    WrongVersion,
    Fails,
    GivesUp,
    Hangs,
    ImageMissing,
    Unschedulable,
    NotAttached,
}

/// A running container, which may outlive its Pod.
pub struct Container {
    pub device: usize,
    pub ends: Timestamp,
    pub dies: Timestamp,
    pub fate: Fate,
    pub version: String,
}

pub struct Device {
    pub uids: Vec<String>,
    pub version: Option<String>,
}

/// The cluster.
pub struct Cluster {
    pub now: Timestamp,
    pub dice: Dice,
    pub version: u64,
    pub jobs: BTreeMap<String, FlashJob>,
    pub pods: BTreeMap<String, Pod>,
    pub services: BTreeMap<String, Service>,
    /// Watch events not delivered yet: FlashJobs, Pods, Services.
    pub events: [VecDeque<Event>; 3],
    pub devices: Vec<Device>,
    /// By Pod uid.
    pub containers: HashMap<String, Container>,
    pub fates: HashMap<String, Fate>,
    pub addresses: usize,
    pub created: HashMap<String, u32>,
    /// Nodes, one for each Pod, that have no connection until that time.
    pub lost_nodes: HashMap<String, Timestamp>,
    /// Attempts that ended without success: address, device and time.
    pub unflashed: Vec<(String, usize, Timestamp)>,
    attach_failures: usize,
}

impl Cluster {
    pub fn new(seed: u64, devices: Vec<Device>, addresses: usize) -> Self {
        Self {
            now: Timestamp::from_second(1_700_000_000).expect("an instant"),
            dice: Dice::new(seed),
            version: 100,
            jobs: BTreeMap::new(),
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            events: Default::default(),
            devices,
            containers: HashMap::new(),
            fates: HashMap::new(),
            addresses,
            created: HashMap::new(),
            lost_nodes: HashMap::new(),
            unflashed: Vec::new(),
            attach_failures: 3,
        }
    }

    pub fn device_of(&self, uid: &str) -> usize {
        self.devices
            .iter()
            .position(|device| device.uids.iter().any(|device_uid| device_uid == uid))
            .expect("a device")
    }

    fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    pub fn put_job(&mut self, mut job: FlashJob) {
        job.metadata.resource_version = Some(self.next_version());
        self.jobs.insert(job.name_any(), job.clone());
        self.events[0].push_back(Event::Job(Box::new(job)));
    }

    pub fn remove_job(&mut self, name: &str) {
        if let Some(job) = self.jobs.remove(name) {
            self.events[0].push_back(Event::JobGone(Box::new(job)));
        }
    }

    pub fn put_pod(&mut self, mut pod: Pod) -> Pod {
        pod.metadata.resource_version = Some(self.next_version());
        self.pods.insert(pod.name_any(), pod.clone());
        self.events[1].push_back(Event::Pod(Box::new(pod.clone())));
        pod
    }

    /// Creates a Pod. None: a Pod with that name already exists.
    pub fn create_pod(&mut self, mut pod: Pod) -> Option<Pod> {
        if self.pods.contains_key(&pod.name_any()) {
            return None;
        }
        *self.created.entry(pod.name_any()).or_default() += 1;
        pod.metadata.uid = Some(format!("pod-{}", self.version));
        pod.metadata.creation_timestamp = Some(Time(self.now));
        pod.status = Some(Default::default());
        let fate = self.choose_fate();
        self.fates.insert(pod.metadata.uid.clone().expect("a uid"), fate);
        Some(self.put_pod(pod))
    }

    fn choose_fate(&mut self) -> Fate {
        match self.dice.below(20) {
            0 | 1 => Fate::Fails,
            2 => Fate::Pretends,
            3 => Fate::WrongVersion,
            4 => Fate::GivesUp,
            5 => Fate::Hangs,
            6 => Fate::ImageMissing,
            7 => Fate::Unschedulable,
            8 if self.attach_failures > 0 => {
                self.attach_failures -= 1;
                Fate::NotAttached
            }
            _ => Fate::Updates,
        }
    }

    /// Forgets created Pods: a uid was removed from a job, or added again as a new device, whose
    /// first attempt has the old name.
    pub fn forget_created(&mut self, job: &str, uid: &str) {
        self.created.retain(|name, _| {
            let pod = self.pods.get(name);
            pod.is_some_and(|pod| {
                pod.labels()[label::APP] != job || pod.labels()[label::UUID] != uid
            })
        });
    }

    pub fn remove_pod(&mut self, name: &str) {
        if let Some(mut pod) = self.pods.remove(name) {
            // A container that still runs is ended by its kubelet once that is connected.
            let connected = self.lost_nodes.get(&node_of(name)).map_or(self.now, |at| *at);
            let stopped = after(connected, self.dice.below(KUBELET_SECONDS) as i64);
            if let Some(container) = pod.uid().and_then(|uid| self.containers.get_mut(&uid)) {
                container.dies = container.dies.min(stopped);
            }
            pod.metadata.resource_version = Some(self.next_version());
            self.events[1].push_back(Event::PodGone(Box::new(pod)));
        }
    }

    /// Carries out an ordinary delete: a Pod without a node is removed at once, any other when its
    /// container has ended.
    pub fn delete_pod(&mut self, name: &str) -> Option<Pod> {
        let mut pod = self.pods.get(name)?.clone();
        let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        if !bound {
            self.remove_pod(name);
            return Some(pod);
        }
        if pod.metadata.deletion_timestamp.is_none() {
            pod.metadata.deletion_timestamp = Some(Time(self.now));
            return Some(self.put_pod(pod));
        }
        Some(pod)
    }

    pub fn put_service(&mut self, mut service: Service) -> Service {
        service.metadata.resource_version = Some(self.next_version());
        self.services.insert(service.name_any(), service.clone());
        self.events[2].push_back(Event::Service(Box::new(service.clone())));
        service
    }

    pub fn create_service(&mut self, mut service: Service) -> Option<Service> {
        if self.services.contains_key(&service.name_any()) {
            return None;
        }
        service.metadata.uid = Some(format!("service-{}", self.version));
        Some(self.put_service(service))
    }

    pub fn remove_service(&mut self, name: &str) {
        if let Some(mut service) = self.services.remove(name) {
            service.metadata.resource_version = Some(self.next_version());
            self.events[2].push_back(Event::ServiceGone(Box::new(service)));
        }
    }

    /// Garbage-collects one Service whose job was deleted. False: there is none.
    pub fn collect_garbage(&mut self) -> bool {
        let mut services = self.services.iter();
        let orphan =
            services.find(|(_, service)| !self.jobs.contains_key(&service.labels()[label::APP]));
        let Some(name) = orphan.map(|(name, _)| name.clone()) else { return false };
        self.remove_service(&name);
        true
    }

    /// Gives one Service an address, if one is free.
    pub fn balance(&mut self) -> bool {
        let address = |service: &Service| {
            service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?.ip.clone()
        };
        let used: Vec<String> = self.services.values().filter_map(address).collect();
        let free = (0..self.addresses)
            .map(|number| format!("192.0.2.{number}"))
            .find(|free| !used.contains(free));
        let Some(waiting) =
            self.services.values().find(|service| address(service).is_none()).cloned()
        else {
            return false;
        };
        let Some(free) = free else { return false };
        let mut service = waiting;
        let status = json!({"loadBalancer": {"ingress": [{"ip": free}]}});
        service.status = serde_json::from_value(status).expect("a status");
        self.put_service(service);
        true
    }

    fn report(&mut self, name: &str, status: Value, node: bool) {
        let Some(mut pod) = self.pods.get(name).cloned() else { return };
        if node && let Some(spec) = &mut pod.spec {
            spec.node_name = Some(node_of(name));
        }
        pod.status = serde_json::from_value(status).expect("a status");
        self.put_pod(pod);
    }

    fn end(&mut self, name: &str, code: i32, reason: &str) {
        if let Some(pod) = self.pods.get(name) {
            let device = self.device_of(&pod.labels()[label::UUID]);
            match code {
                // A device that was flashed later does not connect for an earlier attempt.
                0 => self.unflashed.retain(|(_, other, _)| *other != device),
                _ => {
                    self.unflashed.extend(address(pod).map(|address| (address, device, self.now)))
                }
            }
        }
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let terminated = json!({"exitCode": code, "finishedAt": self.now.to_string()});
        let status = json!({"phase": phase, "reason": reason, "containerStatuses": [{
            "name": "flash", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": terminated},
        }]});
        self.report(name, status, true);
    }

    /// Advances the kubelet's work on one Pod. False: there is nothing to do for it now.
    pub fn keep(&mut self, name: &str) -> bool {
        let Some(pod) = self.pods.get(name).cloned() else { return false };
        let uid = pod.uid().unwrap_or_default();
        let fate = self.fates.get(&uid).copied().unwrap_or(Fate::Updates);
        let phase =
            pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        let deleting = pod.metadata.deletion_timestamp.is_some();
        if matches!(phase.as_str(), "Succeeded" | "Failed") {
            if deleting {
                self.remove_pod(name);
            }
            return deleting;
        }
        if deleting {
            let ran = self.containers.remove(&uid).is_some();
            let called = self.unflashed.len();
            self.end(name, 137, "");
            if !ran {
                // Its device was never asked to connect.
                self.unflashed.truncate(called);
            }
            return true;
        }
        if let Some(container) = self.containers.get(&uid) {
            if container.ends > self.now {
                return false;
            }
            self.finish(name, &uid);
            return true;
        }
        if !phase.is_empty() {
            return false;
        }
        let waiting = |reason: &str| {
            json!({
                "phase": "Pending", "startTime": self.now.to_string(), "containerStatuses": [{
                    "name": "flash", "image": "i", "imageID": "", "ready": false,
                    "restartCount": 0, "state": {"waiting": {"reason": reason}},
                }],
            })
        };
        match fate {
            Fate::Unschedulable => {
                let condition =
                    json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"});
                self.report(name, json!({"phase": "Pending", "conditions": [condition]}), false);
            }
            Fate::ImageMissing => self.report(name, waiting("ErrImagePull"), true),
            Fate::NotAttached => self.report(
                name,
                json!({"phase": "Failed", "reason": "UnexpectedAdmissionError"}),
                true,
            ),
            _ => self.start(name, &pod, fate),
        }
        true
    }

    fn start(&mut self, name: &str, pod: &Pod, fate: Fate) {
        let deadline =
            pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).unwrap_or(900);
        let seconds = if fate == Fate::Hangs { deadline } else { 1 + self.dice.below(40) as i64 };
        let spec = pod.spec.as_ref().map(|spec| &spec.containers[0]);
        let version = spec.and_then(|container| {
            container.env.iter().flatten().find(|variable| variable.name == "VERSION")
        });
        let container = Container {
            device: self.device_of(&pod.labels()[label::UUID]),
            ends: after(self.now, seconds),
            dies: after(self.now, deadline),
            fate,
            version: version.and_then(|variable| variable.value.clone()).unwrap_or_default(),
        };
        self.containers.insert(pod.uid().unwrap_or_default(), container);
        self.report(name, json!({"phase": "Running", "startTime": self.now.to_string()}), true);
    }

    /// Applies the effect of the container, and reports its end if its Pod still exists.
    fn finish(&mut self, name: &str, uid: &str) {
        let Some(container) = self.containers.remove(uid) else { return };
        let device = &mut self.devices[container.device];
        match container.fate {
            // It was ended before it had sent the firmware.
            _ if container.ends > self.now => {}
            Fate::Updates => device.version = Some(container.version),
            Fate::WrongVersion => device.version = Some("strange".to_owned()),
            _ => {}
        }
        match container.fate {
            Fate::Fails => self.end(name, 1, ""),
            Fate::GivesUp => self.end(name, 3, ""),
            Fate::Hangs => self.end(name, 137, "DeadlineExceeded"),
            _ => self.end(name, 0, ""),
        }
    }

    /// Ends containers without a Pod too.
    pub fn finish_orphans(&mut self) {
        let over: Vec<String> = self
            .containers
            .iter()
            .filter(|(_, container)| container.ends.min(container.dies) <= self.now)
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in over {
            if !self.pods.values().any(|pod| pod.uid().as_deref() == Some(&uid)) {
                self.finish("", &uid);
            }
        }
    }

    /// Version of a node's Lease: that before the loss, while the node is lost.
    pub fn lease_version(&self, node: &str) -> u128 {
        match self.lost_nodes.get(node) {
            Some(until) if *until > self.now => 1,
            _ => u128::from(self.now.as_second().unsigned_abs() / 10),
        }
    }

    /// Garbage-collects a Pod whose node vanished, for a while: its container may still run.
    pub fn lose_node(&mut self, name: &str) {
        let until = after(self.now, self.dice.below(600) as i64);
        self.lost_nodes.insert(node_of(name), until);
        let condition =
            json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"});
        self.report(name, json!({"phase": "Failed", "conditions": [condition]}), false);
        self.remove_pod(name);
    }

    pub fn evict(&mut self, name: &str) {
        let uid = self.pods.get(name).and_then(ResourceExt::uid).unwrap_or_default();
        self.containers.remove(&uid);
        self.report(name, json!({"phase": "Failed", "reason": "Evicted"}), true);
    }
}
