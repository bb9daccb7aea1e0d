//! The end of a job, and of a run: Pods and Services are deleted, and no lock is released while a
//! container may still be running.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flashjob_api::DeviceState;
use jiff::Timestamp;

use super::holds::holds;
use super::lost::vanished;
use super::protect::{budget_may_exist, unprotect};
use super::steps::{Plan, Step};
use super::summary;
use crate::count::counted;
use crate::flashjob::make::attempt_name;
use crate::flashjob::observed::{Gone, Observed, Pod, Service};

/// Plans for a FlashJob that is being deleted. Needs neither a plugin nor a registry.
pub(super) fn plan(observed: &Observed) -> Plan {
    // Our finalizer was never stored or is removed already: only the finalizer of another
    // controller keeps the FlashJob.
    if !observed.job.has_finalizer {
        return Plan::default();
    }
    let mut plan = Plan { holds: holds(observed), ..Plan::default() };
    let vanished_pods = wait_for_containers(observed, &mut plan);
    let mut waiting = vanished_pods.may_run();
    for pod in observed.pods.iter().filter(|pod| pod.gone.is_none()) {
        waiting |= !observed.is_past_its_end(pod);
        let overdue_at = observed.overdue_at(pod).filter(|at| pod.is_ours() && *at > observed.now);
        if let Some(at) = overdue_at {
            plan.wake_at = Some(plan.wake_at.map_or(at, |earlier| earlier.min(at)));
        }
        if !pod.deleting {
            plan.steps.push(Step::DeletePod { name: pod.name.clone(), uid: pod.uid.clone() });
        }
    }
    // Services in deletion are not waited for: the load balancer's own finalizer keeps each until
    // its address is given back.
    for service in observed.services.iter().filter(|service| !service.deleting) {
        waiting = true;
        // A create without an answer is sent again until its outcome is known, and its Pod must
        // not start without its Service.
        if awaits_pod(observed, service) {
            continue;
        }
        plan.steps
            .push(Step::DeleteService { name: service.name.clone(), uid: service.uid.clone() });
    }
    // The answer to a create may still be on its way: a Pod must not appear after its FlashJob,
    // and thus its lock, is gone.
    if !waiting && observed.pods_in_creation.is_empty() && !observed.rollout_lacks_results {
        plan.steps.push(Step::RemoveFinalizer);
    } else if !may_have_pods(observed) && budget_may_exist(observed) {
        // Garbage collection deletes the budget with the FlashJob, which can take as long as the
        // deadline of a Pod that vanished.
        plan.steps.push(unprotect(observed));
    }
    plan.status = summary::deleting(observed, vanished_pods.in_words().as_deref());
    plan
}

/// Returns true if the job may have a Pod in the API server.
fn may_have_pods(observed: &Observed) -> bool {
    let exists = |pod: &Arc<Pod>| !pod.gone.as_ref().is_some_and(Gone::is_confirmed);
    observed.pods.iter().any(exists) || !observed.pods_in_creation.is_empty()
}

/// Returns true if a Pod that this Service selects is being created.
fn awaits_pod(observed: &Observed, service: &Service) -> bool {
    service.slot.is_some() && observed.pods_in_creation.values().any(|slot| *slot == service.slot)
}

/// Returns true if no container of the previous run can still be running.
pub(super) fn previous_run_is_over(observed: &Observed) -> bool {
    let at_work = at_work(observed).next().is_some();
    !at_work
        && observed.pods_in_creation.is_empty()
        && !wait_for_containers(observed, &mut Plan::default()).may_run()
}

/// Returns true if the stored status does not yet show a rollout that this job has begun to flash
/// a device, which the status of the next run would drop.
pub(super) fn lacks_begun(observed: &Observed) -> bool {
    observed.job.part.is_some() && unrecorded_begins(observed).next().is_some()
}

/// Places in the stored status of devices that have a Pod of the stored run although their state
/// does not show it.
fn unrecorded_begins(observed: &Observed) -> impl Iterator<Item = usize> {
    let job = &observed.job;
    let run = job.status.run.as_deref().unwrap_or_default();
    let devices = job.status.devices.iter().enumerate();
    devices.filter_map(move |(place, device)| {
        let is_open = matches!(device.state, DeviceState::Pending | DeviceState::Exposing);
        let name = attempt_name(&job.key.name, &job.uid, run, &device.uid, device.attempt);
        (is_open && observed.pod(&name).is_some()).then_some(place)
    })
}

/// Pods that may be running. A Pod on an unreachable node no longer counts once even its kubelet
/// has ended its container.
fn at_work(observed: &Observed) -> impl Iterator<Item = &Arc<Pod>> {
    let is_past_deadline = |pod: &Pod| pod.is_ours() && observed.is_overdue(pod);
    let pods = observed.pods.iter();
    pods.filter(move |pod| pod.gone.is_none() && pod.ended.is_none() && !is_past_deadline(pod))
}

/// Plans for a job whose run has changed while devices are in flight: they finish, and no other
/// starts.
pub(super) fn drain(observed: &Observed) -> Plan {
    let mut plan = Plan { holds: holds(observed), ..Plan::default() };
    let lost = wait_for_containers(observed, &mut plan).may_run();
    let running = at_work(observed).count();
    let overdue = at_work(observed).filter(|pod| pod.is_ours());
    for at in overdue.filter_map(|pod| observed.overdue_at(pod)) {
        plan.wake_at = Some(plan.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
    for pod in observed.pods.iter().filter(|pod| !pod.deleting) {
        // The Pod would delay the next run for as long as it waits for its image or for a node.
        let Some(until) = observed.stuck_until(pod) else { continue };
        match until <= observed.now {
            true => {
                plan.steps.push(Step::DeletePod { name: pod.name.clone(), uid: pod.uid.clone() })
            }
            false => plan.wake_at = Some(plan.wake_at.map_or(until, |earlier| earlier.min(until))),
        }
    }
    let message = format!(
        "the spec has changed; still in flight from the previous run: {}{}",
        counted(running + usize::from(lost), "device"),
        summary::failing_steps(observed)
    );
    let mut status = summary::draining(observed, &message);
    // The status of the next run drops these records. Until the rollout has read that such a
    // device was begun, it could take the work of its Pod for a version that was there before.
    for place in unrecorded_begins(observed) {
        status.devices[place].state = DeviceState::Flashing;
    }
    plan.urgent = status.devices != observed.job.status.devices;
    plan.status = Some(status);
    plan
}

/// Pods that vanished and may still be running.
struct VanishedPods {
    /// Those that are gone from the API server, by name.
    lost: BTreeMap<String, LostPod>,
    /// True if it has to be confirmed first that one of them is gone.
    is_unconfirmed: bool,
}

/// A Pod that is gone and may still be running.
struct LostPod {
    /// The uid of its device in the spec.
    device: String,
    /// Its node, where it is known.
    node: Option<String>,
    /// Time from which nothing of it can be running.
    until: Timestamp,
}

impl VanishedPods {
    fn may_run(&self) -> bool {
        self.is_unconfirmed || !self.lost.is_empty()
    }

    /// Sentence about the device that is waited for longest; None if there is none.
    fn in_words(&self) -> Option<String> {
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

/// Confirms the deletion of Pods that disappeared, and waits until nothing of them can run.
/// Returns those that have to be waited for.
fn wait_for_containers(observed: &Observed, plan: &mut Plan) -> VanishedPods {
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
    let job = &observed.job;
    let run = job.status.run.as_deref().unwrap_or_default();
    for device in &job.status.devices {
        let until = device.waits_until().unwrap_or(observed.now);
        let name = attempt_name(&job.key.name, &job.uid, run, &device.uid, device.attempt);
        let pod = observed.pod(&name);
        match device.state {
            DeviceState::Lost if until > observed.now => {
                if pod.is_none_or(|pod| pod.stopped_at().is_none()) {
                    wait(&name, &device.uid, device.node.as_ref(), until);
                }
                // Without a Pod in the cache, its node would not be read.
                if pod.is_none() && device.node.is_some() {
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
    let is_unconfirmed = !unconfirmed.is_empty();
    plan.steps
        .extend(unconfirmed.into_iter().map(|(name, device)| Step::ConfirmPod { name, device }));
    plan.steps.extend(nodes.into_iter().map(|name| Step::ReadNode { name: name.to_owned() }));
    VanishedPods { lost, is_unconfirmed }
}
