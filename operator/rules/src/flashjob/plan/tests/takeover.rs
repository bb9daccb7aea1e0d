//! Tests that results of the Go operator's Pods are taken over.

use flashjob_api::{DeviceState, reason};
use k8s_openapi::api::core::v1::{EnvVar, Pod};
use serde_json::json;

use super::fixture::{Case, deletes, pod_of_the_go_operator};

/// A Pod of the Go operator that flashes the firmware of the job.
fn pod_for_the_same_firmware(case: &Case) -> Pod {
    let mut pod = pod_of_the_go_operator("job", "a", "10.0.0.0");
    let spec = &case.job.spec;
    let variables = pod.spec.as_mut().expect("a spec").containers[0].env.get_or_insert_default();
    for (name, value) in [("FIRMWARE", &spec.firmware), ("VERSION", &spec.version)] {
        variables.push(EnvVar {
            name: name.to_owned(),
            value: Some(value.clone()),
            ..EnvVar::default()
        });
    }
    pod
}

#[test]
fn a_device_that_a_pod_of_the_go_operator_flashed_with_the_jobs_firmware_is_completed() {
    let mut case = Case::new(&["a", "b"], &json!({}));
    let pod = pod_for_the_same_firmware(&case);
    case.see_pod(pod.clone());
    case.settle();
    assert_eq!(case.stands("a"), (DeviceState::Pending, reason::DEVICE_BUSY.name.into()));
    case.end(&pod, 0);
    let plan = case.plan();
    assert_eq!(deletes(&plan, "pod"), 0, "it is not stored yet");
    assert_eq!(plan.status.map(|status| status.completed_uuids), Some(vec!["a".to_owned()]));
    let plan = case.settle();
    assert_eq!(case.status().completed_uuids, ["a"]);
    assert_eq!(deletes(&plan, "pod"), 1);
    assert_eq!(case.stands("b").0, DeviceState::Exposing);
}

#[test]
fn a_device_that_a_pod_of_the_go_operator_did_not_flash_or_with_something_else_is_flashed() {
    let failed = |case: &mut Case, pod: &_| case.end(pod, 1);
    let edited = |case: &mut Case, pod: &_| {
        case.spec(&json!({"version": "3"}));
        case.end(pod, 0);
    };
    let unproven = |case: &mut Case, pod: &_| {
        case.spec(&json!({"verify": {"mode": "Required"}}));
        case.end(pod, 0);
    };
    let policed = |case: &mut Case, pod: &_| {
        case.spec(&json!({"firmwarePolicy": {}}));
        case.end(pod, 0);
        case.settle();
        assert_eq!(case.status().completed_uuids, [""; 0], "nothing is resolved yet");
        super::firmware::answer(case, super::firmware::resolved(&[], None));
    };
    for (name, end) in [
        ("failed", failed as fn(&mut Case, &_)),
        ("edited", edited),
        ("unproven", unproven),
        ("policed", policed),
    ] {
        let mut case = Case::new(&["a"], &json!({}));
        let pod = pod_for_the_same_firmware(&case);
        case.see_pod(pod.clone());
        case.settle();
        end(&mut case, &pod);
        case.settle();
        assert_eq!(case.stands("a").0, DeviceState::Exposing, "{name}");
    }
}
