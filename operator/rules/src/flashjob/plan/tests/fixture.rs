//! Fixture of the tests of this folder: a world with one plugin, jobs from JSON, devices.

use std::sync::Arc;

use flashjob_api::{DeviceState, Disruption, FINALIZER, FlashJob, FlashJobStatus};
use flashjob_types::plugin::{Arg, EnvValue, FlashPod, Port, Proof, Protocol, Verdict};
use flashjob_types::{CallError, Digest};
use hashbrown::HashSet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use crate::flashjob::grants::{self, Grants};
use crate::flashjob::observed::{
    self, Built, Instance, Job, JobKey, Judged, PluginView, Question, ReadyPlugin, Service, after,
};
use crate::flashjob::plan::{Plan, Step, plan};
use crate::world::{Rules, World};

pub fn key(name: &str) -> JobKey {
    JobKey { namespace: "fleet".into(), name: name.into() }
}

pub fn digest() -> Digest {
    Digest::of(b"a plugin")
}

pub fn plugin(name: &str, kind: &str) -> PluginView {
    PluginView {
        name: name.into(),
        reference: format!("registry.example/{name}:1"),
        device_types: vec![kind.parse().expect("a device type")],
        any_type: false,
        is_loading: false,
        ready: Ok(ReadyPlugin { digest: digest(), version: "1.0.0".into() }),
        digests: vec![digest()],
        settings: serde_json::Map::new(),
        flash_image: None,
        locked_settings: serde_json::Map::new(),
        grants: Arc::new(Grants::default()),
    }
}

pub fn world() -> World {
    let mut rules = Rules::default();
    // Most tests count Pods and Services only.
    let policy = std::sync::Arc::make_mut(&mut rules.policy);
    policy.pods.disruption = Disruption::Allow;
    World::new(vec![plugin("esp32", "esp32"), plugin("usb", "usb")], rules)
}

/// A FlashJob named `name`; `spec` overrides the minimal spec.
pub fn job(name: &str, uids: &[&str], spec: &Value) -> FlashJob {
    let mut full =
        json!({"uuid": uids, "firmware": "registry.example/firmware:2", "version": "2"});
    json_patch::merge(&mut full, spec);
    let metadata = json!({
        "name": name, "namespace": "fleet", "uid": format!("uid-of-{name}"), "generation": 1,
        "resourceVersion": "1", "finalizers": [FINALIZER],
    });
    serde_json::from_value(json!({"metadata": metadata, "spec": full})).expect("a FlashJob")
}

/// An answer with one port, and the version in the environment.
pub fn flash_pod(version: &str) -> FlashPod {
    FlashPod {
        args: vec![Arg::ExternalAddress],
        env: vec![("VERSION".into(), EnvValue::Literal(version.into()))],
        ports: vec![Port { name: "ota".into(), number: 4433, protocol: Protocol::Tcp }],
        ..grants::tests::flash_pod("registry.example/flasher:1")
    }
}

/// A Pod as the Go operator created it: none of our labels, the endpoint in the environment.
pub fn pod_of_the_go_operator(job: &str, uid: &str, endpoint: &str) -> Pod {
    let owner = json!({
        "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashJob", "name": job,
        "uid": format!("uid-of-{job}"),
    });
    let metadata = json!({
        "name": format!("{job}-{uid}"), "namespace": "fleet", "resourceVersion": "1",
        "uid": "go-pod", "labels": {"app": job, "uuid": uid}, "ownerReferences": [owner],
    });
    let container = json!({
        "name": "flash", "image": "i", "env": [{"name": "HOST_ENDPOINT", "value": endpoint}],
    });
    let spec = json!({"nodeName": "node", "containers": [container]});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a Pod")
}

/// One job in its own world, planned step by step.
pub struct Case {
    pub world: World,
    pub job: FlashJob,
    pub now: Timestamp,
    /// True if the load balancer works.
    pub balanced: bool,
    version: u64,
}

impl Case {
    pub fn new(uids: &[&str], spec: &Value) -> Self {
        let now = Timestamp::from_second(1_700_000_000).expect("an instant");
        let mut case =
            Self { world: world(), job: job("job", uids, spec), now, balanced: true, version: 10 };
        for (index, uid) in uids.iter().enumerate() {
            case.device(
                uid,
                &[
                    ("DEVICE", "esp32"),
                    ("HOST_ENDPOINT", &format!("10.0.0.{index}")),
                    ("VERSION", "1"),
                ],
            );
        }
        case.see_job();
        case
    }

    pub fn device(&mut self, uid: &str, properties: &[(&str, &str)]) {
        self.device_in("fleet", uid, properties);
    }

    pub fn device_in(&mut self, namespace: &str, uid: &str, properties: &[(&str, &str)]) {
        let nodes = vec!["node".to_owned()];
        self.world.devices.see(Instance::new(
            namespace,
            &format!("akri-{uid}"),
            uid,
            nodes,
            properties.iter().copied(),
        ));
    }

    pub fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    pub fn see_job(&mut self) {
        self.job.metadata.resource_version = Some(self.next_version());
        self.world.see_job(Job::of(self.job.clone()));
    }

    pub fn spec(&mut self, change: &Value) {
        let mut spec = serde_json::to_value(&self.job.spec).expect("JSON");
        json_patch::merge(&mut spec, change);
        self.job.spec = serde_json::from_value(spec).expect("a spec");
        self.see_job();
    }

    /// Returns a plan without carrying it out.
    pub fn plan(&mut self) -> Plan {
        let observed = self.world.observe(&key("job"), self.now).expect("the job");
        let plan = plan(&observed);
        self.world.set_holds(&key("job"), plan.holds.clone());
        plan
    }

    /// Plans, answers questions with `answer` and stores the status, until nothing more changes.
    pub fn settle_with(&mut self, answer: &dyn Fn() -> Result<FlashPod, CallError>) -> Plan {
        loop {
            let plan = self.plan();
            let memory = self.world.memory.entry(key("job")).or_default();
            let has_questions = !plan.questions.is_empty();
            for question in &plan.questions {
                match question {
                    Question::Build {
                        attempt,
                        plugin,
                        digest,
                        instance,
                        configuration,
                        request,
                    } => {
                        let built = Built {
                            attempt: attempt.clone(),
                            plugin: plugin.clone(),
                            digest: digest.clone(),
                            firmware: request.firmware.clone(),
                            instance: instance.clone(),
                            configuration: *configuration,
                            pod: answer(),
                        };
                        memory
                            .answers_mut()
                            .built
                            .insert(request.device.uid.clone(), Arc::new(built));
                    }
                    Question::Judge { pod_uid, outcome, .. } => {
                        let verdict = match outcome.exit_code {
                            Some(0) => Verdict::Flashed(Proof::ReportedVersion),
                            Some(3) => Verdict::GiveUp("no".into()),
                            _ => Verdict::Retry("broke".into()),
                        };
                        memory
                            .answers_mut()
                            .judged
                            .insert(pod_uid.clone(), Arc::new(Judged::Asked(Ok(verdict))));
                    }
                }
            }
            let changed = plan.status.is_some() && plan.status != self.job.status;
            if changed {
                self.job.status.clone_from(&plan.status);
                self.see_job();
            }
            if !has_questions && !changed {
                return plan;
            }
        }
    }

    pub fn settle(&mut self) -> Plan {
        self.settle_with(&|| Ok(flash_pod("2")))
    }

    pub fn pass(&mut self, seconds: i64) -> Plan {
        self.now = after(self.now, seconds);
        self.settle()
    }

    /// Carries out the creates of a plan; every Service has an address, the requested one or
    /// `192.0.…`.
    pub fn carry_out(&mut self, plan: &Plan) {
        for step in &plan.steps {
            match step {
                Step::CreateService(service) => {
                    let mut service = *service.clone();
                    service.metadata.uid = Some(format!("uid-{}", self.next_version()));
                    service.metadata.resource_version = Some(self.next_version());
                    let requested_ip =
                        service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.clone());
                    let (high, low) = (2 + self.version / 256, self.version % 256);
                    let ip = requested_ip.unwrap_or_else(|| format!("192.0.{high}.{low}"));
                    let status = json!({"loadBalancer": {"ingress": [{"ip": ip}]}});
                    if self.balanced {
                        service.status = serde_json::from_value(status).expect("a status");
                    }
                    self.world.see_service(Service::of(&service).expect("owned"));
                }
                Step::CreatePod(pod) => {
                    let mut pod = *pod.clone();
                    pod.metadata.uid = Some(format!("uid-{}", self.next_version()));
                    self.see_pod(pod);
                }
                _ => {}
            }
        }
    }

    /// Starts a new process, which knows only the devices so far.
    pub fn new_process(&mut self) {
        let devices = std::mem::take(&mut self.world.devices);
        self.world = world();
        self.world.devices = devices;
    }

    /// Makes the job one of a FlashRollout.
    pub fn belong_to_a_rollout(&mut self) {
        self.job.metadata.owner_references = Some(vec![OwnerReference {
            api_version: format!("{}/v1alpha1", flashjob_api::GROUP),
            kind: "FlashRollout".to_owned(),
            name: "fleet".to_owned(),
            uid: "u".to_owned(),
            controller: Some(true),
            ..OwnerReference::default()
        }]);
    }

    /// Removes all Services from the watch.
    pub fn lose_services(&mut self) {
        for (job, name, uid) in self.world.services_not_in(&HashSet::new()) {
            self.world.lose_service(&job, &name, &uid);
        }
    }

    pub fn see_pod(&mut self, mut pod: Pod) {
        pod.metadata.resource_version = Some(self.next_version());
        self.world.see_pod(observed::Pod::of(&pod).expect("owned"));
    }

    /// Starts the Pods of the first devices, and returns these Pods.
    pub fn start(&mut self) -> Vec<Pod> {
        let services = self.settle();
        self.carry_out(&services);
        let pods = self.settle();
        self.carry_out(&pods);
        self.settle();
        let created_pods = pods.steps.into_iter().filter_map(|step| match step {
            Step::CreatePod(pod) => Some(*pod),
            _ => None,
        });
        let mut created_pods: Vec<Pod> = created_pods.collect();
        for pod in &mut created_pods {
            let name = pod.metadata.name.clone().expect("a name");
            let observed = self.world.observe(&key("job"), self.now).expect("the job");
            pod.metadata.uid = observed.pod(&name).map(|pod| pod.uid.clone());
            pod.spec.as_mut().expect("a spec").node_name = Some("node".to_owned());
            let running = json!({"phase": "Running", "startTime": self.now.to_string()});
            pod.status = serde_json::from_value(running).expect("a status");
            self.see_pod(pod.clone());
        }
        created_pods
    }

    pub fn report(&mut self, pod: &Pod, status: &Value) {
        let mut pod = pod.clone();
        pod.status = serde_json::from_value(status.clone()).expect("a status");
        self.see_pod(pod);
    }

    pub fn end(&mut self, pod: &Pod, code: i32) {
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let terminated = json!({"exitCode": code, "finishedAt": self.now.to_string()});
        let container = json!({
            "name": "flash", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": terminated},
        });
        self.report(pod, &json!({"phase": phase, "containerStatuses": [container]}));
    }

    pub fn status(&self) -> FlashJobStatus {
        self.job.status.clone().unwrap_or_default()
    }

    /// State and reason of a device in the stored status.
    pub fn stands(&self, uid: &str) -> (DeviceState, String) {
        let status = self.status();
        let device = status.devices.iter().find(|device| device.uid == uid);
        device.map_or((DeviceState::Pending, String::new()), |device| {
            (device.state, device.reason.clone().unwrap_or_default())
        })
    }
}

/// Status of a Pod whose container with that name is in a given state.
pub fn container(name: &str, state: &Value) -> Value {
    json!({
        "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": state,
    })
}

/// Number of Pods that a plan creates.
pub fn creates_pod(plan: &Plan) -> usize {
    plan.steps.iter().filter(|step| matches!(step, Step::CreatePod(_))).count()
}

/// Number of Pods, or else Services, that a plan deletes.
pub fn deletes(plan: &Plan, kind: &str) -> usize {
    let deletes = |step: &&Step| match kind {
        "pod" => matches!(step, Step::DeletePod { .. }),
        _ => matches!(step, Step::DeleteService { .. }),
    };
    plan.steps.iter().filter(deletes).count()
}

/// A property of an Instance that the fixture's plugin serves.
pub const ESP32: (&str, &str) = ("DEVICE", "esp32");
