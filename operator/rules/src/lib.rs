//! Decisions of the operator, pure and synchronous: no client, no runtime, no clock, no file. Time
//! and everything that was observed come in as arguments.
//!
//! - [`flashjob`] decides about one FlashJob, [`rollout`] about one FlashRollout.
//! - [`world`] keeps what was observed of all of them, and takes the snapshots that they decide
//!   by.
//! - [`firmware`] is the question to a registry that both may have, [`schedule`] reads maintenance
//!   windows, [`count`] words numbers.
#![deny(missing_docs)]

pub mod count;
pub mod firmware;
pub mod flashjob;
pub mod rollout;
pub mod schedule;
pub mod world;

#[cfg(test)]
mod tests;
