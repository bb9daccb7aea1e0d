//! Pods that vanished and may still be running: the end of a job, or of a run, waits for them.

use std::collections::{BTreeMap, BTreeSet};

use flashjob_api::{DeviceState, DeviceStatus};
use jiff::Timestamp;

use super::lost::vanished;
use super::steps::{Plan, Step};
use crate::count::counted;
use crate::flashjob::make::attempt_name;
use crate::flashjob::observed::Observed;

/// Pods that vanished and may still be running.
pub(super) struct VanishedPods {
    /// Those that are gone from the API server, by name.
    lost: BTreeMap<String, LostPod>,
    /// Names of those of which it has to be confirmed first that they are gone.
    unconfirmed: BTreeSet<String>,
}

/// A Pod that is gone and may still be running.
pub(super) struct LostPod {
    /// The uid of its device in the spec.
    device: String,
    /// Its node, where it is known.
    pub node: Option<String>,
    /// Time from which nothing of it can be running.
    pub until: Timestamp,
}

impl VanishedPods {
    /// Returns true if a container of one of them may be running.
    pub fn may_run(&self) -> bool {
        !self.unconfirmed.is_empty() || !self.lost.is_empty()
    }

    /// Names of those that may still exist.
    pub fn unconfirmed(&self) -> impl Iterator<Item = &str> {
        self.unconfirmed.iter().map(String::as_str)
    }

    /// The Pod of that name, if it is gone from the API server and may still be running.
    pub fn lost(&self, name: &str) -> Option<&LostPod> {
        self.lost.get(name)
    }

    /// Sentence about the device that is waited for longest; None if there is none.
    pub fn in_words(&self) -> Option<String> {
        let (name, pod) = self.lost.iter().max_by_key(|(_, pod)| pod.until)?;
        let why = vanished(name, pod.node.as_deref());
        let others = match self.lost.len() - 1 {
            0 => String::new(),
            more => format!("; also waiting for {}", counted(more, "more device")),
        };
        Some(format!(
            "waiting for device {}: {why} ({} at the latest){others}",
            pod.device, pod.until
        ))
    }
}

/// Name of the Pod of a device's stored attempt.
pub(super) fn stored_pod_name(observed: &Observed, device: &DeviceStatus) -> String {
    let job = &observed.job;
    let run = job.status.run.as_deref().unwrap_or_default();
    attempt_name(&job.key.name, &job.uid, run, &device.uid, device.attempt.max(1))
}

/// Confirms the deletion of Pods that disappeared, and waits until nothing of them can run.
/// Returns those that have to be waited for. In a deletion, one that still exists is deleted: no
/// watch reports a Pod that lost its labels.
pub(super) fn wait_for_containers(observed: &Observed, plan: &mut Plan) -> VanishedPods {
    let mut lost: BTreeMap<String, LostPod> = BTreeMap::new();
    let mut wait = |pod: &str, device: &str, node: Option<&String>, until: Timestamp| {
        if until > observed.now {
            let device = device.to_owned();
            let lost_pod = LostPod { device, node: node.cloned(), until };
            lost.entry(pod.to_owned()).or_insert(lost_pod);
        }
    };
    let mut unconfirmed = Vec::new();
    let mut nodes = BTreeSet::new();
    for pod in observed.pods.iter() {
        match &pod.gone {
            Some(gone) if !gone.is_confirmed() => {
                unconfirmed.push((pod.name.clone(), pod.device.clone()))
            }
            Some(_) if pod.may_run() => {
                if let Some(until) = pod.may_run_until() {
                    wait(&pod.name, &pod.device, pod.node.as_ref(), until);
                }
                nodes.extend(pod.node_to_read());
            }
            _ => {}
        }
    }
    for device in &observed.job.status.devices {
        let until = device.waits_until().unwrap_or(observed.now);
        let name = stored_pod_name(observed, device);
        let pod = observed.pod(&name);
        match device.state {
            // A Pod in the cache tells more than its record, for example that it has ended.
            DeviceState::Lost if until > observed.now && pod.is_none() => {
                wait(&name, &device.uid, device.node.as_ref(), until);
                // Without a Pod in the cache, its node would not be read.
                if device.node.is_some() {
                    unconfirmed.push((name, device.uid.clone()));
                }
            }
            // The Pod was deleted while no watch was running, so its end was not observed.
            DeviceState::Flashing if pod.is_none() => unconfirmed.push((name, device.uid.clone())),
            _ => {}
        }
    }
    for pod in lost.values() {
        plan.wake_at = Some(plan.wake_at.map_or(pod.until, |earlier| earlier.min(pod.until)));
    }
    // Of a lost Pod only the node is to be read.
    let names = unconfirmed.iter().map(|(name, _)| name);
    let unconfirmed_names = names.filter(|name| !lost.contains_key(*name)).cloned().collect();
    let delete = observed.job.deleting;
    let steps = unconfirmed.into_iter();
    plan.steps.extend(steps.map(|(name, device)| Step::ConfirmPod { name, device, delete }));
    plan.steps.extend(nodes.into_iter().map(|name| Step::ReadNode { name: name.to_owned() }));
    VanishedPods { lost, unconfirmed: unconfirmed_names }
}
