//! The firmware of a run while its plan is made.

use std::collections::BTreeMap;

use flashjob_api::{FirmwareStatus, Reason};

use crate::firmware::missing_platforms;
use crate::flashjob::observed::Observed;

/// The firmware of a run, as far as it is proven.
#[derive(Default)]
pub struct Proven<'a> {
    /// The stored proof.
    pub stored: Option<&'a FirmwareStatus>,
    /// True if the proof is of another `firmwareTrust` than the operator has now.
    pub is_outdated: bool,
    /// Types of devices for which it has nothing.
    pub lacking: Vec<String>,
    /// Types of devices for which it is not proven: number of devices that wait.
    pub waiting: BTreeMap<String, usize>,
    /// Proof that is to be stored.
    pub settled: Option<FirmwareStatus>,
    /// Reason for which it is not proven, where somebody has to act.
    pub stuck: Option<Reason>,
}

impl<'a> Proven<'a> {
    pub fn of(observed: &'a Observed, same_run: bool) -> Self {
        let stored = observed.job.status.firmware.as_ref().filter(|_| same_run);
        let is_outdated = stored.is_some_and(|stored| stored.trust != observed.firmware_trust);
        let lacking = stored
            .map(|firmware| missing_platforms(&firmware.device_types, &firmware.platforms))
            .unwrap_or_default();
        Self { stored, is_outdated, lacking, ..Self::default() }
    }

    /// Firmware to be stored.
    pub fn status(&self) -> Option<&FirmwareStatus> {
        self.settled.as_ref().or(self.stored)
    }

    /// The same, as far as it lets devices begin: none while devices wait for another proof in its
    /// place.
    pub fn valid(&self) -> Option<&FirmwareStatus> {
        let is_valid = !self.is_outdated || self.waiting.is_empty();
        self.settled.as_ref().or(self.stored.filter(|_| is_valid))
    }
}
