//! FlashJob Operator keeps the firmware of fleets of microcontrollers current.
//!
//! The stages of the control loop:
//!
//! ```text
//! API server --watch--> world --> observe --> plan <--> consult --> apply --> report
//!                         ^                                |          |          |
//!                         +--------- changes (a channel) <-+----------+----------+
//! ```
//!
//! - [`reconcile`] is the control loop that connects the stages. It alone owns the caches, a
//!   [`flashjob_rules::world::World`]; watches and stages send it a
//!   [`flashjob_rules::world::change::Change`] whenever they learn something.
//! - [`cluster`] contains the connection to the API server: [`cluster::watch`] forwards watch
//!   events, [`cluster::leadership`] ensures that only one of several processes acts.
//! - [`flashjob_rules::flashjob::observed`] is the snapshot of one job that
//!   [`flashjob_rules::world::World::observe`] takes.
//! - [`flashjob_rules::flashjob::plan`] decides, [`flashjob_rules::flashjob::make`] turns the
//!   answer of a plugin into a Pod and a Service.
//! - [`flashjob`] carries the plan out: it asks plugins, sends requests to the API server, and
//!   writes the status; [`firmware`] queries registries. Each sends its outcome, and the job is
//!   planned again.
//! - [`rollout`] does the same for FlashRollouts, which create FlashJobs; its rules are in
//!   [`flashjob_rules::rollout`].
//! - [`operator`] contains the parts that all of them share, [`plugins`] loads the plugins that
//!   the configuration ([`flashjob_config`]) names, [`reload`] watches the configuration for
//!   changes.
//! - [`run`] assembles the parts, and ends the process if one of its [`tasks`] ends.
//! - [`telemetry`] has logs, metrics, traces, and reports of current problems.

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
pub mod tasks;
pub mod telemetry;
