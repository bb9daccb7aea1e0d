//! Resolution and signatures of firmware, as a FlashJob and a FlashRollout ask for them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Resolution and signature of the firmware.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FirmwarePolicy {
    /// `Digest`: the reference is resolved once a run, and every flash Pod gets its digest.
    /// `None`: the reference is passed on as written. Default Digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "pin_schema")]
    pub pin: Option<FirmwarePin>,
    /// `Required`: an entry of the operator's `firmwareTrust` must match, and verify.
    /// `IfConfigured`: what an entry matches must verify. Default IfConfigured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "firmware_verification_schema")]
    pub verify: Option<FirmwareVerification>,
}

/// Form in which flash Pods get the firmware's reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum FirmwarePin {
    /// By the digest that the reference had when the run began.
    #[default]
    Digest,
    /// As written.
    None,
}

/// Signatures that are asked of the firmware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum FirmwareVerification {
    /// An entry of `firmwareTrust` must match, and verify.
    Required,
    /// Firmware that an entry of `firmwareTrust` matches must verify.
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
