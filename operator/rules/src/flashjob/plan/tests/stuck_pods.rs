//! Tests of Pods that wait for an image, a container, a volume or a node, one fact per test.

use flashjob_api::{DeviceState, reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube_core::ResourceExt;
use serde_json::{Value, json};

use super::fixture::{Case, container, deletes, key};

fn waits(reason: &str, message: &str) -> Value {
    let state = json!({"waiting": {"reason": reason, "message": message}});
    json!({
        "phase": "Pending", "startTime": "2020-01-01T00:00:00Z",
        "containerStatuses": [container("flash", &state)],
    })
}

#[test]
fn what_a_pod_waits_for_is_said_at_once_and_stops_it_after_two_minutes() {
    let unscheduled =
        json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"});
    let mut no_volume = waits("ContainerCreating", "");
    no_volume["conditions"] = json!([{"type": "PodReadyToStartContainers", "status": "False"}]);
    let mut no_init_image = waits("PodInitializing", "");
    let pull = json!({"waiting": {"reason": "ImagePullBackOff"}});
    no_init_image["initContainerStatuses"] = json!([container("mesh-init", &pull)]);
    for (status, expected) in [
        (waits("ErrImagePull", "denied"), reason::IMAGE_UNAVAILABLE),
        (no_init_image, reason::IMAGE_UNAVAILABLE),
        (
            waits("CreateContainerConfigError", "secret \"a\" not found"),
            reason::CONTAINER_NOT_STARTED,
        ),
        (waits("RunContainerError", "no such file"), reason::CONTAINER_NOT_STARTED),
        (no_volume, reason::VOLUME_UNAVAILABLE),
        (json!({"phase": "Pending", "conditions": [unscheduled]}), reason::UNSCHEDULABLE),
    ] {
        let mut case = Case::new(&["a"], &json!({}));
        let pods = case.start();
        case.report(&pods[0], &status);
        assert_eq!(deletes(&case.settle(), "pod"), 0);
        if expected == reason::VOLUME_UNAVAILABLE {
            assert_eq!(case.stands("a").1, "", "volumes take their time");
            case.pass(10);
        }
        assert_eq!(case.stands("a"), (DeviceState::Flashing, expected.name.into()), "at once");
        assert_eq!(deletes(&case.pass(120), "pod"), 1, "{expected:?}");
        let mut pod = pods[0].clone();
        pod.metadata.deletion_timestamp = Some(Time(case.now));
        case.end(&pod, 137);
        case.settle();
        assert_eq!(case.stands("a"), (DeviceState::Pending, expected.name.into()));
    }
}

#[test]
fn a_pod_that_got_on_is_judged_by_its_container_and_not_by_what_it_waited_for() {
    let mut case = Case::new(&["a"], &json!({}));
    let pods = case.start();
    case.report(&pods[0], &waits("ImagePullBackOff", "denied"));
    case.settle();
    case.end(&pods[0], 1);
    case.settle();
    assert_eq!(case.stands("a"), (DeviceState::Pending, reason::POD_FAILED.name.into()));
}

#[test]
fn what_waiting_cannot_change_fails_the_device_at_once() {
    for (why, message, expected) in [
        (
            "CreateContainerConfigError",
            "container has runAsNonRoot and image has non-numeric user (app)",
            reason::CONTAINER_NOT_STARTED,
        ),
        (
            "CreateContainerConfigError",
            "container's runAsUser breaks non-root policy (pod: \"a_fleet(1)\", container: flash)",
            reason::CONTAINER_NOT_STARTED,
        ),
        ("InvalidImageName", "couldn't parse image", reason::IMAGE_UNAVAILABLE),
    ] {
        let mut case = Case::new(&["a"], &json!({"backoffLimitPerDevice": 5}));
        let pods = case.start();
        case.report(&pods[0], &waits(why, message));
        case.settle();
        assert_eq!(case.stands("a"), (DeviceState::Failed, expected.name.into()));
        let plan = case.settle();
        assert_eq!((deletes(&plan, "pod"), deletes(&plan, "service")), (1, 1), "{message}");
    }
}

#[test]
fn the_address_of_a_last_attempt_is_free_at_once_only_if_its_container_never_started() {
    for (started, expected, freed) in [
        (None, reason::IMAGE_UNAVAILABLE, 1),
        // By containerd, of a container that it created and did not start.
        (Some("1970-01-01T00:00:00Z"), reason::IMAGE_UNAVAILABLE, 1),
        // The image arrived just as the Pod was deleted.
        (Some("2020-01-01T00:02:00Z"), reason::POD_FAILED, 0),
    ] {
        let mut case = Case::new(&["a"], &json!({"backoffLimitPerDevice": 0}));
        let pods = case.start();
        case.report(&pods[0], &waits("ImagePullBackOff", "no such tag"));
        case.settle();
        assert_eq!(deletes(&case.pass(120), "pod"), 1);
        let mut pod = pods[0].clone();
        pod.metadata.deletion_timestamp = Some(Time(case.now));
        let end = json!({"terminated": {"exitCode": 137, "startedAt": started}});
        let containers = [container("flash", &end)];
        case.report(&pod, &json!({"phase": "Failed", "containerStatuses": containers}));
        let plan = case.settle();
        assert_eq!(case.stands("a"), (DeviceState::Failed, expected.name.into()));
        assert_eq!(deletes(&plan, "service"), freed, "{started:?}");
    }
}

#[test]
fn what_an_attempt_waits_for_frees_no_address_of_the_one_before() {
    let mut case = Case::new(&["a"], &json!({"backoffLimitPerDevice": 1}));
    let first = case.start();
    case.end(&first[0], 1);
    case.settle();
    let uid = first[0].metadata.uid.clone().expect("a uid");
    case.world.lose_pod(&key("job"), &first[0].name_any(), &uid, case.now);
    case.now = crate::flashjob::observed::after(case.now, 15);
    let second = case.start();
    case.report(&second[0], &waits("ErrImagePull", "denied"));
    let plan = case.settle();
    assert_eq!(case.stands("a"), (DeviceState::Flashing, reason::IMAGE_UNAVAILABLE.name.into()));
    assert_eq!(deletes(&plan, "service"), 0, "its device may still connect");
}

#[test]
fn a_native_sidecar_that_gets_stuck_ends_no_attempt_whose_flash_container_was_started() {
    let restarts = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}});
    let refused = json!({"waiting": {
        "reason": "CreateContainerConfigError",
        "message": "container has runAsNonRoot and image will run as root",
    }});
    let pull = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}});
    for sidecar in [restarts, refused, pull] {
        let mut case = Case::new(&["a"], &json!({"deviceTimeoutSeconds": 700}));
        let pods = case.start();
        let flash = container("flash", &json!({"running": {}}));
        case.report(
            &pods[0],
            &json!({
                "phase": "Running", "startTime": "2020-01-01T00:00:00Z",
                "containerStatuses": [flash],
                "initContainerStatuses": [container("log-shipper", &sidecar)],
            }),
        );
        case.settle();
        assert_eq!(deletes(&case.pass(400), "pod"), 0, "{sidecar}");
        assert_eq!(case.stands("a"), (DeviceState::Flashing, String::new()), "{sidecar}");
    }
}

#[test]
fn a_pod_that_was_stopped_keeps_its_reason_whatever_it_waits_for_while_it_ends() {
    let mut case = Case::new(&["a"], &json!({}));
    let pods = case.start();
    let mut no_volume = waits("ContainerCreating", "");
    no_volume["conditions"] = json!([{"type": "PodReadyToStartContainers", "status": "False"}]);
    case.report(&pods[0], &no_volume);
    case.settle();
    assert_eq!(deletes(&case.pass(121), "pod"), 1);
    let mut ending = pods[0].clone();
    ending.metadata.deletion_timestamp = Some(Time(case.now));
    case.report(&ending, &waits("ContainerCreating", ""));
    case.pass(30);
    assert_eq!(case.stands("a"), (DeviceState::Flashing, reason::VOLUME_UNAVAILABLE.name.into()));
}

#[test]
fn a_container_that_is_slow_to_start_is_told_and_not_stopped() {
    let mut case = Case::new(&["a"], &json!({"deviceTimeoutSeconds": 1000}));
    let pods = case.start();
    case.report(&pods[0], &waits("ContainerCreating", ""));
    case.settle();
    assert_eq!(case.stands("a"), (DeviceState::Flashing, String::new()));
    assert_eq!(deletes(&case.pass(500), "pod"), 0, "it may be pulling a large image");
    assert_eq!(
        case.stands("a"),
        (DeviceState::Flashing, reason::CONTAINER_NOT_STARTED.name.into())
    );
    let mut late = waits("ContainerCreating", "");
    late["phase"] = json!("Failed");
    late["reason"] = json!("DeadlineExceeded");
    case.report(&pods[0], &late);
    case.settle();
    assert_eq!(
        case.stands("a"),
        (DeviceState::Pending, reason::CONTAINER_NOT_STARTED.name.into())
    );
}

#[test]
fn an_init_container_that_failed_is_named() {
    let mut case = Case::new(&["a"], &json!({}));
    let pods = case.start();
    let end = json!({"terminated": {"exitCode": 7, "message": "no route"}});
    let mut status = waits("PodInitializing", "");
    status["phase"] = json!("Failed");
    status["initContainerStatuses"] = json!([container("cni-check", &end)]);
    case.report(&pods[0], &status);
    case.settle();
    assert_eq!(
        case.stands("a"),
        (DeviceState::Pending, reason::INIT_CONTAINER_FAILED.name.into())
    );
    let message = case.status().devices[0].message.clone().unwrap_or_default();
    assert_eq!(message, "init container cni-check, exit code 7: no route");
}

#[test]
fn a_pod_that_waits_for_its_volumes_says_which_it_has() {
    let mut case = Case::new(&["a"], &json!({}));
    let mut pods = case.start();
    let volumes = json!([
        {"name": "a", "secret": {"secretName": "ota-tls"}}, {"name": "b", "emptyDir": {}},
        {"name": "c", "persistentVolumeClaim": {"claimName": "firmware"}},
    ]);
    let spec = pods[0].spec.as_mut().expect("a spec");
    spec.volumes = serde_json::from_value(volumes).expect("volumes");
    let mut status = waits("ContainerCreating", "");
    status["conditions"] = json!([{"type": "PodReadyToStartContainers", "status": "False"}]);
    case.report(&pods[0], &status);
    case.settle();
    case.pass(10);
    let message = case.status().devices[0].message.clone().unwrap_or_default();
    let names = "Secret ota-tls or PersistentVolumeClaim firmware or the Pod's network";
    assert!(message.contains(names), "{message}");
}
