//! Tests of pooled Services, one fact per test.

use std::sync::Arc;

use flashjob_api::DeviceState;
use flashjob_types::plugin::{Proof, Verdict};
use serde_json::json;

use super::fixture::{Case, ESP32, creates_pod, deletes, key};
use crate::flashjob::observed::Judged;
use crate::flashjob::plan::{Plan, Step};

#[test]
fn a_slot_is_not_handed_on_right_after_an_attempt_that_was_not_judged_flashed() {
    let spec = json!({"parallelism": 1, "exposure": "Pooled", "backoffLimitPerDevice": 0});
    for (code, started) in [(0, 1), (1, 0)] {
        let mut case = Case::new(&["a", "b"], &spec);
        let pods = case.start();
        case.end(&pods[0], code);
        // The reported version would be proof, whatever the container's exit code.
        let version = if code == 0 { "2" } else { "1" };
        case.device("a", &[ESP32, ("HOST_ENDPOINT", "10.0.0.0"), ("VERSION", version)]);
        let plan = case.settle();
        for step in &plan.steps {
            if let Step::DeletePod { name, uid } = step {
                case.world.lose_pod(&key("job"), name, uid, case.now);
            }
        }
        assert_eq!(creates_pod(&case.settle()), started, "exit code {code}");
    }
}

#[test]
fn a_slot_is_handed_on_at_once_after_an_attempt_whose_container_never_started() {
    for limit in [0, 1] {
        let spec = json!({"parallelism": 1, "exposure": "Pooled", "backoffLimitPerDevice": limit});
        let mut case = Case::new(&["a", "b"], &spec);
        let pods = case.start();
        let init = json!({
            "name": "mesh-init", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 9}},
        });
        let status = json!({"phase": "Failed", "initContainerStatuses": [init]});
        case.report(&pods[0], &status);
        let plan = case.settle();
        assert_eq!((creates_pod(&plan), deletes(&plan, "pod")), (1, 1), "limit {limit}");
        for step in &plan.steps {
            if let Step::DeletePod { name, uid } = step {
                case.world.lose_pod(&key("job"), name, uid, case.now);
            }
        }
        assert_eq!(creates_pod(&case.settle()), 1, "limit {limit}: also once its Pod is gone");
    }
}

#[test]
fn a_slot_is_handed_on_at_once_also_when_its_pod_began_and_ended_between_two_status_writes() {
    let mut case = Case::new(
        &["a", "b"],
        &json!({"parallelism": 1, "exposure": "Pooled", "verify": {"mode": "None"}}),
    );
    let services = case.settle();
    case.carry_out(&services);
    let plan = case.settle();
    let pod = plan
        .steps
        .iter()
        .find_map(|step| if let Step::CreatePod(pod) = step { Some(*pod.clone()) } else { None });
    let mut pod = pod.expect("a Pod");
    pod.metadata.uid = Some("uid".to_owned());
    case.end(&pod, 0);
    let flashed = Arc::new(Judged::Asked(Ok(Verdict::Flashed(Proof::ReportedVersion))));
    case.world
        .memory
        .entry(key("job"))
        .or_default()
        .answers_mut()
        .judged
        .insert("uid".to_owned(), flashed);
    assert_eq!(case.stands("a").0, DeviceState::Exposing);
    assert_eq!(creates_pod(&case.plan()), 1);
}

#[test]
fn a_pool_that_waits_takes_over_the_place_of_one_that_is_idle() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 1, "exposure": "Pooled"}));
    case.device("b", &[("DEVICE", "usb"), ("HOST_ENDPOINT", "10.0.0.1")]);
    let pods = case.start();
    case.end(&pods[0], 0);
    case.device("a", &[ESP32, ("HOST_ENDPOINT", "10.0.0.0"), ("VERSION", "2")]);
    let plan = case.settle();
    for step in &plan.steps {
        if let Step::DeletePod { name, uid } = step {
            case.world.lose_pod(&key("job"), name, uid, case.now);
        }
    }
    let plan = case.settle();
    assert_eq!(case.stands("b").0, DeviceState::Exposing);
    assert_eq!(deletes(&plan, "service"), 1);
}

#[test]
fn a_service_whose_create_has_no_answer_counts_when_its_device_needs_another_pool() {
    let mut case = Case::new(&["a"], &json!({"parallelism": 1, "exposure": "Pooled"}));
    let creates =
        |plan: Plan| plan.steps.into_iter().find(|step| matches!(step, Step::CreateService(_)));
    let create = creates(case.settle()).expect("a Service to create");
    case.world.memory.entry(key("job")).or_default().begin(&create);
    case.device("a", &[("DEVICE", "usb"), ("HOST_ENDPOINT", "10.0.0.0")]);
    assert!(creates(case.settle()).is_none(), "one more than parallelism allows");
    case.world.memory.entry(key("job")).or_default().end(&create.key());
    let other = creates(case.settle()).expect("a Service of the other pool");
    assert_ne!(other.key(), create.key());
}

#[test]
fn a_suspended_job_keeps_no_idle_pool() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 1, "exposure": "Pooled"}));
    let services = case.settle();
    case.carry_out(&services);
    case.spec(&json!({"suspend": true, "uuid": ["b"]}));
    let plan = case.settle();
    assert_eq!(deletes(&plan, "service"), 1);
}

#[test]
fn a_device_that_waits_names_the_addresses_that_failed_attempts_keep_and_for_how_long() {
    for exposure in ["PerDevice", "Pooled"] {
        let spec = json!({"parallelism": 1, "exposure": exposure, "backoffLimitPerDevice": 0});
        let mut case = Case::new(&["a", "b"], &spec);
        let pods = case.start();
        case.balanced = false;
        case.end(&pods[0], 1);
        let plan = case.settle();
        case.carry_out(&plan);
        let ended = plan.steps.iter().find_map(|step| match step {
            Step::DeletePod { name, uid } => Some((name, uid)),
            _ => None,
        });
        // A pool keeps the ended Pod, so that no other device gets its slot.
        if let Some((name, uid)) = ended {
            case.world.lose_pod(&key("job"), name, uid, case.now);
            case.world.confirm_gone(&key("job"), name, "a", case.now);
        }
        case.settle();
        let message = |case: &Case| {
            let status = case.status();
            let device = status.devices.iter().find(|device| device.uid == "b").cloned();
            device.and_then(|device| device.message).unwrap_or_default()
        };
        let expected =
            "no external address yet; failed attempts keep these addresses for 60 s: 192.0";
        assert!(message(&case).contains(expected), "{exposure}: {}", message(&case));
        if exposure == "PerDevice" {
            case.pass(60);
            assert!(message(&case).ends_with("no external address yet"), "{}", message(&case));
        }
    }
}
