//! A flash Pod, reduced to the fields that decisions need.

mod gone;
mod state;

use flashjob_api::GROUP;
use flashjob_types::Digest;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube_core::ResourceExt;

pub use gone::{Gone, NodeLease, NodeState};
pub use state::{Cause, Ended, EndedBy, Waiting};

use super::identity::Identity;
use super::instant::after;
use super::job::JobKey;
use crate::flashjob::labels::{annotation, label};

/// Seconds to wait for a Pod's end beyond its deadline and grace period: kubelets report late.
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
    /// Resource version in the API server.
    pub resource_version: String,
    /// The device, as a uid of the job's spec.
    pub device: String,
    /// The run. None: created by the Go operator.
    pub run: Option<String>,
    /// The attempt, from 1.
    pub attempt: Option<u32>,
    /// Slot, by which its Service selects it.
    pub slot: Option<String>,
    /// Plugin and digest that the attempt began with.
    pub plugin: Option<(String, Digest)>,
    /// Firmware and version that a Pod of the Go operator flashes; `None` for one of our Pods.
    pub firmware_of_go_operator: Option<(String, String)>,
    /// Identities that it locks.
    pub identities: Vec<Identity>,
    /// True if it is being deleted.
    pub deleting: bool,
    /// Name of the node to which it is bound; `None` also for a Pod that was never observed and
    /// whose node is not stored.
    pub node: Option<String>,
    /// True if it may have been bound to a node.
    pub scheduled: bool,
    /// Reason for which it cannot make progress.
    pub waiting: Option<Waiting>,
    /// End of the Pod, once it was observed.
    pub ended: Option<Ended>,
    /// True if a kubelet has accepted it.
    pub taken: bool,
    /// Seconds for which its container may still run after it was last seen.
    pub may_run_seconds: i64,
    /// Seconds for which its container may still run after its kubelet was told to end it.
    pub grace_seconds: i64,
    /// Set when it was deleted from the API server before its end was observed.
    pub gone: Option<Gone>,
}

/// Stage of a Pod's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is bound to a node.
    Scheduled,
    /// A kubelet has accepted it: its deadline counts from here.
    Taken,
    /// Its end was observed.
    Ended,
}

impl Pod {
    /// Reads a Pod. None: no FlashJob owns it.
    #[must_use]
    pub fn of(pod: &core::Pod) -> Option<Self> {
        let owner = owner(&pod.metadata)?;
        let labels = pod.labels();
        let annotations = pod.annotations();
        let spec = pod.spec.as_ref();
        // For Pods of the Go operator, which set neither: 900 s is the default of
        // deviceTimeoutSeconds, 30 s that of Kubernetes.
        let deadline = spec.and_then(|spec| spec.active_deadline_seconds).unwrap_or(900);
        let grace = spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        // A delete request may specify another grace period.
        let grace = grace.max(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
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
            firmware_of_go_operator: firmware_of_go_operator(pod),
            identities: identities(pod),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            node: spec.and_then(|spec| spec.node_name.clone()),
            scheduled: spec.is_some_and(|spec| spec.node_name.is_some()),
            waiting: state::waiting(pod),
            ended: state::ended(pod),
            // The kubelet sets startTime when it accepts the Pod, and counts activeDeadlineSeconds
            // from it. Only its presence is used, as the node's clock may be wrong.
            taken: pod.status.as_ref().is_some_and(|status| status.start_time.is_some()),
            may_run_seconds: deadline.saturating_add(grace),
            grace_seconds: grace,
            gone: None,
        })
    }

    /// Returns true if its container may be running, which keeps the device locked.
    #[must_use]
    pub(crate) fn may_run(&self) -> bool {
        let is_gone = self.gone.as_ref().is_some_and(Gone::is_confirmed);
        self.ended.is_none() && (self.scheduled || !is_gone) && self.stopped_at().is_none()
    }

    /// Time since which its node shows that nothing of this vanished Pod can be running.
    #[must_use]
    pub(crate) fn stopped_at(&self) -> Option<Timestamp> {
        self.gone.as_ref()?.stopped_at()
    }

    /// Time from which nothing of this vanished Pod can be running: its deadline, or earlier if
    /// its node shows it. None: it has not vanished.
    #[must_use]
    pub(crate) fn may_run_until(&self) -> Option<Timestamp> {
        let gone = self.gone.as_ref()?;
        let deadline = after(gone.last_seen, self.may_run_seconds);
        Some(gone.stopped_at().map_or(deadline, |stopped| stopped.min(deadline)))
    }

    /// The node to read in order to learn whether this vanished Pod can still be running.
    #[must_use]
    pub(crate) fn node_to_read(&self) -> Option<&str> {
        let is_gone = self.gone.as_ref().is_some_and(Gone::is_confirmed);
        self.node.as_deref().filter(|_| is_gone && self.may_run())
    }

    /// Current stage; `None` before it is bound to a node, and once it is gone.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        match () {
            () if self.gone.is_some() => None,
            () if self.ended.is_some() => Some(Stage::Ended),
            () if self.taken => Some(Stage::Taken),
            () => self.scheduled.then_some(Stage::Scheduled),
        }
    }

    /// Returns true if it waits for something that may never happen.
    #[must_use]
    pub(crate) fn is_stuck(&self) -> bool {
        let starts = |waiting: &Waiting| waiting.cause == Cause::Start;
        self.gone.is_none() && self.waiting.as_ref().is_some_and(|waiting| !starts(waiting))
    }

    /// Seconds from when it was first observed on its node until its container has ended even if
    /// its kubelet is unreachable.
    #[must_use]
    pub(crate) fn overdue_seconds(&self) -> i64 {
        self.may_run_seconds.saturating_add(OVERDUE_SECONDS)
    }

    /// Returns true if it was created by this operator.
    #[must_use]
    pub(crate) fn is_ours(&self) -> bool {
        self.run.is_some()
    }
}

/// The FlashJob that owns an object.
pub(super) fn owner(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = metadata.owner_references.as_ref()?;
    owners.iter().find(|owner| {
        // The version is not compared: it changes when a new version of the API is added, and the
        // owner stays the same.
        owner.kind == "FlashJob" && owner.api_version.split('/').next() == Some(GROUP)
    })
}

/// The first value of this environment variable in the Pod's containers.
fn variable<'a>(pod: &'a core::Pod, name: &str) -> Option<&'a str> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let variables = containers.flat_map(|container| container.env.iter().flatten());
    variables
        .filter(|variable| variable.name == name)
        .find_map(|variable| variable.value.as_deref())
}

fn firmware_of_go_operator(pod: &core::Pod) -> Option<(String, String)> {
    if pod.labels().contains_key(label::RUN) {
        return None;
    }
    Some((variable(pod, "FIRMWARE")?.to_owned(), variable(pod, "VERSION")?.to_owned()))
}

/// Identities that a Pod locks: ours list them in an annotation; those of the Go operator have the
/// endpoint in their environment.
fn identities(pod: &core::Pod) -> Vec<Identity> {
    if let Some(text) = pod.annotations().get(annotation::IDENTITY) {
        return text.split_whitespace().filter_map(Identity::parse).collect();
    }
    let endpoint = variable(pod, "HOST_ENDPOINT");
    endpoint.filter(|endpoint| !endpoint.is_empty()).map(Identity::endpoint).into_iter().collect()
}
