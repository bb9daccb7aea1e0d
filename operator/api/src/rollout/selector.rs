//! Selection of devices by what Akri reports about them.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Selection of the devices of a rollout. A device must match every field that is set; it matches
/// a field if it matches one of its values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = (
        "(has(self.all) && self.all) \
         || (has(self.deviceTypes) && size(self.deviceTypes) > 0) \
         || (has(self.applicationTypes) && size(self.applicationTypes) > 0) \
         || (has(self.versions) && size(self.versions) > 0) \
         || (has(self.nodes) && size(self.nodes) > 0) \
         || (has(self.instances) && size(self.instances) > 0) \
         || (has(self.properties) && size(self.properties) > 0)",
        "give at least one condition, or all: true for every device"
    )
)]
pub struct RolloutSelector {
    /// If true, every device is selected that matches the other fields; required if no other field
    /// is set. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// Device types as reported by Akri, at most 64. Letter case, dashes, underscores and spaces
    /// are ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 63)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub device_types: Option<Vec<String>>,
    /// Application types as reported by Akri, at most 64. Compared exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub application_types: Option<Vec<String>>,
    /// Firmware versions that devices currently report, at most 64. Compared exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 256)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub versions: Option<Vec<String>>,
    /// Names of nodes, at most 1000. A device matches if at least one of these nodes sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 1000),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub nodes: Option<Vec<String>>,
    /// Names of Akri Instances, at most 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 1000),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub instances: Option<Vec<String>>,
    /// Requirements on the properties that Akri reports, at most 32. All must be met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub properties: Option<Vec<PropertyRequirement>>,
    /// Devices to leave out although they are selected: those that match every field that is set
    /// here. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<DeviceConditions>,
}

/// Conditions on a device. A device must match every field that is set; it matches a field if it
/// matches one of its values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceConditions {
    /// Device types as reported by Akri, at most 64. Letter case, dashes, underscores and spaces
    /// are ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 63)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub device_types: Option<Vec<String>>,
    /// Application types as reported by Akri, at most 64. Compared exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub application_types: Option<Vec<String>>,
    /// Firmware versions that devices currently report, at most 64. Compared exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 256)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub versions: Option<Vec<String>>,
    /// Names of nodes, at most 1000. A device matches if at least one of these nodes sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 1000),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub nodes: Option<Vec<String>>,
    /// Names of Akri Instances, at most 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 1000),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub instances: Option<Vec<String>>,
    /// Requirements on the properties that Akri reports, at most 32. All must be met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub properties: Option<Vec<PropertyRequirement>>,
}

/// Requirement on one property of a device, as in a label selector's `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = (
        "(self.operator == 'In' || self.operator == 'NotIn') \
         == (has(self.values) && size(self.values) > 0)",
        "In and NotIn need values; Exists and DoesNotExist take none"
    )
)]
pub struct PropertyRequirement {
    /// Name of the property as reported by Akri, 1 to 253 characters.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
    /// Comparison with `values`: `In`, `NotIn`, `Exists` or `DoesNotExist`. A device without the
    /// property matches `NotIn`.
    pub operator: PropertyOperator,
    /// Values for the operators `In` and `NotIn`, at most 64. Must be empty for `Exists` and
    /// `DoesNotExist`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(max = 1024)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub values: Option<Vec<String>>,
}

/// Comparison of a property with values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PropertyOperator {
    /// The property has one of the values.
    In,
    /// The property has none of the values, or is missing.
    NotIn,
    /// The property is reported.
    Exists,
    /// The property is not reported.
    DoesNotExist,
}
