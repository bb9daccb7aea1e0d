//! What proves that a device runs the firmware, one fact a test.

use flashjob_api::{DeviceState, reason};
use serde_json::json;

use super::fixture::{Case, ESP32};

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
        let mut case = Case::new(&["a", "b"], &json!({"parallelism": 1, "verify": {"mode": mode}}));
        let pods = case.start();
        case.end(&pods[0], 0);
        case.settle();
        assert_eq!(case.stands("b").0, next);
    }
}
