//! Decisions of the operator, pure and synchronous: no client, no runtime, no clock, no file. Time
//! and all observations come in as arguments.
//!
//! - [`flashjob`] decides about one FlashJob, [`rollout`] about one FlashRollout.
//! - [`world`] caches the observed objects, and takes the snapshots on which they decide.
//! - [`firmware`] is the question to a registry that both may have, [`schedule`] evaluates
//!   maintenance windows, [`count`] words numbers, [`text`] shortens texts.
#![deny(missing_docs)]

pub mod count;
pub mod firmware;
pub mod flashjob;
pub mod rollout;
pub mod schedule;
pub mod text;
pub mod world;

#[cfg(test)]
mod tests;
