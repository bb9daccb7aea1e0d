//! Tests of the group budget: it limits the devices in flight behind one node or gateway.

use flashjob_api::{DeviceState, reason};
use serde_json::json;

use super::fixture::{Case, job, key};
use crate::flashjob::observed::{Identity, Job};

const GATEWAY: &str = "GATEWAY";

/// Devices behind these gateways.
fn case(gateways: &[(&str, &str)], most: usize) -> Case {
    let uids: Vec<_> = gateways.iter().map(|(uid, _)| *uid).collect();
    let budget = json!({"groupBudget": {"by": GATEWAY, "maxInFlight": most}});
    let mut case = Case::new(&uids, &budget);
    for (index, (uid, gateway)) in gateways.iter().enumerate() {
        let endpoint = format!("10.0.0.{index}");
        let mut properties =
            vec![("DEVICE", "esp32"), ("HOST_ENDPOINT", &endpoint), ("VERSION", "1")];
        properties.extend((!gateway.is_empty()).then_some((GATEWAY, *gateway)));
        case.device(uid, &properties);
    }
    case
}

fn uids_in_flight(case: &Case) -> Vec<String> {
    let status = case.status();
    let devices = status.devices.iter().filter(|device| device.state.is_in_flight());
    devices.map(|device| device.uid.clone()).collect()
}

#[test]
fn no_more_devices_of_a_group_begin_than_its_budget_and_those_of_none_are_free() {
    let mut case =
        case(&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "2"), ("e", ""), ("f", "")], 1);
    case.settle();
    assert_eq!(uids_in_flight(&case), ["a", "d", "e", "f"]);
    assert_eq!(case.status().waiting.get(reason::WAITING_FOR_GROUP.name), Some(&2));
}

#[test]
fn the_next_of_a_group_begins_when_one_of_it_has_ended() {
    let mut case = case(&[("a", "1"), ("b", "1"), ("c", "1")], 2);
    let pods = case.start();
    assert_eq!(uids_in_flight(&case), ["a", "b"]);
    case.end(&pods[0], 0);
    case.device(
        "a",
        &[("DEVICE", "esp32"), ("HOST_ENDPOINT", "10.0.0.0"), ("VERSION", "2"), (GATEWAY, "1")],
    );
    case.settle();
    assert_eq!(uids_in_flight(&case), ["b", "c"]);
}

#[test]
fn devices_of_other_jobs_count_but_for_those_that_are_only_watched() {
    let mut case = case(&[("a", "1"), ("b", "1")], 1);
    let mut other = job("other", &["b"], &json!({}));
    let record = |state: &str| json!({"devices": [{"uid": "b", "attempt": 1, "state": state}]});
    other.status = serde_json::from_value(record("Flashing")).expect("a status");
    case.world.see_job(Job::of(other.clone()));
    let hold = (Identity::endpoint("10.0.0.1"), "b".to_owned());
    case.world.set_holds(&key("other"), vec![hold]);
    case.settle();
    assert_eq!(uids_in_flight(&case), [""; 0]);
    assert!(case.world.waiting_jobs().contains(&key("job")));
    other.status = serde_json::from_value(record("Verifying")).expect("a status");
    other.metadata.resource_version = Some("2".to_owned());
    case.world.see_job(Job::of(other));
    case.pass(2);
    assert_eq!(case.stands("a").0, DeviceState::Exposing);
}

#[test]
fn a_device_whose_pod_has_ended_is_in_flight_no_more_though_it_is_not_judged_yet() {
    let mut case = case(&[("a", "1"), ("b", "1"), ("c", "1")], 2);
    let pods = case.start();
    case.end(&pods[0], 0);
    let plan = case.plan();
    assert!(!plan.questions.is_empty(), "its plugin is still to judge it");
    let counts = plan.status.and_then(|status| status.counts).expect("counts");
    assert_eq!((counts.active, counts.verifying, counts.pending), (2, 1, 0), "{counts:?}");
}

#[test]
fn a_device_in_flight_counts_in_its_group_also_while_akri_has_no_instance_of_it() {
    let gateways = [("a", "1"), ("b", "1")];
    let mut own = case(&gateways, 1);
    own.start();
    own.settle();
    assert_eq!(uids_in_flight(&own), ["a"]);
    own.world.devices.lose("a");
    own.pass(5);
    assert_eq!(uids_in_flight(&own), ["a"]);
    // A device that another job flashes.
    let mut case = case(&gateways, 1);
    let mut other = job("other", &["b"], &json!({}));
    let record = json!({"devices": [{"uid": "b", "attempt": 1, "state": "Flashing"}]});
    other.status = serde_json::from_value(record).expect("a status");
    case.world.see_job(Job::of(other));
    case.world.set_holds(&key("other"), vec![(Identity::endpoint("10.0.0.1"), "b".to_owned())]);
    case.world.observe(&key("other"), case.now).expect("the other job");
    case.world.devices.lose("b");
    case.settle();
    assert_eq!(uids_in_flight(&case), [""; 0]);
}
