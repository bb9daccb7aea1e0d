//! The end of a job, and of a run: Pods and Services are deleted, and no lock is released while a
//! container may still be running.

use std::collections::BTreeSet;
use std::sync::Arc;

use flashjob_api::DeviceState;

use super::deletion;
use super::holds::holds;
use super::protect::{budget_may_exist, unprotect};
use super::steps::{Plan, Step};
use super::summary;
use super::vanished::{stored_pod_name, wait_for_containers};
use crate::count::counted;
use crate::flashjob::observed::{Gone, Observed, Pod, Service};

/// Plans for a FlashJob that is being deleted. Needs neither a plugin nor a registry.
pub(super) fn plan(observed: &Observed) -> Plan {
    let job = &observed.job;
    // Our finalizer was never stored or is removed already: only the finalizer of another
    // controller keeps the FlashJob.
    if !job.has_finalizer {
        // Nothing is waited for any more, but a device that is listed as lost leaves the status.
        let mut waits = Plan::default();
        let vanished_pods = wait_for_containers(observed, &mut waits);
        let is_kept = !job.finalizers.is_empty() && observed.report.may_store(false);
        let status = is_kept.then(|| deletion::status(observed, &vanished_pods, &BTreeSet::new()));
        return Plan { status, wake_at: waits.wake_at, ..Plan::default() };
    }
    let mut plan = Plan { holds: holds(observed), ..Plan::default() };
    let vanished_pods = wait_for_containers(observed, &mut plan);
    let mut awaited_pods = delete_pods(observed, &mut plan);
    awaited_pods.extend(vanished_pods.unconfirmed());
    // The answer to a create may still be on its way: a Pod must not appear after its FlashJob,
    // and thus its lock, is gone.
    let waits_for_pods = !awaited_pods.is_empty()
        || vanished_pods.may_run()
        || !observed.pods_in_creation.is_empty();
    let waits_for_services = delete_services(observed, &mut plan);
    let waits_for_rollout = observed.rollout_lacks_results || lacks_first_begin(observed);
    let is_over = !waits_for_pods && !waits_for_services && !waits_for_rollout;
    if is_over {
        plan.steps.push(Step::RemoveFinalizer);
    } else if !may_have_pods(observed) && budget_may_exist(observed) {
        // Garbage collection deletes the budget with the FlashJob, which can take as long as the
        // deadline of a Pod that vanished.
        plan.steps.push(unprotect(observed));
    }
    let failing = &observed.failing_steps;
    // Each write changes the resource version that the request for the finalizer names, and would
    // delay it by a conflict. So nothing is written once the FlashJob can go, nor while only the
    // deletion of Services has to begin.
    let is_told = match is_over {
        true => failing.contains_key(&Step::RemoveFinalizer.key()),
        false => {
            waits_for_pods
                || waits_for_rollout
                || observed.has_reported_failing_steps
                || !failing.is_empty()
        }
    };
    if is_told && observed.report.may_store(false) {
        plan.status = Some(deletion::status(observed, &vanished_pods, &awaited_pods));
    }
    plan
}

/// Deletes all Pods. Returns the names of those that have to be waited for.
fn delete_pods<'a>(observed: &'a Observed, plan: &mut Plan) -> BTreeSet<&'a str> {
    let mut awaited_pods = BTreeSet::new();
    for pod in observed.pods.iter().filter(|pod| pod.gone.is_none()) {
        if !observed.is_past_its_end(pod) {
            awaited_pods.insert(pod.name.as_str());
        }
        let overdue_at = observed.overdue_at(pod).filter(|at| pod.is_ours() && *at > observed.now);
        if let Some(at) = overdue_at {
            plan.wake_at = Some(plan.wake_at.map_or(at, |earlier| earlier.min(at)));
        }
        if !pod.deleting {
            plan.steps.push(Step::DeletePod { name: pod.name.clone(), uid: pod.uid.clone() });
        }
    }
    awaited_pods
}

/// Deletes all Services. Returns true if the deletion of one has to begin first: those in deletion
/// are not waited for, as the load balancer's own finalizer keeps each until its address is given
/// back.
fn delete_services(observed: &Observed, plan: &mut Plan) -> bool {
    let mut waits = false;
    for service in observed.services.iter().filter(|service| !service.deleting) {
        waits = true;
        // A create without an answer is sent again until its outcome is known, and its Pod must
        // not start without its Service.
        if awaits_pod(observed, service) {
            continue;
        }
        plan.steps
            .push(Step::DeleteService { name: service.name.clone(), uid: service.uid.clone() });
    }
    waits
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

/// Returns true if the stored status does not yet show a rollout that this job has begun with a
/// device, which nothing tells it once the job is gone.
fn lacks_first_begin(observed: &Observed) -> bool {
    let devices = &observed.job.status.devices;
    let is_unknown = |place: usize| !devices[place].has_begun();
    observed.job.part.is_some() && unrecorded_begins(observed).any(is_unknown)
}

/// Places in the stored status of devices that have a Pod of the stored run although their state
/// does not show it.
fn unrecorded_begins(observed: &Observed) -> impl Iterator<Item = usize> {
    let devices = observed.job.status.devices.iter().enumerate();
    devices.filter_map(move |(place, device)| {
        let is_open = matches!(device.state, DeviceState::Pending | DeviceState::Exposing);
        let name = stored_pod_name(observed, device);
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
