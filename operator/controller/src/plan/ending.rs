//! The end of a job, and of a run: Pods and Services go, and nothing is let go while a container may still be at work.

use flashjob_api::DeviceState;

use super::{Plan, Step, summary};
use crate::make::attempt_name;
use crate::observed::{Observed, after};

/// Plans for a FlashJob that somebody deleted. It needs no plugin and no registry.
pub(super) fn plan(observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    if !observed.job.has_finalizer {
        return plan;
    }
    let mut waiting = wait_for_containers(observed, &mut plan);
    for pod in observed.pods.iter().filter(|pod| pod.gone.is_none()) {
        waiting = true;
        if !pod.deleting {
            plan.steps.push(Step::DeletePod { name: pod.name.clone(), uid: pod.uid.clone() });
        }
    }
    for service in observed.services.iter().filter(|service| !service.deleting) {
        waiting = true;
        plan.steps.push(Step::DeleteService { name: service.name.clone(), uid: service.uid.clone() });
    }
    if !waiting && observed.slots_in_making.is_empty() {
        plan.steps.push(Step::RemoveFinalizer);
    }
    plan
}

/// Whether no container of the run before can be at work any more.
pub(super) fn previous_run_is_over(observed: &Observed) -> bool {
    !observed.pods.iter().any(|pod| pod.gone.is_none() && pod.ended.is_none()) && !wait_for_containers(observed, &mut Plan::default())
}

/// Plans for a job whose run has changed while devices are in flight: they finish, nothing starts.
pub(super) fn drain(observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let lost = wait_for_containers(observed, &mut plan);
    let running = observed.pods.iter().filter(|pod| pod.gone.is_none() && pod.ended.is_none()).count();
    let message = format!("the spec has changed; {} devices of the run before are still in flight", running + usize::from(lost));
    plan.status = Some(summary::draining(observed, &message));
    plan
}

/// Asks after Pods that went unseen, and waits until nothing of them can run. True: there is something to wait for.
fn wait_for_containers(observed: &Observed, plan: &mut Plan) -> bool {
    let mut waiting = false;
    let mut wait = |plan: &mut Plan, until| {
        if until > observed.now {
            waiting = true;
            plan.wake_at = Some(plan.wake_at.map_or(until, |earlier: jiff::Timestamp| earlier.min(until)));
        }
    };
    let mut unconfirmed = Vec::new();
    for pod in observed.pods.iter() {
        match &pod.gone {
            Some(gone) if !gone.confirmed => unconfirmed.push((pod.name.clone(), pod.device.clone())),
            Some(gone) if pod.may_run() => wait(plan, after(gone.last_seen, pod.may_run_seconds)),
            _ => {}
        }
        if pod.may_run() {
            plan.holds.extend(pod.identities.iter().map(|identity| (identity.clone(), pod.device.clone())));
        }
    }
    let job = &observed.job;
    let run = job.status.run.as_deref().unwrap_or_default();
    for device in &job.status.devices {
        match device.state {
            DeviceState::Lost => wait(plan, device.waits_until().unwrap_or(observed.now)),
            DeviceState::Flashing => {
                let name = attempt_name(&job.key.name, &job.uid, run, &device.uid, device.attempt);
                if observed.pod(&name).is_none() {
                    unconfirmed.push((name, device.uid.clone()));
                }
            }
            _ => {}
        }
    }
    let unsure = !unconfirmed.is_empty();
    plan.steps.extend(unconfirmed.into_iter().map(|(name, device)| Step::ConfirmPod { name, device }));
    waiting || unsure
}
