//! The firmware of a run, of a FlashJob with a `firmwarePolicy` or of a FlashRollout: the question
//! to the registry, and what follows from its answer.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use flashjob_api::{
    FirmwarePin, FirmwareStatus, FirmwareVerification, comparable_type, rollout_reason,
};

/// Waited for while the firmware's registry is asked.
pub const REGISTRY: &str = "the firmware's registry";

/// Waited for while a question about the firmware has this answer for the time being.
pub(crate) fn waited_for(reason: &str) -> &'static str {
    match reason == rollout_reason::PLUGIN_NOT_READY.name {
        true => "a plugin that inspects the firmware",
        false => REGISTRY,
    }
}

/// Fingerprint of the entry of `firmwareTrust` that applies to a firmware reference, or none. The
/// caller computes it: rules read neither references nor keys.
#[derive(Clone)]
pub struct FirmwareTrust(Arc<TrustOf>);

type TrustOf = dyn Fn(&str) -> Option<String> + Send + Sync;

impl FirmwareTrust {
    /// The trust that a function knows.
    pub fn new(of: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }

    /// Digest of who is trusted to sign the firmware of that reference.
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
    /// The batch of a rollout that is about to start, from 0: is the firmware still there? None:
    /// the run begins.
    pub batch: Option<usize>,
    /// Reference: as written when the run begins, by digest later.
    pub reference: String,
    /// Form that flash Pods get. With `None` a reference that is no OCI reference is resolved as
    /// written, without a digest.
    pub pin: FirmwarePin,
    /// Signatures that are asked of it.
    pub verify: FirmwareVerification,
    /// Digest of the entry of `firmwareTrust` that decides on it, with its keys: an answer under
    /// another one is none. None: no entry does.
    pub trust: Option<String>,
    /// Version that the devices are to report.
    pub version: String,
    /// Types of the devices, as [`comparable_type`] writes them, sorted.
    pub device_types: Vec<String>,
}

/// State of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FirmwareState {
    /// Nobody asked.
    #[default]
    NotAsked,
    /// The registry is being asked, or is asked again after a failure.
    Asking,
    /// It is there, and what was asked of it holds.
    Resolved(ResolvedFirmware),
    /// It is not.
    Failed {
        /// Name of one of [`flashjob_api::rollout_reason`]: FirmwareUnavailable,
        /// FirmwareUntrusted, FirmwareMismatch, PluginNotReady, InspectionFailed,
        /// InvalidReference.
        reason: String,
        /// The same, in words.
        message: String,
        /// True if asking again changes nothing by itself, as where the firmware is gone or not
        /// trusted: a person has to act. False: the run waits for the registry, or for a plugin.
        permanent: bool,
    },
}

/// Firmware, as its registry shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedFirmware {
    /// `sha256:…`; None only where the pin is `None`.
    pub digest: Option<String>,
    /// Device types that it has firmware for; empty where it does not say.
    pub platforms: Vec<String>,
    /// Identity or key that signed it; None where no entry of `firmwareTrust` matches.
    pub signer: Option<String>,
}

/// Reference that flash Pods get: the repository by digest, where there is one.
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

/// Types of devices, as [`comparable_type`] writes them, for which firmware of these platforms has
/// nothing. None where the firmware names no platforms.
#[must_use]
pub(crate) fn missing_platforms(types: &[String], platforms: &[String]) -> Vec<String> {
    if platforms.is_empty() {
        return Vec::new();
    }
    let there: BTreeSet<String> =
        platforms.iter().map(|platform| comparable_type(platform)).collect();
    types.iter().filter(|kind| !there.contains(*kind)).cloned().collect()
}

/// Returns the part of an answer that is stored. An answer that lacks what was asked for is none:
/// absence never means permission.
///
/// # Errors
/// Reason and message of what it lacks.
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

/// The condition FirmwareVerified of a run: its status, reason and message.
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
