//! Tests of the proof that a device runs the firmware, one fact per test.

use flashjob_api::{DeviceState, reason};
use serde_json::json;

use super::fixture::{Case, ESP32, deletes, key};
use crate::flashjob::plan::Step;

#[test]
fn a_changed_version_verifies_and_a_third_value_ends_the_wait() {
    for (reported, required, state) in [
        ("2", true, DeviceState::Pending),
        ("3", true, DeviceState::Pending),
        ("3", false, DeviceState::Pending),
    ] {
        let mode = if required { "Required" } else { "BestEffort" };
        let mut case = Case::new(&["a"], &json!({"verify": {"mode": mode}}));
        let pods = case.start();
        case.end(&pods[0], 0);
        case.settle();
        assert_eq!(case.stands("a").0, DeviceState::Verifying);
        case.device("a", &[ESP32, ("HOST_ENDPOINT", "10.0.0.0"), ("VERSION", reported)]);
        case.settle();
        let counts = case.status().counts.expect("counts");
        let details = case.status().results.get("a").cloned().unwrap_or_default();
        let wrong = (reported == "3" && !required).then(|| reported.to_owned());
        assert_eq!(details.reported, wrong, "what is unverified says what it reports");
        match (reported, required) {
            ("2", _) => assert_eq!((counts.completed, counts.unverified), (1, 0)),
            (_, true) => {
                assert_eq!(case.stands("a"), (state, reason::VERSION_NOT_REPORTED.name.into()))
            }
            (_, false) => assert_eq!((counts.completed, counts.unverified), (1, 1)),
        }
    }
}

#[test]
fn what_cannot_be_proven_completes_as_unverified_or_fails_before_it_is_flashed() {
    let mut case = Case::new(&["a"], &json!({"version": "1", "verify": {"mode": "BestEffort"}}));
    let pods = case.start();
    case.end(&pods[0], 0);
    case.settle();
    assert_eq!(case.status().counts.expect("counts").unverified, 1);
    let mut case = Case::new(&["a"], &json!({"version": "1", "verify": {"mode": "Required"}}));
    case.settle();
    assert_eq!(case.stands("a"), (DeviceState::Failed, reason::VERSION_UNPROVABLE.name.into()));
}

#[test]
fn an_unverified_device_that_leaves_the_spec_is_no_longer_counted() {
    let mut case = Case::new(&["a", "b"], &json!({"version": "1"}));
    for pod in case.start() {
        case.end(&pod, 0);
    }
    case.settle();
    let unverified = |case: &Case| case.status().counts.map(|counts| counts.unverified);
    assert_eq!(unverified(&case), Some(2));
    case.device("c", &[ESP32, ("HOST_ENDPOINT", "10.0.0.9"), ("VERSION", "0")]);
    case.spec(&json!({"uuid": ["b", "c"]}));
    case.settle();
    assert_eq!(unverified(&case), Some(1));
    let pods = case.start();
    case.device("c", &[ESP32, ("HOST_ENDPOINT", "10.0.0.9"), ("VERSION", "1")]);
    case.end(&pods[0], 0);
    case.settle();
    let counts = case.status().counts.expect("counts");
    assert_eq!((counts.completed, counts.unverified), (2, 1));
}

#[test]
fn best_effort_does_not_wait_where_no_version_was_ever_reported() {
    let mut case = Case::new(&["a"], &json!({}));
    case.device("a", &[ESP32, ("HOST_ENDPOINT", "10.0.0.0")]);
    let pods = case.start();
    case.end(&pods[0], 0);
    case.settle();
    assert_eq!(case.status().counts.expect("counts").unverified, 1);
}

#[test]
fn a_required_proof_keeps_the_place_and_best_effort_does_not() {
    for (mode, next) in [("Required", DeviceState::Pending), ("BestEffort", DeviceState::Exposing)]
    {
        let mut case =
            Case::new(&["a", "b"], &json!({"parallelism": 1, "verify": {"mode": mode}}));
        let pods = case.start();
        case.end(&pods[0], 0);
        case.settle();
        assert_eq!(case.stands("b").0, next);
    }
}

#[test]
fn a_device_that_waits_for_its_verdict_counts_among_those_that_must_still_prove_their_version() {
    let spec = json!({"parallelism": 1, "verify": {"mode": "BestEffort"}});
    let mut case = Case::new(&["a", "b", "c"], &spec);
    for _ in 0..2 {
        let pods = case.start();
        case.end(&pods[0], 0);
        let plan = case.plan();
        assert!(!plan.questions.is_empty(), "its plugin is still to judge it");
        let devices = plan.status.expect("a status").devices;
        let c = devices.iter().find(|device| device.uid == "c");
        assert!(c.is_none_or(|device| device.state == DeviceState::Pending), "{devices:?}");
    }
}

#[test]
fn the_next_device_begins_once_it_is_stored_that_the_one_before_has_proven_itself() {
    let spec = json!({"parallelism": 1, "verify": {"mode": "Required"}});
    let mut case = Case::new(&["a", "b"], &spec);
    let pods = case.start();
    case.end(&pods[0], 0);
    case.settle();
    reports(&mut case, "2");
    let plan = case.plan();
    let status = plan.status.clone().expect("a status");
    assert_eq!(status.completed_uuids, ["a"]);
    let of_b = status.devices.iter().find(|device| device.uid == "b").expect("recorded");
    assert_eq!(
        of_b.state,
        DeviceState::Pending,
        "an operator that restarts may not see the proof"
    );
    assert!(plan.urgent && !plan.steps.iter().any(Step::creates), "{plan:?}");
    case.settle();
    assert_eq!(case.stands("b").0, DeviceState::Exposing);
}

fn reports(case: &mut Case, version: &str) {
    case.device("a", &[ESP32, ("HOST_ENDPOINT", "10.0.0.0"), ("VERSION", version)]);
}

#[test]
fn a_proof_counts_though_the_container_failed_afterwards() {
    for code in [1, 3, 137] {
        let spec = json!({"backoffLimitPerDevice": 0, "verify": {"mode": "Required"}});
        let mut case = Case::new(&["a"], &spec);
        let pods = case.start();
        reports(&mut case, "2");
        case.end(&pods[0], code);
        case.settle();
        let counts = case.status().counts.expect("counts");
        assert_eq!((counts.completed, counts.failed), (1, 0), "exit code {code}");
    }
}

#[test]
fn a_proof_that_comes_before_the_next_attempt_takes_its_place_unless_nobody_looks_at_versions() {
    for (mode, completed) in [("Required", 1), ("BestEffort", 1), ("None", 0)] {
        let mut case = Case::new(&["a"], &json!({"verify": {"mode": mode}}));
        let pods = case.start();
        case.end(&pods[0], 1);
        case.settle();
        assert_eq!(case.stands("a"), (DeviceState::Pending, reason::POD_FAILED.name.into()));
        reports(&mut case, "2");
        let plan = case.pass(30);
        assert_eq!(case.status().counts.expect("counts").completed, completed, "{mode}");
        let creates = plan.steps.iter().any(Step::creates);
        assert_eq!(creates, completed == 0, "{mode}: {plan:?}");
    }
}

#[test]
fn the_address_of_a_failed_attempt_is_not_given_away_at_once_though_the_device_is_proven() {
    // Another job flashed the device while the container ran, or while the device waited for its
    // next attempt.
    for while_it_ran in [true, false] {
        let spec = json!({"verify": {"mode": "Required"}});
        let mut case = Case::new(&["a"], &spec);
        let pods = case.start();
        let name = pods[0].metadata.name.clone().expect("a name");
        let uid = pods[0].metadata.uid.clone().expect("a uid");
        if while_it_ran {
            reports(&mut case, "2");
        }
        case.end(&pods[0], 1);
        case.settle();
        if !while_it_ran {
            case.world.lose_pod(&key("job"), &name, &uid, case.now);
            case.settle();
            reports(&mut case, "2");
        }
        let plan = case.pass(15);
        assert_eq!(case.status().completed_uuids, ["a"]);
        assert_eq!((deletes(&plan, "pod"), deletes(&plan, "service")), (0, 0), "{plan:?}");
        let mut plan = case.pass(45);
        if while_it_ran {
            assert_eq!((deletes(&plan, "pod"), deletes(&plan, "service")), (1, 0), "{plan:?}");
            case.world.lose_pod(&key("job"), &name, &uid, case.now);
            plan = case.settle();
        }
        assert_eq!(deletes(&plan, "service"), 1, "{plan:?}");
    }
}

#[test]
fn a_version_that_another_job_flashed_before_the_pod_was_made_is_no_proof_of_it() {
    for (mode, result) in [("Required", Some(DeviceState::Failed)), ("BestEffort", None)] {
        let mut case = Case::new(&["a"], &json!({"verify": {"mode": mode}}));
        case.balanced = false;
        let services = case.settle();
        case.carry_out(&services);
        case.settle();
        assert_eq!(case.stands("a").0, DeviceState::Exposing);
        reports(&mut case, "2");
        case.settle();
        match result {
            Some(state) => {
                let expected = (state, reason::VERSION_UNPROVABLE.name.to_owned());
                assert_eq!(case.stands("a"), expected);
            }
            None => {
                assert_eq!(case.stands("a").0, DeviceState::Exposing);
                let baseline = case.status().devices[0].baseline_version.clone();
                assert_eq!(baseline.as_deref(), Some("2"));
            }
        }
    }
}

#[test]
fn a_version_must_stay_as_long_as_the_job_says_and_a_fall_back_is_told() {
    let spec =
        json!({"verify": {"mode": "BestEffort", "stableSeconds": 20, "timeoutSeconds": 60}});
    let flash = |case: &mut Case| {
        let pods = case.start();
        case.end(&pods[0], 0);
        case.settle();
        reports(case, "2");
        case.pass(50);
        assert_eq!(case.stands("a").0, DeviceState::Verifying, "it has not stayed long enough");
    };
    let mut case = Case::new(&["a"], &spec);
    flash(&mut case);
    // Longer than the timeout, which applies only until the version is first reported.
    case.pass(20);
    assert_eq!(case.status().counts.expect("counts").completed, 1);
    let mut case = Case::new(&["a"], &spec);
    flash(&mut case);
    // The device restarts, and reports nothing meanwhile.
    case.device("a", &[ESP32, ("HOST_ENDPOINT", "10.0.0.0")]);
    case.pass(5);
    assert_eq!(case.stands("a").0, DeviceState::Verifying);
    reports(&mut case, "1");
    case.pass(5);
    assert_eq!(case.stands("a"), (DeviceState::Pending, reason::VERSION_NOT_REPORTED.name.into()));
    let message = case.status().devices[0].message.clone().expect("a message");
    assert!(message.contains("rolled back to 1"), "{message}");
}

#[test]
fn a_proof_counts_though_the_flash_container_never_started() {
    let init = json!({"phase": "Failed", "initContainerStatuses": [{
        "name": "cni-check", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 7}},
    }]});
    let refused = json!({"waiting": {
        "reason": "CreateContainerConfigError",
        "message": "container has runAsNonRoot and image will run as root",
    }});
    let root = json!({"phase": "Pending", "startTime": "2020-01-01T00:00:00Z",
        "containerStatuses": [{
            "name": "flash", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": refused,
    }]});
    for status in [init, root] {
        let spec = json!({"backoffLimitPerDevice": 1, "verify": {"mode": "Required"}});
        let mut case = Case::new(&["a"], &spec);
        let pods = case.start();
        case.end(&pods[0], 1);
        case.settle();
        case.now = crate::flashjob::observed::after(case.now, 20);
        let pods = case.start();
        // What the first attempt began ends only now.
        reports(&mut case, "2");
        case.report(&pods[0], &status);
        case.settle();
        assert_eq!(case.status().completed_uuids, ["a"], "{status}");
    }
}
