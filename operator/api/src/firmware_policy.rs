//! `firmwarePolicy` of a FlashJob and of a FlashRollout: resolution and signature verification.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Resolution and signature verification of the firmware.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FirmwarePolicy {
    /// Form in which the firmware reference is passed to the flash Pods. `Digest`: the reference
    /// is resolved to a digest once per run; every flash Pod uses that digest. `None`: the
    /// reference is passed on as written. Default Digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "pin_schema")]
    pub pin: Option<FirmwarePin>,
    /// Signature verification of the firmware. `Required`: an entry of the operator's
    /// `firmwareTrust` must match the firmware, and its signatures must verify. `IfConfigured`: if
    /// an entry matches, its signatures must verify; other firmware needs no signature. Default
    /// IfConfigured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "firmware_verification_schema")]
    pub verify: Option<FirmwareVerification>,
}

/// Form in which the firmware reference is passed to the flash Pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum FirmwarePin {
    /// With the digest to which the reference was resolved at the start of the run.
    #[default]
    Digest,
    /// As written.
    None,
}

/// Signatures that the firmware must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum FirmwareVerification {
    /// An entry of `firmwareTrust` must match the firmware, and its signatures must verify.
    Required,
    /// If an entry of `firmwareTrust` matches the firmware, its signatures must verify.
    #[default]
    IfConfigured,
}

fn pin_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "nullable": true, "pattern": "^(Digest|None)$" })
}

fn firmware_verification_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let pattern = "^(Required|IfConfigured)$";
    schemars::json_schema!({ "type": "string", "nullable": true, "pattern": pattern })
}
