//! Labels and annotations by which the operator finds its objects, and the name of its container.

/// Name of the container that flashes; a Pod may have others that the operator did not add.
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
    /// Slot, by which a Service selects its Pod.
    pub const SLOT: &str = "application.flashjob.nbfc.io/slot";
}

/// Annotations on our Pods and Services.
pub mod annotation {
    /// The plugin that described the Pod.
    pub const PLUGIN: &str = "application.flashjob.nbfc.io/plugin";
    /// Digest of that plugin.
    pub const DIGEST: &str = "application.flashjob.nbfc.io/plugin-digest";
    /// Identities that the Pod locks, separated by spaces.
    pub const IDENTITY: &str = "application.flashjob.nbfc.io/device-identity";
    /// Name of the Akri Instance.
    pub const INSTANCE: &str = "application.flashjob.nbfc.io/instance";
    /// Plugin, device type and ports that share a pooled Service.
    pub const POOL: &str = "application.flashjob.nbfc.io/pool";
}
