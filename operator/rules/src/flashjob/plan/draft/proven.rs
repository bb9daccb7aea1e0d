//! Firmware of a run while its plan is being made.

use std::collections::BTreeMap;

use flashjob_api::{FirmwareStatus, Reason};

use crate::firmware::missing_platforms;
use crate::flashjob::observed::Observed;

/// The firmware of a run, as far as it is proven.
#[derive(Default)]
pub struct Proven<'a> {
    /// The stored proof.
    pub stored: Option<&'a FirmwareStatus>,
    /// True if the proof was made under another `firmwareTrust` entry than the current one.
    pub is_outdated: bool,
    /// Device types that the firmware does not support.
    pub lacking: Vec<String>,
    /// Number of waiting devices, by device type for which the firmware is not proven.
    pub waiting: BTreeMap<String, usize>,
    /// Proof to be stored.
    pub settled: Option<FirmwareStatus>,
    /// Reason why it is not proven, where a person has to act.
    pub stuck: Option<Reason>,
}

impl<'a> Proven<'a> {
    pub fn of(observed: &'a Observed, same_run: bool) -> Self {
        let stored = observed.job.status.firmware.as_ref().filter(|_| same_run);
        // After a restart too: the digest of the entry is stored with the proof.
        let is_outdated = stored.is_some_and(|stored| stored.trust != observed.firmware_trust);
        let lacking = stored
            .map(|firmware| missing_platforms(&firmware.device_types, &firmware.platforms))
            .unwrap_or_default();
        Self { stored, is_outdated, lacking, ..Self::default() }
    }

    /// Proof to be stored with the status.
    pub fn status(&self) -> Option<&FirmwareStatus> {
        self.settled.as_ref().or(self.stored)
    }

    /// Proof with which devices may begin: none while devices wait for a new proof that replaces
    /// an outdated one.
    pub fn valid(&self) -> Option<&FirmwareStatus> {
        let is_valid = !self.is_outdated || self.waiting.is_empty();
        self.settled.as_ref().or(self.stored.filter(|_| is_valid))
    }
}
