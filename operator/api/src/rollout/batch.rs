//! A batch of a FlashRollout, and the recurring periods in which its devices may start.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schemas::{budget_schema, share_schema, size_schema};
use super::selector::DeviceConditions;

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
