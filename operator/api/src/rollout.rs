//! `spec` of a FlashRollout: the devices, the firmware, and the batches.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::flashjob::{disruption_schema, exposure_schema, settings_schema};
use crate::visible::VISIBLE_TEXT;
use crate::{
    Disruption, Exposure, FirmwarePolicy, FlashRolloutStatus, GroupBudget, PodOverrides,
    VerifySpec,
};

/// Desired state of a FlashRollout: the devices, the firmware, and the batches in which it is
/// flashed.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "application.flashjob.nbfc.io",
    version = "v1alpha1",
    kind = "FlashRollout",
    plural = "flashrollouts",
    namespaced,
    status = "FlashRolloutStatus",
    shortname = "fr",
    category = "all",
    derive = "PartialEq",
    doc = "Flashes firmware onto a fleet: selects devices, divides them into batches, and checks \
           the results of each batch before the next one starts. Creates FlashJobs and does not \
           access devices itself.",
    validation = (
        "self.metadata.name.size() <= 63",
        "metadata.name must be no more than 63 characters, as it becomes a label value"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Batch", type_ = "string", json_path = ".status.batch"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.counts.failed"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(
        name = "Waiting For",
        type_ = "string",
        json_path = ".status.waitingFor",
        priority = 1
    ),
    printcolumn(name = "Firmware", type_ = "string", json_path = ".spec.firmware", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = (
        "!has(self.batches) || self.batches.all(batch, \
         self.batches.exists_one(other, other.name == batch.name))",
        "each batch needs its own name"
    )
)]
pub struct FlashRolloutSpec {
    /// Firmware to flash, passed to the device plugin; usually an OCI reference. 1 to 1024
    /// characters, without white space and invisible characters. Changing it starts a new run.
    #[schemars(length(min = 1, max = 1024), regex(pattern = VISIBLE_TEXT))]
    pub firmware: String,
    /// Version that a device reports when it runs the firmware; never derived from a tag. 1 to 256
    /// characters, without white space and invisible characters. Changing it starts a new run.
    #[schemars(length(min = 1, max = 256), regex(pattern = VISIBLE_TEXT))]
    pub version: String,
    /// Resolution and signature verification of the firmware before the first device is flashed.
    /// Firmware that fails them is not flashed. Default: the reference is resolved to a digest,
    /// and signatures are verified if an entry of the operator's `firmwareTrust` matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware_policy: Option<FirmwarePolicy>,
    /// Devices to flash. A device must match every field that is set; it matches a field if it
    /// matches one of its values. Changing the selector starts a new run.
    pub selector: RolloutSelector,
    /// Time at which the devices are selected. `Frozen`: once per run, when the run is planned.
    /// Default Frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "membership_schema")]
    pub membership: Option<Membership>,
    /// Batches in the order in which they are flashed, at most 20. A device belongs to the first
    /// batch that selects it and is not full; the remaining devices form one more batch named
    /// `rest`. Default: `canary` with 1 device, `ten-percent` with 10 % of the devices, and
    /// `rest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub batches: Option<Vec<BatchSpec>>,
    /// Maximum number of failed devices in one batch: an integer of at least 0, or a percentage of
    /// the batch from `0%` to `100%`, rounded down. If more devices fail, the batch does not pass.
    /// Default: 0 in the first batch, 10 % in the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "budget_schema")]
    pub max_failed: Option<IntOrString>,
    /// Minimum percentage of devices that must complete for a batch to pass, `0%` to `100%`, such
    /// as `90%`. Skipped devices are not counted. Default: no minimum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "share_schema")]
    pub success_threshold: Option<String>,
    /// Effect of a batch that does not pass. `Pause`: the run stops until a user acts. `Abort`:
    /// the run ends. Default Pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "on_failure_schema")]
    pub on_failure: Option<OnFailure>,
    /// Maximum number of devices in flight or verifying at the same time, 1 to 500. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 500))]
    pub parallelism: Option<i32>,
    /// Maximum number of devices in flight per node or gateway, across all FlashJobs. Default: no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_budget: Option<GroupBudget>,
    /// Maintenance windows, at most 20: recurring periods in which devices may start. Attempts in
    /// flight at the end of a window finish. Default: devices may start at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub windows: Option<Vec<RolloutWindow>>,
    /// Recurring periods in which no device may start, at most 20. They take precedence over
    /// `windows`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub blackouts: Option<Vec<RolloutWindow>>,
    /// If true, devices that already report `version` are left out. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_if_current: Option<bool>,
    /// If true, devices that report a higher version than `version` are flashed too. If false,
    /// they are left out, provided that both are semantic versions. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_downgrade: Option<bool>,
    /// Lowest version of the devices to flash, at most 256 characters: devices that report a lower
    /// version are left out, provided that both are semantic versions. Default: no minimum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub min_version: Option<String>,
    /// Settings of the FlashJobs that the rollout creates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<RolloutTemplate>,
    /// If true, no more devices are started; attempts in flight finish. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// If true, the run ends: no more devices are started, and attempts in flight finish. An ended
    /// run cannot be resumed. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<bool>,
    /// Approvals of batches with `approval: true`, at most 100: `<batch>@<run>`, with the run from
    /// `status.run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 100),
        inner(length(max = 80), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?@[0-9a-f]{6}$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub approvals: Option<Vec<String>>,
    /// Identifier of the run, at most 253 characters. Changing this value starts a new run that
    /// selects the devices again and flashes them; combine it with `skipIfCurrent: false` to flash
    /// devices that already report `version`.
    #[serde(default, rename = "runID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub run_id: Option<String>,
    /// Identifier of the retry, at most 253 characters. Changing this value retries the failed,
    /// absent and regressed devices of the current run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub retry: Option<String>,
    /// Maximum duration of the run, in seconds, 1 to 31536000. When it is exceeded, no more
    /// devices are started and the run fails. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31536000))]
    pub active_deadline_seconds: Option<i64>,
    /// Time after which a finished FlashRollout is deleted, in seconds, 0 to 31536000. Default: it
    /// is not deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31536000))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// Time at which the devices of a run are selected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Membership {
    /// Once, when the run is planned.
    #[default]
    Frozen,
}

/// Effect of a batch that does not pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// The run stops until a user acts.
    #[default]
    Pause,
    /// The run ends.
    Abort,
}

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

/// One batch of a rollout. Without `selector` and `size`, it takes all remaining devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchSpec {
    /// Name of the batch, unique within the rollout; `spec.approvals` refers to it. 1 to 63
    /// lower-case letters, digits and dashes.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Devices that the batch may contain. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<DeviceConditions>,
    /// Maximum number of devices in the batch: an integer of at least 1, or a percentage of all
    /// planned devices from `1%` to `100%`, rounded down and at least 1. Default: all remaining
    /// devices that `selector` matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "size_schema")]
    pub size: Option<IntOrString>,
    /// If true, the batch starts only after `spec.approvals` contains `<batch>@<run>`. Default
    /// false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<bool>,
    /// Time for which the finished batch is observed before the next one starts, in seconds, 0 to
    /// 31536000. A device that reports another version during this time counts as failed. Default
    /// 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31536000))]
    pub soak_seconds: Option<i64>,
    /// Maximum number of failed devices in this batch: an integer of at least 0, or a percentage
    /// of the batch from `0%` to `100%`, rounded down. Default: `spec.maxFailed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "budget_schema")]
    pub max_failed: Option<IntOrString>,
    /// Minimum percentage of devices that must complete for this batch to pass, `0%` to `100%`,
    /// such as `90%`. Skipped devices are not counted. Default: `spec.successThreshold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "share_schema")]
    pub success_threshold: Option<String>,
    /// Maximum number of devices of this batch in flight or verifying at the same time, 1 to 500;
    /// `spec.parallelism` applies as well. Default: `spec.parallelism`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 500))]
    pub parallelism: Option<i32>,
}

/// Recurring period of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutWindow {
    /// Start of the period, as a cron expression: minute, hour, day of month, month, day of week.
    #[schemars(length(min = 1, max = 256))]
    pub start: String,
    /// Duration of the period, in seconds, 1 to 2678400.
    #[schemars(range(min = 1, max = 2678400))]
    pub duration_seconds: i64,
    /// IANA name of the time zone in which `start` is evaluated, such as `Europe/Athens`. Default
    /// UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub time_zone: Option<String>,
}

/// Settings of the FlashJobs that a rollout creates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutTemplate {
    /// Container image of the flash Pods, at most 1024 characters. Default: the image that the
    /// device plugin specifies. Changing it starts a new run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub flashjob_pod_image: Option<String>,
    /// Settings for device plugins, by plugin name, for at most 64 plugins. They override the
    /// default settings in the operator's configuration. Each plugin validates its own settings.
    /// Changing them starts a new run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "settings_schema")]
    pub settings: Option<BTreeMap<String, serde_json::Map<String, serde_json::Value>>>,
    /// Verification that a device runs the new version. In a FlashRollout, the default of `mode`
    /// is Required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifySpec>,
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
    /// Additions to the flash Pods, such as node selector, tolerations and labels, within the
    /// limits of the operator's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_overrides: Option<PodOverrides>,
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
    /// Maximum number of retries of one device after its first attempt, 0 to 1000. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub backoff_limit_per_device: Option<i32>,
    /// IP address to request from the load balancer. No other address is used, so devices are
    /// flashed one at a time. Default: any address.
    #[serde(default, rename = "externalIP", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    pub external_ip: Option<String>,
}

/// Schema of an integer or a percentage. The pattern applies to strings and the minimum to
/// integers. A CEL rule would be charged for 20 batches times the longest string of a request,
/// which exceeds the API server's cost limit.
fn int_or_percent(minimum: i32, pattern: &str) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "nullable": true,
        "minimum": minimum,
        "pattern": pattern
    })
}

fn budget_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    int_or_percent(0, "^(100|[0-9]{1,2})%$")
}

fn size_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    int_or_percent(1, "^(100|[1-9][0-9]?)%$")
}

fn share_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string", "nullable": true, "maxLength": 4, "pattern": "^(100|[0-9]{1,2})%$"
    })
}

/// Schema of an optional enumeration. A pattern gives the valid values, because an `enum` in a
/// schema would exclude null.
fn one_of(pattern: &str) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "nullable": true, "pattern": pattern })
}

fn membership_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    one_of("^Frozen$")
}

fn on_failure_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    one_of("^(Pause|Abort)$")
}
