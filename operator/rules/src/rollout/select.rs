//! Selects devices by conditions on the properties that Akri reports. Borrows everything, so
//! 100,000 devices cost no memory.

use std::collections::BTreeMap;

use flashjob_api::{
    Conditions, EffectiveRollout, PropertyOperator, PropertyRequirement, comparable_type,
};
use hashbrown::HashMap;

/// A device, as an Akri Instance describes it.
#[derive(Clone, Copy)]
pub struct Device<'a> {
    /// Uid of the Instance; the value that a FlashJob names.
    pub uid: &'a str,
    /// Namespace of the Instance.
    pub namespace: &'a str,
    /// Name of the Instance; stays the same when the uid changes.
    pub name: &'a str,
    /// Identity of the device, regardless of the Instance that describes it.
    pub identity: &'a str,
    /// `DEVICE`, trimmed; None where it is missing or empty.
    pub device_type: Option<&'a str>,
    /// `APPLICATION_TYPE`, likewise.
    pub application_type: Option<&'a str>,
    /// `VERSION`, likewise.
    pub version: Option<&'a str>,
    /// The nodes that see the device.
    pub nodes: &'a [String],
    /// All properties that Akri reports.
    pub properties: &'a dyn Properties,
    /// False if it cannot be flashed now: no node sees it, or its Instance is being deleted or
    /// cannot be decoded. It may be planned, and counts as absent when its turn comes.
    pub reachable: bool,
}

/// Properties of a device, by name.
pub trait Properties {
    /// The value, trimmed. None: it is missing or empty.
    fn value(&self, name: &str) -> Option<&str>;
}

impl Properties for BTreeMap<String, String> {
    fn value(&self, name: &str) -> Option<&str> {
        self.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }
}

impl Properties for HashMap<String, String> {
    fn value(&self, name: &str) -> Option<&str> {
        self.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }
}

/// Returns true if the rollout's selector matches the device.
#[must_use]
pub fn selects(spec: &EffectiveRollout, device: &Device<'_>) -> bool {
    holds(&spec.selector, device)
        && !spec.exclude.as_ref().is_some_and(|exclude| holds(exclude, device))
}

/// Returns true if all conditions hold for the device; empty conditions hold for every device. The
/// cheapest comparisons come first.
#[must_use]
pub fn holds(conditions: &Conditions, device: &Device<'_>) -> bool {
    let among = |set: &std::collections::HashSet<String>, value: Option<&str>| {
        set.is_empty() || value.is_some_and(|value| set.contains(value))
    };
    among(&conditions.instances, Some(device.name))
        && among(&conditions.application_types, device.application_type)
        && among(&conditions.versions, device.version)
        && (conditions.nodes.is_empty()
            || device.nodes.iter().any(|node| conditions.nodes.contains(node)))
        && (conditions.device_types.is_empty() || is_of_type(conditions, device))
        && conditions.properties.iter().all(|requirement| meets(requirement, device))
}

fn is_of_type(conditions: &Conditions, device: &Device<'_>) -> bool {
    device.device_type.is_some_and(|kind| conditions.device_types.contains(&comparable_type(kind)))
}

fn meets(requirement: &PropertyRequirement, device: &Device<'_>) -> bool {
    let value = device.properties.value(&requirement.key);
    let listed = |value: &str| requirement.values.iter().flatten().any(|listed| listed == value);
    match requirement.operator {
        PropertyOperator::In => value.is_some_and(listed),
        // As in label selectors of Kubernetes, NotIn also matches where the key is missing.
        PropertyOperator::NotIn => !value.is_some_and(listed),
        PropertyOperator::Exists => value.is_some(),
        PropertyOperator::DoesNotExist => value.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use flashjob_api::{DeviceConditions, FlashRolloutSpec, RolloutSelector};

    use super::*;

    fn spec(selector: RolloutSelector) -> EffectiveRollout {
        let (firmware, version) = ("r.io/f:2".to_owned(), "2".to_owned());
        FlashRolloutSpec { firmware, version, selector, ..FlashRolloutSpec::default() }
            .effective()
            .expect("valid")
    }

    fn is_selected(selector: RolloutSelector) -> bool {
        let nodes = ["n1".to_owned(), "n2".to_owned()];
        let properties = BTreeMap::from([("SITE".to_owned(), " athens ".to_owned())]);
        let device = Device {
            uid: "u",
            namespace: "fleet",
            name: "akri-a",
            identity: "endpoint/a:80",
            device_type: Some("ESP32-S2"),
            application_type: Some("thermo"),
            version: Some("1"),
            nodes: &nodes,
            properties: &properties,
            reachable: true,
        };
        selects(&spec(selector), &device)
    }

    fn list(values: &[&str]) -> Option<Vec<String>> {
        Some(values.iter().map(|value| (*value).to_owned()).collect())
    }

    #[test]
    fn one_value_of_a_field_suffices_and_every_field_must_hold() {
        let types =
            RolloutSelector { device_types: list(&["x", "esp32_s2"]), ..Default::default() };
        assert!(is_selected(types.clone()));
        assert!(is_selected(RolloutSelector { nodes: list(&["n2"]), ..types.clone() }));
        assert!(!is_selected(RolloutSelector { nodes: list(&["n3"]), ..types.clone() }));
        assert!(!is_selected(RolloutSelector { versions: list(&["2"]), ..types.clone() }));
        assert!(!is_selected(RolloutSelector { application_types: list(&["hygro"]), ..types }));
        assert!(is_selected(RolloutSelector {
            instances: list(&["akri-a"]),
            ..Default::default()
        }));
    }

    #[test]
    fn everything_is_selected_only_by_all_and_conditions_still_narrow_it() {
        let all = RolloutSelector { all: Some(true), ..Default::default() };
        assert!(is_selected(all.clone()));
        assert!(!is_selected(RolloutSelector { versions: list(&["2"]), ..all }));
    }

    #[test]
    fn an_exclusion_takes_out_what_all_its_conditions_hold_for() {
        let all = RolloutSelector { all: Some(true), ..Default::default() };
        let without = |exclude| RolloutSelector { exclude: Some(exclude), ..all.clone() };
        let on = |node: &str, version: &str| DeviceConditions {
            nodes: list(&[node]),
            versions: list(&[version]),
            ..Default::default()
        };
        assert!(!is_selected(without(on("n1", "1"))));
        assert!(is_selected(without(on("n1", "2"))));
        assert!(
            is_selected(without(DeviceConditions::default())),
            "an empty exclusion excludes nothing"
        );
    }

    #[test]
    fn properties_are_compared_as_label_selectors_are() {
        let requires = |key: &str, operator, values: &[&str]| {
            let values = if values.is_empty() { None } else { list(values) };
            let requirement = PropertyRequirement { key: key.to_owned(), operator, values };
            is_selected(RolloutSelector {
                properties: Some(vec![requirement]),
                ..Default::default()
            })
        };
        assert!(requires("SITE", PropertyOperator::In, &["athens", "chania"]));
        assert!(!requires("SITE", PropertyOperator::NotIn, &["athens"]));
        assert!(requires("FLOOR", PropertyOperator::NotIn, &["1"]));
        assert!(!requires("FLOOR", PropertyOperator::In, &["1"]));
        assert!(requires("SITE", PropertyOperator::Exists, &[]));
        assert!(requires("FLOOR", PropertyOperator::DoesNotExist, &[]));
    }
}
