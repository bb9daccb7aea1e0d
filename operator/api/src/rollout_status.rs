//! `status` of a FlashRollout: its observed state, and everything that the operator keeps across
//! restarts.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{condition, rollout_reason};

/// Observed state of a FlashRollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlashRolloutStatus {
    /// State of the run: `Planning`, `Waiting`, `Progressing`, `Soaking`, `Paused`, `Completed`,
    /// `Failed` or `Aborted`.
    #[serde(default, deserialize_with = "known_phase", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub phase: Option<RolloutPhase>,
    /// Human-readable summary of the state of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Cause for which the run waits: a maintenance window, an approval, the firmware's registry,
    /// another rollout, or a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// CamelCase reason why the run is paused, failed or stalled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Identifier of the run, 6 hexadecimal digits; `spec.approvals` refers to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Hash of the spec fields that identify a run: `firmware`, `version`, `selector`,
    /// `membership`, `runID`, `template.flashjobPodImage` and `template.settings`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Version that the devices of this run report when they run the firmware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Firmware of this run, as resolved and verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<FirmwareStatus>,
    /// Number of the batch in progress, number of all batches, and name of the batch in progress,
    /// such as `2/3 ten-percent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// Number of devices with a result, out of all devices, such as `12/20`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Number of devices in each state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<RolloutCounts>,
    /// Number of selected devices that were left out when the run was planned, by cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
    /// Number of failed and skipped devices, by reason.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(with = "Option<BTreeMap<String, u32>>")]
    pub reasons: BTreeMap<String, u32>,
    /// Status of the batches, in their order.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<BatchStatus>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub batches: Vec<BatchStatus>,
    /// Devices of each batch and their results, in the order of `batches`.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<BatchMembers>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub members: Vec<BatchMembers>,
    /// Up to 100 devices that failed or regressed.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<FailedDevice>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub failed: Vec<FailedDevice>,
    /// Up to 5 previous runs, the latest first.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<PastRun>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<PastRun>,
    /// Last value of `spec.retry` that the operator processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
    /// Time at which the run was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Time at which the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the rollout: Ready, Reconciling, Stalled, Progressing, Complete, Failed,
    /// Paused, Approved and FirmwareVerified.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        with = "Option<Vec<Condition>>",
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

impl FlashRolloutStatus {
    /// Returns true if the rollout does not continue until a user acts: it is paused or stalled,
    /// or waits for an approval or for another rollout that waits for a user.
    #[must_use]
    pub fn waits_for_person(&self) -> bool {
        let asks = [rollout_reason::APPROVAL_MISSING, rollout_reason::OLDER_ROLLOUT_BLOCKED];
        match self.phase {
            Some(phase) if phase.is_final() => false,
            Some(RolloutPhase::Paused) => true,
            _ => {
                condition::holds(&self.conditions, condition::STALLED)
                    || asks.iter().any(|asks| self.reason.as_deref() == Some(asks.name))
            }
        }
    }
}

/// State of a rollout. No other value is ever written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RolloutPhase {
    /// Firmware and devices of the run are being determined, or attempts of the previous run are
    /// in flight.
    Planning,
    /// The run waits for a maintenance window, an approval or another rollout.
    Waiting,
    /// Devices are being flashed.
    Progressing,
    /// A batch has finished and is being observed.
    Soaking,
    /// No device is started until a user acts.
    Paused,
    /// All batches passed.
    Completed,
    /// The run ended because a batch did not pass or the deadline was exceeded.
    Failed,
    /// A user ended the run.
    Aborted,
}

impl RolloutPhase {
    /// Returns true if the run has ended.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Aborted)
    }
}

/// Firmware of a run, as resolved and verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FirmwareStatus {
    /// Reference that is passed to the flash Pods.
    pub reference: String,
    /// Digest to which the reference was resolved, `sha256:…`. Absent if the reference is passed
    /// on as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Identity or key that signed the firmware. Absent if no signature was required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// Digest of the `firmwareTrust` entry, including its keys, against which the firmware was
    /// verified. Absent if no entry matched. If the entry changes, the firmware is verified again
    /// before more devices are started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<String>,
    /// Device types that the firmware supports. Absent if the firmware does not name any.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<String>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub platforms: Vec<String>,
    /// Device types for which the firmware was verified.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<String>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub device_types: Vec<String>,
}

/// Number of devices in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct RolloutCounts {
    /// All planned devices.
    pub planned: u32,
    /// Devices that completed, verified or unverified.
    pub completed: u32,
    /// Devices that completed without verification of the new version; included in `completed`.
    pub unverified: u32,
    /// Devices that failed permanently.
    pub failed: u32,
    /// Skipped devices, which were not flashed.
    pub skipped: u32,
    /// Devices whose Akri Instance was absent when their attempt was due.
    pub absent: u32,
    /// Devices that completed and later reported another version; not included in `completed`.
    pub regressed: u32,
    /// Devices in flight: their attempt has started and its Pod has not ended.
    pub in_flight: u32,
    /// Devices whose Pod has ended and whose result is pending.
    pub verifying: u32,
}

/// Number of selected devices that were left out when the run was planned, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct LeftOut {
    /// Instances of a device that another Instance already represents.
    pub duplicates: u32,
    /// Devices that already report `spec.version`.
    pub current: u32,
    /// Devices that report a higher version than `spec.version`.
    pub newer: u32,
    /// Devices that report a lower version than `spec.minVersion`.
    pub too_old: u32,
    /// Devices that were planned although their version could not be compared, because it is
    /// missing or one of the versions is not a semantic version.
    pub unknown_comparison: u32,
}

/// State of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BatchState {
    /// Not started.
    #[default]
    Pending,
    /// Its devices are being flashed.
    Progressing,
    /// All its devices have a result; it is being observed.
    Soaking,
    /// Passed; the next batch may start.
    Passed,
    /// Did not pass.
    Failed,
}

/// Status of one batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchStatus {
    /// Name of the batch; `spec.approvals` refers to it.
    pub name: String,
    /// State of the batch: `Pending`, `Progressing`, `Soaking`, `Passed` or `Failed`.
    #[serde(default)]
    pub state: BatchState,
    /// Number of devices in each state.
    #[serde(default)]
    pub counts: RolloutCounts,
    /// Number of devices when the run was planned. Percentages refer to `counts.planned` instead,
    /// which changes when absent devices move to the last batch.
    #[serde(default)]
    pub planned: u32,
    /// Time at which the batch started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Time at which the last device of the batch got its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// End of the soak time; the next batch does not start earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak_until: Option<Time>,
}

/// Devices of one batch and their results.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchMembers {
    /// Names of the Akri Instances in the order in which they are flashed, separated by spaces;
    /// `namespace/name` for an Instance in another namespace.
    #[serde(default, with = "separated_by_spaces", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<String>")]
    pub instances: Vec<String>,
    /// One character for each Instance, in the order of `instances`: `.` no result, `:` no result
    /// after it was absent, `,` and `;` the same after this run has started to flash it, `C`
    /// completed, `U` completed unverified, `F` failed, `S` skipped, `A` absent, `R` regressed,
    /// `T` failed and to be retried.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub results: String,
    /// Parts of the batch for which there is a FlashJob.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<ShardStatus>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub shards: Vec<ShardStatus>,
    /// Number of FlashJobs created for the batch so far.
    #[serde(default)]
    pub shards_made: u32,
}

/// Part of a batch that one FlashJob flashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardStatus {
    /// Number of the FlashJob within its batch, from 1.
    pub number: u32,
    /// Position of the first device in the list of the batch, from 0.
    pub first: u32,
    /// Number of devices in this part; the FlashJob lists them in the same order.
    pub count: u32,
}

/// Device that failed or regressed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedDevice {
    /// Name of the Akri Instance; `namespace/name` for an Instance in another namespace.
    pub instance: String,
    /// Name of the device's batch.
    pub batch: String,
    /// CamelCase reason why the device failed.
    pub reason: String,
    /// Human-readable explanation of `reason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Previous run of a rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PastRun {
    /// Identifier of the run, 6 hexadecimal digits.
    pub run: String,
    /// Firmware reference that was passed to the FlashJobs.
    pub firmware: String,
    /// Version of that firmware.
    pub version: String,
    /// Last phase of the run.
    pub phase: String,
    /// Number of devices in each state.
    #[serde(default)]
    pub counts: RolloutCounts,
    /// Time at which the run was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Time at which the run ended or was superseded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,
}

/// Reads an unknown phase, as written by a later version, as none.
fn known_phase<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<RolloutPhase>, D::Error> {
    use serde::de::IntoDeserializer;
    use serde::de::value::Error;
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| {
        let text: serde::de::value::StringDeserializer<Error> = text.into_deserializer();
        RolloutPhase::deserialize(text).ok()
    }))
}

/// Reads an explicit null as absent.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Names as one string. The API server decodes, merges, checks and encodes a list item by item:
/// with 10,000 names as a list each write of a status took it 2.8 times as much CPU time.
mod separated_by_spaces {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Names as they are stored; as a list by versions before this one.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum StoredNames {
        Text(String),
        List(Vec<String>),
    }

    pub fn serialize<S: Serializer>(names: &[String], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&names.join(" "))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<String>, D::Error> {
        Ok(match Option::deserialize(deserializer)? {
            Some(StoredNames::Text(text)) => text.split_whitespace().map(str::to_owned).collect(),
            Some(StoredNames::List(names)) => names,
            None => Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_stored_as_one_string_and_read_from_a_list_too() {
        let read = |stored| -> BatchMembers { serde_json::from_value(stored).expect("members") };
        let members = read(json!({"instances": ["a", "other/b"], "results": "C."}));
        assert_eq!(members.instances, ["a", "other/b"]);
        let stored = serde_json::to_value(&members).expect("JSON");
        assert_eq!(stored["instances"], "a other/b");
        assert_eq!(read(stored), members);
        for absent in [json!({"instances": null}), json!({})] {
            assert_eq!(read(absent), BatchMembers::default());
        }
    }
}
