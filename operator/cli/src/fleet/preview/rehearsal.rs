//! Runs the operator's rules on one FlashJob until they want nothing new. The plugins are asked;
//! the API server and the load balancer are played: a Service has its address at once, and a Pod
//! is only noted.

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

/// More rounds than any FlashJob needs: a device goes through five at most.
const ROUNDS: usize = 50;

/// Order in which objects are shown: that in which they are created.
const BUDGET: u8 = 0;
/// The same for Services.
const SERVICE: u8 = 1;
/// The same for Pods.
const POD: u8 = 2;

/// Prospect of one device.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The uid in the FlashJob.
    pub uid: String,
    /// Name of its Instance.
    pub instance: Option<String>,
    /// In one word: flash, follow, wait, fail or skip.
    pub verdict: &'static str,
    /// The plugin that is asked, with its digest.
    pub plugin: Option<String>,
    /// The reason, where the device is not flashed at once.
    pub reason: Option<String>,
    /// The same in words.
    pub message: Option<String>,
}

/// Result of a rehearsal.
pub struct RehearsalResult {
    /// Prospect of each device, in the order of the FlashJob.
    pub verdicts: Vec<Verdict>,
    /// Objects that would be created, in this order.
    pub objects: Vec<Value>,
}

/// One FlashJob before the operator's rules.
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
    /// Puts everything into its place.
    ///
    /// # Errors
    /// The FlashJob is refused.
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
        for other in &subject.others {
            world.see_job(Job::of(other.clone()));
        }
        world.lock_what_is_stored();
        Ok(Self {
            world,
            job: subject.job.clone(),
            plugins,
            address,
            now: whole_seconds(Timestamp::now()),
            version: 1,
            objects: BTreeMap::new(),
            answered: HashMap::new(),
        })
    }

    /// Lets the rules decide until they want nothing new.
    ///
    /// # Errors
    /// They never do.
    pub async fn run(mut self) -> Result<RehearsalResult, Failure> {
        self.store(None);
        for _ in 0..ROUNDS {
            if !self.round().await {
                return Ok(self.shown());
            }
        }
        let message = format!("no end after {ROUNDS} rounds; please report this as a bug");
        Err(Failure::new(Code::Other, "NoEnd", message))
    }

    /// One plan, carried out. Returns whether anything new came of it.
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
        let Question::Build { attempt, plugin, digest, request } = question else { return false };
        let loaded = self.plugins.iter().find(|served| served.config.name == plugin);
        let Some(loaded) = loaded.and_then(|served| served.plugin.as_ref().ok()) else {
            return false;
        };
        let pod = ask(loaded, &request).await;
        let uid = request.device.uid.clone();
        self.answered.insert(uid.clone(), format!("{plugin}@{digest}"));
        let firmware = request.firmware;
        let built = Arc::new(Built { attempt, plugin, digest, firmware, pod });
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

    /// Notes an object that would be created; false for one that is known.
    fn note<K: kube::Resource<DynamicType = ()> + Serialize>(
        &mut self,
        rank: u8,
        object: &K,
    ) -> bool {
        let name = object.meta().name.clone().unwrap_or_default();
        // Types of k8s-openapi write their kind themselves, and never fail.
        let value = serde_json::to_value(object).unwrap_or_default();
        self.objects.insert((rank, name), value).is_none()
    }

    fn shown(self) -> RehearsalResult {
        let status = self.job.status.clone().unwrap_or_default();
        let records: HashMap<&str, _> =
            status.devices.iter().map(|device| (device.uid.as_str(), device)).collect();
        let verdict = |uid: &String| {
            let record = records.get(uid.as_str());
            let sighted = self.world.devices.by_uid(uid);
            let begun = record
                .and_then(|record| record.pod.as_ref())
                .is_some_and(|pod| self.objects.contains_key(&(POD, pod.clone())));
            let mut reason = record.and_then(|record| record.reason.clone());
            let mut message = record.and_then(|record| record.message.clone());
            let state = record.map(|record| record.state);
            let listed = |uids: &[String]| uids.contains(uid);
            let word = match state {
                _ if begun => "flash",
                Some(DeviceState::Failed) => "fail",
                Some(DeviceState::Skipped) => "skip",
                _ if listed(&status.failed_uuids) => "fail",
                _ if listed(&status.skipped_uuids) => "skip",
                _ if sighted.is_none() => {
                    // The operator waits for it first; here nobody comes any more.
                    reason = Some(reason::UNKNOWN_DEVICE.name.to_owned());
                    message = Some("no Akri Instance has this uid".to_owned());
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
        // Where nothing begins, nothing follows: all wait for what the status says.
        if !verdicts.iter().any(|verdict| verdict.verdict == "flash") {
            let reason = status.waiting.keys().next();
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

/// The plugins as the operator shows them to its rules, each beside the others.
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
