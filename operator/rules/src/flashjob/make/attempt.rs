//! An attempt, as the input for its objects.

use flashjob_api::EffectiveSpec;
use flashjob_types::Digest;
use flashjob_types::plugin::FlashPod;

use crate::flashjob::grants::Grants;
use crate::flashjob::observed::{Instance, Job};

/// One attempt to flash one device: the input for its Pod and Service.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The job.
    pub job: &'a Job,
    /// The job's spec.
    pub spec: &'a EffectiveSpec,
    /// The device's uid in the spec.
    pub uid: &'a str,
    /// The device.
    pub instance: &'a Instance,
    /// Number of the attempt, from 1.
    pub number: u32,
    /// The plugin's name.
    pub plugin: &'a str,
    /// Digest of the plugin that answered.
    pub digest: &'a Digest,
    /// The plugin's answer.
    pub flash: &'a FlashPod,
    /// Grants of the configuration to the plugin.
    pub grants: &'a Grants,
    /// Slot, by which the Service selects the Pod.
    pub slot: &'a str,
}
