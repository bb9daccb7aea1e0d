//! Akri's `Instance`: one device that a discovery handler found. Akri owns these objects; we only
//! read them.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Deserializer, Serialize};

/// Spec of an Akri Instance (group `akri.sh`, version `v0`). Only nodes and broker properties are
/// read; what else Akri writes differs from version to version, so none of it is needed, and what
/// is unknown is passed over.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "akri.sh",
    version = "v0",
    kind = "Instance",
    plural = "instances",
    shortname = "akrii",
    namespaced,
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct InstanceSpec {
    /// The Configuration that found the device.
    #[serde(default, deserialize_with = "null_is_default")]
    pub configuration_name: String,
    /// Number of workloads that may use the device at once.
    #[serde(default, deserialize_with = "null_is_default")]
    pub capacity: i64,
    /// The device's name in Container Device Interface form.
    #[serde(default, deserialize_with = "null_is_default")]
    pub cdi_name: String,
    /// Properties of the device, as the discovery handler reports them.
    #[serde(default, deserialize_with = "null_is_default")]
    pub broker_properties: BTreeMap<String, String>,
    /// Slots, and which node uses each.
    #[serde(default, deserialize_with = "null_is_default")]
    pub device_usage: BTreeMap<String, String>,
    /// The nodes that see the device. Empty: no node reaches it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub nodes: Vec<String>,
    /// True if several nodes may see the device.
    #[serde(default, deserialize_with = "null_is_default")]
    pub shared: bool,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Names of the broker properties that the operator reads.
pub mod property {
    /// `host:port` of a device on the network.
    pub const HOST_ENDPOINT: &str = "HOST_ENDPOINT";
    /// The device's type, as `esp32`.
    pub const DEVICE: &str = "DEVICE";
    /// The application that runs on the device, as `thermo`.
    pub const APPLICATION_TYPE: &str = "APPLICATION_TYPE";
    /// The firmware version that the device reports.
    pub const VERSION: &str = "VERSION";
    /// Path below `/sys` of a device that udev found; `UDEV_DEVPATH_0` and so on where it groups
    /// several.
    pub const UDEV_DEVPATH: &str = "UDEV_DEVPATH";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_and_broker_properties_are_needed_and_the_unknown_is_passed_over() {
        let text = r#"{"metadata": {"name": "a"}, "spec": {
            "capacity": null, "brokerInfo": {"x": 1}, "nodes": ["n"],
            "brokerProperties": {"VERSION": "1"}}}"#;
        let instance: Instance = serde_json::from_str(text).expect("an Instance");
        assert_eq!(instance.spec.nodes, ["n"]);
        assert_eq!(instance.spec.broker_properties["VERSION"], "1");
        let text =
            r#"{"metadata": {"name": "a"}, "spec": {"nodes": null, "brokerProperties": null}}"#;
        assert!(serde_json::from_str::<Instance>(text).is_ok());
    }
}
