//! FlashJob.spec: what a fleet operator writes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{FirmwarePolicy, FlashJobStatus};

/// Flashes firmware onto the devices that Akri found under the given uids.
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
    doc = "Flashes firmware onto a set of devices that Akri found, one Pod a device.",
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
    /// Uids (`metadata.uid`) of the Akri Instances to flash. 1 to 4096, each once: a job that
    /// names one twice starts nothing and says so in its status. Letters, digits, `-`, `_` and
    /// `.`, as in labels.
    #[schemars(
        length(min = 1, max = 4096),
        inner(
            length(min = 1, max = 63),
            regex(pattern = "^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
        ),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub uuid: Vec<String>,
    /// The firmware to flash, handed to the device plugin; usually an OCI reference. No white
    /// space or control characters.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^[^\s\p{Cc}]+$"))]
    pub firmware: String,
    /// The version that a device reports once it runs the firmware. No white space or control
    /// characters.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[^\s\p{Cc}]+$"))]
    pub version: String,
    /// Resolution and signature of the firmware, before the first device is flashed: firmware that
    /// is not proven flashes nothing. Default: the reference is passed on as written, and nothing
    /// is checked. A FlashRollout has its own; its FlashJobs need none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware_policy: Option<FirmwarePolicy>,
    /// Guard: a device of another type is refused. Case and dashes do not matter. Stands in where
    /// Akri reports none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub device: Option<String>,
    /// Guard: a device with another application type is refused. Stands in where Akri reports
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub application_type: Option<String>,
    /// Address at which the device is reached, `host:port`; overrides what Akri reports. Only with
    /// exactly one uuid. No white space or control characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^[^\s\p{Cc}]*$"))]
    pub host_endpoint: Option<String>,
    /// Asks the load balancer for this IP address; another one is not used. Devices then take
    /// turns.
    #[serde(default, rename = "externalIP", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    pub external_ip: Option<String>,
    /// Container image of the flash Pod. Default: what the device plugin names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub flashjob_pod_image: Option<String>,
    /// Settings for device plugins, keyed by the plugin's name. Each plugin validates its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "settings_schema")]
    pub settings: Option<BTreeMap<String, serde_json::Map<String, serde_json::Value>>>,
    /// Any new value flashes again what is finished.
    #[serde(default, rename = "runID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub run_id: Option<String>,
    /// Number of devices in flight at once. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 500))]
    pub parallelism: Option<i32>,
    /// Start no more devices; those in flight finish. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Number of retries of one device after its first attempt. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub backoff_limit_per_device: Option<i32>,
    /// More failed devices than this stop the job: a number, or a percentage of all devices,
    /// rounded down. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failed_devices: Option<IntOrString>,
    /// No more than so many devices in flight behind one node or gateway, counted over all
    /// FlashJobs. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_budget: Option<GroupBudget>,
    /// Time for one attempt, in seconds; also the Pod's activeDeadlineSeconds. Default 900.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604800))]
    pub device_timeout_seconds: Option<i64>,
    /// Time for which a device waits for its external address before it goes to the end of the
    /// queue, in seconds. Default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604800))]
    pub address_timeout_seconds: Option<i64>,
    /// Time for the whole job, in seconds; then what is in flight is stopped. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31536000))]
    pub active_deadline_seconds: Option<i64>,
    /// Proof that is asked of a device: that it runs the new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifySpec>,
    /// Skip a device that already reports `version`. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_if_current: Option<bool>,
    /// One Service for each device, or a pool of at most `parallelism` Services handed on. Default
    /// PerDevice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "exposure_schema")]
    pub exposure: Option<Exposure>,
    /// Effect of a drain of a node on the devices that are flashed there. Default Protect; the
    /// operator's configuration may allow it for all jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "disruption_schema")]
    pub disruption: Option<Disruption>,
    /// Delete the FlashJob this many seconds after it finished. Default: keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31536000))]
    pub ttl_seconds_after_finished: Option<i64>,
    /// Typed additions to the flash Pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_overrides: Option<PodOverrides>,
}

/// Proof of the new version: whether and how long a device is watched for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifySpec {
    /// Default: what the plugin's verdict says, else BestEffort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "verify_mode_schema")]
    pub mode: Option<VerifyMode>,
    /// Time to wait for the new version, in seconds. Default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<i64>,
    /// Time for which the device must go on reporting the new version, in seconds: some boot
    /// loaders go back to the one before. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86400))]
    pub stable_seconds: Option<i64>,
}

/// Limit of the devices that are in flight in one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupBudget {
    /// `Node`: devices that the same node sees are a group. Else the name of a property that Akri
    /// reports, such as GATEWAY: devices with the same value are a group, and those without it are
    /// in none.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[^\s\p{Cc}]+$"))]
    pub by: String,
    /// Number of devices in flight in one group, over all FlashJobs.
    #[schemars(range(min = 1, max = 4096))]
    pub max_in_flight: i32,
}

/// Strictness of the proof of a flashed device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VerifyMode {
    /// A device that does not report the new version in time failed that attempt.
    Required,
    /// A device that does not report the new version in time completes as unverified.
    BestEffort,
    /// The plugin's verdict is enough.
    None,
}

/// The way in which devices are reached from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Exposure {
    /// A Service for each device.
    #[default]
    PerDevice,
    /// At most `parallelism` Services, each handed to the next device with its address.
    Pooled,
}

/// Effect of a drain of a node on a device that is being flashed there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Disruption {
    /// It waits: evictions of the Pod are refused until it has ended, and autoscalers leave its
    /// node alone.
    #[default]
    Protect,
    /// It ends the Pod, and the device is flashed again.
    Allow,
}

/// Additions of a FlashJob to its Pods. The operator merges it; a plugin never sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodOverrides {
    /// Labels a node must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints that the Pods tolerate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub tolerations: Option<Vec<Toleration>>,
    /// Resource requests and limits of the flash container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Names of Secrets with which the flash Pod's image is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Option<Vec<SecretName>>,
    /// Service account of the Pods; must be allowed in the operator's configuration. Its token is
    /// never mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service_account_name: Option<String>,
    /// Priority class of the Pods; must be allowed in the operator's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
    /// Labels of the Pods; their keys must be allowed in the operator's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations of the Pods; their keys must be allowed in the operator's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A Secret in the FlashJob's namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SecretName {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A taint that the Pods tolerate, as in a Pod's `spec.tolerations`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// The taint's key; none with operator Exists tolerates every taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `Exists` or `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^(Exists|Equal)$"))]
    pub operator: Option<String>,
    /// The taint's value, with operator Equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`; none means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^(NoSchedule|PreferNoSchedule|NoExecute)$"))]
    pub effect: Option<String>,
    /// Time for which a NoExecute taint is tolerated, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// Resource requests and limits, as in a container's `resources`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// Amounts that the scheduler sets aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<BTreeMap<String, IntOrString>>,
    /// Amounts that the container may not exceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<BTreeMap<String, IntOrString>>,
}

/// An object of objects; what stands inside belongs to the plugins.
pub(crate) fn settings_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "nullable": true,
        "maxProperties": 64,
        "additionalProperties": { "type": "object", "x-kubernetes-preserve-unknown-fields": true }
    })
}

/// An `enum` of a schema has no place for the null that an optional field may be: what it takes is
/// said by a pattern.
pub(crate) fn exposure_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string", "nullable": true, "pattern": "^(PerDevice|Pooled)$"
    })
}

/// As [`exposure_schema`].
pub(crate) fn disruption_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "nullable": true, "pattern": "^(Protect|Allow)$" })
}

/// As [`exposure_schema`].
fn verify_mode_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string", "nullable": true, "pattern": "^(Required|BestEffort|None)$"
    })
}
