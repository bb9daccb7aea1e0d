//! FlashRollout.spec: which fleet is flashed with which firmware, and how carefully.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::flashjob::{disruption_schema, exposure_schema, settings_schema};
use crate::{
    Disruption, Exposure, FirmwarePolicy, FlashRolloutStatus, GroupBudget, PodOverrides,
    VerifySpec,
};

/// Flashes firmware onto the devices that a selector chooses, batch by batch.
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
    doc = "Flashes firmware onto a fleet: chooses devices, splits them into batches, and proves \
           each batch before the next. Creates FlashJobs; never touches a device itself.",
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
    /// The firmware to flash; usually an OCI reference. Part of the run. No white space or control
    /// characters.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^[^\s\p{Cc}]+$"))]
    pub firmware: String,
    /// The version that a device reports once it runs the firmware; never derived from a tag. Part
    /// of the run. No white space or control characters.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[^\s\p{Cc}]+$"))]
    pub version: String,
    /// Resolution and signature of the firmware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware_policy: Option<FirmwarePolicy>,
    /// Devices to flash. Part of the run. Conditions of different fields must all hold; of one
    /// field, one value must.
    pub selector: RolloutSelector,
    /// `Frozen`: the devices are chosen once a run. Default Frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "membership_schema")]
    pub membership: Option<Membership>,
    /// Batches in their order; a device is in the first that takes it, and those left over form
    /// one more batch named `rest`. Default: 1 device, 10 %, the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub batches: Option<Vec<BatchSpec>>,
    /// More failed devices than this in one batch stop it: a number, or a percentage of the batch,
    /// rounded down. Default 10 %, and 0 in the first batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "budget_schema")]
    pub max_failed: Option<IntOrString>,
    /// Least share of a batch that must complete: `90%`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "share_schema")]
    pub success_threshold: Option<String>,
    /// Effect of a batch that does not pass. `Pause` waits for a person; `Abort` ends the run.
    /// Default Pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "on_failure_schema")]
    pub on_failure: Option<OnFailure>,
    /// Number of devices in flight at once over the whole run. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 500))]
    pub parallelism: Option<i32>,
    /// No more than so many devices in flight behind one node or gateway, counted over all
    /// FlashJobs. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_budget: Option<GroupBudget>,
    /// Times at which devices may start; those in flight finish. Default: any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub windows: Option<Vec<RolloutWindow>>,
    /// Times at which no device may start, whatever the windows say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub blackouts: Option<Vec<RolloutWindow>>,
    /// Leave out devices that already report `version`. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_if_current: Option<bool>,
    /// Plan devices that report a higher version too. Default false: where both are semantic
    /// versions, such devices are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_downgrade: Option<bool>,
    /// Leave out devices that report a lower version than this, where both are semantic versions.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub min_version: Option<String>,
    /// Settings of the FlashJobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<RolloutTemplate>,
    /// Start no more devices; those in flight finish. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// End this run: devices in flight finish, no more start, and taking it back does not resume
    /// the run. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<bool>,
    /// Approvals of batches that ask for one: `<batch>@<run>`, with the run from `status.run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 100),
        inner(length(max = 80), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?@[0-9a-f]{6}$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub approvals: Option<Vec<String>>,
    /// Any new value chooses devices anew and flashes them again. Part of the run.
    #[serde(default, rename = "runID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub run_id: Option<String>,
    /// Any new value tries the failed, absent and regressed devices of this run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub retry: Option<String>,
    /// Time for the whole run, in seconds; then no more devices start and the run has failed.
    /// Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31536000))]
    pub active_deadline_seconds: Option<i64>,
    /// Delete the FlashRollout this many seconds after it finished. Default: keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31536000))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// Time at which the devices of a run are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Membership {
    /// Once, when the run is planned.
    #[default]
    Frozen,
}

/// Effect of a batch that does not pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// The run waits for a person.
    #[default]
    Pause,
    /// The run ends.
    Abort,
}

/// Devices of a rollout.
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
    /// Select every device; the other conditions still narrow it. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// Device types, as Akri reports them. Case and dashes do not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 63)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub device_types: Option<Vec<String>>,
    /// Application types, as Akri reports them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub application_types: Option<Vec<String>>,
    /// Versions that the devices report now, byte for byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 256)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub versions: Option<Vec<String>>,
    /// Names of nodes; one of them must see the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 1000),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub nodes: Option<Vec<String>>,
    /// Names of Akri Instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 1000),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub instances: Option<Vec<String>>,
    /// Requirements on the properties that Akri reports; all must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub properties: Option<Vec<PropertyRequirement>>,
    /// Devices that are left out although they are selected: those for which all of these
    /// conditions hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<DeviceConditions>,
}

/// Conditions on a device. Those of different fields must all hold; of one field, one value must.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceConditions {
    /// Device types, as Akri reports them. Case and dashes do not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 63)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub device_types: Option<Vec<String>>,
    /// Application types, as Akri reports them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub application_types: Option<Vec<String>>,
    /// Versions that the devices report now, byte for byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 256)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub versions: Option<Vec<String>>,
    /// Names of nodes; one of them must see the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 1000),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub nodes: Option<Vec<String>>,
    /// Names of Akri Instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 1000),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub instances: Option<Vec<String>>,
    /// Requirements on the properties that Akri reports; all must hold.
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
    /// Name of the property, as Akri reports it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`. A device without the property passes NotIn.
    pub operator: PropertyOperator,
    /// Values for In and NotIn.
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

/// One batch of a rollout. Without a selector and a size it takes all devices that are left.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchSpec {
    /// Name, by which the batch is approved: lower-case letters, digits and dashes.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Devices that the batch takes. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<DeviceConditions>,
    /// Most devices that the batch takes: a number, or a percentage of all planned devices,
    /// rounded down and at least 1. Default: all that the selector takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "size_schema")]
    pub size: Option<IntOrString>,
    /// Start only once `spec.approvals` has `<batch>@<run>`. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<bool>,
    /// Time from the end of the batch to the start of the next, in seconds, in which no flashed
    /// device may go back to another version. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31536000))]
    pub soak_seconds: Option<i64>,
    /// As `spec.maxFailed`, of this batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "budget_schema")]
    pub max_failed: Option<IntOrString>,
    /// As `spec.successThreshold`, of this batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "share_schema")]
    pub success_threshold: Option<String>,
    /// As `spec.parallelism`, of this batch; never more than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 500))]
    pub parallelism: Option<i32>,
}

/// Recurring time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutWindow {
    /// Start, as a cron pattern: minute, hour, day of month, month, day of week.
    #[schemars(length(min = 1, max = 256))]
    pub start: String,
    /// Length, in seconds.
    #[schemars(range(min = 1, max = 2678400))]
    pub duration_seconds: i64,
    /// Time zone by its IANA name, such as Europe/Athens. Default UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub time_zone: Option<String>,
}

/// Settings of a rollout's FlashJobs. Image and settings are part of the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutTemplate {
    /// As FlashJob's. Part of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub flashjob_pod_image: Option<String>,
    /// As FlashJob's. Part of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "settings_schema")]
    pub settings: Option<BTreeMap<String, serde_json::Map<String, serde_json::Value>>>,
    /// As FlashJob's, but mode Required by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifySpec>,
    /// As FlashJob's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "exposure_schema")]
    pub exposure: Option<Exposure>,
    /// As FlashJob's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "disruption_schema")]
    pub disruption: Option<Disruption>,
    /// As FlashJob's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_overrides: Option<PodOverrides>,
    /// As FlashJob's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604800))]
    pub device_timeout_seconds: Option<i64>,
    /// As FlashJob's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604800))]
    pub address_timeout_seconds: Option<i64>,
    /// As FlashJob's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub backoff_limit_per_device: Option<i32>,
    /// As FlashJob's.
    #[serde(default, rename = "externalIP", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    pub external_ip: Option<String>,
}

/// A pattern says of a string, and a minimum of a number, what the API server takes; a rule in CEL
/// would cost 20 batches times the longest text that a request may have.
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

/// An `enum` of a schema has no place for null: a pattern says which values are valid.
fn one_of(pattern: &str) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "nullable": true, "pattern": pattern })
}

fn membership_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    one_of("^Frozen$")
}

fn on_failure_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    one_of("^(Pause|Abort)$")
}
