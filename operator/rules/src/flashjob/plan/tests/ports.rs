//! Tests of plugins that name other ports while their Services exist, one fact per test.

use flashjob_api::DeviceState;
use flashjob_types::CallError;
use flashjob_types::plugin::FlashPod;
use serde_json::json;

use super::fixture::{Case, creates_pod, deletes, flash_pod};
use crate::flashjob::plan::{Plan, Step};
use crate::world::change::Change;

/// The plugin's answer once its settings have changed.
fn with_another_port() -> Result<FlashPod, CallError> {
    let mut flash = flash_pod("2");
    flash.ports[0].number = 4434;
    Ok(flash)
}

/// Changes the settings of the plugin, which is asked again about every device without a Pod.
fn change_settings(case: &mut Case) {
    let mut plugins = case.world.plugins.to_vec();
    plugins[0].settings.insert("port".to_owned(), json!(4434));
    case.world.take(Change::Plugins(plugins), case.now);
}

/// Ports of the Services that a plan creates.
fn created_ports(plan: &Plan) -> Vec<i32> {
    let services = plan.steps.iter().filter_map(|step| match step {
        Step::CreateService(service) => service.spec.as_ref(),
        _ => None,
    });
    services.flat_map(|spec| spec.ports.iter().flatten()).map(|port| port.port).collect()
}

#[test]
fn the_service_of_an_attempt_is_replaced_if_its_plugin_names_other_ports_before_the_pod() {
    let mut case = Case::new(&["a"], &json!({}));
    case.balanced = false;
    let services = case.settle();
    assert_eq!(created_ports(&services), [4433]);
    case.carry_out(&services);
    assert_eq!(deletes(&case.settle(), "service"), 0);
    change_settings(&mut case);
    let plan = case.settle_with(&with_another_port);
    assert_eq!((creates_pod(&plan), deletes(&plan, "service")), (0, 1));
    assert_eq!(case.stands("a").0, DeviceState::Exposing, "it is the same attempt");
    case.lose_services();
    case.balanced = true;
    let services = case.settle_with(&with_another_port);
    assert_eq!(created_ports(&services), [4434]);
    case.carry_out(&services);
    let plan = case.settle_with(&with_another_port);
    assert_eq!((creates_pod(&plan), deletes(&plan, "service")), (1, 0));
}

#[test]
fn a_pooled_service_is_not_passed_on_to_a_device_whose_plugin_names_other_ports() {
    let spec = json!({"parallelism": 1, "exposure": "Pooled", "verify": {"mode": "None"}});
    let mut case = Case::new(&["a", "b"], &spec);
    let pods = case.start();
    change_settings(&mut case);
    case.settle_with(&with_another_port);
    case.end(&pods[0], 0);
    let plan = case.settle_with(&with_another_port);
    assert_eq!(case.stands("b").0, DeviceState::Exposing);
    assert_eq!((creates_pod(&plan), deletes(&plan, "service")), (0, 1));
    case.lose_services();
    let services = case.settle_with(&with_another_port);
    assert_eq!(created_ports(&services), [4434]);
    case.carry_out(&services);
    assert_eq!(creates_pod(&case.settle_with(&with_another_port)), 1);
}
