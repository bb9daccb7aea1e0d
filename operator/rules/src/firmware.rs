//! Firmware of a run, of a FlashJob with a `firmwarePolicy` or of a FlashRollout: the question to
//! the registry, and the consequences of its answer.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use flashjob_api::{
    FirmwarePin, FirmwareStatus, FirmwareVerification, comparable_type, rollout_reason,
};

/// Value of `waitingFor` while the firmware's registry is queried.
pub const REGISTRY: &str = "the firmware's registry";

/// Returns what a run waits for while a question about its firmware fails with this reason.
pub(crate) fn waited_for(reason: &str) -> &'static str {
    match reason == rollout_reason::PLUGIN_NOT_READY.name {
        true => "a plugin that inspects the firmware",
        false => REGISTRY,
    }
}

/// Lookup of the digest of the `firmwareTrust` entry that applies to a firmware reference, if any.
/// The caller computes it: rules parse neither references nor keys.
#[derive(Clone)]
pub struct FirmwareTrust(Arc<TrustOf>);

type TrustOf = dyn Fn(&str) -> Option<String> + Send + Sync;

impl FirmwareTrust {
    /// Wraps a function from firmware reference to digest.
    pub fn new(of: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }

    /// Digest of the `firmwareTrust` entry that applies to that reference.
    #[must_use]
    pub fn of(&self, firmware: &str) -> Option<String> {
        self.0(firmware)
    }
}

impl Default for FirmwareTrust {
    fn default() -> Self {
        Self::new(|_| None)
    }
}

impl fmt::Debug for FirmwareTrust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FirmwareTrust")
    }
}

/// Question about the firmware. Equal questions have one answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResolveFirmware {
    /// The run that asks.
    pub run: String,
    /// Index of the batch of a rollout that is about to start, from 0, for which the firmware is
    /// checked again. None: the run begins.
    pub batch: Option<usize>,
    /// Reference: as written when the run begins, by digest later.
    pub reference: String,
    /// Form of the reference that flash Pods get. With `None`, a reference that is not an OCI
    /// reference is resolved as written, without a digest.
    pub pin: FirmwarePin,
    /// Signatures that are required.
    pub verify: FirmwareVerification,
    /// Digest of the `firmwareTrust` entry that applies to it, including its keys: an answer under
    /// another entry does not count. None: no entry applies.
    pub trust: Option<String>,
    /// Version that the devices are to report.
    pub version: String,
    /// Types of the devices, as [`comparable_type`] writes them, sorted.
    pub device_types: Vec<String>,
}

/// State of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FirmwareState {
    /// The question has not been asked.
    #[default]
    NotAsked,
    /// The registry is being queried, or is queried again after a failure.
    Asking,
    /// The firmware exists and meets all requirements.
    Resolved(ResolvedFirmware),
    /// The firmware does not exist or does not meet the requirements.
    Failed {
        /// Name of one of [`flashjob_api::rollout_reason`]: FirmwareUnavailable,
        /// FirmwareUntrusted, FirmwareMismatch, PluginNotReady, InspectionFailed,
        /// InvalidReference.
        reason: String,
        /// Message for people.
        message: String,
        /// True if a retry cannot succeed until a person acts, for example where the firmware is
        /// gone or not trusted. False: the run waits for the registry, or for a plugin.
        permanent: bool,
    },
}

/// Firmware as its registry describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedFirmware {
    /// `sha256:…`; None only where the pin is `None`.
    pub digest: Option<String>,
    /// Device types that it supports; empty where it names none.
    pub platforms: Vec<String>,
    /// Identity or key that signed it. None: no entry of `firmwareTrust` matches.
    pub signer: Option<String>,
}

/// Reference that flash Pods get: the repository with the digest, where there is one.
#[must_use]
pub fn pinned(reference: &str, digest: Option<&str>) -> String {
    let Some(digest) = digest else { return reference.to_owned() };
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    // A colon before the last slash is part of a host.
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    format!("{name}@{digest}")
}

/// Device types, as [`comparable_type`] writes them, that these platforms do not cover. Empty
/// where the firmware names no platforms.
#[must_use]
pub(crate) fn missing_platforms(types: &[String], platforms: &[String]) -> Vec<String> {
    if platforms.is_empty() {
        return Vec::new();
    }
    let covered_types: BTreeSet<String> =
        platforms.iter().map(|platform| comparable_type(platform)).collect();
    types.iter().filter(|kind| !covered_types.contains(*kind)).cloned().collect()
}

/// Returns the part of an answer that is stored. An answer that lacks a required property is
/// rejected: absence never means permission.
///
/// # Errors
/// Reason and message of the requirement that is not met.
pub fn settled(
    question: &ResolveFirmware,
    resolved: ResolvedFirmware,
) -> Result<FirmwareStatus, (&'static str, String)> {
    let firmware = &question.reference;
    if question.pin == FirmwarePin::Digest && resolved.digest.is_none() {
        return Err((
            rollout_reason::FIRMWARE_UNAVAILABLE.name,
            format!("firmware {firmware} has no digest"),
        ));
    }
    if question.verify == FirmwareVerification::Required && resolved.signer.is_none() {
        return Err((
            rollout_reason::FIRMWARE_UNTRUSTED.name,
            format!("firmware {firmware} has no verified signature"),
        ));
    }
    let digest = resolved.digest.filter(|_| question.pin == FirmwarePin::Digest);
    Ok(FirmwareStatus {
        reference: pinned(firmware, digest.as_deref()),
        digest,
        signer: resolved.signer,
        trust: question.trust.clone(),
        platforms: resolved.platforms,
        device_types: question.device_types.clone(),
    })
}

/// Status, reason and message of the condition FirmwareVerified of a run.
#[must_use]
pub fn verified(
    firmware: Option<&FirmwareStatus>,
    verify: FirmwareVerification,
) -> (bool, &'static str, String) {
    match (firmware, firmware.and_then(|firmware| firmware.signer.as_deref())) {
        (None, _) => (false, "NotResolved", String::new()),
        (Some(_), Some(signer)) => (true, "SignatureVerified", format!("signed by {signer}")),
        (Some(_), None) if verify == FirmwareVerification::IfConfigured => {
            (false, "NotConfigured", "no entry of firmwareTrust matches".to_owned())
        }
        (Some(_), None) => (false, "NotVerified", String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_reference_is_the_repository_by_digest() {
        let digest = Some("sha256:0a");
        assert_eq!(pinned("r.io:5000/f:2", digest), "r.io:5000/f@sha256:0a");
        assert_eq!(pinned("r.io:5000/f", digest), "r.io:5000/f@sha256:0a");
        assert_eq!(pinned("r.io/f:2@sha256:ff", digest), "r.io/f@sha256:0a");
        assert_eq!(pinned("http://files/f.bin", None), "http://files/f.bin");
    }

    #[test]
    fn only_firmware_that_names_its_platforms_can_lack_one() {
        let types = ["esp32".to_owned(), "esp32s2".to_owned()];
        let missing = |platforms: &[&str]| {
            let platforms: Vec<_> = platforms.iter().map(|name| (*name).to_owned()).collect();
            missing_platforms(&types, &platforms)
        };
        assert_eq!(missing(&[]), Vec::<String>::new());
        assert_eq!(missing(&["ESP32", "esp32-s2"]), Vec::<String>::new());
        assert_eq!(missing(&["esp32"]), ["esp32s2"]);
    }
}
