//! The firmware of a run: the question to the registry, and what follows from its answer.

use std::collections::BTreeSet;

use flashjob_api::{FirmwarePin, FirmwareVerification, comparable_type, rollout_reason};

/// Waited for while the firmware's registry is asked.
pub(super) const REGISTRY: &str = "the firmware's registry";

/// Waited for while a question about the firmware has this answer for the time being.
pub(super) fn waited_for(reason: &str) -> &'static str {
    match reason == rollout_reason::PLUGIN_NOT_READY.name {
        true => "a plugin that inspects the firmware",
        false => REGISTRY,
    }
}

/// Question about the firmware. Equal questions have one answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResolveFirmware {
    /// The run that asks.
    pub run: String,
    /// The batch that is about to start, from 0: is the firmware still there? None: the run is
    /// being planned.
    pub batch: Option<usize>,
    /// Reference: as written while the run is planned, by digest before a batch.
    pub reference: String,
    /// Form that FlashJobs get. With `None` a reference that is no OCI reference is resolved as
    /// written, without a digest.
    pub pin: FirmwarePin,
    /// Signatures that are asked of it.
    pub verify: FirmwareVerification,
    /// Version that the devices are to report.
    pub version: String,
    /// Types of the planned devices, as [`comparable_type`] writes them, sorted.
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
        /// Name of one of [`flashjob_api::rollout_reason`]: FirmwareUnavailable, FirmwareUntrusted,
        /// FirmwareMismatch, PluginNotReady, InspectionFailed, InvalidReference.
        reason: String,
        /// The same, in words.
        message: String,
        /// True if asking again changes nothing by itself, as where the firmware is gone or not
        /// trusted: the run is paused for a person. False: the run waits for the registry, or for
        /// a plugin.
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

/// Reference that FlashJobs get: the repository by digest, where there is one.
pub(super) fn pinned(reference: &str, digest: Option<&str>) -> String {
    let Some(digest) = digest else { return reference.to_owned() };
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    // A colon before the last slash is part of a host.
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    format!("{name}@{digest}")
}

/// Types of planned devices for which there is no firmware.
pub(super) fn missing_platforms(types: &[String], firmware: &ResolvedFirmware) -> Vec<String> {
    if firmware.platforms.is_empty() {
        return Vec::new();
    }
    let there: BTreeSet<String> =
        firmware.platforms.iter().map(|platform| comparable_type(platform)).collect();
    types.iter().filter(|kind| !there.contains(*kind)).cloned().collect()
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
        let with = |platforms: &[&str]| ResolvedFirmware {
            platforms: platforms.iter().map(|name| (*name).to_owned()).collect(),
            ..ResolvedFirmware::default()
        };
        assert_eq!(missing_platforms(&types, &with(&[])), Vec::<String>::new());
        assert_eq!(missing_platforms(&types, &with(&["ESP32", "esp32-s2"])), Vec::<String>::new());
        assert_eq!(missing_platforms(&types, &with(&["esp32"])), ["esp32s2"]);
    }
}
