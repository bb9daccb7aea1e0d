//! From a plugin's answer to a Pod and a Service, and the budget that protects them. Checks grants,
//! merges overrides, names and owns the objects.

mod budget;
mod name;
mod overrides;
mod pod;
mod service;

use flashjob_types::plugin::FlashPod;

pub use budget::{budget, is_protected};
pub use name::{attempt_name, budget_name, pool_name, slot};
pub use pod::{GRACE_SECONDS, check, pod};
pub use service::service;

use crate::flashjob::grants::Grants;
use crate::flashjob::observed::{Instance, Job};

/// One attempt to flash one device: all that its objects are made from.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The job.
    pub job: &'a Job,
    /// The job's spec.
    pub spec: &'a flashjob_api::EffectiveSpec,
    /// The device's uid in the spec.
    pub uid: &'a str,
    /// The device.
    pub instance: &'a Instance,
    /// From 1.
    pub number: u32,
    /// The plugin's name.
    pub plugin: &'a str,
    /// The digest that answered.
    pub digest: &'a flashjob_types::Digest,
    /// The plugin's answer.
    pub flash: &'a FlashPod,
    /// Grants of the configuration to the plugin.
    pub grants: &'a Grants,
    /// Slot, by which the Service's selector joins the Pod.
    pub slot: &'a str,
}
