//! Firmware of a job with a `firmwarePolicy`: no device begins before the firmware is proven for
//! the device's type, and the proof is stored.

use std::collections::BTreeSet;

use flashjob_api::{FirmwarePin, FirmwareVerification, Reason, reason};

use super::draft::Draft;
use crate::firmware::{FirmwareState, ResolveFirmware, settled};

/// State of the proof for one device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// The device may be flashed.
    Proven,
    /// The firmware does not support its type.
    Lacking,
    /// The registry must be asked.
    Open,
}

impl<'a> Draft<'a> {
    /// Reference that plugins get: the same for the whole run, once it is resolved.
    pub(super) fn firmware(&self) -> &'a str {
        self.proven.stored.map_or(&self.spec.firmware, |firmware| &firmware.reference)
    }

    /// Signatures that are required of the firmware. None: there is no policy.
    pub(super) fn firmware_verification(&self) -> Option<FirmwareVerification> {
        let policy = self.spec.firmware_policy.as_ref()?;
        Some(policy.verify.unwrap_or_default())
    }

    pub(super) fn proof(&self, uid: &str) -> Proof {
        let Some(verify) = self.firmware_verification() else { return Proof::Proven };
        let Some(kind) = self.device_type(uid) else { return Proof::Open };
        let is_kind = |other: &String| other == kind.as_ref();
        let needs_signer = verify == FirmwareVerification::Required;
        match self.proven.stored {
            // A key that was removed from `firmwareTrust` must stop the rest of the run, so a
            // proof under the previous entry does not count.
            Some(_) if self.proven.is_outdated => Proof::Open,
            Some(firmware) if needs_signer && firmware.signer.is_none() => Proof::Open,
            Some(_) if self.proven.lacking.iter().any(is_kind) => Proof::Lacking,
            Some(firmware) if firmware.device_types.iter().any(is_kind) => Proof::Proven,
            _ => Proof::Open,
        }
    }

    /// Returns true if the firmware is proven for the device. If not, the device has failed, or is
    /// counted among those for which [`Self::prove_firmware`] queries the registry.
    pub(super) fn has_firmware(&mut self, uid: &str) -> bool {
        let proof = self.proof(uid);
        if proof == Proof::Proven {
            return true;
        }
        let Some(kind) = self.device_type(uid) else { return false };
        if proof == Proof::Lacking {
            let message =
                format!("firmware {} does not support device type {kind}", self.firmware());
            self.fail(uid, reason::MISSING_PLATFORM, &message);
        } else {
            *self.proven.waiting.entry(kind.to_string()).or_default() += 1;
        }
        false
    }

    /// Queries the registry for the devices that wait for the firmware, and records why they wait.
    pub(super) fn prove_firmware(&mut self) {
        let waiting: usize = self.proven.waiting.values().sum();
        if waiting == 0 {
            return;
        }
        let (reason, message) = self.resolve();
        // Other devices may already wait for their plugin with the same reason.
        let entry = self.waiting.entry(reason.name).or_insert((0, message));
        entry.0 += waiting;
    }

    fn resolve(&mut self) -> (Reason, String) {
        let question = self.question();
        let resolving = format!("looking up firmware {}", question.reference);
        match self.observed.firmware.answer(&question) {
            FirmwareState::NotAsked | FirmwareState::Asking => {
                self.plan.firmware = Some(question);
                (reason::RESOLVING_FIRMWARE, resolving)
            }
            // The plan keeps the question: the registry is asked again only while a plan asks it.
            FirmwareState::Failed { reason, message, permanent } => {
                let message = format!("firmware {}: {message}", question.reference);
                self.plan.firmware = Some(question);
                self.unproven(&reason, message, permanent)
            }
            FirmwareState::Resolved(resolved) => match settled(&question, resolved) {
                Ok(firmware) => {
                    self.proven.settled = Some(firmware);
                    self.plan.urgent = true;
                    (reason::RESOLVING_FIRMWARE, resolving)
                }
                Err((reason, message)) => self.unproven(reason, message, true),
            },
        }
    }

    fn unproven(&mut self, name: &str, message: String, stuck: bool) -> (Reason, String) {
        let reason = reason::by_name(name).unwrap_or(reason::FIRMWARE_UNAVAILABLE);
        self.proven.stuck = Some(reason).filter(|_| stuck);
        (reason, message)
    }

    /// Returns the question. It includes the device types that were proven before, because only
    /// one proof is stored. The form of the reference does not change during a run.
    fn question(&self) -> ResolveFirmware {
        let policy = self.spec.firmware_policy.clone().unwrap_or_default();
        let stored = self.proven.stored;
        let pin = match stored.map(|firmware| firmware.digest.is_some()) {
            Some(false) => FirmwarePin::None,
            Some(true) => FirmwarePin::Digest,
            None => policy.pin.unwrap_or_default(),
        };
        let before = stored.into_iter().flat_map(|firmware| &firmware.device_types);
        let types: BTreeSet<&String> = before.chain(self.proven.waiting.keys()).collect();
        ResolveFirmware {
            run: self.spec.run.clone(),
            batch: None,
            reference: self.firmware().to_owned(),
            pin,
            verify: policy.verify.unwrap_or_default(),
            trust: self.observed.firmware_trust.clone(),
            version: self.spec.version.clone(),
            device_types: types.into_iter().cloned().collect(),
        }
    }
}
