//! From a plugin's answer to a Pod and a Service, and the budget that protects them. Pure: checks
//! grants, merges overrides, names and owns the objects.

mod budget;
mod grants;
mod name;
mod overrides;
mod pod;
mod service;

use flashjob_plugin_host::types::FlashPod;

pub use budget::{budget, is_protected};
pub use grants::{Denied, Grants, SecretGrant, is_image};
pub use name::{attempt_name, budget_name, pool_name, slot};
pub use pod::{GRACE_SECONDS, check, pod};
pub use service::service;

use crate::observed::{Instance, Job};

/// Name of the container that flashes; a Pod may have others, which are not ours.
pub const CONTAINER: &str = "flash";

/// Labels on our Pods and Services.
pub mod label {
    /// Name of the FlashJob.
    pub const APP: &str = "app";
    /// Uid of the device.
    pub const UUID: &str = "uuid";
    /// Hash of the run.
    pub const RUN: &str = "application.flashjob.nbfc.io/run";
    /// Number of the attempt.
    pub const ATTEMPT: &str = "application.flashjob.nbfc.io/attempt";
    /// Joins a Pod to its Service.
    pub const SLOT: &str = "application.flashjob.nbfc.io/slot";
}

/// Annotations on our Pods and Services.
pub mod annotation {
    /// The plugin that described the Pod.
    pub const PLUGIN: &str = "application.flashjob.nbfc.io/plugin";
    /// The digest of that plugin.
    pub const DIGEST: &str = "application.flashjob.nbfc.io/plugin-digest";
    /// Identities that the Pod locks, separated by spaces.
    pub const IDENTITY: &str = "application.flashjob.nbfc.io/device-identity";
    /// Name of the Akri Instance.
    pub const INSTANCE: &str = "application.flashjob.nbfc.io/instance";
    /// Plugin and device type that share a pooled Service.
    pub const POOL: &str = "application.flashjob.nbfc.io/pool";
}

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
    pub digest: &'a flashjob_plugin_host::Digest,
    /// The plugin's answer.
    pub flash: &'a FlashPod,
    /// Grants of the configuration to the plugin.
    pub grants: &'a Grants,
    /// Slot, by which the Service's selector joins the Pod.
    pub slot: &'a str,
}
