//! FlashRollout.status: what the operator answers, and all that it remembers between restarts.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{condition, rollout_reason};

/// Observed state of a FlashRollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlashRolloutStatus {
    /// Planning, Waiting, Progressing, Soaking, Paused, Completed, Failed or Aborted.
    #[serde(default, deserialize_with = "known_phase", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub phase: Option<RolloutPhase>,
    /// One sentence on the state of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The one thing that the run waits for: a window, an approval, the firmware's registry,
    /// another rollout, a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// CamelCase name of the cause for which the run is paused, failed or stalled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The run, 6 hexadecimal digits; approvals name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Hash of the fields that make a run: firmware, version, selector, membership, runID, and the
    /// template's image and settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Version that the devices of this run report once they are flashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Firmware of this run, as it was resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<FirmwareStatus>,
    /// The batch in progress, and the number of all: `2/3 ten-percent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// Devices with a result, of all: `12/20`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Number of devices in each state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<RolloutCounts>,
    /// Devices left out when the run was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
    /// Number of devices that failed or were skipped, by reason.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(with = "Option<BTreeMap<String, u32>>")]
    pub reasons: BTreeMap<String, u32>,
    /// The batches, in their order.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<BatchStatus>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub batches: Vec<BatchStatus>,
    /// Devices of each batch, in the order of `batches`.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<BatchMembers>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub members: Vec<BatchMembers>,
    /// Devices that failed or regressed, up to 100.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<FailedDevice>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub failed: Vec<FailedDevice>,
    /// The last runs before this one, the latest first, up to 5.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<PastRun>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<PastRun>,
    /// The value of `spec.retry` that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
    /// Time at which the run was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Time at which the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, Progressing, Complete, Failed, Paused, Approved,
    /// FirmwareVerified.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        with = "Option<Vec<Condition>>",
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

impl FlashRolloutStatus {
    /// Returns true if nothing goes on until a person acts: a pause, a fault, an approval, or
    /// another rollout of which this is true.
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

/// State of a rollout. Nothing else is ever written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RolloutPhase {
    /// Firmware and devices of the run are not yet known, or the run before is still in flight.
    Planning,
    /// A gate is closed: a window, an approval, another rollout.
    Waiting,
    /// Devices are being flashed.
    Progressing,
    /// A batch has ended and is being observed.
    Soaking,
    /// Nothing starts until a person acts.
    Paused,
    /// All batches passed.
    Completed,
    /// The run ended, and a batch did not pass.
    Failed,
    /// A person ended the run.
    Aborted,
}

impl RolloutPhase {
    /// Returns true if the run has ended.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Aborted)
    }
}

/// Firmware of a run, as it was resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FirmwareStatus {
    /// Reference that the flash Pods get.
    pub reference: String,
    /// Digest, `sha256:…`; none where the reference is passed on as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Identity or key that signed it; none where no signature was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// Digest of the entry of `firmwareTrust` that it was checked by, with its keys; none where no
    /// entry matched. Where the entry is another one by now, it is checked again before more
    /// devices start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<String>,
    /// Device types for which there is firmware; none where the firmware does not say.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<String>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub platforms: Vec<String>,
    /// Device types for which the firmware was checked.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<String>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub device_types: Vec<String>,
}

/// Number of devices in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct RolloutCounts {
    /// All devices.
    pub planned: u32,
    /// Completed, verified or not.
    pub completed: u32,
    /// Completed without proof; part of `completed`.
    pub unverified: u32,
    /// Failed permanently.
    pub failed: u32,
    /// Left as they were.
    pub skipped: u32,
    /// Away before their attempt.
    pub absent: u32,
    /// Completed, and later reported another version; not part of `completed`.
    pub regressed: u32,
    /// In flight: from the beginning of an attempt until its Pod has ended.
    pub in_flight: u32,
    /// Their Pod has ended; they are judged, or watched for their new version.
    pub verifying: u32,
}

/// Devices that the selector chose and the plan left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct LeftOut {
    /// Second Instances of the same device.
    pub duplicates: u32,
    /// Devices that report the wanted version.
    pub current: u32,
    /// Devices that report a higher version.
    pub newer: u32,
    /// Devices that report a lower version than `minVersion`.
    pub too_old: u32,
    /// Planned devices whose version could not be compared: it is missing, or one of the two is no
    /// semantic version.
    pub unknown_comparison: u32,
}

/// State of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BatchState {
    /// Not begun.
    #[default]
    Pending,
    /// Its devices are being flashed.
    Progressing,
    /// All its devices ended; it is being observed.
    Soaking,
    /// Passed; the next batch may start.
    Passed,
    /// Did not pass.
    Failed,
}

/// One batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchStatus {
    /// Name; approvals are given by it.
    pub name: String,
    /// State of the batch.
    #[serde(default)]
    pub state: BatchState,
    /// Number of devices in each state.
    #[serde(default)]
    pub counts: RolloutCounts,
    /// Number of devices when the run was planned. Percentages are of `counts.planned`, which
    /// changes where absent devices move to the last batch.
    #[serde(default)]
    pub planned: u32,
    /// Time at which its first FlashJob was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Time at which its last device ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// End of the soak; the next batch starts no sooner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak_until: Option<Time>,
}

/// Devices of one batch: for each a name and a letter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchMembers {
    /// Names of the Akri Instances in their order, separated by spaces; `namespace/name` in
    /// another namespace.
    #[serde(default, with = "separated_by_spaces", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<String>")]
    pub instances: Vec<String>,
    /// One letter for each Instance: `.` open, `:` open after it was absent, `,` and `;` the same
    /// once this run has begun to flash it, `C` completed, `U` completed without proof, `F`
    /// failed, `S` skipped, `A` absent, `R` regressed, `T` failed and to be tried again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub results: String,
    /// Parts of the list that a FlashJob works on now.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<ShardStatus>>", extend("x-kubernetes-list-type" = "atomic"))]
    pub shards: Vec<ShardStatus>,
    /// Number of FlashJobs that the batch has had.
    #[serde(default)]
    pub shards_made: u32,
}

/// A part of a batch that one FlashJob works on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardStatus {
    /// Number of the FlashJob within its batch, from 1.
    pub number: u32,
    /// Place of the first device in the batch's list, from 0.
    pub first: u32,
    /// Number of devices; the FlashJob names them in the same order.
    pub count: u32,
}

/// A device that failed or regressed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedDevice {
    /// The Akri Instance, as in `members`.
    pub instance: String,
    /// Name of the batch.
    pub batch: String,
    /// The cause, as in a FlashJob's status.
    pub reason: String,
    /// The same, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A run before this one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PastRun {
    /// The run, 6 hexadecimal digits.
    pub run: String,
    /// Firmware, as the FlashJobs got it.
    pub firmware: String,
    /// Version of that firmware.
    pub version: String,
    /// Phase that was reached.
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

/// A phase of a later version reads as none.
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

/// An explicit null means absent.
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
