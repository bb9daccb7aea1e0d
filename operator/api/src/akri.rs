//! Akri's `Instance`: one device that a discovery handler found. Akri owns these objects; we only read them.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Spec of an Akri Instance (Akri 0.13, group `akri.sh`, version `v0`).
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "akri.sh",
    version = "v0",
    kind = "Instance",
    plural = "instances",
    shortname = "akrii",
    namespaced
)]
#[serde(rename_all = "camelCase")]
pub struct InstanceSpec {
    /// The Configuration that found the device.
    pub configuration_name: String,
    /// How many workloads may use the device at once.
    pub capacity: u32,
    /// The device's name in Container Device Interface form.
    pub cdi_name: String,
    /// What the discovery handler says of the device.
    #[serde(default)]
    pub broker_properties: BTreeMap<String, String>,
    /// Slots, and which node uses each.
    #[serde(default)]
    pub device_usage: BTreeMap<String, String>,
    /// The nodes that see the device. Empty: no node reaches it.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub nodes: Vec<String>,
    /// Whether several nodes may see the device.
    #[serde(default)]
    pub shared: bool,
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
    /// Path below `/sys` of a device that udev found.
    pub const UDEV_DEVPATH: &str = "UDEV_DEVPATH";
}
