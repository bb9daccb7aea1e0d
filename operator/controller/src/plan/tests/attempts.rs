//! Attempts and how they end, one fact a test.

use std::sync::Arc;

use flashjob_api::{DeviceState, reason};
use serde_json::json;

use super::fixture::{Case, creates_pod, deletes, key};
use crate::make::label;
use crate::observed::{Judged, Refusal};
use crate::plan::Step;

#[test]
fn a_failed_pod_is_retried_after_a_pause_and_fails_for_good_at_the_limit() {
    let mut case = Case::new(&["a"], &json!({"backoffLimitPerDevice": 1}));
    let pods = case.start();
    case.end(&pods[0], 1);
    case.settle();
    assert_eq!(case.stands("a"), (DeviceState::Pending, reason::POD_FAILED.name.into()));
    case.now = crate::observed::after(case.now, 30);
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
fn an_attempt_that_ran_out_of_time_says_so() {
    let mut case = Case::new(&["a"], &json!({}));
    let pods = case.start();
    case.report(&pods[0], &json!({"phase": "Failed", "reason": "DeadlineExceeded"}));
    case.settle();
    assert_eq!(case.stands("a").1, reason::FLASH_TIMEOUT.name);
}

#[test]
fn a_pod_that_cannot_get_on_is_stopped_after_two_minutes_once_the_reason_is_stored() {
    let waiting = json!({"name": "flash", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull"}}});
    let unscheduled = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"});
    for (status, expected) in [
        (json!({"phase": "Pending", "containerStatuses": [waiting]}), reason::IMAGE_UNAVAILABLE),
        (json!({"phase": "Pending", "conditions": [unscheduled]}), reason::UNSCHEDULABLE),
    ] {
        let mut case = Case::new(&["a"], &json!({}));
        let pods = case.start();
        case.report(&pods[0], &status);
        assert_eq!(deletes(&case.settle(), "pod"), 0);
        assert_eq!(deletes(&case.pass(120), "pod"), 1);
        assert_eq!(case.stands("a"), (DeviceState::Flashing, expected.name.into()));
        case.end(&pods[0], 137);
        case.settle();
        assert_eq!(case.stands("a"), (DeviceState::Pending, expected.name.into()));
    }
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
fn a_pod_of_which_nothing_is_heard_long_after_its_deadline_is_given_up() {
    let mut case = Case::new(&["a"], &json!({"deviceTimeoutSeconds": 100}));
    case.start();
    let plan = case.pass(100 + 10 + 60);
    assert_eq!(case.stands("a").0, DeviceState::Lost);
    assert_eq!(creates_pod(&plan), 0);
}

#[test]
fn a_refusal_of_the_api_server_is_final_or_costs_an_attempt() {
    for (is_final, state) in [(true, DeviceState::Failed), (false, DeviceState::Pending)] {
        let mut case = Case::new(&["a"], &json!({}));
        let services = case.settle();
        let Step::CreateService(service) = &services.steps[0] else { panic!("{services:?}") };
        let name = service.metadata.name.clone().expect("a name");
        let memory = case.world.memory.get_mut(&key("job")).expect("memory");
        memory.refuse(&name, Refusal { is_final, message: "no".into() }, case.now);
        case.settle();
        assert_eq!(case.stands("a"), (state, reason::SERVICE_REFUSED.name.into()));
        let mut case = Case::new(&["a"], &json!({}));
        let services = case.settle();
        case.carry_out(&services);
        let memory = case.world.memory.get_mut(&key("job")).expect("memory");
        memory.refuse(&name, Refusal { is_final, message: "no".into() }, case.now);
        case.settle();
        assert_eq!(case.stands("a"), (state, reason::POD_REFUSED.name.into()));
    }
}

#[test]
fn a_create_that_keeps_failing_is_told_until_it_works() {
    let mut case = Case::new(&["a"], &json!({}));
    let services = case.settle();
    let forbidden = || Some("pods is forbidden: cannot create resource".to_owned());
    let fail = |case: &mut Case, error: Option<String>| {
        case.world.memory.get_mut(&key("job")).expect("memory").count(&services.steps[0], error);
        case.settle();
    };
    fail(&mut case, forbidden());
    assert_eq!(case.stands("a").1, "", "one failure is no news");
    fail(&mut case, forbidden());
    fail(&mut case, forbidden());
    assert_eq!(case.stands("a"), (DeviceState::Exposing, reason::REQUEST_FAILING.name.into()));
    assert!(
        case.status().message.is_some_and(|message| message.contains("cannot create resource"))
    );
    fail(&mut case, None);
    case.carry_out(&services);
    assert_eq!(creates_pod(&case.settle()), 1);
    assert_eq!(case.stands("a").1, "");
}

#[test]
fn no_pod_is_made_for_an_attempt_that_a_status_on_its_way_takes_back() {
    let mut case = Case::new(&["a"], &json!({}));
    let services = case.settle();
    let job = case.world.jobs[&key("job")].clone();
    let mut status = case.status();
    status.devices[0].state = DeviceState::Pending;
    status.devices[0].pod = None;
    case.world.memory.get_mut(&key("job")).expect("memory").write_begins(&job, &status);
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
    case.world.memory.get_mut(&key("job")).expect("memory").begin(create);
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
        let gone = Arc::new(Judged::Gone("nobody has it".into()));
        case.world.memory.entry(key("job")).or_default().answers_mut().judged.insert(uid, gone);
        case.end(&pods[0], code);
        case.settle();
        assert_eq!(case.stands("a").0, state, "exit code {code}");
    }
}
