//! `spec` of a FlashJob, which users write.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::visible::{VISIBLE_OR_EMPTY_TEXT, VISIBLE_TEXT};
use crate::{FirmwarePolicy, FlashJobStatus};

/// Desired state of a FlashJob: the devices, the firmware, and options for flashing it.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "application.flashjob.nbfc.io",
    version = "v1alpha1",
    kind = "FlashJob",
    plural = "flashjobs",
    namespaced,
    status = "FlashJobStatus",
    shortname = "fj",
    category = "all",
    derive = "PartialEq",
    doc = "Flashes firmware onto devices discovered by Akri, with one Pod per device.",
    validation = (
        "self.metadata.name.size() <= 63",
        "metadata.name must be no more than 63 characters, as it becomes a label value"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.counts.failed"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "Firmware", type_ = "string", json_path = ".spec.firmware", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = (
        "!has(self.hostEndpoint) || self.hostEndpoint == '' || size(self.uuid) == 1",
        "hostEndpoint may only be set with exactly one uuid"
    ),
    validation = (
        "!has(self.externalIP) || self.externalIP == '' || isIP(self.externalIP)",
        "externalIP must be an IP address such as 192.0.2.7 or 2001:db8::7"
    ),
    validation = (
        "!has(self.maxFailedDevices) || (type(self.maxFailedDevices) == int \
         ? int(self.maxFailedDevices) >= 0 \
         : string(self.maxFailedDevices).matches('^(100|[0-9]{1,2})%$'))",
        "maxFailedDevices must be a number from 0 or a percentage from 0% to 100%"
    )
)]
pub struct FlashJobSpec {
    /// UIDs (`metadata.uid`) of the Akri Instances of the devices to flash, 1 to 4096. A job with
    /// a duplicate UID flashes no device and reports the error in its status. Each UID has 1 to 63
    /// lower-case letters, digits, `-`, `_` and `.`, and begins and ends with a letter or digit.
    #[schemars(
        length(min = 1, max = 4096),
        inner(
            length(min = 1, max = 63),
            regex(pattern = "^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$")
        ),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub uuid: Vec<String>,
    /// Firmware to flash, passed to the device plugin; usually an OCI reference. 1 to 1024
    /// characters, without white space or invisible characters.
    #[schemars(length(min = 1, max = 1024), regex(pattern = VISIBLE_TEXT))]
    pub firmware: String,
    /// Version that a device reports when it runs the firmware. 1 to 256 characters, without white
    /// space or invisible characters.
    #[schemars(length(min = 1, max = 256), regex(pattern = VISIBLE_TEXT))]
    pub version: String,
    /// Resolution and signature verification of the firmware before the first device is flashed.
    /// Firmware that fails them is not flashed. Default: the reference is passed to the flash Pods
    /// as written, and nothing is checked. Not needed in FlashJobs of a FlashRollout, which has
    /// its own policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware_policy: Option<FirmwarePolicy>,
    /// Required device type, at most 63 characters: a device that reports another one fails with
    /// DeviceTypeMismatch. Letter case, dashes, underscores and spaces are ignored. Used as the
    /// device's type if Akri reports none. Default: any type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub device: Option<String>,
    /// Required application type, at most 253 characters: a device that reports another one fails
    /// with DeviceTypeMismatch. Letter case and dashes are ignored. Used as the device's
    /// application type if Akri reports none. Default: any type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub application_type: Option<String>,
    /// Address of the device, `host:port`; overrides the address that Akri reports. Allowed only
    /// if `uuid` has exactly one entry. At most 512 characters, without white space or
    /// invisible characters. Default: the address that Akri reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = VISIBLE_OR_EMPTY_TEXT))]
    pub host_endpoint: Option<String>,
    /// IP address to request from the load balancer. No other address is used, so devices are
    /// flashed one at a time. Default: any address.
    #[serde(default, rename = "externalIP", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    pub external_ip: Option<String>,
    /// Container image of the flash Pods, at most 1024 characters. Default: the image that the
    /// device plugin specifies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub flashjob_pod_image: Option<String>,
    /// Settings for device plugins, by plugin name, for at most 64 plugins. They override the
    /// default settings in the operator's configuration. Each plugin validates its own settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "settings_schema")]
    pub settings: Option<BTreeMap<String, serde_json::Map<String, serde_json::Value>>>,
    /// Identifier of the run, at most 253 characters. Changing this value starts a new run that
    /// flashes all devices again.
    #[serde(default, rename = "runID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub run_id: Option<String>,
    /// Maximum number of devices in flight at the same time, 1 to 500. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 500))]
    pub parallelism: Option<i32>,
    /// If true, no more devices are started; attempts in flight finish. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Maximum number of retries of one device after its first attempt, 0 to 1000. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub backoff_limit_per_device: Option<i32>,
    /// Maximum number of failed devices: an integer of at least 0, or a percentage of all devices
    /// from `0%` to `100%`, rounded down. If more devices fail, attempts in flight finish and the
    /// remaining devices are skipped. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failed_devices: Option<IntOrString>,
    /// Maximum number of devices in flight per node or gateway, across all FlashJobs. Default: no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_budget: Option<GroupBudget>,
    /// Maximum duration of one attempt, in seconds, 1 to 604800; also the Pod's
    /// `activeDeadlineSeconds`. Default 900.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604800))]
    pub device_timeout_seconds: Option<i64>,
    /// Maximum time for which a device waits for its external address before it moves to the end
    /// of the queue, in seconds, 1 to 604800. Default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604800))]
    pub address_timeout_seconds: Option<i64>,
    /// Maximum duration of the job, in seconds, 1 to 31536000. When it is exceeded, attempts in
    /// flight are stopped and devices without a result fail with DeadlineExceeded. Default: no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31536000))]
    pub active_deadline_seconds: Option<i64>,
    /// Verification that a device runs the new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifySpec>,
    /// If true, a device that already reports `version` is skipped. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_if_current: Option<bool>,
    /// Services through which devices reach their flash Pods. `PerDevice`: one Service for each
    /// device. `Pooled`: at most `parallelism` Services, each reused for one device after another.
    /// Default PerDevice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "exposure_schema")]
    pub exposure: Option<Exposure>,
    /// Effect of draining a node on flash Pods that run there. `Protect`: evictions of a flash Pod
    /// are refused until its attempt has ended. `Allow`: an eviction ends the Pod, and the device
    /// is flashed again. Default Protect, unless the operator's configuration allows disruption
    /// for all jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "disruption_schema")]
    pub disruption: Option<Disruption>,
    /// Time after which a finished FlashJob is deleted, in seconds, 0 to 31536000. Default: it is
    /// not deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31536000))]
    pub ttl_seconds_after_finished: Option<i64>,
    /// Additions to the flash Pods, such as node selector, tolerations and labels, within the
    /// limits of the operator's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_overrides: Option<PodOverrides>,
}

/// Verification that a flashed device runs the new version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifySpec {
    /// Effect of a device that does not report the new version within `timeoutSeconds`.
    /// `Required`: the attempt fails. `BestEffort`: the device completes as unverified. `None`:
    /// the device completes as soon as the plugin reports success, without waiting for the
    /// version. Default: the mode that the plugin requests, `BestEffort` or `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "verify_mode_schema")]
    pub mode: Option<VerifyMode>,
    /// Maximum time to wait until the device reports the new version, in seconds, 1 to 86400.
    /// Default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<i64>,
    /// Time for which the device must keep reporting the new version, in seconds, 0 to 86400.
    /// Detects boot loaders that roll back to the previous version. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86400))]
    pub stable_seconds: Option<i64>,
}

/// Maximum number of devices in flight in one group of devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupBudget {
    /// Criterion by which devices are grouped: `Node`, for the node that sees the device, or the
    /// name of a property that Akri reports, such as `GATEWAY`. Devices with the same value form a
    /// group; devices without the property are not limited. 1 to 253 characters, without white
    /// space or invisible characters.
    #[schemars(length(min = 1, max = 253), regex(pattern = VISIBLE_TEXT))]
    pub by: String,
    /// Maximum number of devices in flight in one group, across all FlashJobs, 1 to 4096.
    #[schemars(range(min = 1, max = 4096))]
    pub max_in_flight: i32,
}

/// Effect of a device that does not report the new version in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VerifyMode {
    /// The attempt fails if the device does not report the new version in time.
    Required,
    /// The device completes as unverified if it does not report the new version in time.
    BestEffort,
    /// The device completes as soon as the plugin reports success.
    None,
}

/// Services through which devices reach their flash Pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Exposure {
    /// One Service for each device.
    #[default]
    PerDevice,
    /// At most `parallelism` Services, each reused for one device after another.
    Pooled,
}

/// Effect of draining a node on flash Pods that run there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Disruption {
    /// Evictions of the Pod are refused until its attempt has ended, and cluster autoscalers do
    /// not remove its node.
    #[default]
    Protect,
    /// An eviction ends the Pod, and the device is flashed again.
    Allow,
}

/// Additions to the flash Pods. The operator merges them into the Pods; they are not passed to
/// plugins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodOverrides {
    /// Labels that a node must have to run a flash Pod. The operator's configuration can restrict
    /// the keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints that the flash Pods tolerate, at most 64. The operator's configuration can restrict
    /// the keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub tolerations: Option<Vec<Toleration>>,
    /// Resource requests and limits of the flash container. Default: those in the operator's
    /// configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Secrets with the credentials for pulling the flash image, at most 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Option<Vec<SecretName>>,
    /// Name of the ServiceAccount of the flash Pods, which the operator's configuration must
    /// allow. Its token is never mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service_account_name: Option<String>,
    /// Name of the PriorityClass of the flash Pods, which the operator's configuration must allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
    /// Labels to add to the flash Pods, at most 64. The operator's configuration must allow their
    /// keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations to add to the flash Pods, at most 64. The operator's configuration must allow
    /// their keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Secret in the FlashJob's namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SecretName {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Toleration of a taint, as in a Pod's `spec.tolerations`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Key of the taint. If it is empty, `operator` must be `Exists`, and every taint is
    /// tolerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Comparison with the taint's value: `Exists` tolerates any value, `Equal` requires `value`.
    /// Default Equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^(Exists|Equal)$"))]
    pub operator: Option<String>,
    /// Value of the taint, with the operator `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Effect of the taint: `NoSchedule`, `PreferNoSchedule` or `NoExecute`. Default: all effects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^(NoSchedule|PreferNoSchedule|NoExecute)$"))]
    pub effect: Option<String>,
    /// Time for which a `NoExecute` taint is tolerated, in seconds. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// Resource requests and limits, as in a container's `resources`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// Amounts that the scheduler reserves for the container, by resource name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<BTreeMap<String, IntOrString>>,
    /// Maximum amounts that the container may use, by resource name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<BTreeMap<String, IntOrString>>,
}

/// Schema of an object of objects. The inner objects are defined by the plugins.
pub(crate) fn settings_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "nullable": true,
        "maxProperties": 64,
        "additionalProperties": { "type": "object", "x-kubernetes-preserve-unknown-fields": true }
    })
}

/// Schema of an optional enumeration. A pattern gives the valid values, because an `enum` in a
/// schema would exclude null.
pub(crate) fn exposure_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string", "nullable": true, "pattern": "^(PerDevice|Pooled)$"
    })
}

/// Like [`exposure_schema`].
pub(crate) fn disruption_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "nullable": true, "pattern": "^(Protect|Allow)$" })
}

/// Like [`exposure_schema`].
fn verify_mode_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string", "nullable": true, "pattern": "^(Required|BestEffort|None)$"
    })
}
