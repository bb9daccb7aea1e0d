//! Tests of guards, the queue and addresses, one fact per test.

use std::sync::Arc;
use std::time::Instant;

use flashjob_api::{DeviceState, Phase, condition, reason};
use flashjob_types::CallError;
use flashjob_types::plugin::PluginError;
use serde_json::json;

use super::fixture::{
    Case, ESP32, creates_pod, deletes, flash_pod, key, plugin, pod_of_the_go_operator,
};
use crate::flashjob::observed::{Instance, PluginView, Question};
use crate::flashjob::plan::Plan;

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
fn a_device_in_flight_that_comes_back_under_another_uid_of_the_job_is_not_flashed_again() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 2, "skipIfCurrent": false}));
    case.world.devices.lose("b");
    let pods = case.start();
    case.world.devices.lose("a");
    case.device("b", &[ESP32, ("HOST_ENDPOINT", "10.0.0.0"), ("VERSION", "2")]);
    case.settle();
    assert_eq!(pods.len(), 1);
    assert_eq!(case.stands("a").0, DeviceState::Flashing);
    assert_eq!(case.stands("b"), (DeviceState::Skipped, reason::DUPLICATE_DEVICE.name.into()));
}

#[test]
fn a_waiting_device_that_comes_back_under_another_uid_of_the_job_is_flashed_once() {
    for (uids, parallelism) in [(["new", "old"], 1), (["new", "old"], 2), (["old", "new"], 2)] {
        let spec =
            json!({"parallelism": parallelism, "suspend": true, "verify": {"mode": "None"}});
        let mut case = Case::new(&uids, &spec);
        case.world.devices.lose("new");
        case.settle();
        let endpoint = case.status().devices[0].host_endpoint.clone().expect("an endpoint");
        case.world.devices.lose("old");
        case.device("new", &[ESP32, ("HOST_ENDPOINT", &endpoint), ("VERSION", "1")]);
        case.settle();
        case.spec(&json!({"suspend": false}));
        let pods = case.start();
        assert_eq!(pods.len(), 1, "{uids:?}, parallelism {parallelism}");
        case.end(&pods[0], 0);
        case.settle();
        assert_eq!(case.stands(uids[1]).1, reason::DUPLICATE_DEVICE.name);
        assert_eq!(case.status().counts.expect("counts").completed, 1);
    }
}

#[test]
fn a_device_that_begins_with_a_status_write_in_flight_keeps_its_place() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 1, "suspend": true}));
    case.world.devices.lose("a");
    case.settle();
    case.spec(&json!({"suspend": false}));
    let begins_b = case.plan();
    let status = begins_b.status.clone().expect("a status");
    let job = case.world.jobs[&key("job")].clone();
    let memory = case.world.memory.get_mut(&key("job")).expect("memory");
    memory.write_begins(&job, &status, Instant::now());
    // Its answer may also be lost, and other plans are made until that is known.
    case.device("a", &[ESP32, ("HOST_ENDPOINT", "10.0.0.0"), ("VERSION", "1")]);
    for _ in 0..2 {
        let begins = case.plan().status.expect("a status");
        let at_work: Vec<_> = begins.devices.iter().filter(|device| device.is_locked()).collect();
        assert_eq!(at_work.iter().map(|device| device.uid.as_str()).collect::<Vec<_>>(), ["b"]);
        // Not even if it cannot begin any more.
        case.world.devices.lose("b");
        assert_eq!(creates(&case.plan()), 0);
        case.device("b", &[ESP32, ("HOST_ENDPOINT", "10.0.0.1"), ("VERSION", "1")]);
    }
}

fn creates(plan: &Plan) -> usize {
    plan.steps.iter().filter(|step| step.creates()).count()
}

#[test]
fn one_instance_to_which_two_waiting_devices_lead_is_flashed_once() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 2, "suspend": true}));
    case.settle();
    case.world.devices.lose("a");
    case.world.devices.lose("b");
    // It has the endpoint of one, the name of the other, and a uid that the spec does not name.
    let properties = [ESP32, ("HOST_ENDPOINT", "10.0.0.0"), ("VERSION", "1")];
    let nodes = vec!["node".to_owned()];
    let both = Instance::new("fleet", "akri-b", "c", nodes, properties.into_iter());
    case.world.devices.see(both);
    case.spec(&json!({"suspend": false}));
    assert_eq!(case.start().len(), 1);
    assert_eq!(case.stands("b").1, reason::DUPLICATE_DEVICE.name);
}

#[test]
fn a_device_in_flight_that_appears_a_second_time_is_not_flashed_again() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 2}));
    case.world.devices.lose("b");
    case.start();
    case.device("b", &[ESP32, ("HOST_ENDPOINT", "http://10.0.0.0/")]);
    case.settle();
    assert_eq!(case.stands("a").0, DeviceState::Flashing);
    assert_eq!(case.stands("b"), (DeviceState::Skipped, reason::DUPLICATE_DEVICE.name.into()));
}

#[test]
fn a_device_of_another_type_or_application_is_refused_case_and_dashes_aside() {
    let mut case =
        Case::new(&["a", "b"], &json!({"device": "ESP-32", "applicationType": "Therm-O"}));
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
fn a_result_has_the_namespace_of_the_device_s_own_instance() {
    let mut case = Case::new(&["a"], &json!({}));
    case.world.devices.lose("a");
    case.device_in("elsewhere", "a", &[ESP32, ("HOST_ENDPOINT", "10.0.0.0")]);
    let namespaces = |case: &mut Case| {
        let results = case.plan().results.into_iter();
        results.map(|result| result.namespace).collect::<Vec<_>>()
    };
    assert_eq!(namespaces(&mut case), [Some("elsewhere".to_owned())]);
    // Another device's Instance has the overriding endpoint.
    let mut case = Case::new(&["a"], &json!({"hostEndpoint": "10.9.9.9:80"}));
    case.device_in("elsewhere", "z", &[ESP32, ("HOST_ENDPOINT", "10.9.9.9")]);
    assert_eq!(namespaces(&mut case), [None::<String>]);
}

#[test]
fn an_override_that_is_the_endpoint_of_a_foreign_instance_is_refused() {
    let mut case = Case::new(&["a"], &json!({"hostEndpoint": "10.9.9.9:80"}));
    case.device_in("elsewhere", "z", &[ESP32, ("HOST_ENDPOINT", "10.9.9.9")]);
    case.settle();
    assert_eq!(case.stands("a").1, reason::DEVICE_NOT_ALLOWED.name);
}

#[test]
fn an_override_in_a_spelling_that_programs_read_differently_is_refused_before_anything_is_made() {
    for endpoint in ["168364297:80", "http://x@10.9.9.9", "10.9.2313", "esp-7.example.com"] {
        let mut case = Case::new(&["a"], &json!({"hostEndpoint": endpoint}));
        case.device_in("elsewhere", "z", &[ESP32, ("HOST_ENDPOINT", "10.9.9.9")]);
        let plan = case.settle();
        assert_eq!(case.stands("a").1, reason::DEVICE_NOT_ALLOWED.name, "{endpoint}");
        assert!(plan.steps.is_empty() && plan.holds.is_empty(), "{endpoint}");
    }
}

#[test]
fn an_override_holds_both_identities() {
    let mut case = Case::new(&["a"], &json!({"hostEndpoint": "10.9.9.9:80"}));
    let plan = case.settle();
    let held: Vec<String> = plan.holds.iter().map(|(identity, _)| identity.to_string()).collect();
    assert!(
        held.contains(&"endpoint/10.9.9.9:80".to_owned())
            && held.contains(&"endpoint/10.0.0.0:80".to_owned()),
        "{held:?}"
    );
}

#[test]
fn a_type_that_no_plugin_serves_fails() {
    let mut case = Case::new(&["a"], &json!({}));
    case.device("a", &[("DEVICE", "toaster"), ("HOST_ENDPOINT", "10.0.0.0")]);
    case.settle();
    assert_eq!(case.stands("a").1, reason::NO_PLUGIN_FOR_DEVICE.name);
}

#[test]
fn the_plugin_with_the_longest_name_for_a_type_serves_it_and_who_serves_what_is_said_of_others() {
    let mut case = Case::new(&["a", "b", "c", "d"], &json!({}));
    case.world.plugins = std::sync::Arc::new(
        [("family", "nrf*"), ("board", "nrf52*"), ("one", "nrf52833")]
            .map(|(name, types)| plugin(name, types))
            .to_vec(),
    );
    for (uid, kind) in [("a", "nRF52833"), ("b", "NRF_52840"), ("c", "nrf 9160"), ("d", "lamp")] {
        case.device(uid, &[("DEVICE", kind), ("HOST_ENDPOINT", uid)]);
    }
    case.settle();
    let answers = &case.world.memory[&key("job")].answers.built;
    let serving = ["a", "b", "c"].map(|uid| answers[uid].plugin.as_str());
    assert_eq!(serving, ["one", "board", "family"]);
    assert_eq!(case.stands("d").1, reason::NO_PLUGIN_FOR_DEVICE.name);
    let message = case.status().devices.last().and_then(|device| device.message.clone());
    assert!(message.is_some_and(|text| {
        text.contains("device type lamp") && text.contains("plugin board serves nrf52*")
    }));
}

#[test]
fn a_plugin_that_is_still_loaded_is_waited_for_and_one_that_cannot_be_takes_no_family_s_devices() {
    for (is_loading, reason) in [(true, reason::PLUGIN_NOT_READY.name), (false, "")] {
        let mut case = Case::new(&["a"], &json!({}));
        let mut broken = plugin("broken", "x");
        broken.device_types.clear();
        broken.is_loading = is_loading;
        broken.ready = Err("not yet".into());
        case.world.plugins = std::sync::Arc::new(vec![broken, plugin("family", "nrf*")]);
        case.device("a", &[("DEVICE", "nrf9160"), ("HOST_ENDPOINT", "10.0.0.0")]);
        case.settle();
        let waits = case.status().waiting.keys().next().cloned().unwrap_or_default();
        assert_eq!(waits, reason);
        assert_eq!(case.stands("a").0 == DeviceState::Exposing, !is_loading);
    }
}

#[test]
fn what_a_device_reports_that_is_no_type_is_repeated() {
    let mut case = Case::new(&["a"], &json!({}));
    case.device("a", &[("DEVICE", "esp/32"), ("HOST_ENDPOINT", "10.0.0.0")]);
    case.settle();
    assert_eq!(case.stands("a").1, reason::NO_PLUGIN_FOR_DEVICE.name);
    assert!(case.status().devices[0].message.as_ref().is_some_and(|text| text.contains("esp/32")));
}

#[test]
fn a_device_whose_instance_is_of_no_use_is_waited_for_and_told_by_name() {
    let mut case = Case::new(&["a"], &json!({}));
    let mut leaving = Instance::clone(case.world.devices.by_uid("a").expect("a device"));
    leaving.fault = Some("is being deleted".into());
    case.world.devices.see(leaving);
    case.settle();
    let message = case.status().message.expect("a message");
    assert!(message.contains("akri-a is being deleted"), "{message}");
    case.pass(121);
    assert_eq!(case.stands("a"), (DeviceState::Failed, reason::UNKNOWN_DEVICE.name.into()));
}

#[test]
fn a_device_in_flight_goes_on_though_its_instance_is_being_deleted() {
    let mut case = Case::new(&["a"], &json!({}));
    let services = case.settle();
    let mut leaving = Instance::clone(case.world.devices.by_uid("a").expect("a device"));
    leaving.fault = Some("is being deleted".into());
    case.world.devices.see(leaving);
    case.carry_out(&services);
    assert_eq!(creates_pod(&case.settle()), 1);
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
    case.settle_with(&|| {
        Ok(flashjob_types::plugin::FlashPod { attach_device: true, ..flash_pod("2") })
    });
    assert_eq!(case.stands("a"), (DeviceState::Failed, reason::GRANT_DENIED.name.into()));
}

#[test]
fn settings_of_a_plugin_that_nobody_configured_are_named_in_the_message() {
    let mut case = Case::new(&["a"], &json!({"settings": {"toaster": {"x": 1}}}));
    case.settle();
    assert!(
        case.status()
            .message
            .expect("a message")
            .contains("plugins that are not configured: toaster")
    );
}

#[test]
fn the_configured_flash_image_is_what_a_plugin_is_told_unless_the_job_names_one() {
    for (spec, expected) in [
        (json!({}), "registry.example/flasher:1"),
        (json!({"flashjobPodImage": "registry.example/own:1"}), "registry.example/own:1"),
    ] {
        let mut case = Case::new(&["a"], &spec);
        let image = Some("registry.example/flasher:1".to_owned());
        case.world.plugins =
            Arc::new(vec![PluginView { flash_image: image, ..plugin("esp32", "esp32") }]);
        let questions = case.plan().questions;
        let [Question::Build { request, .. }] = questions.as_slice() else {
            panic!("one question: {questions:?}");
        };
        assert_eq!(request.image.as_deref(), Some(expected));
    }
}

#[test]
fn no_more_than_parallelism_start_and_one_where_all_ask_for_one_address() {
    for (spec, started) in
        [(json!({"parallelism": 2}), 2), (json!({"parallelism": 3, "externalIP": "192.0.2.1"}), 1)]
    {
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
fn a_pod_of_the_go_operator_that_never_ends_is_ended_after_the_time_that_the_status_says() {
    let mut case = Case::new(&["a"], &json!({}));
    let pod = pod_of_the_go_operator("job", "a", "10.0.0.0");
    case.see_pod(pod.clone());
    case.settle();
    let message = case.status().devices[0].message.clone().unwrap_or_default();
    assert!(message.contains("is stopped at "), "{message}");
    // 900 s, the default grace period of a Pod, and a minute.
    let plan = case.pass(989);
    assert_eq!(deletes(&plan, "pod"), 0);
    let plan = case.pass(1);
    assert_eq!(deletes(&plan, "pod"), 1);
}

#[test]
fn what_the_go_operator_completed_counts() {
    let mut case = Case::new(&["a", "b"], &json!({}));
    case.job.status = serde_json::from_value(json!({"phase": "Running", "completedUUIDs": ["a"]}))
        .expect("a status");
    case.see_job();
    case.settle();
    assert_eq!(case.status().completed_uuids, ["a"]);
    assert_eq!(case.stands("b").0, DeviceState::Exposing);
}

#[test]
fn an_operator_that_is_not_configured_yet_fails_no_device() {
    let mut case = Case::new(&["a"], &json!({}));
    let plugins = std::mem::take(&mut case.world.plugins);
    case.settle();
    let status = case.status();
    assert_eq!(status.failed_uuids, [""; 0]);
    assert_eq!(status.waiting.get(reason::PLUGIN_NOT_READY.name), Some(&1), "{status:?}");
    case.world.plugins = plugins;
    case.settle();
    assert_eq!(case.stands("a").0, DeviceState::Exposing);
}

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
