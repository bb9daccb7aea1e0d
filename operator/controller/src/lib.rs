//! FlashJob Operator keeps the firmware of fleets of microcontrollers current.
//!
//! One way through:
//!
//! ```text
//! API server --watch--> world --> observe --> plan <--> consult --> apply --> report
//!                         ^                                |          |          |
//!                         +--------- changes (a channel) <-+----------+----------+
//! ```
//!
//! - [`reconcile`] is the loop that ties them. It alone owns the caches, a
//!   [`flashjob_rules::world::World`]; watches and stages send it a
//!   [`flashjob_rules::world::change::Change`] each time that they learn something.
//! - [`cluster`] has the connection to the API server: [`cluster::watch`] sends what the watches
//!   bring, [`cluster::leadership`] sees to it that one process of several acts.
//! - [`flashjob_rules::flashjob::observed`] is the snapshot of one job that
//!   [`flashjob_rules::world::World::observe`] takes.
//! - [`flashjob_rules::flashjob::plan`] decides, [`flashjob_rules::flashjob::make`] turns the
//!   answer of a plugin into a Pod and a Service.
//! - [`flashjob`] carries that out: it asks plugins and the API server, and writes the status;
//!   [`firmware`] asks registries. Each sends its outcome, and the job is looked at again.
//! - [`rollout`] does the same for FlashRollouts, which make FlashJobs; its rules are in
//!   [`flashjob_rules::rollout`].
//! - [`operator`] has the parts that all of them share, [`plugins`] loads what the configuration
//!   ([`flashjob_config`]) names, [`reload`] follows its changes.
//! - [`telemetry`] tells what happens: logs, metrics, traces, and what is wrong.

pub mod arguments;
pub mod cluster;
pub mod firmware;
pub mod flashjob;
pub mod operator;
pub mod plugins;
pub mod reconcile;
pub mod reload;
pub mod rollout;
pub mod run;
pub mod telemetry;
