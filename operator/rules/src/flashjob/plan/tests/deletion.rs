//! Tests of the status of a FlashJob that is being deleted, one fact per test.

use flashjob_api::{Counts, DeviceState, FlashJobStatus, condition, reason};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube_core::ResourceExt;
use serde_json::json;

use super::fixture::{Case, deletes, key, pod_of_the_go_operator};
use crate::flashjob::observed::{self, Identity, Report, after};
use crate::flashjob::plan::{Plan, Step, plan};
use crate::world::change::Change;

impl Case {
    fn delete(&mut self) {
        self.job.metadata.deletion_timestamp = Some(Time(self.now));
        // The API server counts the deletion as a change of the spec.
        self.job.metadata.generation = Some(2);
        self.see_job();
    }

    /// Removes a Pod from the watch.
    fn lose(&mut self, pod: &Pod) {
        let uid = pod.uid().expect("a uid");
        self.world.lose_pod(&key("job"), &pod.name_any(), &uid, self.now);
    }

    /// Starts a new process, which knows the devices and the job, and no Pod.
    fn restart(&mut self) {
        self.new_process();
        self.see_job();
        self.world.lock_what_is_stored();
    }

    /// Returns the plan while the FlashRollout has not stored what the job has begun.
    fn plan_for_rollout(&mut self) -> Plan {
        let mut observed = self.world.observe(&key("job"), self.now).expect("the job");
        observed.rollout_lacks_results = true;
        plan(&observed)
    }

    fn is_held(&self, endpoint: &str) -> bool {
        let identity = Identity::endpoint(endpoint);
        self.world.locks.holder(&identity, &key("other"), "").is_some()
    }
}

fn is_over(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| matches!(step, Step::RemoveFinalizer))
}

/// Returns true if the plan queries whether a Pod is gone, and deletes it where it is not.
fn confirms(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| matches!(step, Step::ConfirmPod { delete: true, .. }))
}

/// Uids of the listed devices, and the state of each.
fn listed(status: &FlashJobStatus) -> Vec<(&str, DeviceState)> {
    status.devices.iter().map(|device| (device.uid.as_str(), device.state)).collect()
}

/// Status and reason of a condition.
fn condition_of<'a>(status: &'a FlashJobStatus, kind: &str) -> (&'a str, &'a str) {
    let mut conditions = status.conditions.iter();
    let condition = conditions.find(|condition| condition.type_ == kind).expect("the condition");
    (condition.status.as_str(), condition.reason.as_str())
}

#[test]
fn a_deleted_job_lists_only_devices_whose_pod_may_be_running_and_none_waits_for_its_turn() {
    let mut case = Case::new(&["a", "b", "c"], &json!({"parallelism": 2}));
    let pods = case.start();
    case.world.devices.lose("c");
    case.settle();
    assert_eq!(case.status().devices.len(), 3);
    assert_eq!(case.status().waiting[reason::UNKNOWN_DEVICE.name], 1);
    case.delete();
    case.settle();
    let status = case.status();
    assert_eq!(listed(&status), [("a", DeviceState::Flashing), ("b", DeviceState::Flashing)]);
    assert!(status.waiting.is_empty(), "{:?}", status.waiting);
    let counts = Counts { total: 3, pending: 1, active: 2, ..Counts::default() };
    assert_eq!(status.counts, Some(counts));
    let first = pods.iter().map(ResourceExt::name_any).min().expect("two Pods");
    let waits = format!("being deleted; waiting for Pod {first} and 1 more Pod to be removed");
    assert_eq!(status.message, Some(waits));
    case.end(&pods[0], 137);
    case.settle();
    let status = case.status();
    assert_eq!(listed(&status), [("b", DeviceState::Flashing)]);
    let counts = Counts { total: 3, pending: 2, active: 1, ..Counts::default() };
    assert_eq!(status.counts, Some(counts));
    assert!(!case.is_held("10.0.0.0") && case.is_held("10.0.0.1"));
    assert_eq!(case.pass(60).status, Some(status), "what is stored already is not written again");
}

#[test]
fn a_deleted_job_is_reconciling_and_neither_ready_nor_progressing() {
    let mut case = Case::new(&["a"], &json!({}));
    case.start();
    case.settle();
    case.delete();
    case.settle();
    let status = case.status();
    assert_eq!(condition_of(&status, condition::RECONCILING), ("True", "Deleting"));
    for kind in [
        condition::READY,
        condition::PROGRESSING,
        condition::STALLED,
        condition::COMPLETE,
        condition::FAILED,
    ] {
        assert_eq!(condition_of(&status, kind), ("False", "Deleting"), "{kind}");
    }
}

#[test]
fn a_completed_job_whose_pod_stays_is_no_longer_ready_in_deletion_and_keeps_its_result() {
    let mut case = Case::new(&["a"], &json!({"verify": {"mode": "None"}}));
    let pods = case.start();
    case.end(&pods[0], 0);
    case.settle();
    assert!(condition::holds(&case.status().conditions, condition::READY));
    case.delete();
    case.settle();
    let status = case.status();
    assert_eq!(condition_of(&status, condition::READY), ("False", "Deleting"));
    assert_eq!(condition_of(&status, condition::COMPLETE), ("True", "Completed"));
    assert_eq!(status.completed_uuids, ["a"]);
    assert_eq!(status.counts.map(|counts| (counts.completed, counts.pending)), Some((1, 0)));
}

#[test]
fn a_pod_that_is_lost_in_deletion_is_stored_and_a_restart_moves_no_time() {
    let mut case = Case::new(&["a"], &json!({}));
    let pods = case.start();
    case.settle();
    case.delete();
    case.settle();
    let name = pods[0].name_any();
    case.lose(&pods[0]);
    case.world.confirm_gone(&key("job"), &name, "a", case.now);
    case.settle();
    assert_eq!(case.stands("a"), (DeviceState::Lost, reason::POD_LOST.name.into()));
    let stored = case.status();
    let until = stored.devices[0].waits_until().expect("a time");
    let message = stored.message.clone().unwrap_or_default();
    assert!(message.contains(&until.to_string()), "{message}");
    assert_eq!(stored.waiting.get(reason::POD_LOST.name), Some(&1));
    assert_eq!(stored.counts.map(|counts| (counts.active, counts.pending)), Some((1, 0)));
    case.pass(100);
    case.restart();
    assert!(confirms(&case.settle()));
    assert_eq!(case.status(), stored, "before the Pod is known to be gone");
    case.world.confirm_gone(&key("job"), &name, "a", case.now);
    let plan = case.settle();
    assert!(plan.steps.iter().any(|step| matches!(step, Step::ReadNode { .. })));
    assert_eq!(case.status(), stored, "after it is");
    case.now = until;
    assert!(is_over(&case.plan()));
}

#[test]
fn a_lost_pod_that_is_observed_to_have_ended_delays_no_deletion() {
    let mut case = Case::new(&["a"], &json!({}));
    let pods = case.start();
    case.lose(&pods[0]);
    case.world.confirm_gone(&key("job"), &pods[0].name_any(), "a", case.now);
    case.settle();
    case.delete();
    case.lose_services();
    case.settle();
    assert_eq!(case.stands("a").0, DeviceState::Lost);
    // Somebody had only removed its label.
    case.end(&pods[0], 1);
    case.settle();
    assert!(listed(&case.status()).is_empty());
    case.lose(&pods[0]);
    assert!(is_over(&case.plan()));
}

#[test]
fn a_device_whose_pod_is_being_created_stays_listed_in_deletion() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 1}));
    let services = case.settle();
    case.carry_out(&services);
    let creates = case.settle();
    let create = creates.steps.iter().find(|step| step.creates()).expect("a Pod");
    case.world.memory.get_mut(&key("job")).expect("memory").begin(create).expect("it is new");
    case.delete();
    let plan = case.settle();
    assert_eq!(deletes(&plan, "pod"), 0);
    assert_eq!(listed(&case.status()), [("a", DeviceState::Exposing)]);
    case.carry_out(&creates);
    case.world.memory.get_mut(&key("job")).expect("memory").end(&create.key());
    assert_eq!(deletes(&case.settle(), "pod"), 1);
    assert_eq!(listed(&case.status()), [("a", DeviceState::Flashing)]);
}

#[test]
fn a_deletion_that_waits_for_no_pod_writes_no_status() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 1}));
    let services = case.settle();
    case.carry_out(&services);
    case.delete();
    let plan = case.plan();
    assert_eq!((deletes(&plan, "service"), plan.status), (1, None));
    case.lose_services();
    let plan = case.plan();
    assert!(matches!(plan.steps.as_slice(), [Step::RemoveFinalizer]), "{:?}", plan.steps);
    assert_eq!(plan.status, None);
}

#[test]
fn nothing_of_a_deletion_is_written_before_its_turn() {
    let mut case = Case::new(&["a"], &json!({}));
    case.start();
    case.delete();
    for (report, is_composed) in
        [(Report::Never, false), (Report::Urgent, false), (Report::Now, true)]
    {
        let mut observed = case.world.observe(&key("job"), case.now).expect("the job");
        observed.report = report;
        assert_eq!(plan(&observed).status.is_some(), is_composed, "{report:?}");
    }
}

#[test]
fn a_finalizer_that_cannot_be_removed_is_told() {
    let mut case = Case::new(&["a"], &json!({}));
    case.settle();
    case.delete();
    let memory = case.world.memory.get_mut(&key("job")).expect("memory");
    for _ in 0..3 {
        memory.count(&Step::RemoveFinalizer, Some("flashjobs is forbidden".to_owned()));
    }
    let plan = case.plan();
    assert!(is_over(&plan));
    let message = plan.status.and_then(|status| status.message).unwrap_or_default();
    assert!(message.starts_with("being deleted; removing the finalizer keeps"), "{message}");
}

#[test]
fn a_job_that_only_the_finalizer_of_another_keeps_lists_no_device_in_flight() {
    let mut case = Case::new(&["a"], &json!({}));
    let pods = case.start();
    case.settle();
    case.delete();
    case.end(&pods[0], 137);
    case.lose(&pods[0]);
    case.lose_services();
    let plan = case.plan();
    assert!(is_over(&plan) && plan.status.is_none());
    case.job.metadata.finalizers = Some(vec!["foregroundDeletion".to_owned()]);
    case.see_job();
    assert!(case.settle().steps.is_empty());
    assert!(listed(&case.status()).is_empty());
    assert_eq!(condition_of(&case.status(), condition::RECONCILING), ("True", "Deleting"));
    let expected = "being deleted; kept only by the finalizer foregroundDeletion, which another \
                    controller has to remove";
    assert_eq!(case.status().message.as_deref(), Some(expected));
    case.job.metadata.finalizers = None;
    case.see_job();
    assert_eq!(case.plan().status, None, "it is gone");
}

#[test]
fn a_device_that_has_begun_stays_listed_until_its_rollout_has_stored_that() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 1}));
    let pods = case.start();
    case.settle();
    case.delete();
    case.end(&pods[0], 137);
    let listed_devices = |plan: Plan| plan.status.expect("a status").devices;
    let devices = listed_devices(case.plan_for_rollout());
    assert_eq!(devices.len(), 1, "{devices:?}");
    assert!(devices[0].uid == "a" && devices[0].has_begun());
    assert!(listed_devices(case.plan()).is_empty());
}

#[test]
fn a_begun_device_whose_pod_has_ended_is_not_taken_for_lost_after_a_restart() {
    let mut case = Case::new(&["a"], &json!({}));
    let pods = case.start();
    case.settle();
    case.delete();
    case.end(&pods[0], 137);
    case.lose_services();
    let stored = case.plan_for_rollout().status.expect("a status");
    let device = &stored.devices[0];
    assert_eq!((device.state, device.attempt), (DeviceState::Pending, 2));
    assert_eq!((&device.pod, &device.reason), (&None, &None), "no attempt has failed");
    let counts = Counts { total: 1, pending: 1, ..Counts::default() };
    assert_eq!(stored.counts, Some(counts));
    case.job.status = Some(stored.clone());
    case.lose(&pods[0]);
    case.now = after(case.now, 5);
    case.restart();
    assert!(!case.is_held("10.0.0.0"));
    let plan = case.plan_for_rollout();
    assert!(!confirms(&plan) && !is_over(&plan), "{:?}", plan.steps);
    assert_eq!(plan.status.expect("a status").devices, stored.devices, "it is begun once");
    assert!(is_over(&case.plan()), "the rollout has stored it");
}

#[test]
fn a_deletion_first_shows_a_rollout_that_a_device_has_begun_whose_record_does_not_say_so() {
    let mut case = Case::new(&["a"], &json!({}));
    case.belong_to_a_rollout();
    let pods = case.start();
    case.end(&pods[0], 0);
    let record = &mut case.job.status.as_mut().expect("a status").devices[0];
    (record.state, record.attempt) = (DeviceState::Pending, 1);
    case.delete();
    case.lose(&pods[0]);
    case.lose_services();
    let plan = case.plan();
    assert!(!is_over(&plan), "{:?}", plan.steps);
    let status = plan.status.expect("a status");
    assert!(status.devices[0].has_begun() && !status.devices[0].is_locked());
    case.job.status = Some(status);
    case.see_job();
    assert!(is_over(&case.plan()), "there is no such rollout, so nothing else is to be stored");
}

#[test]
fn a_deletion_names_the_pod_without_a_record_that_it_waits_for() {
    let mut case = Case::new(&["a"], &json!({}));
    case.settle();
    case.see_pod(pod_of_the_go_operator("job", "a", "10.0.0.0"));
    case.delete();
    case.lose_services();
    case.settle();
    let waits = "being deleted; waiting for Pod job-a to be removed";
    assert_eq!(case.status().message.as_deref(), Some(waits));
    let stored = case.status();
    assert_eq!(case.pass(60).status, Some(stored), "what is stored already is not written again");
}

#[test]
fn a_pod_that_lost_its_label_is_deleted_and_named_while_it_exists() {
    let mut case = Case::new(&["a"], &json!({}));
    let pods = case.start();
    case.settle();
    case.lose(&pods[0]);
    let plan = case.plan();
    assert!(plan.steps.iter().any(|step| matches!(step, Step::ConfirmPod { delete: false, .. })));
    case.delete();
    case.lose_services();
    assert!(confirms(&case.settle()));
    let waits = format!("being deleted; waiting for Pod {} to be removed", pods[0].name_any());
    assert_eq!(case.status().message, Some(waits));
    // It was found, and is being deleted now.
    let unlabelled = |case: &mut Case, ended: bool| {
        let mut pod = pods[0].clone();
        pod.metadata.deletion_timestamp = Some(Time(case.now));
        pod.metadata.resource_version = Some(case.next_version());
        if ended {
            let status = json!({"phase": "Failed"});
            pod.status = serde_json::from_value(status).expect("a status");
        }
        let pod = observed::Pod::of(&pod).expect("owned");
        case.world.take(Change::PodUnlabelled(Box::new(pod)), case.now);
    };
    unlabelled(&mut case, false);
    assert!(confirms(&case.settle()));
    assert_eq!(case.stands("a").0, DeviceState::Flashing);
    // No watch reports when it is removed.
    unlabelled(&mut case, true);
    assert!(is_over(&case.plan()));
}

#[test]
fn an_ended_pod_that_lost_its_label_does_not_keep_its_job_once_its_deletion_has_begun() {
    let mut case = Case::new(&["a"], &json!({}));
    let mut pod = case.start().remove(0);
    case.settle();
    case.lose(&pod);
    // It was found, and its end can be observed; no watch reports its removal.
    let status = json!({"phase": "Failed"});
    pod.status = serde_json::from_value(status).expect("a status");
    pod.metadata.resource_version = Some(case.next_version());
    let found = Box::new(observed::Pod::of(&pod).expect("owned"));
    let (name, uid) = (found.name.clone(), found.uid.clone());
    case.world.take(Change::PodUnlabelled(found), case.now);
    case.delete();
    case.lose_services();
    let plan = case.settle();
    assert!(deletes(&plan, "pod") == 1 && !is_over(&plan), "{:?}", plan.steps);
    case.world.take(Change::PodNotFound { job: key("job"), name, uid }, case.now);
    assert!(is_over(&case.plan()));
}

#[test]
fn a_uid_that_is_removed_from_the_spec_right_before_the_deletion_leaves_the_counts_consistent() {
    for is_observed in [false, true] {
        let mut case = Case::new(&["a", "b"], &json!({}));
        case.start();
        case.settle();
        case.spec(&json!({"uuid": ["b"]}));
        if is_observed {
            case.settle();
        }
        case.delete();
        case.settle();
        // The total is that of the spec that the status describes.
        let total = if is_observed { 1 } else { 2 };
        let counts = Counts { total, active: 2, ..Counts::default() };
        assert_eq!(case.status().counts, Some(counts), "is observed: {is_observed}");
    }
}

#[test]
fn a_job_that_only_the_finalizer_of_another_keeps_lists_no_device_after_a_restart() {
    let mut case = Case::new(&["a"], &json!({}));
    case.start();
    case.settle();
    case.delete();
    case.settle();
    assert_eq!(listed(&case.status()), [("a", DeviceState::Flashing)]);
    // The Pod ended, our finalizer was removed, and the operator was killed before the status.
    case.job.metadata.finalizers = Some(vec!["foregroundDeletion".to_owned()]);
    case.restart();
    assert!(case.settle().steps.is_empty());
    assert!(listed(&case.status()).is_empty(), "{:?}", case.status().devices);
    assert!(!case.is_held("10.0.0.0"));
}
