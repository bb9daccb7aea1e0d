//! Tests of attempts and how they end, one fact per test.

use std::sync::Arc;
use std::time::Instant;

use flashjob_api::{DeviceState, reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube_core::ResourceExt;
use serde_json::{Value, json};

use super::fixture::{Case, creates_pod, deletes, key};
use crate::flashjob::labels::{annotation, label};
use crate::flashjob::observed::{Judged, Service};
use crate::flashjob::plan::Step;

#[test]
fn a_failed_pod_is_retried_after_a_pause_and_fails_for_good_at_the_limit() {
    let mut case = Case::new(&["a"], &json!({"backoffLimitPerDevice": 1}));
    let pods = case.start();
    case.end(&pods[0], 1);
    case.settle();
    assert_eq!(case.stands("a"), (DeviceState::Pending, reason::POD_FAILED.name.into()));
    case.now = crate::flashjob::observed::after(case.now, 30);
    let pods = case.start();
    assert_eq!(pods[0].metadata.labels.as_ref().expect("labels")[label::ATTEMPT], "2");
    case.end(&pods[0], 1);
    case.settle();
    assert_eq!(case.stands("a"), (DeviceState::Failed, reason::POD_FAILED.name.into()));
}

#[test]
fn with_no_retries_the_first_failure_is_final_and_the_plugin_can_give_up_before() {
    for (limit, code, expected) in [(0, 1, reason::POD_FAILED), (5, 3, reason::GAVE_UP)] {
        let mut case = Case::new(&["a"], &json!({"backoffLimitPerDevice": limit}));
        let pods = case.start();
        case.end(&pods[0], code);
        case.settle();
        assert_eq!(case.stands("a"), (DeviceState::Failed, expected.name.into()));
    }
}

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
fn an_attempt_that_ran_out_of_time_says_so() {
    let mut case = Case::new(&["a"], &json!({}));
    let pods = case.start();
    case.report(&pods[0], &json!({"phase": "Failed", "reason": "DeadlineExceeded"}));
    case.settle();
    assert_eq!(case.stands("a").1, reason::FLASH_TIMEOUT.name);
}

/// Status of a Pod whose container with that name is in a given state.
fn container(name: &str, state: &Value) -> Value {
    json!({
        "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": state,
    })
}

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
fn the_container_flash_is_what_counts_whatever_else_runs_in_the_pod() {
    let end = |code: i32| {
        let began = "2020-01-01T00:00:00Z";
        json!({"terminated": {"exitCode": code, "message": "words", "startedAt": began}})
    };
    let runs = json!({"running": {}});
    for (phase, mesh, flash, is_flashed) in [
        ("Failed", end(1), end(0), true),
        ("Failed", end(0), end(1), false),
        ("Running", runs.clone(), end(0), true),
        ("Running", runs, end(1), false),
    ] {
        let spec = json!({"verify": {"mode": "None"}, "uuid": ["a"]});
        let mut case = Case::new(&["a"], &spec);
        let pods = case.start();
        let containers = [container("a-mesh", &mesh), container("flash", &flash)];
        case.report(&pods[0], &json!({"phase": phase, "containerStatuses": containers}));
        case.settle();
        let plan = case.settle();
        if is_flashed {
            assert_eq!(case.status().completed_uuids, ["a"]);
        } else {
            assert_eq!(case.stands("a"), (DeviceState::Pending, reason::POD_FAILED.name.into()));
        }
        assert_eq!(deletes(&plan, "pod"), 1, "the Pod goes, whatever still runs in it");
    }
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

#[test]
fn the_clock_of_a_node_decides_nothing() {
    for clock in ["2001-01-01T00:00:00Z", "2099-01-01T00:00:00Z"] {
        let mut case = Case::new(&["a"], &json!({"deviceTimeoutSeconds": 100}));
        let pods = case.start();
        let running = container("flash", &json!({"running": {"startedAt": clock}}));
        let status =
            json!({"phase": "Running", "startTime": clock, "containerStatuses": [running]});
        case.report(&pods[0], &status);
        case.settle();
        assert_eq!(deletes(&case.pass(100), "pod"), 0);
        assert_eq!(case.stands("a"), (DeviceState::Flashing, String::new()));
        case.pass(70);
        assert_eq!(case.stands("a").0, DeviceState::Lost, "its time is over by our clock");
    }
}

#[test]
fn the_message_of_a_failed_pod_is_its_end_without_the_environment() {
    let mut case = Case::new(&["a"], &json!({"backoffLimitPerDevice": 0}));
    let mut pods = case.start();
    // No plugin is asked.
    pods[0].metadata.annotations.as_mut().expect("annotations").remove(annotation::PLUGIN);
    let filler = "progress ".repeat(100);
    let output = format!(
        "VERSION=2\n{filler}\nlast but one\nVERSION: 2\ncertificate of host x is not valid\n"
    );
    let end = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": output}});
    case.report(
        &pods[0],
        &json!({"phase": "Failed", "containerStatuses": [container("flash", &end)]}),
    );
    case.settle();
    let message = case.status().devices[0].message.clone().unwrap_or_default();
    assert_eq!(message, "last but one certificate of host x is not valid (Error, exit code 1)");
}

#[test]
fn a_line_that_begins_with_a_variables_name_is_dropped_only_if_it_can_be_its_value() {
    let mut case = Case::new(&["a"], &json!({"backoffLimitPerDevice": 0}));
    let mut pods = case.start();
    pods[0].metadata.annotations.as_mut().expect("annotations").remove(annotation::PLUGIN);
    let variables = json!([
        {"name": "PULL", "value": "registry.example/kiln:7"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "ota", "key": "token"}}},
        {"name": "TARGET", "value": "http://$(HOST_ENDPOINT)/ota"},
        {"name": "RETRIES", "value": "4"},
    ]);
    let spec = pods[0].spec.as_mut().expect("a spec");
    spec.containers[0].env = Some(serde_json::from_value(variables).expect("variables"));
    let output = "PULL=registry.example/kiln:7\n\"RETRIES\": \"4\",\nTOKEN=a1b2\n\
                  TARGET=http://10.0.0.0:80/ota\nRETRIES: none left\nPULL: tls: unknown issuer\n";
    let end = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": output}});
    case.report(
        &pods[0],
        &json!({"phase": "Failed", "containerStatuses": [container("flash", &end)]}),
    );
    case.settle();
    let message = case.status().devices[0].message.clone().unwrap_or_default();
    assert_eq!(message, "RETRIES: none left PULL: tls: unknown issuer (Error, exit code 1)");
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

#[test]
fn no_pod_is_made_for_an_attempt_that_a_status_on_its_way_takes_back() {
    let mut case = Case::new(&["a"], &json!({}));
    let services = case.settle();
    let job = case.world.jobs[&key("job")].clone();
    let mut status = case.status();
    status.devices[0].state = DeviceState::Pending;
    status.devices[0].pod = None;
    let memory = case.world.memory.get_mut(&key("job")).expect("memory");
    memory.write_begins(&job, &status, Instant::now());
    case.carry_out(&services);
    assert_eq!(creates_pod(&case.plan()), 0);
    case.world.memory.get_mut(&key("job")).expect("memory").writes_are_settled(&job);
    assert_eq!(creates_pod(&case.plan()), 1);
}

#[test]
fn a_device_whose_pod_is_being_created_stays_in_flight_also_when_its_uid_is_dropped() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 1}));
    let services = case.settle();
    case.carry_out(&services);
    let plan = case.settle();
    let create = plan.steps.iter().find(|step| step.creates()).expect("a Pod");
    case.world.memory.get_mut(&key("job")).expect("memory").begin(create).expect("it is new");
    case.spec(&json!({"uuid": ["b"]}));
    let plan = case.settle();
    assert!(plan.holds.iter().any(|(_, uid)| uid == "a"));
    assert_eq!(case.stands("b").0, DeviceState::Pending);
}

#[test]
fn where_the_digest_that_an_attempt_began_with_is_gone_its_exit_code_decides() {
    for (code, state) in [(0, DeviceState::Verifying), (3, DeviceState::Pending)] {
        let mut case = Case::new(&["a"], &json!({}));
        let pods = case.start();
        let uid = pods[0].metadata.uid.clone().expect("a uid");
        let verdict = Arc::new(Judged::Gone("nobody has it".into()));
        case.world.memory.entry(key("job")).or_default().answers_mut().judged.insert(uid, verdict);
        case.end(&pods[0], code);
        case.settle();
        assert_eq!(case.stands("a").0, state, "exit code {code}");
    }
}

#[test]
fn an_address_that_the_job_did_not_ask_for_is_not_used_and_said() {
    let spec = json!({
        "externalIP": "198.51.100.4", "addressTimeoutSeconds": 30, "backoffLimitPerDevice": 0,
    });
    let mut case = Case::new(&["a"], &spec);
    let services = case.settle();
    let Step::CreateService(service) = &services.steps[0] else { panic!("{services:?}") };
    let mut service = *service.clone();
    service.metadata.uid = Some("uid-of-the-service".to_owned());
    service.metadata.resource_version = Some("9000".to_owned());
    let status = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}});
    service.status = serde_json::from_value(status).expect("a status");
    case.world.see_service(Service::of(&service).expect("owned"));
    assert_eq!(creates_pod(&case.settle()), 0);
    let message = case.status().devices[0].message.clone().unwrap_or_default();
    assert!(message.contains("203.0.113.9, but externalIP requests 198.51.100.4"), "{message}");
    case.pass(30);
    assert_eq!(case.stands("a"), (DeviceState::Failed, reason::ADDRESS_TIMEOUT.name.into()));
}

#[test]
fn a_result_keeps_the_version_before_the_attempts_and_the_seconds_until_the_next_run() {
    let mut case = Case::new(&["a", "b"], &json!({"backoffLimitPerDevice": 1}));
    let pods = case.start();
    case.end(&pods[0], 1);
    case.settle();
    case.now = crate::flashjob::observed::after(case.now, 30);
    let pods = case.start();
    case.now = crate::flashjob::observed::after(case.now, 10);
    case.end(pods.iter().find(|pod| pod.labels()[label::UUID] == "a").expect("a Pod"), 1);
    case.settle();
    let details = case.status().results.get("a").cloned().expect("details of a");
    assert_eq!((details.from.as_deref(), details.attempts), (Some("1"), 2));
    assert!(details.seconds >= 40, "{details:?}");
    assert!(!case.status().results.contains_key("b"), "{:?}", case.status().results);
    case.spec(&json!({"uuid": ["b"]}));
    case.settle();
    assert!(case.status().results.is_empty(), "{:?}", case.status().results);
}
