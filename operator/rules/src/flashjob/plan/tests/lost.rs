//! Tests of devices whose Pod vanished before its end was observed, one fact per test.

use flashjob_api::{DeviceState, condition, reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::fixture::{Case, creates_pod, key, world};
use crate::flashjob::observed::{Identity, NodeLease, NodeState};
use crate::flashjob::plan::{Plan, Step};
use crate::world::change::Change;

/// A case whose only Pod vanished, and that Pod's name.
fn vanished(spec: &Value) -> (Case, String) {
    let mut case = Case::new(&["a"], spec);
    let name = lose_pod(&mut case);
    (case, name)
}

/// Starts the Pod of the only device, which then vanishes; returns that Pod's name.
fn lose_pod(case: &mut Case) -> String {
    let pods = case.start();
    let name = pods[0].metadata.name.clone().expect("a name");
    let uid = pods[0].metadata.uid.clone().expect("a uid");
    case.settle();
    case.world.lose_pod(&key("job"), &name, &uid, case.now);
    case.world.confirm_gone(&key("job"), &name, "a", case.now);
    case.settle();
    name
}

/// The node whose Lease has this version.
fn node_state(now: Timestamp, version: u64) -> NodeState {
    NodeState {
        node: "node".into(),
        asked_at: now,
        created_at: Some(Timestamp::UNIX_EPOCH),
        is_ready: true,
        is_out_of_service: false,
        lease: Some(NodeLease { version: version.into(), duration_seconds: 40 }),
    }
}

/// Reads the node every ten seconds, with a new renewal of its Lease each time, for so many
/// seconds.
fn node_renews(case: &mut Case, seconds: i64) -> Plan {
    let mut plan = case.settle();
    for _ in 0..seconds / 10 {
        plan = case.pass(10);
        let reads = plan.steps.iter().filter(|step| matches!(step, Step::ReadNode { .. })).count();
        assert!(reads <= 1, "{:?}", plan.steps);
        if reads == 1 {
            let version = case.now.as_second().unsigned_abs();
            case.world.take(Change::Node(node_state(case.now, version)), case.now);
            plan = case.settle();
        }
    }
    plan
}

#[test]
fn a_pod_that_vanished_keeps_its_device_locked_until_nothing_of_it_can_run() {
    let mut case =
        Case::new(&["a"], &json!({"deviceTimeoutSeconds": 100, "verify": {"timeoutSeconds": 50}}));
    let pods = case.start();
    let (name, uid) = (
        pods[0].metadata.name.clone().expect("a name"),
        pods[0].metadata.uid.clone().expect("a uid"),
    );
    case.world.lose_pod(&key("job"), &name, &uid, case.now);
    let plan = case.settle();
    assert!(plan.steps.iter().any(|step| matches!(step, Step::ConfirmPod { .. })));
    case.world.confirm_gone(&key("job"), &name, "a", case.now);
    assert!(!case.settle().holds.is_empty());
    assert_eq!(case.stands("a"), (DeviceState::Lost, reason::POD_LOST.name.into()));
    case.pass(110);
    assert_eq!(case.stands("a").0, DeviceState::Lost, "the reported version is still looked at");
    case.pass(50);
    assert_eq!(case.stands("a"), (DeviceState::Pending, reason::POD_LOST.name.into()));
}

#[test]
fn a_device_whose_pod_vanished_is_retried_once_its_node_no_longer_runs_the_pod() {
    let (mut case, name) = vanished(&json!({"verify": {"timeoutSeconds": 30}}));
    let identity = Identity::endpoint("10.0.0.0");
    let held = |case: &Case| case.world.locks.holder(&identity, &key("other"), "a").is_some();
    assert_eq!(case.status().devices[0].node.as_deref(), Some("node"));
    let may_run = |case: &mut Case| {
        let observed = case.world.observe(&key("job"), case.now).expect("the job");
        observed.pod(&name).is_some_and(|pod| pod.may_run())
    };
    // A renewal, the grace period of 10 s, the margin of 90 s, and one renewal after it.
    node_renews(&mut case, 120);
    assert!(may_run(&mut case), "the kubelet may still be ending the container");
    assert!(held(&case));
    node_renews(&mut case, 20);
    assert!(!may_run(&mut case));
    let record = case.status().devices[0].clone();
    let message = record.message.unwrap_or_default();
    assert_eq!(record.state, DeviceState::Lost, "the reported version is still looked at");
    assert!(
        message.contains(&name) && message.contains("node node no longer runs it"),
        "{message}"
    );
    case.pass(30);
    assert_eq!(case.stands("a"), (DeviceState::Pending, reason::POD_LOST.name.into()));
    assert_eq!(case.status().devices[0].node, None);
    assert!(!held(&case));
}

#[test]
fn a_lost_device_stays_locked_until_the_deadline_while_its_node_renews_no_lease() {
    let (mut case, _) =
        vanished(&json!({"deviceTimeoutSeconds": 300, "verify": {"timeoutSeconds": 1}}));
    for _ in 0..30 {
        let plan = case.pass(10);
        assert!(plan.steps.iter().any(|step| matches!(step, Step::ReadNode { .. })));
        case.world.take(Change::Node(node_state(case.now, 1)), case.now);
        assert_eq!(case.stands("a").0, DeviceState::Lost);
    }
    case.pass(11);
    assert_eq!(case.stands("a").0, DeviceState::Pending);
}

#[test]
fn after_a_restart_the_node_of_a_lost_device_is_read_and_its_lock_lasts_no_longer() {
    let (mut case, name) =
        vanished(&json!({"deviceTimeoutSeconds": 300, "verify": {"timeoutSeconds": 1}}));
    case.pass(100);
    let until = case.status().devices[0].not_before.clone();
    let devices = std::mem::take(&mut case.world.devices);
    case.world = world();
    case.world.devices = devices;
    case.see_job();
    case.world.lock_what_is_stored();
    let plan = case.settle();
    assert!(plan.steps.iter().any(|step| matches!(step, Step::ConfirmPod { .. })));
    case.world.confirm_gone(&key("job"), &name, "a", case.now);
    let plan = case.settle();
    assert!(plan.steps.iter().any(|step| matches!(step, Step::ReadNode { .. })));
    assert_eq!(case.status().devices[0].not_before, until);
    node_renews(&mut case, 140);
    assert_eq!(case.stands("a").0, DeviceState::Pending);
}

#[test]
fn a_lost_device_without_a_baseline_is_not_unlocked_by_the_version_that_it_reports() {
    let device = [("DEVICE", "esp32"), ("HOST_ENDPOINT", "10.0.0.0")];
    let mut case = Case::new(&["a"], &json!({}));
    case.device("a", &device);
    lose_pod(&mut case);
    case.device("a", &[device[0], device[1], ("VERSION", "2")]);
    assert!(!case.pass(900).holds.is_empty());
    assert_eq!(case.stands("a").0, DeviceState::Lost, "an earlier attempt may have flashed it");
    case.pass(10);
    assert_eq!(case.status().completed_uuids, ["a"]);
}

#[test]
fn a_lost_retry_is_not_unlocked_by_a_version_that_was_reported_before_it_began() {
    let reports_it = [("DEVICE", "esp32"), ("HOST_ENDPOINT", "10.0.0.0"), ("VERSION", "2")];
    // In mode None, a retry begins although the device reports the version, which another job
    // flashed. In any other mode, a late effect of the first attempt can be reported while the
    // retry runs.
    for (mode, is_reported_before) in [("None", true), ("BestEffort", false), ("Required", false)]
    {
        let mut case = Case::new(&["a"], &json!({"verify": {"mode": mode}}));
        let pods = case.start();
        case.end(&pods[0], 1);
        case.settle();
        if is_reported_before {
            case.device("a", &reports_it);
        }
        case.pass(20);
        lose_pod(&mut case);
        case.device("a", &reports_it);
        assert!(!case.pass(10).holds.is_empty());
        assert_eq!(case.stands("a").0, DeviceState::Lost, "{mode}");
        case.pass(900);
        case.pass(10);
        assert_eq!(case.status().completed_uuids, ["a"], "{mode}");
    }
}

#[test]
fn a_retry_that_waits_for_its_address_ends_once_the_device_reports_the_new_version() {
    let mut case = Case::new(&["a"], &json!({"verify": {"mode": "Required"}}));
    let pods = case.start();
    case.end(&pods[0], 1);
    case.settle();
    case.balanced = false;
    let services = case.pass(20);
    case.carry_out(&services);
    case.settle();
    assert_eq!(case.stands("a").0, DeviceState::Exposing);
    let reports_it = [("DEVICE", "esp32"), ("HOST_ENDPOINT", "10.0.0.0"), ("VERSION", "2")];
    case.device("a", &reports_it);
    let plan = case.settle();
    assert_eq!((creates_pod(&plan), case.status().completed_uuids), (0, vec!["a".to_owned()]));
}

#[test]
fn the_late_confirmation_that_the_pod_of_an_earlier_attempt_is_gone_locks_nothing() {
    let mut case = Case::new(&["a"], &json!({}));
    let pods = case.start();
    case.end(&pods[0], 1);
    case.settle();
    assert_eq!(case.status().devices[0].attempt, 2);
    let devices = std::mem::take(&mut case.world.devices);
    case.world = world();
    case.world.devices = devices;
    case.see_job();
    let name = pods[0].metadata.name.clone().expect("a name");
    case.world.confirm_gone(&key("job"), &name, "a", case.now);
    let observed = case.world.observe(&key("job"), case.now).expect("the job");
    assert!(observed.pods.is_empty(), "{:?}", observed.pods);
}

#[test]
fn a_deleted_job_waits_for_a_lost_pod_only_until_its_node_no_longer_runs_it() {
    let (mut case, _) = vanished(&json!({}));
    case.job.metadata.deletion_timestamp = Some(Time(case.now));
    case.see_job();
    case.lose_services();
    let ends = |plan: &Plan| plan.steps.iter().any(|step| matches!(step, Step::RemoveFinalizer));
    assert!(!ends(&node_renews(&mut case, 120)));
    assert!(ends(&node_renews(&mut case, 20)));
}

#[test]
fn a_deleted_job_says_once_for_which_lost_device_it_waits_why_and_until_when() {
    let (mut case, name) = vanished(&json!({}));
    let record = case.status().devices[0].clone();
    let until = record.waits_until().expect("a time");
    case.job.metadata.deletion_timestamp = Some(Time(case.now));
    // The API server counts the deletion as a change of the spec.
    case.job.metadata.generation = Some(2);
    case.see_job();
    case.lose_services();
    case.settle();
    let status = case.status();
    let message = status.message.clone().unwrap_or_default();
    assert!(message.starts_with("being deleted; waiting for device a: Pod "), "{message}");
    for part in [name, record.message.unwrap_or_default(), until.to_string()] {
        assert!(!part.is_empty() && message.contains(&part), "{part} is not in {message}");
    }
    let mut conditions = status.conditions.iter();
    let reconciling = conditions.find(|found| found.type_ == condition::RECONCILING);
    let reconciling = reconciling.expect("the condition");
    assert_eq!(
        (reconciling.status.as_str(), reconciling.reason.as_str(), &reconciling.message),
        ("True", reason::POD_LOST.name, &message)
    );
    assert_eq!(status.observed_generation, Some(1), "it describes the spec of that generation");
    assert_eq!(case.pass(60).status, Some(status), "what is stored already is not written again");
    case.now = until;
    let plan = case.plan();
    assert!(plan.steps.iter().any(|step| matches!(step, Step::RemoveFinalizer)));
    assert_eq!(plan.status, None, "a write would delay the finalizer");
}

#[test]
fn a_deleted_job_names_the_lost_device_that_it_waits_for_longest() {
    let mut case = Case::new(&["a", "b"], &json!({}));
    let pods = case.start();
    for (pod, device) in pods.iter().zip(["a", "b"]) {
        let name = pod.metadata.name.clone().expect("a name");
        let uid = pod.metadata.uid.clone().expect("a uid");
        case.pass(60);
        case.world.lose_pod(&key("job"), &name, &uid, case.now);
        case.world.confirm_gone(&key("job"), &name, device, case.now);
    }
    case.settle();
    case.job.metadata.deletion_timestamp = Some(Time(case.now));
    case.see_job();
    case.settle();
    let message = case.status().message.unwrap_or_default();
    assert!(message.starts_with("being deleted; waiting for device b: Pod "), "{message}");
    assert!(message.ends_with("; also waiting for 1 more device"), "{message}");
}

#[test]
fn a_device_that_reports_the_new_version_completes_though_its_pod_vanished_and_is_free() {
    let (mut case, _) = vanished(&json!({"deviceTimeoutSeconds": 100}));
    let identity = Identity::endpoint("10.0.0.0");
    let held = |case: &Case| case.world.locks.holder(&identity, &key("other"), "a").is_some();
    assert!(held(&case), "its container may still run");
    case.device("a", &[("DEVICE", "esp32"), ("HOST_ENDPOINT", "10.0.0.0"), ("VERSION", "2")]);
    case.settle();
    assert_eq!(case.status().completed_uuids, ["a"]);
    assert!(!held(&case));
}

#[test]
fn a_pod_of_which_nothing_is_heard_long_after_its_deadline_is_given_up() {
    let mut case = Case::new(&["a"], &json!({"deviceTimeoutSeconds": 100}));
    case.start();
    case.settle();
    let plan = case.pass(100 + 10 + 60);
    assert_eq!(case.stands("a").0, DeviceState::Lost);
    assert_eq!(creates_pod(&plan), 0);
}

#[test]
fn the_pod_of_a_dead_node_holds_neither_other_jobs_nor_a_deleted_one_beyond_its_deadline() {
    let identity = Identity::endpoint("10.0.0.0");
    let held = |case: &Case| case.world.locks.holder(&identity, &key("other"), "a").is_some();
    let spec = json!({"deviceTimeoutSeconds": 100, "backoffLimitPerDevice": 0});
    let mut case = Case::new(&["a"], &spec);
    let pods = case.start();
    case.settle();
    // A job that has given its device up, and stays.
    case.pass(100 + 10 + 60);
    let mut pod = pods[0].clone();
    pod.metadata.deletion_timestamp = Some(Time(case.now));
    case.see_pod(pod);
    assert!(held(&case), "the device gets time to report the new version");
    case.pass(600);
    assert_eq!(case.stands("a"), (DeviceState::Failed, reason::POD_LOST.name.into()));
    assert!(!held(&case));
    // A job that is being deleted.
    let mut case = Case::new(&["a"], &spec);
    let pods = case.start();
    case.settle();
    let mut pod = pods[0].clone();
    pod.metadata.deletion_timestamp = Some(Time(case.now));
    case.see_pod(pod);
    case.job.metadata.deletion_timestamp = Some(Time(case.now));
    // The API server counts the deletion as a change of the spec.
    case.job.metadata.generation = Some(2);
    case.see_job();
    case.lose_services();
    let ends = |plan: &Plan| plan.steps.iter().any(|step| matches!(step, Step::RemoveFinalizer));
    let plan = case.plan();
    assert!(!ends(&plan) && plan.wake_at.is_some() && held(&case));
    case.now = plan.wake_at.expect("a time");
    assert!(ends(&case.plan()));
    case.world.forget_job(&key("job"));
    assert!(!held(&case));
}
