//! Tests of Pods that outlive their FlashJob, one fact per test.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::fixture::{Case, job, key};
use crate::flashjob::observed::{Identity, Job, after};
use crate::flashjob::plan::{Plan, Step, plan};

/// The Pod of a device in deletion, which a dead node keeps.
fn kept_pod(case: &mut Case) -> Pod {
    let mut pod = case.start().remove(0);
    case.settle();
    pod.metadata.deletion_timestamp = Some(Time(case.now));
    case.see_pod(pod.clone());
    pod
}

fn is_held(case: &Case) -> bool {
    case.world.locks.holder(&Identity::endpoint("10.0.0.0"), &key("other"), "a").is_some()
}

/// Plans another FlashJob, which wants the same device.
fn plan_other(case: &mut Case) -> Plan {
    plan(&case.world.observe(&key("other"), case.now).expect("the job"))
}

#[test]
fn after_a_restart_a_pod_without_a_job_locks_its_device_until_its_deadline_has_passed() {
    let mut case = Case::new(&["a"], &json!({"deviceTimeoutSeconds": 100}));
    let pod = kept_pod(&mut case);
    case.new_process();
    case.see_pod(pod.clone());
    case.world.see_job(Job::of(job("other", &["a"], &json!({}))));
    let waiting = plan_other(&mut case);
    assert!(is_held(&case), "its container may still run");
    let end = after(case.now, 100 + 10 + 60);
    assert!(waiting.wake_at.is_some_and(|at| at <= end), "no event tells of it");
    case.now = end;
    plan_other(&mut case);
    assert!(!is_held(&case));
    case.see_pod(pod);
    assert!(!is_held(&case), "a change of the Pod's status locks nothing");
}

#[test]
fn a_pod_that_is_listed_before_its_job_is_locked_until_that_job_releases_it() {
    let mut case = Case::new(&["a"], &json!({"deviceTimeoutSeconds": 100}));
    let pod = kept_pod(&mut case);
    case.new_process();
    case.see_pod(pod);
    case.see_job();
    case.world.see_job(Job::of(job("other", &["a"], &json!({}))));
    plan_other(&mut case);
    assert!(is_held(&case));
    case.now = after(case.now, 1000);
    plan_other(&mut case);
    assert!(is_held(&case), "its own job decides");
}

#[test]
fn a_pod_that_its_job_no_longer_waited_for_does_not_lock_its_device_again() {
    let mut case = Case::new(&["a"], &json!({"deviceTimeoutSeconds": 100}));
    let pod = kept_pod(&mut case);
    case.job.metadata.deletion_timestamp = Some(Time(case.now));
    case.see_job();
    case.plan();
    case.now = after(case.now, 100 + 10 + 60);
    case.plan();
    case.world.forget_job(&key("job"));
    assert!(!is_held(&case));
    case.see_pod(pod);
    assert!(!is_held(&case), "a change of the Pod's status locks nothing");
}

#[test]
fn the_end_of_a_pod_releases_its_device_also_when_its_job_was_created_again() {
    let mut case = Case::new(&["a"], &json!({}));
    let pod = kept_pod(&mut case);
    case.job.metadata.uid = Some("uid-of-the-second".to_owned());
    case.job.status = None;
    case.see_job();
    assert!(is_held(&case), "its container may still run");
    let name = pod.metadata.name.expect("a name");
    let observed = case.world.observe(&key("job"), case.now).expect("the job");
    assert!(observed.pod(&name).is_none(), "no plan sees it");
    let gone = case.world.pods_not_in(&hashbrown::HashSet::new());
    for (job, name, uid) in gone {
        case.world.lose_pod(&job, &name, &uid, case.now);
    }
    assert!(!is_held(&case));
}

#[test]
fn a_job_that_was_created_again_waits_for_the_pod_of_the_first_one() {
    let mut case = Case::new(&["a"], &json!({}));
    let pod = kept_pod(&mut case);
    case.job.metadata.uid = Some("uid-of-the-second".to_owned());
    case.job.status = None;
    case.see_job();
    let begins = |plan: &Plan| {
        plan.steps.iter().any(|step| matches!(step, Step::CreateService(_) | Step::CreatePod(_)))
    };
    assert!(!begins(&case.settle()), "two Pods would flash one device");
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let expected = format!("Pod {name} of an earlier FlashJob fleet/job may still be flashing");
    let status = case.status();
    let message = status.devices.first().and_then(|device| device.message.as_deref());
    assert!(message.is_some_and(|message| message.starts_with(&expected)), "{message:?}");
    case.end(&pod, 137);
    assert!(begins(&case.settle()));
}
