//! Tests of what ends or delays a job, and when its status is composed, one fact per test.

use std::sync::Arc;

use flashjob_api::{DeviceState, reason};
use flashjob_types::plugin::{Proof, Verdict};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube_core::ResourceExt;
use serde_json::json;

use super::fixture::{Case, creates_pod, deletes, key};
use crate::flashjob::observed::{Judged, Report};
use crate::flashjob::plan::{Plan, Step, plan};

#[test]
fn one_failure_too_many_skips_the_rest() {
    let mut case = Case::new(
        &["a", "b", "c", "d"],
        &json!({"parallelism": 1, "maxFailedDevices": "34%", "backoffLimitPerDevice": 0}),
    );
    case.device("a", &[("DEVICE", "toaster"), ("HOST_ENDPOINT", "10.0.0.0")]);
    let pods = case.start();
    case.end(&pods[0], 1);
    case.settle();
    for uid in ["c", "d"] {
        assert_eq!(
            case.stands(uid),
            (DeviceState::Skipped, reason::JOB_STOPPED.name.into()),
            "no place frees before the verdict"
        );
    }
}

#[test]
fn a_guard_that_fails_one_device_too_many_lets_no_other_start() {
    let mut case = Case::new(&["a", "b"], &json!({"maxFailedDevices": 0}));
    case.device("b", &[("DEVICE", "toaster"), ("HOST_ENDPOINT", "10.0.0.1")]);
    case.settle();
    assert_eq!(case.stands("a"), (DeviceState::Skipped, reason::JOB_STOPPED.name.into()));
}

#[test]
fn after_the_jobs_deadline_pods_go_and_devices_fail() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 1, "activeDeadlineSeconds": 60}));
    let pods = case.start();
    assert_eq!(deletes(&case.pass(60), "pod"), 1);
    assert_eq!(case.stands("b"), (DeviceState::Failed, reason::DEADLINE_EXCEEDED.name.into()));
    case.end(&pods[0], 137);
    case.settle();
    assert_eq!(case.stands("a"), (DeviceState::Failed, reason::DEADLINE_EXCEEDED.name.into()));
}

#[test]
fn a_deleted_job_keeps_the_service_of_a_pod_until_it_is_known_whether_the_pod_was_created() {
    let mut case = Case::new(&["a", "b"], &json!({}));
    let services = case.settle();
    case.carry_out(&services);
    let pods = case.settle();
    let creates_pod = |step: &&Step| matches!(step, Step::CreatePod(_));
    let create = pods.steps.iter().find(creates_pod).expect("a Pod to create");
    case.world.memory.entry(key("job")).or_default().begin(create);
    case.job.metadata.deletion_timestamp = Some(Time(case.now));
    case.see_job();
    assert_eq!(deletes(&case.plan(), "service"), 1, "only that of the device without a Pod");
    case.world.memory.entry(key("job")).or_default().end(&create.key());
    assert_eq!(deletes(&case.plan(), "service"), 2);
}

#[test]
fn a_changed_run_does_not_wait_for_ever_for_a_pod_whose_node_is_not_heard_of() {
    let mut case = Case::new(&["a"], &json!({}));
    case.start();
    let before = case.status().run;
    case.spec(&json!({"runID": "again"}));
    case.settle();
    let end = case.plan().wake_at.expect("a time to look again");
    let plan = case.pass(end.duration_since(case.now).as_secs() - 1);
    assert_eq!((deletes(&plan, "pod"), case.status().run), (0, before.clone()));
    let plan = case.pass(1);
    assert_eq!((deletes(&plan, "pod"), case.status().run == before), (1, false));
}

#[test]
fn a_changed_run_waits_for_what_is_in_flight_and_starts_afresh() {
    let mut case = Case::new(&["a"], &json!({}));
    let pods = case.start();
    let before = case.status().run;
    case.spec(&json!({"runID": "again"}));
    let plan = case.settle();
    assert_eq!((creates_pod(&plan), case.status().run), (0, before.clone()));
    case.end(&pods[0], 0);
    case.settle();
    assert_ne!(case.status().run, before);
    assert_eq!(case.stands("a").0, DeviceState::Exposing);
}

/// Ends this Pod, which is deleted then and kept by a finalizer.
fn end_and_keep(case: &mut Case, pod: &Pod) {
    let mut pod = pod.clone();
    pod.metadata.deletion_timestamp = Some(Time(case.now));
    case.end(&pod, 0);
    case.settle();
}

/// Checks that the device waits for the removal of this Pod, and begins after it.
fn assert_begins_after(case: &mut Case, pod: &Pod) {
    let (name, uid) = (pod.name_any(), pod.uid().expect("a uid"));
    for _ in 0..2 {
        assert_eq!(creates_pod(&case.pass(10)), 0);
        let status = case.status();
        let message = status.message.unwrap_or_default();
        assert_eq!(status.completed_uuids, [""; 0], "{message}");
        assert_eq!(status.waiting.get(reason::DEVICE_BUSY.name), Some(&1));
        assert!(message.contains(&name), "{message}");
        // A new process has the stored status, and nothing else.
        case.world.memory.clear();
    }
    case.world.lose_pod(&key("job"), &name, &uid, case.now);
    case.settle();
    assert_eq!(case.stands("a").0, DeviceState::Exposing);
}

#[test]
fn a_run_that_is_requested_again_after_another_takes_no_result_from_a_pod_of_its_first_time() {
    let mut case = Case::new(&["a"], &json!({"verify": {"mode": "None"}}));
    let pods = case.start();
    let first_run = case.status().run;
    end_and_keep(&mut case, &pods[0]);
    assert_eq!(case.status().completed_uuids, ["a"]);
    case.spec(&json!({"runID": "again"}));
    let other_pods = case.start();
    case.end(&other_pods[0], 0);
    case.settle();
    assert_eq!(
        (case.status().completed_uuids, case.status().run == first_run),
        (vec!["a".to_owned()], false)
    );
    case.spec(&json!({"runID": null}));
    case.settle();
    assert_eq!(case.status().run, first_run);
    assert_begins_after(&mut case, &pods[0]);
}

#[test]
fn a_uid_that_is_added_again_takes_no_result_from_a_pod_of_before() {
    let mut case = Case::new(&["a", "b"], &json!({"verify": {"mode": "None"}}));
    let pods = case.start();
    case.spec(&json!({"uuid": ["b"]}));
    end_and_keep(&mut case, &pods[0]);
    case.spec(&json!({"uuid": ["a", "b"]}));
    assert_begins_after(&mut case, &pods[0]);
}

#[test]
fn a_uid_that_is_added_again_begins_although_a_dead_node_keeps_its_pod_of_before() {
    let mut case = Case::new(&["a", "b"], &json!({"verify": {"mode": "None"}}));
    let pods = case.start();
    case.spec(&json!({"uuid": ["b"]}));
    case.end(&pods[1], 0);
    let mut pod = pods[0].clone();
    pod.metadata.deletion_timestamp = Some(Time(case.now));
    case.see_pod(pod);
    for _ in 0..40 {
        case.pass(60);
    }
    case.spec(&json!({"uuid": ["a", "b"]}));
    let mut created = 0;
    for _ in 0..40 {
        let plan = case.pass(60);
        case.carry_out(&plan);
        created += creates_pod(&plan);
    }
    assert_eq!(created, 1, "{:?}", case.status());
}

#[test]
fn a_finished_job_with_a_ttl_is_deleted_and_at_once_with_zero() {
    for ttl in [0, 30] {
        let mut case = Case::new(
            &["a"],
            &json!({"version": "1", "skipIfCurrent": true, "ttlSecondsAfterFinished": ttl}),
        );
        let deletes = |plan: &Plan| plan.steps.iter().any(|step| matches!(step, Step::DeleteJob));
        assert_eq!(deletes(&case.settle()), ttl == 0);
        assert!(deletes(&case.pass(ttl)));
    }
}

#[test]
fn a_deleted_job_lets_go_when_its_pods_are_gone() {
    let mut case = Case::new(&["a"], &json!({}));
    let pods = case.start();
    case.job.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(case.now));
    case.see_job();
    let plan = case.plan();
    assert_eq!((deletes(&plan, "pod"), deletes(&plan, "service")), (1, 1));
    assert!(!plan.holds.is_empty());
    case.end(&pods[0], 137);
    let (name, uid) = (
        pods[0].metadata.name.clone().expect("a name"),
        pods[0].metadata.uid.clone().expect("a uid"),
    );
    case.world.lose_pod(&key("job"), &name, &uid, case.now);
    let observed = case.world.observe(&key("job"), case.now).expect("the job");
    for service in &observed.services {
        case.world.lose_service(&key("job"), &service.name, &service.uid);
    }
    assert!(matches!(case.plan().steps.as_slice(), [Step::RemoveFinalizer]));
}

#[test]
fn a_status_that_cannot_be_stored_now_is_worded_only_where_something_waits_for_it() {
    let mut case = Case::new(&["a"], &json!({"verify": {"mode": "None"}}));
    let pods = case.start();
    case.settle();
    let worded = |case: &mut Case, report: Report| {
        let mut observed = case.world.observe(&key("job"), case.now).expect("the job");
        observed.report = report;
        plan(&observed).status.is_some()
    };
    case.pass(60);
    assert!(!worded(&mut case, Report::Urgent), "nothing waits for how far the flash is");
    case.end(&pods[0], 0);
    let uid = pods[0].metadata.uid.clone().expect("a uid");
    let flashed = Arc::new(Judged::Asked(Ok(Verdict::Flashed(Proof::ReportedVersion))));
    case.world.memory.entry(key("job")).or_default().answers_mut().judged.insert(uid, flashed);
    assert!(worded(&mut case, Report::Urgent), "whoever waits for the job waits for its end");
    assert!(!worded(&mut case, Report::Never), "a write is under way");
}

#[test]
fn a_run_that_is_edited_away_shows_the_devices_that_it_has_begun_before_the_next_one_begins() {
    for has_ended in [false, true] {
        let mut case = Case::new(&["a"], &json!({}));
        case.belong_to_a_rollout();
        case.see_job();
        let services = case.settle();
        case.carry_out(&services);
        let pods = case.settle();
        case.carry_out(&pods);
        assert_eq!(case.stands("a").0, DeviceState::Exposing, "the Pod is too new to be shown");
        if has_ended {
            let Some(Step::CreatePod(pod)) = pods.steps.first() else { panic!("{pods:?}") };
            let mut pod = (**pod).clone();
            let observed = case.world.observe(&key("job"), case.now).expect("the job");
            let name = pod.metadata.name.clone().unwrap_or_default();
            pod.metadata.uid = observed.pod(&name).map(|pod| pod.uid.clone());
            case.end(&pod, 0);
        }
        let run = case.status().run;
        case.spec(&json!({"version": "9.9.9"}));
        let status = case.plan().status.expect("a status");
        assert_eq!((&status.run, status.devices[0].state), (&run, DeviceState::Flashing));
        case.job.status = Some(status);
        case.see_job();
        let next = case.plan().status.is_some_and(|status| status.run != run);
        assert_eq!(next, has_ended, "a Pod that is at work is waited for");
    }
}
