//! Composes the Pod and the Service from a plugin's answer, and the budget that protects them.
//! Checks grants, merges overrides, and sets names and owners.

mod attempt;
mod budget;
mod metadata;
mod name;
mod overrides;
mod pod;
mod service;

pub use attempt::Attempt;
pub use budget::budget;
pub(crate) use budget::is_protected;
pub use name::{attempt_name, slot};
pub(crate) use name::{budget_name, pool_name};
pub(crate) use pod::GRACE_SECONDS;
pub use pod::{check, check_image, pod};
pub use service::service;
