//! Decisions about one FlashJob.
//!
//! - [`observed`] is the snapshot of one job: the input of its decisions.
//! - [`plan`] decides; [`make`] turns a plugin's answer into a Pod and a Service.
//! - [`policy`] and [`grants`] are the parts of the operator's configuration that limit both,
//!   [`labels`] the names by which the operator finds its objects.

pub mod grants;
pub mod labels;
pub mod make;
pub mod observed;
pub mod plan;
pub mod policy;
