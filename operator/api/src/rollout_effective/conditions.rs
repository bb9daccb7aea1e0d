//! Conditions on devices, as a rollout, its exclusion and its batches give them.

use std::collections::HashSet;

use super::invalid::{InvalidRollout, invalid};
use crate::rollout::{DeviceConditions, PropertyOperator, PropertyRequirement, RolloutSelector};

/// Conditions on a device, ready for comparison: an empty list asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Device types, as [`comparable_type`] writes them.
    pub device_types: HashSet<String>,
    /// Application types.
    pub application_types: HashSet<String>,
    /// Versions.
    pub versions: HashSet<String>,
    /// Nodes.
    pub nodes: HashSet<String>,
    /// Names of Instances.
    pub instances: HashSet<String>,
    /// Requirements on properties.
    pub properties: Vec<PropertyRequirement>,
}

impl Conditions {
    /// Returns true if nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.device_types.is_empty()
            && self.application_types.is_empty()
            && self.versions.is_empty()
            && self.nodes.is_empty()
            && self.instances.is_empty()
            && self.properties.is_empty()
    }

    /// Reads the conditions by which a rollout selects its devices.
    pub(super) fn of_selector(selector: &RolloutSelector) -> Result<Self, InvalidRollout> {
        let RolloutSelector { device_types, application_types, versions, .. } = selector.clone();
        let RolloutSelector { nodes, instances, properties, .. } = selector.clone();
        let written = DeviceConditions {
            device_types,
            application_types,
            versions,
            nodes,
            instances,
            properties,
        };
        Self::read(Some(&written), "spec.selector")
    }

    /// Reads written conditions; absent ones ask for nothing. `field` is their path.
    pub(super) fn read(
        written: Option<&DeviceConditions>,
        field: &str,
    ) -> Result<Self, InvalidRollout> {
        let Some(written) = written else { return Ok(Self::default()) };
        let set = |list: &Option<Vec<String>>| list.iter().flatten().cloned().collect();
        let properties = written.properties.clone().unwrap_or_default();
        for requirement in &properties {
            let has_values = requirement.values.iter().flatten().next().is_some();
            let takes_values =
                matches!(requirement.operator, PropertyOperator::In | PropertyOperator::NotIn);
            if has_values != takes_values {
                let message = if takes_values { "needs values" } else { "takes no values" };
                return Err(invalid(
                    format!("{field}.properties"),
                    format!(
                        "{}: the operator {:?} {message}",
                        requirement.key, requirement.operator
                    ),
                ));
            }
        }
        Ok(Self {
            device_types: written
                .device_types
                .iter()
                .flatten()
                .map(|kind| comparable_type(kind))
                .collect(),
            application_types: set(&written.application_types),
            versions: set(&written.versions),
            nodes: set(&written.nodes),
            instances: set(&written.instances),
            properties,
        })
    }
}

/// A device type in lower case without dashes, underscores and blanks, so that two spellings of
/// one type are equal.
#[must_use]
pub fn comparable_type(text: &str) -> String {
    text.chars()
        .filter(|letter| !matches!(letter, '-' | '_' | ' '))
        .map(|letter| letter.to_ascii_lowercase())
        .collect()
}
