//! `status` of a FlashJob: its observed state, and everything that the operator keeps across
//! restarts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::FirmwareStatus;

/// Observed state of a FlashJob.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlashJobStatus {
    /// State of the job. `InProgress`: at least one device has no result. `Completed`: every
    /// device completed, or was skipped as current or duplicate. `Failed`: every device has a
    /// result, and at least one failed or the job was stopped.
    #[serde(default, deserialize_with = "known_phase", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub phase: Option<Phase>,
    /// Human-readable summary of the state of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Number of devices with a result, out of all devices, such as `12/20`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Address of the most recently processed device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_endpoint: Option<String>,
    /// UIDs of the devices that completed.
    #[serde(
        default,
        rename = "completedUUIDs",
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(with = "Option<Vec<String>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub completed_uuids: Vec<String>,
    /// UIDs of the devices that failed.
    #[serde(
        default,
        rename = "failedUUIDs",
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(with = "Option<Vec<String>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub failed_uuids: Vec<String>,
    /// UIDs of the devices that were skipped.
    #[serde(
        default,
        rename = "skippedUUIDs",
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(with = "Option<Vec<String>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub skipped_uuids: Vec<String>,
    /// Number of devices in each state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// Number of failed and skipped devices, by reason.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(with = "Option<BTreeMap<String, u32>>")]
    pub reasons: BTreeMap<String, u32>,
    /// Number of devices without a result that wait or whose Pod is held up, by reason.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(with = "Option<BTreeMap<String, u32>>")]
    pub waiting: BTreeMap<String, u32>,
    /// Devices with an attempt in progress, the next devices in the queue, and up to 100 failed or
    /// skipped devices.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<DeviceStatus>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub devices: Vec<DeviceStatus>,
    /// Details of the devices that completed or failed after an attempt, by UID.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(
        with = "Option<BTreeMap<String, ResultDetails>>",
        extend("x-kubernetes-map-type" = "atomic")
    )]
    pub results: BTreeMap<String, ResultDetails>,
    /// Device plugins that serve this job.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        with = "Option<Vec<PluginStatus>>",
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub plugins: Vec<PluginStatus>,
    /// Firmware of this run, as resolved and verified according to `spec.firmwarePolicy`. Absent
    /// without a policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<FirmwareStatus>,
    /// Hash of the spec fields that identify a run: `firmware`, `version`, `flashjobPodImage`,
    /// `device`, `applicationType`, `hostEndpoint`, `settings` and `runID`. A new value means a
    /// new run, which flashes all devices again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Time at which the run started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Time at which the last device got its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the job: Ready, Reconciling, Stalled, Progressing, Complete, Failed and
    /// Suspended; with `spec.firmwarePolicy` also FirmwareVerified.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        with = "Option<Vec<Condition>>",
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// State of a job. No other value is ever written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// At least one device has no result.
    InProgress,
    /// Every device completed, or was skipped as current or duplicate.
    Completed,
    /// Every device has a result, and at least one failed or the job was stopped.
    Failed,
}

/// Number of devices in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Counts {
    /// All devices of the job.
    pub total: u32,
    /// Devices that have not started or wait for their next attempt.
    pub pending: u32,
    /// Devices in flight: their attempt has started and its Pod has not ended. `groupBudget`
    /// limits these.
    pub active: u32,
    /// Devices whose Pod has ended and whose result is pending.
    pub verifying: u32,
    /// Devices that completed, verified or unverified.
    pub completed: u32,
    /// Devices that completed without verification of the new version; included in `completed`.
    pub unverified: u32,
    /// Devices that failed permanently.
    pub failed: u32,
    /// Skipped devices, which were not flashed.
    pub skipped: u32,
}

/// State of one device in its job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeviceState {
    /// In the queue, or waiting for its next attempt.
    #[default]
    Pending,
    /// Its Service waits for an external address, or its Pod is being created.
    Exposing,
    /// Its Pod has been created and has not ended.
    Flashing,
    /// Its Pod disappeared, so its container may still be running.
    Lost,
    /// Flashed; the operator waits until it reports the new version.
    Verifying,
    /// Failed permanently.
    Failed,
    /// Skipped without being flashed.
    Skipped,
}

impl DeviceState {
    /// Returns true for a device whose Service waits for an address or whose Pod may be running.
    /// After its Pod has ended, a device is no longer in flight, although its state stays the same
    /// until the result is judged.
    #[must_use]
    pub fn is_in_flight(self) -> bool {
        matches!(self, Self::Exposing | Self::Flashing | Self::Lost)
    }
}

/// Status of one device of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// UID of the device in `spec.uuid`.
    pub uid: String,
    /// Namespace of the Akri Instance, where it is not that of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the Akri Instance; it stays the same if the UID changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Address of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_endpoint: Option<String>,
    /// External address of the flash Pod's Service, to which the device connects.
    #[serde(default, rename = "externalIP", skip_serializing_if = "Option::is_none")]
    pub external_ip: Option<String>,
    /// Name of the flash Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Name of the node that runs the flash Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Number of the current attempt, from 1.
    #[serde(default)]
    pub attempt: u32,
    /// Number of attempts that the cluster ended, for example by a drain or a preemption, or whose
    /// device could not be attached; they do not count toward `backoffLimitPerDevice`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uncounted: u32,
    /// Number of attempts in `uncounted` whose device could not be attached.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_attached: u32,
    /// Earliest time of the next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// State of the device: `Pending`, `Exposing`, `Flashing`, `Lost`, `Verifying`, `Failed` or
    /// `Skipped`.
    #[serde(default)]
    pub state: DeviceState,
    /// Version that the device reported before the first attempt of this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_version: Option<String>,
    /// Time at which the device's first attempt of this run started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Time since which the device has reported the new version, while it is being verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_since: Option<Time>,
    /// CamelCase reason why the device waits, failed or was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Human-readable explanation of `reason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Time of the last change of `state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// Details of one device that completed or failed after an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResultDetails {
    /// Version that the device reported before its first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Number of attempts, at least 1.
    #[serde(default)]
    pub attempts: u32,
    /// Time from the start of the first attempt to the result, in seconds.
    #[serde(default)]
    pub seconds: u32,
    /// True if the device completed without verification of the new version.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unverified: bool,
    /// Version that the device reported when it completed unverified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<String>,
}

/// Device plugin that serves a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginStatus {
    /// Name of the plugin in the operator's configuration.
    pub name: String,
    /// OCI reference or file URL from which the plugin was loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Digest of the plugin's component, `sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Version that the plugin reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl DeviceStatus {
    /// Returns true if an attempt has started and has no result: the device is in flight or
    /// verifying, and locked for this job.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.state.is_in_flight() || self.state == DeviceState::Verifying
    }

    /// Returns true if an attempt of this run has started, now or before.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.is_locked() || self.attempt > 1
    }

    /// Returns `notBefore` as a timestamp.
    #[must_use]
    pub fn waits_until(&self) -> Option<Timestamp> {
        self.not_before.as_ref().map(|time| time.0)
    }

    /// Returns `since` as a timestamp.
    #[must_use]
    pub fn holds_since(&self) -> Option<Timestamp> {
        self.since.as_ref().map(|time| time.0)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_false(holds: &bool) -> bool {
    !*holds
}

/// Reads an unknown phase as none. The Go operator also wrote `Running`.
fn known_phase<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Phase>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(match text.as_deref() {
        Some("InProgress") => Some(Phase::InProgress),
        Some("Completed") => Some(Phase::Completed),
        Some("Failed") => Some(Phase::Failed),
        _ => None,
    })
}

/// Reads an explicit null as absent.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
