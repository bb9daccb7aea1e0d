//! The Kubernetes types of FlashJob Operator: FlashJob, DevicePlugin and Akri's Instance.
//!
//! Types only, no I/O. The CustomResourceDefinitions under `deploy/crds` and the reference under
//! `docs` are generated from here (`make generate`).
//!
//! - [`FlashJob`] is what a fleet operator writes; [`EffectiveSpec`] is what it means once the
//!   defaults are supplied.
//! - [`FlashJobStatus`] is what the operator answers, and all that it remembers.
//! - [`DevicePlugin`] shows which plugins the operator has loaded.
//! - [`akri::Instance`] is one device, as Akri found it.
//! - [`schema`] tells which fields an installed definition lacks.
#![deny(missing_docs)]
// Each printer column is an attribute of the same name.
#![allow(clippy::duplicated_attributes)]

pub mod akri;
pub mod condition;
mod device_plugin;
mod effective;
mod flashjob;
pub mod reason;
pub mod schema;
mod status;

pub use device_plugin::{DevicePlugin, DevicePluginSpec, DevicePluginStatus};
pub use effective::{
    EffectiveSpec, FailureBudget, GroupKey, GroupLimit, InvalidSpec, Verification,
};
pub use flashjob::{
    Disruption, Exposure, FlashJob, FlashJobSpec, GroupBudget, PodOverrides, Resources, Toleration,
    VerifyMode, VerifySpec,
};
pub use reason::Reason;
pub use status::{
    Counts, DeviceState, DeviceStatus, FlashJobStatus, Phase, PluginStatus, ResultDetails,
};

/// The API group of FlashJob and DevicePlugin; also the prefix of our labels and annotations.
pub const GROUP: &str = "application.flashjob.nbfc.io";

/// Keeps a FlashJob until its Pods and Services are gone. The same string that the Go operator
/// used.
pub const FINALIZER: &str = "application.flashjob.nbfc.io/flashjob-finalizer";

/// Label of a DevicePlugin: namespace of the installation that owns it.
pub const INSTALLATION: &str = "application.flashjob.nbfc.io/installation";
