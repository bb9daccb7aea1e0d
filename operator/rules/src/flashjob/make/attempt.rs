//! An attempt, as its objects are made from it.

use flashjob_api::EffectiveSpec;
use flashjob_types::Digest;
use flashjob_types::plugin::FlashPod;

use crate::flashjob::grants::Grants;
use crate::flashjob::observed::{Instance, Job};

/// One attempt to flash one device: all that its objects are made from.
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
    /// From 1.
    pub number: u32,
    /// The plugin's name.
    pub plugin: &'a str,
    /// The digest that answered.
    pub digest: &'a Digest,
    /// The plugin's answer.
    pub flash: &'a FlashPod,
    /// Grants of the configuration to the plugin.
    pub grants: &'a Grants,
    /// Slot, by which the Service's selector joins the Pod.
    pub slot: &'a str,
}
