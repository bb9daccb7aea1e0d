//! The program in the flash image: fetches firmware from a registry and hands it to one device.
//!
//! ```text
//! Arguments --firmware::fetch--> Firmware --ota, http, smp or serial--> Sent, or a Failure
//! ```
//!
//! - [`arguments`] is the command line; each option is also an environment variable, as a device
//!   plugin sets it.
//! - [`firmware`] fetches and verifies what is to be flashed, before a device is asked anything.
//! - [`ota`] asks the device to call back, and hands the firmware over; [`http`] uploads it, or has
//!   the device fetch it; [`smp`] is for devices with MCUboot, [`serial`] for Espressif chips on a
//!   serial port.
//! - [`outcome`] is what came of it, in the form in which the plugin reads it.
#![deny(missing_docs)]

pub mod arguments;
mod endpoint;
pub mod firmware;
pub mod http;
mod listen;
pub mod ota;
pub mod outcome;
pub mod serial;
pub mod smp;

/// Progress of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing has changed the device.
    Preparing,
    /// The device receives firmware.
    Sending,
}
