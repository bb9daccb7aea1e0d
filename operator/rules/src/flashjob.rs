//! Decisions about one FlashJob.
//!
//! - [`observed`] is the snapshot of one job: all that a decision may know.
//! - [`plan`] decides; [`make`] turns a plugin's answer into a Pod and a Service.
//! - [`policy`] and [`grants`] are the parts of the operator's configuration that bound both,
//!   [`labels`] the names by which the operator finds its objects again.

pub mod grants;
pub mod labels;
pub mod make;
pub mod observed;
pub mod plan;
pub mod policy;
