//! A flash Pod, trimmed to what decisions need.

use flashjob_api::GROUP;
use flashjob_plugin_host::Digest;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;

use super::{Identity, JobKey};
use crate::make::{annotation, label};

/// A Pod's end is awaited this long beyond its deadline and grace: kubelets report late.
const OVERDUE_SECONDS: i64 = 60;

/// A flash Pod, ours or the Go operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The job that owns it.
    pub job: JobKey,
    /// Uid of the job that owns it.
    pub job_uid: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Version in the API server.
    pub resource_version: String,
    /// The device, as a uid of the job's spec.
    pub device: String,
    /// The run; None: made by the Go operator.
    pub run: Option<String>,
    /// The attempt, from 1.
    pub attempt: Option<u32>,
    /// What selects it for its Service.
    pub slot: Option<String>,
    /// Plugin and digest that the attempt began with.
    pub plugin: Option<(String, Digest)>,
    /// What it locks.
    pub identities: Vec<Identity>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether a node was found for it.
    pub scheduled: bool,
    /// Why it cannot get on.
    pub waiting: Option<Waiting>,
    /// How it ended, once its end was seen.
    pub ended: Option<Ended>,
    /// Since when its container may run: when the kubelet took it, else when it was scheduled.
    pub runs_since: Option<Timestamp>,
    /// Seconds for which its container may still run after it was last seen.
    pub may_run_seconds: i64,
    /// Set when it left the API server before its end was seen.
    pub gone: Option<Gone>,
}

/// Why a Pod cannot get on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The image cannot be pulled.
    Image(String),
    /// No node takes it.
    Node(String),
}

/// How a Pod ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The container's exit code.
    pub exit_code: Option<i32>,
    /// `Completed`, `Error`, `DeadlineExceeded`, `Evicted`, …
    pub reason: String,
    /// The termination message, or what the kubelet says.
    pub message: String,
    /// When.
    pub at: Option<Timestamp>,
}

/// A Pod that is no longer where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// When it was seen last.
    pub last_seen: Timestamp,
    /// Whether the API server was asked, and has it no more.
    pub confirmed: bool,
}

impl Pod {
    /// Reads a Pod; None: no FlashJob owns it.
    #[must_use]
    pub fn of(pod: &core::Pod) -> Option<Self> {
        let owner = owner(&pod.metadata)?;
        let labels = pod.labels();
        let annotations = pod.annotations();
        let spec = pod.spec.as_ref();
        let deadline = spec.and_then(|spec| spec.active_deadline_seconds).unwrap_or(900);
        let grace = spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        let digest = annotations.get(annotation::DIGEST).and_then(|digest| digest.parse().ok());
        Some(Self {
            job: JobKey {
                namespace: pod.namespace().unwrap_or_default(),
                name: owner.name.clone(),
            },
            job_uid: owner.uid.clone(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            resource_version: pod.resource_version().unwrap_or_default(),
            device: labels.get(label::UUID).cloned().unwrap_or_default(),
            run: labels.get(label::RUN).cloned(),
            attempt: labels.get(label::ATTEMPT).and_then(|attempt| attempt.parse().ok()),
            slot: labels.get(label::SLOT).cloned(),
            plugin: annotations.get(annotation::PLUGIN).cloned().zip(digest),
            identities: identities(pod),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            scheduled: spec.is_some_and(|spec| spec.node_name.is_some()),
            waiting: waiting(pod),
            ended: ended(pod),
            runs_since: runs_since(pod),
            may_run_seconds: deadline.saturating_add(grace),
            gone: None,
        })
    }

    /// Whether its container may be at work: what keeps the device locked.
    #[must_use]
    pub fn may_run(&self) -> bool {
        let gone = self.gone.as_ref().is_some_and(|gone| gone.confirmed);
        self.ended.is_none() && (self.scheduled || !gone)
    }

    /// From when on even a kubelet that nobody hears of has ended its container.
    #[must_use]
    pub fn overdue_at(&self) -> Option<Timestamp> {
        let since = self.runs_since.filter(|_| self.ended.is_none())?;
        Some(super::after(since, self.may_run_seconds.saturating_add(OVERDUE_SECONDS)))
    }

    /// Whether it was made by this operator.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.run.is_some()
    }
}

/// The FlashJob that owns an object.
pub(super) fn owner(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = metadata.owner_references.as_ref()?;
    owners.iter().find(|owner| {
        owner.kind == "FlashJob" && owner.api_version.split('/').next() == Some(GROUP)
    })
}

/// Ours say what they lock in an annotation; the Go operator's have the endpoint in the environment.
fn identities(pod: &core::Pod) -> Vec<Identity> {
    if let Some(text) = pod.annotations().get(annotation::IDENTITY) {
        return text.split_whitespace().filter_map(Identity::parse).collect();
    }
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let variables = containers.flat_map(|container| container.env.iter().flatten());
    let endpoint = variables
        .filter(|variable| variable.name == "HOST_ENDPOINT")
        .find_map(|variable| variable.value.as_deref());
    endpoint.filter(|endpoint| !endpoint.is_empty()).map(Identity::endpoint).into_iter().collect()
}

fn waiting(pod: &core::Pod) -> Option<Waiting> {
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let mut conditions = status.conditions.iter().flatten();
    let unscheduled = conditions
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) =
        unscheduled.filter(|condition| condition.reason.as_deref() == Some("Unschedulable"))
    {
        return Some(Waiting::Node(condition.message.clone().unwrap_or_default()));
    }
    if pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none()) {
        return Some(Waiting::Node("no scheduler has placed it".to_owned()));
    }
    let containers = status.container_statuses.iter().flatten();
    let waiting =
        containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref()).next()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let stuck = [
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "CreateContainerConfigError",
        "CreateContainerError",
    ];
    stuck.contains(&reason).then(|| {
        Waiting::Image(format!("{reason}: {}", waiting.message.as_deref().unwrap_or_default()))
    })
}

fn runs_since(pod: &core::Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    pod.spec.as_ref()?.node_name.as_ref()?;
    let scheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "True");
    let scheduled = scheduled.and_then(|condition| condition.last_transition_time.as_ref());
    let since =
        status.start_time.as_ref().or(scheduled).or(pod.metadata.creation_timestamp.as_ref());
    since.map(|time| time.0)
}

/// None while the end was not seen. A Pod that garbage collection marked Failed on a vanished node did not end: its container may run on.
fn ended(pod: &core::Pod) -> Option<Ended> {
    let status = pod.status.as_ref()?;
    let failed = match status.phase.as_deref() {
        Some("Succeeded") => false,
        Some("Failed") => true,
        _ => return None,
    };
    let conditions = status.conditions.iter().flatten();
    let collected = |condition: &core::PodCondition| {
        condition.type_ == "DisruptionTarget"
            && condition.status == "True"
            && condition.reason.as_deref() == Some("DeletionByPodGC")
    };
    if failed && conditions.clone().any(collected) {
        return None;
    }
    let containers = status.container_statuses.iter().flatten();
    let terminated =
        containers.filter_map(|container| container.state.as_ref()?.terminated.as_ref()).next();
    // A Pod that was evicted or refused names no container that ended.
    let changed = conditions
        .filter_map(|condition| condition.last_transition_time.as_ref())
        .max_by_key(|time| time.0);
    let of_pod = status.reason.clone().filter(|reason| !reason.is_empty());
    let of_container = terminated.and_then(|state| state.reason.clone());
    let text =
        terminated.and_then(|state| state.message.clone()).filter(|message| !message.is_empty());
    Some(Ended {
        exit_code: terminated.map(|state| state.exit_code).or_else(|| (!failed).then_some(0)),
        reason: of_pod
            .or(of_container)
            .unwrap_or_else(|| if failed { "Error".into() } else { "Completed".into() }),
        message: text.or_else(|| status.message.clone()).unwrap_or_default(),
        at: terminated.and_then(|state| state.finished_at.as_ref()).or(changed).map(|time| time.0),
    })
}
