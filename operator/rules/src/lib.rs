//! Decisions of the operator, pure and synchronous: no client, no runtime, no clock, no file. Time
//! and everything that was observed come in as arguments.
#![deny(missing_docs)]

pub mod firmware;
pub mod rollout;
pub mod schedule;
