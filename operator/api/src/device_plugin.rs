//! DevicePlugin: status of a plugin that the operator's configuration names. Only the operator
//! writes these objects.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Source of a device plugin in the operator's configuration.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "application.flashjob.nbfc.io",
    version = "v1alpha1",
    kind = "DevicePlugin",
    plural = "deviceplugins",
    status = "DevicePluginStatus",
    shortname = "fjp",
    doc = "Device plugin of the operator. Only the operator creates, updates and deletes these \
           objects, according to its configuration file.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Types", type_ = "string", json_path = ".status.deviceTypes"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(
        name = "Verified",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Verified')].status"
    ),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.digest", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DevicePluginSpec {
    /// Reference of the plugin in the operator's configuration.
    pub image: String,
}

/// Observed state of a device plugin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DevicePluginStatus {
    /// Digest of the component that is serving, `sha256:…`. Absent if none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Version that the plugin reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Device types that the plugin serves in this cluster; `*` for every type that no other
    /// plugin serves.
    #[serde(default)]
    pub device_types: Vec<String>,
    /// Version of the plugin contract (WIT package) that the component is built against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wit_version: Option<String>,
    /// Current error. Absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Digest of the last component that served successfully. Standbys and restarted operators
    /// load and verify it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good_digest: Option<String>,
    /// Version of the last component that served successfully. A lower version is loaded only with
    /// `allowDowngrade`, even after a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good_version: Option<String>,
    /// Conditions of the plugin: Ready, Reconciling, Stalled, Resolved, Verified and TypeConflict.
    /// TypeConflict is True if other plugins serve device types that this plugin would serve.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
