//! The flash program against simulated devices and a registry.
//!
//! One program for all of them: it is linked once, and the tests of all files run side by side.
#![allow(clippy::expect_used, reason = "these are tests, their helpers too")]

mod documentation;
mod firmware;
mod http;
mod ota;
mod program;
mod serial;
mod serial_program;
mod signals;
mod smp;
mod world;
