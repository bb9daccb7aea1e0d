//! Commands for those who look after a fleet: which devices there are, flash them, see how that
//! goes, and intervene.
//!
//! - [`devices`] lists devices as the operator sees them; [`inventory`] reads them.
//! - [`preview`] shows what the operator would create.
//! - [`flash`] makes a FlashJob, by a dialogue or from options; [`status`] shows one, and
//!   [`change`], [`retry`] and [`results`] work on those there are.
//! - [`rollout`] has the commands for FlashRollouts.
//! - [`workload`] is what FlashJobs and FlashRollouts have in common; [`job`] is a FlashJob so.
//!   [`watch`] follows one of them until it ends; [`view`] words how a FlashJob gets on, with
//!   [`run`] and [`pace`]; [`table`] aligns columns, [`manifest`] reads objects from files,
//!   [`parameters`] are those of requests that change objects.

pub mod change;
pub mod devices;
pub mod flash;
mod inventory;
mod job;
mod manifest;
mod pace;
mod parameters;
pub mod preview;
mod prompt;
pub mod results;
pub mod retry;
pub mod rollout;
mod run;
pub mod status;
mod table;
mod view;
mod watch;
pub mod workload;
