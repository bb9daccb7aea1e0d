//! Tests of attempts that end through no fault of the device or the firmware: refused attachments
//! and disruptions.

use flashjob_api::{DeviceState, reason};
use serde_json::{Value, json};

use super::fixture::{Case, container};

#[test]
fn a_device_that_could_not_be_attached_is_retried_and_it_does_not_count() {
    let mut case = Case::new(&["a"], &json!({"backoffLimitPerDevice": 0}));
    let pods = case.start();
    case.report(&pods[0], &json!({"phase": "Failed", "reason": "UnexpectedAdmissionError"}));
    case.settle();
    assert_eq!(case.stands("a"), (DeviceState::Pending, reason::DEVICE_NOT_ATTACHED.name.into()));
    assert_eq!(case.status().devices[0].uncounted, 1);
}

#[test]
fn a_device_that_is_never_attached_fails_after_30_uncounted_attempts_and_its_retries() {
    let mut case = Case::new(&["a"], &json!({"backoffLimitPerDevice": 1}));
    let refused = json!({
        "phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no free slot",
    });
    for attempt in 1..=31_u32 {
        let pods = case.start();
        case.report(&pods[0], &refused);
        case.settle();
        let expected = (DeviceState::Pending, reason::DEVICE_NOT_ATTACHED.name.to_owned());
        assert_eq!(case.stands("a"), expected, "attempt {attempt}");
        let status = case.status();
        let uncounted = (status.devices[0].uncounted, status.devices[0].not_attached);
        assert_eq!(uncounted, (attempt.min(30), attempt.min(30)), "attempt {attempt}");
        case.now = crate::flashjob::observed::after(case.now, 3600);
    }
    let pods = case.start();
    case.report(&pods[0], &refused);
    case.settle();
    assert_eq!(case.stands("a"), (DeviceState::Failed, reason::DEVICE_NOT_ATTACHED.name.into()));
    let message = case.status().devices[0].message.clone().unwrap_or_default();
    assert_eq!(message, "the node could not attach the device: no free slot");
}

#[test]
fn what_the_cluster_does_to_a_pod_spends_no_attempt_until_it_happens_too_often() {
    let killed = json!({"terminated": {"exitCode": 137, "startedAt": "2020-01-01T00:00:00Z"}});
    let preempted = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "message": "preempted",
    });
    for status in [
        json!({
            "phase": "Failed", "conditions": [preempted],
            "containerStatuses": [container("flash", &killed)],
        }),
        json!({"phase": "Failed", "reason": "OutOfmemory", "message": "no room"}),
        json!({"phase": "Failed", "reason": "NodeAffinity"}),
        json!({
            "phase": "Failed", "reason": "Terminated", "message": "node shutdown",
            "containerStatuses": [container("flash", &killed)],
        }),
    ] {
        let mut case = Case::new(&["a"], &json!({"backoffLimitPerDevice": 0}));
        for uncounted in 1..=10 {
            let pods = case.start();
            case.report(&pods[0], &status);
            case.settle();
            assert_eq!(case.stands("a"), (DeviceState::Pending, reason::DISRUPTED.name.into()));
            assert_eq!(case.status().devices[0].uncounted, uncounted);
            case.now = crate::flashjob::observed::after(case.now, 3600);
        }
        let pods = case.start();
        case.report(&pods[0], &status);
        case.settle();
        assert_eq!(
            case.stands("a"),
            (DeviceState::Failed, reason::DISRUPTED_TOO_OFTEN.name.into())
        );
    }
}

#[test]
fn a_refused_attachment_is_not_counted_as_a_disruption_and_alternating_with_those_ends() {
    let disrupted = json!({"phase": "Failed", "reason": "NodeAffinity"});
    let refused = json!({"phase": "Failed", "reason": "UnexpectedAdmissionError"});
    let mut case = Case::new(&["a"], &json!({"backoffLimitPerDevice": 0}));
    let mut ends_with = |status: &Value| {
        let pods = case.start();
        case.report(&pods[0], status);
        case.settle();
        case.now = crate::flashjob::observed::after(case.now, 3600);
        case.stands("a")
    };
    for _ in 0..=10 {
        let not_attached = reason::DEVICE_NOT_ATTACHED.name.into();
        assert_eq!(ends_with(&refused), (DeviceState::Pending, not_attached));
    }
    for _ in 0..10 {
        assert_eq!(ends_with(&disrupted), (DeviceState::Pending, reason::DISRUPTED.name.into()));
        assert_eq!(ends_with(&refused).0, DeviceState::Pending);
    }
    let too_often = reason::DISRUPTED_TOO_OFTEN.name.into();
    assert_eq!(ends_with(&disrupted), (DeviceState::Failed, too_often));
}

#[test]
fn an_evicted_pod_failed_only_if_it_used_more_than_its_own_limit() {
    let disrupted = (DeviceState::Pending, reason::DISRUPTED.name.to_owned());
    let failed = (DeviceState::Failed, reason::POD_FAILED.name.to_owned());
    for (message, expected) in [
        ("Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ", &failed),
        ("Container flash exceeded its local ephemeral storage limit \"8Mi\". ", &failed),
        ("Usage of EmptyDir volume \"scratch\" exceeds the limit \"16Mi\". ", &failed),
        // A rejection by the node, before any container was created.
        ("Pod was rejected: The node had condition: [MemoryPressure]. ", &disrupted),
        (
            "The node was low on resource: ephemeral-storage. Container flash was using 9Mi, \
             request is 0, has larger consumption of ephemeral-storage. ",
            &disrupted,
        ),
    ] {
        let mut case = Case::new(&["a"], &json!({"backoffLimitPerDevice": 0}));
        let pods = case.start();
        let status = json!({"phase": "Failed", "reason": "Evicted", "message": message});
        case.report(&pods[0], &status);
        case.settle();
        assert_eq!(case.stands("a"), *expected, "{message}");
    }
}
