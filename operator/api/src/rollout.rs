//! `spec` of a FlashRollout: the devices, the firmware, and the batches.

mod batch;
mod schemas;
mod selector;
mod template;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use batch::{BatchSpec, RolloutWindow};
pub use selector::{DeviceConditions, PropertyOperator, PropertyRequirement, RolloutSelector};
pub use template::RolloutTemplate;

use crate::visible::VISIBLE_TEXT;
use crate::{FirmwarePolicy, FlashRolloutStatus, GroupBudget};
use schemas::{budget_schema, membership_schema, on_failure_schema, share_schema};

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
    /// characters, without white space or invisible characters. Changing it starts a new run.
    #[schemars(length(min = 1, max = 1024), regex(pattern = VISIBLE_TEXT))]
    pub firmware: String,
    /// Version that a device reports when it runs the firmware; never derived from a tag. 1 to 256
    /// characters, without white space or invisible characters. Changing it starts a new run.
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
