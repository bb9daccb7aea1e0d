//! Runs the operator's rules on one FlashJob until nothing changes. The plugins are called; the
//! API server and the load balancer are simulated: a Service gets its address at once, and a Pod
//! is only recorded.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use flashjob_api::{DeviceState, FlashJob, FlashJobStatus, reason};
use flashjob_config::Access;
use flashjob_config::OperatorConfig;
use flashjob_config::standing::{ConfiguredPlugin, view};
use flashjob_plugin_host::{CallError, Plugin};
use flashjob_rules::flashjob::observed::{
    Built, Job, PluginView, Question, Service, whole_seconds,
};
use flashjob_rules::flashjob::plan::{Step, plan};
use flashjob_rules::world::World;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::Value;

use super::served::Served;
use super::subject::Subject;
use crate::failure::{Code, Failure};

/// Limit on the number of rounds. A device needs five at most.
const ROUNDS: usize = 50;

/// Rank of disruption budgets; objects are shown in the order in which they are created.
const BUDGET: u8 = 0;
/// Rank of Services.
const SERVICE: u8 = 1;
/// Rank of Pods.
const POD: u8 = 2;

/// Expected outcome for one device.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Uid in the FlashJob.
    pub uid: String,
    /// Name of its Instance.
    pub instance: Option<String>,
    /// Outcome in one word: flash, follow, wait, fail or skip.
    pub verdict: &'static str,
    /// Plugin that is called, with its digest.
    pub plugin: Option<String>,
    /// Reason, if the device is not flashed at once.
    pub reason: Option<String>,
    /// Message that explains the reason.
    pub message: Option<String>,
}

/// Result of a rehearsal.
pub struct RehearsalResult {
    /// Expected outcome for each device, in the order of the FlashJob.
    pub verdicts: Vec<Verdict>,
    /// Objects that would be created, in this order.
    pub objects: Vec<Value>,
}

/// Simulation of the operator's rules for one FlashJob.
pub struct Rehearsal<'a> {
    world: World,
    job: FlashJob,
    plugins: &'a [Served],
    address: IpAddr,
    now: Timestamp,
    version: u64,
    objects: BTreeMap<(u8, String), Value>,
    answered: HashMap<String, String>,
}

impl<'a> Rehearsal<'a> {
    /// Creates the state on which the rules decide: plugins, devices, and other FlashJobs.
    ///
    /// # Errors
    /// The spec of the FlashJob is invalid.
    pub fn new(
        subject: &Subject,
        config: &OperatorConfig,
        plugins: &'a [Served],
        address: IpAddr,
    ) -> Result<Self, Failure> {
        if let Err(error) = subject.job.spec.effective() {
            let message = format!("FlashJob {}: {error}", subject.job.name_any());
            return Err(Failure::new(Code::Failing, "InvalidSpec", message));
        }
        let access = Access::of(config);
        let mut world = World::new(views(plugins), config.rules(access.trust()));
        for instance in &subject.instances {
            world.devices.see(instance.clone());
        }
        for other in &subject.other_jobs {
            world.see_job(Job::of(other.clone()));
        }
        // What other FlashJobs flash now is locked in the operator too, and devices of this one
        // wait for it.
        world.lock_what_is_stored();
        Ok(Self {
            world,
            job: subject.job.clone(),
            plugins,
            address,
            // Kubernetes stores times without fractions, and planned values are compared with
            // stored ones.
            now: whole_seconds(Timestamp::now()),
            version: 1,
            objects: BTreeMap::new(),
            answered: HashMap::new(),
        })
    }

    /// Runs rounds until nothing changes.
    ///
    /// # Errors
    /// The limit on the number of rounds is reached.
    pub async fn run(mut self) -> Result<RehearsalResult, Failure> {
        self.store(None);
        for _ in 0..ROUNDS {
            if !self.round().await {
                return Ok(self.result());
            }
        }
        let message =
            format!("no final result after {ROUNDS} rounds; please report this as a bug");
        Err(Failure::new(Code::Other, "NoEnd", message))
    }

    /// Makes one plan and carries it out. Returns true if anything changed.
    async fn round(&mut self) -> bool {
        let key = Job::of(self.job.clone()).key;
        let Some(observed) = self.world.observe(&key, self.now) else { return false };
        let plan = plan(&observed);
        let mut moved = false;
        for question in plan.questions {
            moved |= self.answer(&key, question).await;
        }
        for step in plan.steps {
            moved |= self.carry_out(step);
        }
        self.world.set_holds(&key, plan.holds);
        let status = plan.status.filter(|status| Some(status) != self.job.status.as_ref());
        if let Some(status) = status {
            self.store(Some(status));
            moved = true;
        }
        moved
    }

    /// Stores the FlashJob, as the API server would.
    fn store(&mut self, status: Option<FlashJobStatus>) {
        // The cache of the rules takes an object of the same or a lower resourceVersion for a late
        // response, and ignores it.
        self.version += 1;
        self.job.metadata.resource_version = Some(self.version.to_string());
        if status.is_some() {
            self.job.status = status;
        }
        self.world.see_job(Job::of(self.job.clone()));
    }

    async fn answer(
        &mut self,
        key: &flashjob_rules::flashjob::observed::JobKey,
        question: Question,
    ) -> bool {
        let Question::Build { attempt, plugin, digest, instance, configuration, request } =
            question
        else {
            return false;
        };
        let loaded = self.plugins.iter().find(|served| served.config.name == plugin);
        let Some(loaded) = loaded.and_then(|served| served.plugin.as_ref().ok()) else {
            return false;
        };
        let pod = ask(loaded, &request).await;
        let uid = request.device.uid.clone();
        self.answered.insert(uid.clone(), format!("{plugin}@{digest}"));
        let firmware = request.firmware;
        let built =
            Arc::new(Built { attempt, plugin, digest, firmware, instance, configuration, pod });
        let memory = self.world.memory.entry(key.clone()).or_default();
        memory.answers_mut().built.insert(uid, built);
        true
    }

    fn carry_out(&mut self, step: Step) -> bool {
        match step {
            Step::CreateService(mut service) => {
                let is_new = self.note(SERVICE, &*service);
                self.version += 1;
                let name = service.name_any();
                service.metadata.uid = Some(format!("service/{name}"));
                service.metadata.resource_version = Some(self.version.to_string());
                let ingress = core::LoadBalancerIngress {
                    ip: Some(self.address.to_string()),
                    ..core::LoadBalancerIngress::default()
                };
                let balancer = core::LoadBalancerStatus { ingress: Some(vec![ingress]) };
                service.status = Some(core::ServiceStatus {
                    load_balancer: Some(balancer),
                    ..core::ServiceStatus::default()
                });
                if let Some(service) = Service::of(&service) {
                    self.world.see_service(service);
                }
                is_new
            }
            Step::CreatePod(pod) => self.note(POD, &*pod),
            Step::Protect(budget) => self.note(BUDGET, &*budget),
            _ => false,
        }
    }

    /// Records an object that would be created; returns false if it is recorded already.
    fn note<K: kube::Resource<DynamicType = ()> + Serialize>(
        &mut self,
        rank: u8,
        object: &K,
    ) -> bool {
        let name = object.meta().name.clone().unwrap_or_default();
        // Types of k8s-openapi serialize their kind themselves, and never fail.
        let value = serde_json::to_value(object).unwrap_or_default();
        self.objects.insert((rank, name), value).is_none()
    }

    fn result(self) -> RehearsalResult {
        let status = self.job.status.clone().unwrap_or_default();
        let records: HashMap<&str, _> =
            status.devices.iter().map(|device| (device.uid.as_str(), device)).collect();
        let verdict = |uid: &String| {
            let record = records.get(uid.as_str());
            let sighted = self.world.devices.by_uid(uid);
            let has_pod = record
                .and_then(|record| record.pod.as_ref())
                .is_some_and(|pod| self.objects.contains_key(&(POD, pod.clone())));
            let mut reason = record.and_then(|record| record.reason.clone());
            let mut message = record.and_then(|record| record.message.clone());
            let state = record.map(|record| record.state);
            let listed = |uids: &[String]| uids.contains(uid);
            let word = match state {
                _ if has_pod => "flash",
                Some(DeviceState::Failed) => "fail",
                Some(DeviceState::Skipped) => "skip",
                _ if listed(&status.failed_uuids) => "fail",
                _ if listed(&status.skipped_uuids) => "skip",
                _ if sighted.is_none() => {
                    // The operator waits for the Instance first; a preview does not.
                    reason = Some(reason::UNKNOWN_DEVICE.name.to_owned());
                    message = Some("Akri has no Instance with this uid".to_owned());
                    "fail"
                }
                _ if reason.is_some() => "wait",
                _ => "follow",
            };
            Verdict {
                uid: uid.clone(),
                instance: sighted.map(|instance| instance.name.clone()),
                verdict: word,
                plugin: self.answered.get(uid).cloned(),
                reason: reason.filter(|_| word != "flash"),
                message: message.filter(|_| word != "flash"),
            }
        };
        let mut verdicts: Vec<Verdict> = self.job.spec.uuid.iter().map(verdict).collect();
        // If no device is flashed, no other follows it: all wait for the reason in the status.
        if !verdicts.iter().any(|verdict| verdict.verdict == "flash") {
            // Of several reasons, the status does not say which device has which.
            let mut reasons = status.waiting.keys();
            let reason = reasons.next().filter(|_| reasons.next().is_none());
            for verdict in verdicts.iter_mut().filter(|verdict| verdict.verdict == "follow") {
                verdict.verdict = "wait";
                verdict.reason = reason.cloned();
                verdict.message.clone_from(&status.message);
            }
        }
        RehearsalResult { verdicts, objects: self.objects.into_values().collect() }
    }
}

async fn ask(
    plugin: &Plugin,
    request: &flashjob_plugin_host::types::Request,
) -> Result<flashjob_plugin_host::types::FlashPod, CallError> {
    plugin.validate_settings(&request.settings).await?;
    plugin.build(request).await
}

/// Returns the views of the plugins on which the operator's rules decide.
fn views(plugins: &[Served]) -> Vec<PluginView> {
    let configured = plugins.iter().map(|Served { config, plugin, .. }| {
        let mut configured = ConfiguredPlugin::loading(config.clone());
        match plugin {
            Ok(plugin) => configured.serve(plugin),
            Err(cause) => configured.withhold(cause),
        }
        configured
    });
    let configured: Vec<ConfiguredPlugin> = configured.collect();
    let digest =
        |served: &Served| served.plugin.as_ref().ok().map(|plugin| plugin.digest().clone());
    let views = plugins.iter().enumerate();
    views
        .map(|(index, served)| view(&configured, index, digest(served).into_iter().collect()))
        .collect()
}
