//! Tests of attempts and how they end, one fact per test.

use std::sync::Arc;
use std::time::Instant;

use flashjob_api::{DeviceState, reason};
use kube_core::ResourceExt;
use serde_json::json;

use super::fixture::{Case, container, creates_pod, deletes, key};
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
fn an_attempt_that_ran_out_of_time_says_so() {
    let mut case = Case::new(&["a"], &json!({}));
    let pods = case.start();
    case.report(&pods[0], &json!({"phase": "Failed", "reason": "DeadlineExceeded"}));
    case.settle();
    assert_eq!(case.stands("a").1, reason::FLASH_TIMEOUT.name);
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
