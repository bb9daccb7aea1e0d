//! FlashJob.status: what the operator answers, and all that it remembers between restarts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::FirmwareStatus;

/// The operator's knowledge of a FlashJob.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlashJobStatus {
    /// InProgress, Completed or Failed.
    #[serde(default, deserialize_with = "known_phase", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub phase: Option<Phase>,
    /// One sentence on where the job stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Devices with a result, of all: `12/20`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// The endpoint of the device that was worked on last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_endpoint: Option<String>,
    /// Uids of the devices that completed.
    #[serde(
        default,
        rename = "completedUUIDs",
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(with = "Option<Vec<String>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub completed_uuids: Vec<String>,
    /// Uids of the devices that failed.
    #[serde(
        default,
        rename = "failedUUIDs",
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(with = "Option<Vec<String>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub failed_uuids: Vec<String>,
    /// Uids of the devices that were skipped.
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
    /// Number of devices that failed or were skipped, by reason.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(with = "Option<BTreeMap<String, u32>>")]
    pub reasons: BTreeMap<String, u32>,
    /// Number of devices without a result that say why: they wait, or something keeps their Pod
    /// from getting on; by reason.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(with = "Option<BTreeMap<String, u32>>")]
    pub waiting: BTreeMap<String, u32>,
    /// Every device with an attempt begun and no result yet, and those next in line; then failed
    /// and skipped devices, up to 100.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<DeviceStatus>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub devices: Vec<DeviceStatus>,
    /// Details of the devices that completed or failed after an attempt, by uid.
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
    /// The plugins that serve this job.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        with = "Option<Vec<PluginStatus>>",
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub plugins: Vec<PluginStatus>,
    /// Firmware of this run, as it was resolved for `spec.firmwarePolicy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<FirmwareStatus>,
    /// Hash of the fields that make a run: firmware, version, flashjobPodImage, device,
    /// applicationType, hostEndpoint, settings, runID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Time at which the run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Time at which the last device had its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, Progressing, Complete, Failed, Suspended; FirmwareVerified
    /// where the firmware was asked for.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        with = "Option<Vec<Condition>>",
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// State of a job. Nothing else is ever written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Some device has no result yet.
    InProgress,
    /// Every device completed, or was skipped as current or duplicate.
    Completed,
    /// All is over, and a device failed or the job was stopped.
    Failed,
}

/// Number of devices in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Counts {
    /// All devices of the job.
    pub total: u32,
    /// Not started, or waiting for the next attempt.
    pub pending: u32,
    /// In flight: from the beginning of an attempt until its Pod has ended. groupBudget limits
    /// these.
    pub active: u32,
    /// Their Pod has ended; they are judged, or watched for their new version.
    pub verifying: u32,
    /// Completed, verified or not.
    pub completed: u32,
    /// Completed without proof; part of `completed`.
    pub unverified: u32,
    /// Failed permanently.
    pub failed: u32,
    /// Left as they were.
    pub skipped: u32,
}

/// State of one device in its job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeviceState {
    /// In the queue, or waiting for its next attempt.
    #[default]
    Pending,
    /// Its Service waits for an address.
    Exposing,
    /// Its Pod runs.
    Flashing,
    /// Its Pod vanished; nobody knows whether its container still runs.
    Lost,
    /// Flashed, and watched for its new version.
    Verifying,
    /// Failed permanently.
    Failed,
    /// Left as it was.
    Skipped,
}

impl DeviceState {
    /// Returns true for a device with a Service that waits, or a Pod that may be at work. Between
    /// the end of its Pod and the judgement it is in flight no more, though its state stays.
    #[must_use]
    pub fn is_in_flight(self) -> bool {
        matches!(self, Self::Exposing | Self::Flashing | Self::Lost)
    }
}

/// One device of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// The uid in `spec.uuid`.
    pub uid: String,
    /// Name of the Akri Instance; stays the same when the uid changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Address at which the device is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_endpoint: Option<String>,
    /// The address on which the device calls back.
    #[serde(default, rename = "externalIP", skip_serializing_if = "Option::is_none")]
    pub external_ip: Option<String>,
    /// Name of the flash Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The current attempt, from 1.
    #[serde(default)]
    pub attempt: u32,
    /// Attempts that came to nothing before the device was touched; they do not count toward
    /// backoffLimitPerDevice.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uncounted: u32,
    /// The device waits until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// State of the device.
    #[serde(default)]
    pub state: DeviceState,
    /// The version that the device reported before this run's first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_version: Option<String>,
    /// Time at which the device's first attempt of this run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// While it is verified: since when the device reports the new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_since: Option<Time>,
    /// The cause for which the device waits, failed or was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Since when `state` holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// Details of one device that completed or failed after an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResultDetails {
    /// The version that the device reported before its first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Number of attempts, from 1.
    #[serde(default)]
    pub attempts: u32,
    /// Time from the beginning of the first attempt to the result, in seconds.
    #[serde(default)]
    pub seconds: u32,
    /// Completed without proof of the new version.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unverified: bool,
    /// Where it completed without proof: the version that the device reported then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<String>,
}

/// A plugin that serves a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginStatus {
    /// The plugin's name in the operator's configuration.
    pub name: String,
    /// The reference it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Digest of the component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The version that the plugin says it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl DeviceStatus {
    /// Returns true if an attempt has begun that has no outcome yet: the device is in flight or
    /// verifying, and locked for this job.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.state.is_in_flight() || self.state == DeviceState::Verifying
    }

    /// `notBefore` as an instant.
    #[must_use]
    pub fn waits_until(&self) -> Option<Timestamp> {
        self.not_before.as_ref().map(|time| time.0)
    }

    /// `since` as an instant.
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

/// The Go operator also wrote `Running`; a phase we do not know reads as none.
fn known_phase<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Phase>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(match text.as_deref() {
        Some("InProgress") => Some(Phase::InProgress),
        Some("Completed") => Some(Phase::Completed),
        Some("Failed") => Some(Phase::Failed),
        _ => None,
    })
}

/// An explicit null is as good as nothing.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
