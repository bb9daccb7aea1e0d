//! The rules, one fact a test: guards and the queue, attempts and their ends, proof, pools, stops.

use std::sync::Arc;

use flashjob_api::{DeviceState, Phase, condition, reason};
use flashjob_plugin_host::CallError;
use flashjob_plugin_host::types::{PluginError, Proof, Verdict};
use serde_json::json;

use super::fixture::{Case, flash_pod, key, pod_of_the_go_operator};
use crate::make::label;
use crate::observed::{Judged, Refusal};
use crate::plan::{Plan, Step, plan};

fn creates_pod(plan: &Plan) -> usize {
    plan.steps.iter().filter(|step| matches!(step, Step::CreatePod(_))).count()
}

fn deletes(plan: &Plan, kind: &str) -> usize {
    let deletes = |step: &&Step| match kind {
        "pod" => matches!(step, Step::DeletePod { .. }),
        _ => matches!(step, Step::DeleteService { .. }),
    };
    plan.steps.iter().filter(deletes).count()
}

const ESP32: (&str, &str) = ("DEVICE", "esp32");

// ---- guards ----

#[test]
fn a_uid_that_akri_does_not_know_fails_after_two_minutes() {
    let mut case = Case::new(&["a"], &json!({}));
    case.world.devices.lose("a");
    case.settle();
    assert_eq!(case.status().counts.expect("counts").pending, 1);
    case.pass(120);
    assert_eq!(case.stands("a"), (DeviceState::Failed, reason::UNKNOWN_DEVICE.name.into()));
    assert_eq!(case.status().phase, Some(Phase::Failed));
}

#[test]
fn an_instance_that_reaches_nothing_fails_as_unknown_after_two_minutes() {
    let mut case = Case::new(&["a"], &json!({}));
    case.device("a", &[ESP32]);
    case.settle();
    assert!(case.status().message.expect("a message").contains(reason::DEVICE_UNREACHABLE.name));
    case.pass(120);
    assert_eq!(case.stands("a").1, reason::UNKNOWN_DEVICE.name);
}

#[test]
fn one_device_under_two_uids_is_flashed_once_also_when_the_first_has_failed() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 1, "backoffLimitPerDevice": 0}));
    case.world.devices.lose("b");
    let pods = case.start();
    case.end(&pods[0], 1);
    case.device("b", &[ESP32, ("HOST_ENDPOINT", "http://10.0.0.0:80/")]);
    case.settle();
    assert_eq!(case.stands("a").0, DeviceState::Failed);
    assert_eq!(case.stands("b"), (DeviceState::Skipped, reason::DUPLICATE_DEVICE.name.into()));
}

#[test]
fn a_device_of_another_type_or_application_is_refused_case_and_dashes_aside() {
    let mut case = Case::new(&["a", "b"], &json!({"device": "ESP-32", "applicationType": "Therm-O"}));
    case.device("a", &[("DEVICE", "usb"), ("HOST_ENDPOINT", "10.0.0.0")]);
    case.device("b", &[ESP32, ("HOST_ENDPOINT", "10.0.0.1"), ("APPLICATION_TYPE", "thermo")]);
    case.settle();
    assert_eq!(case.stands("a"), (DeviceState::Failed, reason::DEVICE_TYPE_MISMATCH.name.into()));
    assert_eq!(case.stands("b").0, DeviceState::Exposing);
}

#[test]
fn the_device_field_stands_in_where_akri_reports_no_type() {
    let mut case = Case::new(&["a"], &json!({"device": "esp32"}));
    case.device("a", &[("HOST_ENDPOINT", "10.0.0.0")]);
    case.settle();
    assert_eq!(case.stands("a").0, DeviceState::Exposing);
}

#[test]
fn an_instance_in_another_namespace_is_not_flashed() {
    let mut case = Case::new(&["a"], &json!({}));
    case.world.devices.lose("a");
    case.device_in("elsewhere", "a", &[ESP32, ("HOST_ENDPOINT", "10.0.0.0")]);
    case.settle();
    assert_eq!(case.stands("a").1, reason::DEVICE_NOT_ALLOWED.name);
}

#[test]
fn an_override_that_is_the_endpoint_of_a_foreign_instance_is_refused() {
    let mut case = Case::new(&["a"], &json!({"hostEndpoint": "10.9.9.9:80"}));
    case.device_in("elsewhere", "z", &[ESP32, ("HOST_ENDPOINT", "10.9.9.9")]);
    case.settle();
    assert_eq!(case.stands("a").1, reason::DEVICE_NOT_ALLOWED.name);
}

#[test]
fn an_override_holds_both_identities() {
    let mut case = Case::new(&["a"], &json!({"hostEndpoint": "10.9.9.9:80"}));
    let plan = case.settle();
    let held: Vec<String> = plan.holds.iter().map(|(identity, _)| identity.to_string()).collect();
    assert!(held.contains(&"endpoint/10.9.9.9:80".to_owned()) && held.contains(&"endpoint/10.0.0.0:80".to_owned()), "{held:?}");
}

#[test]
fn a_type_that_no_plugin_serves_fails() {
    let mut case = Case::new(&["a"], &json!({}));
    case.device("a", &[("DEVICE", "toaster"), ("HOST_ENDPOINT", "10.0.0.0")]);
    case.settle();
    assert_eq!(case.stands("a").1, reason::NO_PLUGIN_FOR_DEVICE.name);
}

#[test]
fn a_plugin_that_is_not_ready_holds_up_its_own_devices_and_stalls_the_job() {
    let uids: Vec<String> = (0..100).map(|number| format!("d{number}")).collect();
    let uids: Vec<&str> = uids.iter().map(String::as_str).collect();
    let mut case = Case::new(&uids, &json!({"parallelism": 1}));
    let mut plugins = case.world.plugins.to_vec();
    plugins[0].ready = Err("the registry is down".into());
    case.world.plugins = std::sync::Arc::new(plugins);
    case.settle();
    assert!(case.status().message.expect("a message").contains(reason::PLUGIN_NOT_READY.name));
    assert!(condition::holds(&case.status().conditions, condition::STALLED));
    assert!(!condition::holds(&case.status().conditions, condition::PROGRESSING));
    case.device("d99", &[("DEVICE", "usb"), ("HOST_ENDPOINT", "10.0.0.99")]);
    case.settle();
    assert_eq!(case.stands("d99").0, DeviceState::Exposing);
    assert!(!condition::holds(&case.status().conditions, condition::STALLED));
}

#[test]
fn a_current_device_is_skipped_only_where_that_is_asked_for() {
    for (skip, state) in [(true, DeviceState::Skipped), (false, DeviceState::Exposing)] {
        let mut case = Case::new(&["a"], &json!({"version": "1", "skipIfCurrent": skip}));
        case.settle();
        assert_eq!(case.stands("a").0, state);
        assert_eq!(case.stands("a").1 == reason::ALREADY_CURRENT.name, skip);
    }
}

#[test]
fn the_plugins_refusals_are_final_each_with_its_reason() {
    let refusals = [
        (PluginError::InvalidSettings(Vec::new()), reason::SETTINGS_REJECTED),
        (PluginError::UnsupportedDevice("no".into()), reason::UNSUPPORTED_DEVICE),
        (PluginError::InvalidRequest("no".into()), reason::UNSUPPORTED_DEVICE),
    ];
    for (refusal, expected) in refusals {
        let mut case = Case::new(&["a"], &json!({}));
        case.settle_with(&|| Err(CallError::Refused(refusal.clone())));
        assert_eq!(case.stands("a"), (DeviceState::Failed, expected.name.into()));
    }
}

#[test]
fn a_plugin_that_breaks_costs_an_attempt() {
    let mut case = Case::new(&["a"], &json!({}));
    case.settle_with(&|| Err(CallError::Trapped("unreachable".into())));
    assert_eq!(case.stands("a"), (DeviceState::Pending, reason::PLUGIN_FAILED.name.into()));
}

#[test]
fn what_is_not_granted_fails() {
    let mut case = Case::new(&["a"], &json!({}));
    case.settle_with(&|| Ok(flashjob_plugin_host::types::FlashPod { attach_device: true, ..flash_pod("2") }));
    assert_eq!(case.stands("a"), (DeviceState::Failed, reason::GRANT_DENIED.name.into()));
}

#[test]
fn settings_of_a_plugin_that_nobody_configured_are_named_in_the_message() {
    let mut case = Case::new(&["a"], &json!({"settings": {"toaster": {"x": 1}}}));
    case.settle();
    assert!(case.status().message.expect("a message").contains("names no configured plugin: toaster"));
}

// ---- the queue ----

#[test]
fn no_more_than_parallelism_start_and_one_where_all_ask_for_one_address() {
    for (spec, started) in [(json!({"parallelism": 2}), 2), (json!({"parallelism": 3, "externalIP": "192.0.2.1"}), 1)] {
        let mut case = Case::new(&["a", "b", "c"], &spec);
        assert_eq!(case.start().len(), started);
        assert_eq!(case.status().counts.expect("counts").active as usize, started);
    }
}

#[test]
fn a_suspended_job_starts_nothing_and_what_is_in_flight_finishes() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 1}));
    let pods = case.start();
    case.spec(&json!({"suspend": true}));
    case.settle();
    assert!(condition::holds(&case.status().conditions, condition::SUSPENDED));
    case.end(&pods[0], 0);
    case.device("a", &[ESP32, ("HOST_ENDPOINT", "10.0.0.0"), ("VERSION", "2")]);
    case.settle();
    assert_eq!(case.status().completed_uuids, ["a"]);
    assert_eq!(case.stands("b").0, DeviceState::Pending);
    case.spec(&json!({"suspend": false}));
    case.settle();
    assert_eq!(case.stands("b").0, DeviceState::Exposing);
}

#[test]
fn a_device_that_a_pod_of_the_go_operator_flashes_waits_until_that_has_ended() {
    let mut case = Case::new(&["a"], &json!({}));
    let pod = pod_of_the_go_operator("job", "a", "10.0.0.0");
    case.see_pod(pod.clone());
    case.settle();
    assert_eq!(case.stands("a"), (DeviceState::Pending, reason::DEVICE_BUSY.name.into()));
    case.end(&pod, 0);
    let plan = case.settle();
    assert_eq!(case.stands("a").0, DeviceState::Exposing);
    assert_eq!(deletes(&plan, "pod"), 1);
}

#[test]
fn what_the_go_operator_completed_counts() {
    let mut case = Case::new(&["a", "b"], &json!({}));
    case.job.status = serde_json::from_value(json!({"phase": "Running", "completedUUIDs": ["a"]})).expect("a status");
    case.see_job();
    case.settle();
    assert_eq!(case.status().completed_uuids, ["a"]);
    assert_eq!(case.stands("b").0, DeviceState::Exposing);
}

// ---- addresses ----

#[test]
fn a_device_without_an_address_in_time_costs_an_attempt_where_nobody_holds_one() {
    let mut case = Case::new(&["a"], &json!({"addressTimeoutSeconds": 10}));
    case.balanced = false;
    let services = case.settle();
    case.carry_out(&services);
    case.settle();
    assert_eq!(case.stands("a").1, reason::WAITING_FOR_ADDRESS.name);
    case.pass(10);
    assert_eq!(case.stands("a"), (DeviceState::Pending, reason::ADDRESS_TIMEOUT.name.into()));
}

// ---- attempts ----

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
    let mut case = Case::new(&["a"], &json!({"deviceTimeoutSeconds": 100, "verify": {"timeoutSeconds": 50}}));
    let pods = case.start();
    let (name, uid) = (pods[0].metadata.name.clone().expect("a name"), pods[0].metadata.uid.clone().expect("a uid"));
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
    assert!(case.status().message.is_some_and(|message| message.contains("cannot create resource")));
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

// ---- proof ----

#[test]
fn a_changed_version_verifies_and_a_third_value_ends_the_wait() {
    for (reported, required, state) in
        [("2", true, DeviceState::Pending), ("3", true, DeviceState::Pending), ("3", false, DeviceState::Pending)]
    {
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
            (_, true) => assert_eq!(case.stands("a"), (state, reason::VERSION_NOT_REPORTED.name.into())),
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
    for (mode, next) in [("Required", DeviceState::Pending), ("BestEffort", DeviceState::Exposing)] {
        let mut case = Case::new(&["a", "b"], &json!({"parallelism": 1, "verify": {"mode": mode}}));
        let pods = case.start();
        case.end(&pods[0], 0);
        case.settle();
        assert_eq!(case.stands("b").0, next);
    }
}

// ---- stops ----

#[test]
fn one_failure_too_many_skips_the_rest() {
    let mut case = Case::new(&["a", "b", "c", "d"], &json!({"parallelism": 1, "maxFailedDevices": "34%", "backoffLimitPerDevice": 0}));
    case.device("a", &[("DEVICE", "toaster"), ("HOST_ENDPOINT", "10.0.0.0")]);
    let pods = case.start();
    case.end(&pods[0], 1);
    case.settle();
    for uid in ["c", "d"] {
        assert_eq!(case.stands(uid), (DeviceState::Skipped, reason::JOB_STOPPED.name.into()), "no place frees before the verdict");
    }
}

#[test]
fn a_guard_that_fails_one_device_too_many_lets_no_other_start() {
    let mut case = Case::new(&["a", "b"], &json!({"maxFailedDevices": 0}));
    case.device("b", &[("DEVICE", "toaster"), ("HOST_ENDPOINT", "10.0.0.1")]);
    case.settle();
    assert_eq!(case.stands("a"), (DeviceState::Skipped, reason::JOB_STOPPED.name.into()));
}

#[test]
fn after_the_jobs_deadline_pods_go_and_devices_fail() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 1, "activeDeadlineSeconds": 60}));
    let pods = case.start();
    assert_eq!(deletes(&case.pass(60), "pod"), 1);
    assert_eq!(case.stands("b"), (DeviceState::Failed, reason::DEADLINE_EXCEEDED.name.into()));
    case.end(&pods[0], 137);
    case.settle();
    assert_eq!(case.stands("a"), (DeviceState::Failed, reason::DEADLINE_EXCEEDED.name.into()));
}

#[test]
fn a_changed_run_waits_for_what_is_in_flight_and_starts_afresh() {
    let mut case = Case::new(&["a"], &json!({}));
    let pods = case.start();
    let before = case.status().run;
    case.spec(&json!({"runID": "again"}));
    let plan = case.settle();
    assert_eq!((creates_pod(&plan), case.status().run), (0, before.clone()));
    case.end(&pods[0], 0);
    case.settle();
    assert_ne!(case.status().run, before);
    assert_eq!(case.stands("a").0, DeviceState::Exposing);
}

#[test]
fn a_finished_job_with_a_ttl_is_deleted_and_at_once_with_zero() {
    for ttl in [0, 30] {
        let mut case = Case::new(&["a"], &json!({"version": "1", "skipIfCurrent": true, "ttlSecondsAfterFinished": ttl}));
        let deletes = |plan: &Plan| plan.steps.iter().any(|step| matches!(step, Step::DeleteJob));
        assert_eq!(deletes(&case.settle()), ttl == 0);
        assert!(deletes(&case.pass(ttl)));
    }
}

#[test]
fn a_deleted_job_lets_go_when_its_pods_are_gone() {
    let mut case = Case::new(&["a"], &json!({}));
    let pods = case.start();
    case.job.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(case.now));
    case.see_job();
    let plan = case.plan();
    assert_eq!((deletes(&plan, "pod"), deletes(&plan, "service")), (1, 1));
    assert!(!plan.holds.is_empty());
    case.end(&pods[0], 137);
    let (name, uid) = (pods[0].metadata.name.clone().expect("a name"), pods[0].metadata.uid.clone().expect("a uid"));
    case.world.lose_pod(&key("job"), &name, &uid, case.now);
    let observed = case.world.observe(&key("job"), case.now).expect("the job");
    for service in &observed.services {
        case.world.lose_service(&key("job"), &service.name, &service.uid);
    }
    assert!(matches!(case.plan().steps.as_slice(), [Step::RemoveFinalizer]));
}

#[test]
fn every_reason_is_given_by_a_rule() {
    let rules = include_str!("rules.rs");
    for reason in reason::ALL {
        let constant: String = reason
            .name
            .chars()
            .flat_map(|letter| letter.is_uppercase().then_some('_').into_iter().chain([letter.to_ascii_uppercase()]))
            .collect();
        assert!(rules.contains(constant.trim_start_matches('_')), "{}", reason.name);
    }
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

#[test]
fn a_status_that_cannot_be_stored_now_is_worded_only_where_something_waits_for_it() {
    let mut case = Case::new(&["a"], &json!({"verify": {"mode": "None"}}));
    let pods = case.start();
    case.settle();
    let worded = |case: &mut Case| {
        let mut observed = case.world.observe(&key("job"), case.now).expect("the job");
        observed.report = false;
        plan(&observed).status.is_some()
    };
    case.pass(60);
    assert!(!worded(&mut case), "nothing waits for how far the flash is");
    case.end(&pods[0], 0);
    let uid = pods[0].metadata.uid.clone().expect("a uid");
    let flashed = Arc::new(Judged::Asked(Ok(Verdict::Flashed(Proof::ReportedVersion))));
    case.world.memory.entry(key("job")).or_default().answers_mut().judged.insert(uid, flashed);
    assert!(worded(&mut case), "whoever waits for the job waits for its end");
}

// ---- pools ----

#[test]
fn a_slot_is_not_handed_on_right_after_an_attempt_that_was_not_judged_flashed() {
    let spec = json!({"parallelism": 1, "exposure": "Pooled", "backoffLimitPerDevice": 0});
    for (code, started) in [(0, 1), (1, 0)] {
        let mut case = Case::new(&["a", "b"], &spec);
        let pods = case.start();
        case.end(&pods[0], code);
        case.device("a", &[ESP32, ("HOST_ENDPOINT", "10.0.0.0"), ("VERSION", "2")]);
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
fn a_slot_is_handed_on_at_once_also_when_its_pod_began_and_ended_between_two_status_writes() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 1, "exposure": "Pooled", "verify": {"mode": "None"}}));
    let services = case.settle();
    case.carry_out(&services);
    let made = case.settle();
    let pod = made.steps.iter().find_map(|step| if let Step::CreatePod(pod) = step { Some(*pod.clone()) } else { None });
    let mut pod = pod.expect("a Pod");
    pod.metadata.uid = Some("uid".to_owned());
    case.end(&pod, 0);
    let flashed = Arc::new(Judged::Asked(Ok(Verdict::Flashed(Proof::ReportedVersion))));
    case.world.memory.entry(key("job")).or_default().answers_mut().judged.insert("uid".to_owned(), flashed);
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
fn a_suspended_job_keeps_no_idle_pool() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 1, "exposure": "Pooled"}));
    let services = case.settle();
    case.carry_out(&services);
    case.spec(&json!({"suspend": true, "uuid": ["b"]}));
    let plan = case.settle();
    assert_eq!(deletes(&plan, "service"), 1);
}
