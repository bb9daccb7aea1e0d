//! Options that select the devices of a FlashRollout.

use std::collections::BTreeMap;

use clap::Args;
use flashjob_api::{DeviceConditions, PropertyOperator, PropertyRequirement, RolloutSelector};

use crate::fleet::devices::{property, word};

/// Options that select devices: a device must match every option that is given, with at least one
/// of its values. Values are compared exactly; device types without regard to letter case and
/// dashes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Devices")]
pub struct Selection {
    /// Devices of this type, as esp32; repeat it for several.
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = word)]
    kinds: Vec<String>,
    /// Devices with this application, as thermo.
    #[arg(long, value_name = "APPLICATION", value_delimiter = ',', value_parser = word)]
    application: Vec<String>,
    /// Devices that report this version now.
    #[arg(long, value_name = "VERSION", value_delimiter = ',', value_parser = word)]
    reported_version: Vec<String>,
    /// Devices that this node sees.
    #[arg(long, value_name = "NODE", value_delimiter = ',', value_parser = word)]
    node: Vec<String>,
    /// The device with this name of an Akri Instance.
    #[arg(long, value_name = "INSTANCE", value_delimiter = ',', value_parser = word)]
    instance: Vec<String>,
    /// Devices with this property of Akri's; values of one NAME are alternatives.
    #[arg(long, value_name = "NAME=VALUE", value_parser = property)]
    property: Vec<(String, String)>,
    /// Every device; the other options still narrow it.
    #[arg(long)]
    all: bool,
    /// Leave out devices of this type. Of several exclude options of different kinds, all must
    /// hold for a device to be left out.
    #[arg(long, value_name = "TYPE", value_delimiter = ',', value_parser = word)]
    exclude_type: Vec<String>,
    /// Leave out devices with this application.
    #[arg(long, value_name = "APPLICATION", value_delimiter = ',', value_parser = word)]
    exclude_application: Vec<String>,
    /// Leave out devices that report this version now.
    #[arg(long, value_name = "VERSION", value_delimiter = ',', value_parser = word)]
    exclude_reported_version: Vec<String>,
    /// Leave out devices that this node sees.
    #[arg(long, value_name = "NODE", value_delimiter = ',', value_parser = word)]
    exclude_node: Vec<String>,
    /// Leave out the device with this name of an Akri Instance.
    #[arg(long, value_name = "INSTANCE", value_delimiter = ',', value_parser = word)]
    exclude_instance: Vec<String>,
    /// Leave out devices with this property of Akri's.
    #[arg(long, value_name = "NAME=VALUE", value_parser = property)]
    exclude_property: Vec<(String, String)>,
}

impl Selection {
    /// Returns true if no option selects devices.
    pub fn is_empty(&self) -> bool {
        // Exclusions do not count: they only leave devices out, and an empty selector is refused.
        !self.all && self.conditions() == DeviceConditions::default()
    }

    /// Returns true if an option leaves devices out.
    pub fn excludes(&self) -> bool {
        self.exclusion() != DeviceConditions::default()
    }

    /// Returns the selector for the spec.
    pub fn selector(&self) -> RolloutSelector {
        let conditions = self.conditions();
        RolloutSelector {
            all: self.all.then_some(true),
            device_types: conditions.device_types,
            application_types: conditions.application_types,
            versions: conditions.versions,
            nodes: conditions.nodes,
            instances: conditions.instances,
            properties: conditions.properties,
            exclude: Some(self.exclusion()).filter(|_| self.excludes()),
        }
    }

    fn conditions(&self) -> DeviceConditions {
        DeviceConditions {
            device_types: some(&self.kinds),
            application_types: some(&self.application),
            versions: some(&self.reported_version),
            nodes: some(&self.node),
            instances: some(&self.instance),
            properties: requirements(&self.property),
        }
    }

    /// Returns the conditions for devices to leave out.
    pub fn exclusion(&self) -> DeviceConditions {
        DeviceConditions {
            device_types: some(&self.exclude_type),
            application_types: some(&self.exclude_application),
            versions: some(&self.exclude_reported_version),
            nodes: some(&self.exclude_node),
            instances: some(&self.exclude_instance),
            properties: requirements(&self.exclude_property),
        }
    }
}

fn some(values: &[String]) -> Option<Vec<String>> {
    (!values.is_empty()).then(|| values.to_vec())
}

/// Returns one requirement for each property.
fn requirements(named: &[(String, String)]) -> Option<Vec<PropertyRequirement>> {
    // All requirements must hold and a property has one value, so two requirements for one key
    // would match no device.
    let mut values: BTreeMap<&String, Vec<String>> = BTreeMap::new();
    for (key, value) in named {
        values.entry(key).or_default().push(value.clone());
    }
    let requirement = |(key, values): (&String, Vec<String>)| PropertyRequirement {
        key: key.clone(),
        operator: PropertyOperator::In,
        values: Some(values),
    };
    (!values.is_empty()).then(|| values.into_iter().map(requirement).collect())
}

/// Returns a selector in words.
pub fn in_words(selector: &RolloutSelector) -> String {
    let conditions = DeviceConditions {
        device_types: selector.device_types.clone(),
        application_types: selector.application_types.clone(),
        versions: selector.versions.clone(),
        nodes: selector.nodes.clone(),
        instances: selector.instances.clone(),
        properties: selector.properties.clone(),
    };
    let every = match words(&conditions) {
        words if words.is_empty() => "every device".to_owned(),
        words => format!("devices of {}", words.join(", ")),
    };
    match selector.exclude.as_ref().map(words).filter(|words| !words.is_empty()) {
        Some(words) => format!("{every}, without those of {}", words.join(", ")),
        None => every,
    }
}

fn words(conditions: &DeviceConditions) -> Vec<String> {
    let of = |name: &str, values: &Option<Vec<String>>| {
        let values = values.as_ref().filter(|values| !values.is_empty())?;
        Some(format!("{name} {}", values.join(" or ")))
    };
    let lists = [
        of("type", &conditions.device_types),
        of("application", &conditions.application_types),
        of("reported version", &conditions.versions),
        of("node", &conditions.nodes),
        of("instance", &conditions.instances),
    ];
    let properties = conditions.properties.iter().flatten().map(|one| {
        let values = one.values.clone().unwrap_or_default().join(" or ");
        format!("property {} {:?} {values}", one.key, one.operator).trim_end().to_owned()
    });
    lists.into_iter().flatten().chain(properties).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn values_of_one_property_are_alternatives_and_an_exclusion_alone_selects_nothing() {
        let property = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let mut selection = Selection {
            property: vec![property("SITE", "a"), property("FLOOR", "1"), property("SITE", "b")],
            exclude_node: texts(&["n1"]),
            ..Selection::default()
        };
        let selector = selection.selector();
        let listed: Vec<_> = selector.properties.iter().flatten().collect();
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[1].values, Some(texts(&["a", "b"])));
        assert_eq!(selector.exclude.and_then(|exclude| exclude.nodes), Some(texts(&["n1"])));
        selection.property.clear();
        assert!(selection.is_empty() && selection.excludes());
    }

    #[test]
    fn a_selector_is_worded_with_what_it_leaves_out() {
        let selection = Selection {
            kinds: texts(&["esp32", "esp32s2"]),
            exclude_node: texts(&["n1"]),
            ..Selection::default()
        };
        let expected = "devices of type esp32 or esp32s2, without those of node n1";
        assert_eq!(in_words(&selection.selector()), expected);
        let all = Selection { all: true, ..Selection::default() };
        assert_eq!(in_words(&all.selector()), "every device");
    }
}
