//! Tests of devices whose Instance changes or disappears while the job has them, one fact per test.

use flashjob_api::{DeviceState, Phase, condition};
use serde_json::json;

use super::fixture::{Case, ESP32, creates_pod, deletes, key};
use crate::flashjob::observed::{Identity, Question};
use crate::flashjob::plan::Plan;
use crate::flashjob::policy::Namespaces;

fn moves(case: &mut Case, uid: &str, endpoint: &str) {
    case.device(uid, &[ESP32, ("HOST_ENDPOINT", endpoint), ("VERSION", "1")]);
}

/// Endpoints in the questions about what a device needs.
fn asked(plan: &Plan) -> Vec<(String, String)> {
    let questions = plan.questions.iter().filter_map(|question| match question {
        Question::Build { request, .. } => Some(&request.device),
        Question::Judge { .. } => None,
    });
    questions.map(|device| (device.uid.clone(), device.endpoint.clone().expect("one"))).collect()
}

#[test]
fn a_device_that_moved_while_it_waited_is_asked_about_again_before_its_pod_is_made() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 1}));
    case.settle();
    assert_eq!(case.stands("b").0, DeviceState::Pending, "it was asked about ahead of its turn");
    moves(&mut case, "b", "10.0.0.9");
    assert_eq!(asked(&case.plan()), [("b".to_owned(), "10.0.0.9".to_owned())]);
}

#[test]
fn a_device_that_moves_while_it_waits_for_its_service_is_locked_and_asked_about_anew() {
    let mut case = Case::new(&["a"], &json!({}));
    let services = case.settle();
    assert_eq!(case.stands("a").0, DeviceState::Exposing);
    case.carry_out(&services);
    moves(&mut case, "a", "10.0.0.9");
    let plan = case.plan();
    assert_eq!(creates_pod(&plan), 0, "the plugin answered for another address");
    assert_eq!(asked(&plan), [("a".to_owned(), "10.0.0.9".to_owned())]);
    let plan = case.settle();
    assert_eq!(creates_pod(&plan), 1);
    let identity = Identity::endpoint("10.0.0.9");
    assert!(plan.holds.iter().any(|(held, _)| *held == identity), "{:?}", plan.holds);
    assert_eq!(case.status().devices[0].host_endpoint.as_deref(), Some("10.0.0.9"));
}

#[test]
fn a_pooled_service_waits_for_a_device_that_is_asked_about_again() {
    let mut case = Case::new(&["a"], &json!({"exposure": "Pooled"}));
    case.balanced = false;
    let services = case.settle();
    case.carry_out(&services);
    case.settle();
    moves(&mut case, "a", "10.0.0.9");
    let plan = case.plan();
    assert_eq!(asked(&plan).len(), 1);
    assert_eq!(deletes(&plan, "service"), 0, "{:?}", plan.steps);
}

#[test]
fn what_a_plugin_answered_under_earlier_settings_is_asked_again() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 1}));
    case.settle();
    assert_eq!(asked(&case.plan()), []);
    let mut plugins = (*case.world.plugins).clone();
    plugins[0].settings = serde_json::from_value(json!({"baudRate": 9600})).expect("settings");
    case.world.take(crate::world::change::Change::Plugins(plugins.clone()), case.now);
    let questions = asked(&case.plan());
    assert_eq!(questions.iter().map(|(uid, _)| uid.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    case.settle();
    plugins[0].is_loading = true;
    case.world.take(crate::world::change::Change::Plugins(plugins), case.now);
    assert_eq!(asked(&case.plan()), [], "only what the plugin is asked with counts");
}

#[test]
fn a_device_of_another_namespace_that_comes_back_under_another_uid_is_found() {
    let mut case = Case::new(&["a"], &json!({"verify": {"mode": "Required"}}));
    case.world.rules.namespaces = Namespaces::Named(vec!["akri".to_owned()]);
    case.world.devices.lose("a");
    let device = |version| [ESP32, ("HOST_ENDPOINT", "10.0.0.0"), ("VERSION", version)];
    case.device_in("akri", "a", &device("1"));
    let pods = case.start();
    case.end(&pods[0], 0);
    case.settle();
    assert_eq!(case.stands("a").0, DeviceState::Verifying);
    assert_eq!(case.status().devices[0].namespace.as_deref(), Some("akri"));
    case.world.devices.lose("a");
    let instance = crate::flashjob::observed::Instance::new(
        "akri",
        "akri-a",
        "another-uid",
        vec!["node".to_owned()],
        device("2").into_iter(),
    );
    let jobs = case.world.devices.see(instance);
    assert!(jobs.contains(&key("job")), "{jobs:?}");
    case.settle();
    assert_eq!(case.status().completed_uuids, ["a"]);
}

#[test]
fn a_job_is_not_deleted_while_a_device_that_was_taken_out_of_it_is_being_flashed() {
    let mut case = Case::new(&["a", "b"], &json!({"ttlSecondsAfterFinished": 0}));
    let pods = case.start();
    case.spec(&json!({"uuid": ["a"]}));
    case.end(&pods[0], 0);
    case.device("a", &[ESP32, ("HOST_ENDPOINT", "10.0.0.0"), ("VERSION", "2")]);
    let is_deleted = |plan: &Plan| {
        plan.steps.iter().any(|step| matches!(step, crate::flashjob::plan::Step::DeleteJob))
    };
    let plan = case.pass(5);
    assert_eq!(case.status().completed_uuids, ["a"]);
    assert!(!is_deleted(&plan), "{:?}", plan.steps);
    case.end(&pods[1], 0);
    assert!(is_deleted(&case.settle()));
}

#[test]
fn a_job_is_not_over_while_a_device_that_was_taken_out_of_it_is_being_flashed() {
    let mut case = Case::new(&["a", "b"], &json!({"verify": {"mode": "None"}}));
    let pods = case.start();
    case.spec(&json!({"uuid": ["a"]}));
    case.end(&pods[0], 0);
    case.settle();
    let status = case.status();
    let counts = status.counts.expect("counts");
    assert_eq!((counts.total, counts.completed, counts.active, counts.pending), (1, 1, 1, 0));
    assert_eq!(status.phase, Some(Phase::InProgress));
    assert!(status.completion_time.is_none());
    assert!(condition::holds(&status.conditions, condition::RECONCILING));
    let message = status.message.unwrap_or_default();
    let says = "1 of 1 devices completed: 1 in flight, 1 of these removed from spec.uuid";
    assert_eq!(message, says);
    case.end(&pods[1], 1);
    assert!(case.plan().questions.is_empty(), "it gets no result, so its end needs no verdict");
    case.settle();
    let status = case.status();
    let counts = status.counts.expect("counts");
    assert_eq!((counts.total, counts.completed, counts.active), (1, 1, 0));
    assert_eq!((status.phase, status.devices.len()), (Some(Phase::Completed), 0));
    assert!(status.completion_time.is_some());
}

#[test]
fn the_pod_of_a_device_that_was_taken_out_is_deleted_if_it_can_never_start() {
    let mut case = Case::new(&["a", "b"], &json!({}));
    let pods = case.start();
    case.spec(&json!({"uuid": ["b"]}));
    assert_eq!(deletes(&case.settle(), "pod"), 0);
    let container = json!({
        "name": "flash", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "InvalidImageName"}},
    });
    case.report(&pods[0], &json!({"phase": "Pending", "containerStatuses": [container]}));
    assert_eq!(deletes(&case.settle(), "pod"), 1);
}

#[test]
fn the_pod_of_a_device_that_was_taken_out_is_deleted_after_its_record_is_dropped() {
    let mut case = Case::new(&["a", "b"], &json!({}));
    let pods = case.start();
    case.spec(&json!({"uuid": ["b"]}));
    case.settle();
    case.end(&pods[0], 0);
    let plan = case.plan();
    assert_eq!(deletes(&plan, "pod"), 0, "a restarted operator would take the device for lost");
    let devices = plan.status.map(|status| status.devices).unwrap_or_default();
    assert!(devices.iter().all(|device| device.uid != "a"), "{devices:?}");
    assert_eq!(deletes(&case.settle(), "pod"), 1);
}

#[test]
fn a_device_whose_instance_tells_no_way_to_it_any_more_is_asked_about_when_it_does() {
    let mut case = Case::new(&["a"], &json!({}));
    let services = case.settle();
    case.carry_out(&services);
    assert_eq!(case.stands("a").0, DeviceState::Exposing);
    case.device("a", &[ESP32]);
    let plan = case.settle();
    assert_eq!((asked(&plan), creates_pod(&plan)), (vec![], 0));
    assert_eq!(case.stands("a").0, DeviceState::Pending);
    moves(&mut case, "a", "10.0.0.0");
    assert_eq!(creates_pod(&case.settle()), 1);
}
