//! Commands for fleet operators: list devices, flash them, follow the progress, and intervene.
//!
//! - [`devices`] lists devices as the operator sees them; [`inventory`] reads them.
//! - [`preview`] shows what the operator would create.
//! - [`flash`] creates a FlashJob, by a dialogue or from options; [`status`] shows one, and
//!   [`change`], [`retry`] and [`results`] work on existing ones.
//! - [`rollout`] has the commands for FlashRollouts.
//! - [`workload`] is the common interface of FlashJobs and FlashRollouts; [`job`] implements it
//!   for FlashJobs. [`watch`] follows an object until it ends; [`view`] describes the progress of
//!   a FlashJob, with [`run`] and [`pace`]; [`table`] aligns columns, [`manifest`] reads objects
//!   from files, with the rules of their [`definition`]; [`parameters`] are those of requests that
//!   change objects.

pub mod change;
mod definition;
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
