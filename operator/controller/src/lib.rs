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
//! - [`watch`] sends what the watches bring.
//! - [`flashjob_rules::flashjob::observed`] is the snapshot of one job that
//!   [`flashjob_rules::world::World::observe`] takes.
//! - [`flashjob_rules::flashjob::plan`] decides, [`flashjob_rules::flashjob::make`] turns the
//!   answer of a plugin into a Pod and a Service.
//! - [`consult`] asks plugins, [`firmware`] asks registries for firmware, [`apply`] asks the API
//!   server, [`report`] writes the status; each sends its outcome, and the job is looked at again.
//! - [`rollout`] does the same for FlashRollouts, which make FlashJobs; its rules are in
//!   [`flashjob_rules::rollout`].
//! - [`leadership`] sees to it that one process of several does all this.
//! - [`operator`] has the parts that all of them share, [`plugins`] loads what [`config`] names,
//!   [`reload`] follows its changes.
//! - Seen from outside: [`transitions`] says what a status write changed; [`events`], [`metrics`]
//!   and [`logs`] tell it; [`traces`] show how long things take; [`health`] keeps what is wrong,
//!   and serves what is asked for.
//! - [`installation`] tells what is ours from what is another installation's, [`definitions`]
//!   whether the installed definitions are of this version, [`answer`] reads the API server's
//!   answers, [`proxy`] sees to proxies of the environment.

pub mod answer;
pub mod apply;
pub mod arguments;
pub mod config;
pub mod consult;
pub mod definitions;
pub mod events;
pub mod firmware;
pub mod health;
pub mod installation;
pub mod leadership;
pub mod logs;
pub mod metrics;
pub mod operator;
mod passwords;
pub mod plugins;
pub mod proxy;
pub mod read;
pub mod reconcile;
pub mod reload;
pub mod report;
pub mod rollout;
pub mod run;
pub mod traces;
pub mod transitions;
pub mod watch;
