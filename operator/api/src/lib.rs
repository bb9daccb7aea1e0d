//! The Kubernetes types of FlashJob Operator: FlashJob, FlashRollout, DevicePlugin and Akri's
//! Instance.
//!
//! Types only, no I/O. The CustomResourceDefinitions under `deploy/crds` and the reference under
//! `docs` are generated from here (`make generate`).
//!
//! - [`FlashJob`] is what a fleet operator writes; [`EffectiveSpec`] is what it means once the
//!   defaults are supplied.
//! - [`FlashJobStatus`] is what the operator answers, and all that it remembers.
//! - [`FlashRollout`] chooses devices and flashes them batch by batch; [`EffectiveRollout`] and
//!   [`FlashRolloutStatus`] as above.
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
mod firmware_policy;
mod flashjob;
pub mod reason;
mod rollout;
mod rollout_effective;
pub mod rollout_reason;
mod rollout_status;
pub mod schema;
mod status;
mod visible;

pub use device_plugin::{DevicePlugin, DevicePluginSpec, DevicePluginStatus};
pub use effective::{
    EffectiveSpec, FailureBudget, GroupKey, GroupLimit, InvalidSpec, Verification,
};
pub use firmware_policy::{FirmwarePin, FirmwarePolicy, FirmwareVerification};
pub use flashjob::{
    Disruption, Exposure, FlashJob, FlashJobSpec, GroupBudget, PodOverrides, Resources,
    Toleration, VerifyMode, VerifySpec,
};
pub use reason::Reason;
pub use rollout::{
    BatchSpec, DeviceConditions, FlashRollout, FlashRolloutSpec, Membership, OnFailure,
    PropertyOperator, PropertyRequirement, RolloutSelector, RolloutTemplate, RolloutWindow,
};
pub use rollout_effective::{
    BatchSize, Conditions, EffectiveBatch, EffectiveRollout, InvalidRollout, REST, comparable_type,
};
pub use rollout_reason::RolloutReason;
pub use rollout_status::{
    BatchMembers, BatchState, BatchStatus, FailedDevice, FirmwareStatus, FlashRolloutStatus,
    LeftOut, PastRun, RolloutCounts, RolloutPhase, ShardStatus,
};
pub use status::{
    Counts, DeviceState, DeviceStatus, FlashJobStatus, Phase, PluginStatus, ResultDetails,
};
pub use visible::is_visible;

/// The API group of FlashJob and DevicePlugin; also the prefix of our labels and annotations.
pub const GROUP: &str = "application.flashjob.nbfc.io";

/// Keeps a FlashJob until its Pods and Services are gone. The same string that the Go operator
/// used.
pub const FINALIZER: &str = "application.flashjob.nbfc.io/flashjob-finalizer";

/// Label of a FlashJob: uid of the FlashRollout that owns it.
pub const ROLLOUT_UID: &str = "application.flashjob.nbfc.io/rollout-uid";

/// Label of a FlashJob: name of the FlashRollout that owns it.
pub const ROLLOUT_NAME: &str = "application.flashjob.nbfc.io/rollout";

/// Label of a FlashJob: the rollout's run that it belongs to, 6 hexadecimal digits.
pub const ROLLOUT_RUN: &str = "application.flashjob.nbfc.io/rollout-run";

/// Label of a FlashJob: name of the rollout's batch that it belongs to.
pub const ROLLOUT_BATCH: &str = "application.flashjob.nbfc.io/rollout-batch";

/// Annotation of a FlashJob: place of its batch and number of its shard, `<batch>/<shard>`, both
/// from 1. Names are cut, so they are not read back.
pub const ROLLOUT_SHARD: &str = "application.flashjob.nbfc.io/rollout-shard";

/// Label of a DevicePlugin: namespace of the installation that owns it.
pub const INSTALLATION: &str = "application.flashjob.nbfc.io/installation";
