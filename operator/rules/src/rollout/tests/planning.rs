//! Tests of the selection of devices for a run, and of their batches.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flashjob_api::{
    DeviceConditions, EffectiveRollout, FlashRolloutSpec, LeftOut, RolloutPhase, RolloutSelector,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::model::{Cluster, NEW, batch};
use crate::rollout::Device;
use crate::rollout::members::{PlanFault, Planned, plan};

struct Fleet {
    names: Vec<(String, String, Option<String>)>,
    nodes: Vec<String>,
    properties: BTreeMap<String, String>,
}

impl Fleet {
    /// Devices by name, identity and version.
    fn of(devices: &[(&str, &str, Option<&str>)]) -> Self {
        let owned = |(name, identity, version): &(&str, &str, Option<&str>)| {
            ((*name).to_owned(), (*identity).to_owned(), version.map(str::to_owned))
        };
        Self {
            names: devices.iter().map(owned).collect(),
            nodes: vec![],
            properties: BTreeMap::new(),
        }
    }

    fn sized(count: usize) -> Self {
        let device = |number| (format!("d-{number}"), format!("endpoint/{number}"), None);
        Self {
            names: (0..count).map(device).collect(),
            nodes: vec!["n".to_owned()],
            properties: BTreeMap::new(),
        }
    }

    fn devices(&self) -> impl Iterator<Item = Device<'_>> {
        self.names.iter().map(|(name, identity, version)| Device {
            uid: name,
            namespace: "fleet",
            name,
            identity,
            device_type: Some("ESP32"),
            application_type: None,
            version: version.as_deref(),
            nodes: &self.nodes,
            properties: &self.properties,
            reachable: true,
        })
    }

    fn plan(&self, change: impl FnOnce(&mut FlashRolloutSpec)) -> Result<Planned, PlanFault> {
        plan(&spec(change), "0a1b2c", "fleet", self.devices())
    }
}

fn spec(change: impl FnOnce(&mut FlashRolloutSpec)) -> EffectiveRollout {
    let mut spec = FlashRolloutSpec {
        firmware: "r.io/f:2".to_owned(),
        version: NEW.to_owned(),
        selector: RolloutSelector { all: Some(true), ..RolloutSelector::default() },
        ..FlashRolloutSpec::default()
    };
    change(&mut spec);
    spec.effective().expect("valid")
}

fn sizes(planned: &Planned) -> Vec<(&str, usize)> {
    planned.batches.iter().map(|(name, members)| (name.as_str(), members.len())).collect()
}

#[test]
fn the_default_batches_are_one_device_a_tenth_and_the_rest() {
    let planned = |count| Fleet::sized(count).plan(|_| {}).expect("planned");
    assert_eq!(sizes(&planned(1)), [("canary", 1)]);
    assert_eq!(sizes(&planned(2)), [("canary", 1), ("ten-percent", 1)]);
    assert_eq!(sizes(&planned(109)), [("canary", 1), ("ten-percent", 10), ("rest", 98)]);
    assert_eq!(planned(1).device_types, ["esp32"]);
}

#[test]
fn duplicates_are_removed_before_percentages_and_the_first_by_name_stays() {
    let fleet = Fleet::of(&[("b", "x", None), ("a", "x", None), ("c", "y", None)]);
    let planned =
        fleet.plan(|spec| spec.batches = Some(vec![batch("all", None)])).expect("planned");
    let mut members = planned.batches[0].1.clone();
    members.sort();
    assert_eq!(members, ["a", "c"]);
    assert_eq!(planned.left_out.duplicates, 1);
}

#[test]
fn devices_are_left_out_by_version_where_versions_can_be_compared() {
    let fleet = Fleet::of(&[
        ("current", "1", Some("2.0.0")),
        ("newer", "2", Some("v2.1.0")),
        ("older", "3", Some("1.9.0")),
        ("ancient", "4", Some("0.9.0")),
        ("odd", "5", Some("release-7")),
        ("silent", "6", None),
    ]);
    let least = |spec: &mut FlashRolloutSpec| spec.min_version = Some("1.0.0".to_owned());
    let planned = fleet.plan(least).expect("planned");
    let expected =
        LeftOut { current: 1, newer: 1, too_old: 1, unknown_comparison: 2, duplicates: 0 };
    assert_eq!((planned.count(), planned.left_out), (3, expected));
    let planned = fleet.plan(|spec| {
        spec.skip_if_current = Some(false);
        spec.allow_downgrade = Some(true);
    });
    assert_eq!(
        planned.map(|planned| (planned.count(), planned.left_out)),
        Ok((6, LeftOut::default()))
    );
}

#[test]
fn the_first_batch_that_takes_a_device_has_it_and_the_last_takes_who_is_left() {
    let fleet = Fleet::sized(20);
    let named = |names: &[&str]| {
        let instances = Some(names.iter().map(|name| (*name).to_owned()).collect());
        Some(DeviceConditions { instances, ..DeviceConditions::default() })
    };
    let planned = fleet.plan(|spec| {
        let mut lab = batch("lab", None);
        lab.selector = named(&["d-1", "d-2", "d-3"]);
        let mut again = batch("again", None);
        again.selector = named(&["d-3", "d-4"]);
        let mut half = batch("half", None);
        half.size = Some(IntOrString::String("50%".to_owned()));
        spec.batches = Some(vec![lab, again, half]);
    });
    let planned = planned.expect("planned");
    assert_eq!(sizes(&planned), [("lab", 3), ("again", 1), ("half", 10), ("rest", 6)]);
}

#[test]
fn a_batch_whose_selector_matches_nobody_is_named_and_one_that_only_comes_too_late_is_left_out() {
    let second = || {
        let mut second = batch("second", None);
        let instances = Some(vec!["nobody".to_owned()]);
        second.selector = Some(DeviceConditions { instances, ..DeviceConditions::default() });
        vec![batch("first", None), second]
    };
    let result = Fleet::sized(2).plan(|spec| spec.batches = Some(second()));
    assert_eq!(result, Err(PlanFault::EmptyBatch("second".to_owned(), 2)));
    let late = Fleet::sized(2).plan(|spec| {
        spec.batches = Some(vec![batch("first", None), batch("second", None)]);
    });
    assert_eq!(sizes(&late.expect("planned")), [("first", 2)]);
    let mut cluster = Cluster::new(2);
    cluster.edit(|spec| spec.batches = Some(second()));
    cluster.settle(10);
    assert_eq!(
        (cluster.phase(), cluster.reason().as_str()),
        (RolloutPhase::Planning, "EmptyBatch")
    );
    cluster.edit(|spec| spec.batches = Some(vec![batch("first", Some(1)), batch("second", None)]));
    cluster.settle(100);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
}

#[test]
fn the_place_of_a_device_depends_on_run_and_identity_alone() {
    let fleet = Fleet::sized(200);
    let one = fleet.plan(|_| {}).expect("planned");
    let reversed = fleet.devices().collect::<Vec<_>>().into_iter().rev();
    assert_eq!(plan(&spec(|_| {}), "0a1b2c", "fleet", reversed), Ok(one.clone()));
    let other = plan(&spec(|_| {}), "ffffff", "fleet", fleet.devices()).expect("planned");
    assert_ne!(one.batches, other.batches);
    // The same on every computer and in every version.
    assert_eq!(one.batches[0].1, ["d-54"]);
}

#[test]
fn devices_of_other_namespaces_carry_theirs() {
    let fleet = Fleet::sized(1);
    let planned = plan(&spec(|_| {}), "0a1b2c", "other", fleet.devices()).expect("planned");
    assert_eq!(planned.batches[0].1, ["fleet/d-0"]);
}

#[test]
fn more_than_ten_thousand_devices_are_refused_by_their_number() {
    let result = Fleet::sized(10_001).plan(|_| {});
    assert_eq!(result, Err(PlanFault::TooManyDevices(10_001)));
    assert_eq!(Fleet::sized(10_000).plan(|_| {}).map(|planned| planned.count()), Ok(10_000));
}

#[test]
fn a_hundred_thousand_devices_are_selected_in_well_under_a_second() {
    let fleet = Fleet::sized(100_000);
    let began = Instant::now();
    let result = fleet.plan(|spec| {
        spec.selector.device_types = Some(vec!["esp32".to_owned()]);
        spec.selector.nodes = Some(vec!["n".to_owned()]);
    });
    let took = began.elapsed();
    assert_eq!(result, Err(PlanFault::TooManyDevices(100_000)));
    // Without optimization, on a computer that is shared.
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_fleet_that_is_current_is_completed_and_one_without_devices_is_waited_for() {
    let mut cluster = Cluster::new(2);
    cluster.parts.values_mut().for_each(|part| part.version = Some(NEW.to_owned()));
    cluster.settle(10);
    assert_eq!(
        (cluster.phase(), cluster.reason().as_str()),
        (RolloutPhase::Completed, "NothingToFlash")
    );
    let mut cluster = Cluster::new(0);
    cluster.settle(10);
    assert_eq!(
        (cluster.phase(), cluster.reason().as_str()),
        (RolloutPhase::Planning, "NoDevices")
    );
    cluster.add("device");
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
}

#[test]
fn a_rollout_of_ten_thousand_devices_fits_into_one_object_and_is_decided_quickly() {
    let mut cluster = Cluster::new(0);
    for number in 0..10_000 {
        cluster.add(&format!("akri-esp32-{number:06x}-a1b2"));
    }
    cluster.edit(|spec| spec.batches = Some(vec![batch("only", None)]));
    cluster.rounds(1);
    let text = serde_json::to_string(&cluster.rollout).expect("writes");
    assert!(text.len() < 600_000, "{}", text.len());
}
