//! The program in the flash image: fetches firmware from a registry and hands it to one device.
//!
//! ```text
//! Arguments --firmware::fetch--> Firmware --ota, http, smp, serial--> Sent or AttemptFailure
//! ```
//!
//! - [`arguments`] is the command line; each option is also an environment variable, as a device
//!   plugin sets it.
//! - [`firmware`] fetches and verifies what is to be flashed, before a device is asked anything.
//! - [`ota`] asks the device to call back, and hands the firmware over; [`http`] uploads it, or
//!   has the device fetch it; [`smp`] is for devices with MCUboot, [`serial`] for Espressif chips
//!   on a serial port.
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

use tokio::sync::watch;

/// Progress of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing has changed the device.
    Preparing,
    /// The device receives firmware.
    Sending,
    /// The device has so many bytes, which is all; the proof that it runs them is waited for.
    Delivered(u64),
    /// Nothing has changed the device, and nothing may any more.
    Ended,
}

impl Stage {
    /// Begins the transfer, for an attempt in a thread of its own. False if the attempt has ended:
    /// then nothing may be sent.
    #[must_use]
    pub fn begin(stage: &watch::Sender<Self>) -> bool {
        Self::follow(stage, Self::Sending)
    }

    /// Ends an attempt whose transfer has not begun. False if it has.
    #[must_use]
    pub fn end(stage: &watch::Sender<Self>) -> bool {
        Self::follow(stage, Self::Ended)
    }

    /// Waits until the device has all of it, and returns the number of bytes. Never returns if it
    /// does not come so far.
    pub async fn delivered(stage: &watch::Sender<Self>) -> u64 {
        let mut seen = stage.subscribe();
        let reached = seen.wait_for(|stage| matches!(stage, Self::Delivered(_))).await;
        match reached.as_deref() {
            Ok(Self::Delivered(bytes)) => *bytes,
            _ => std::future::pending().await,
        }
    }

    /// Goes on from the preparations, at most once.
    fn follow(stage: &watch::Sender<Self>, next: Self) -> bool {
        stage.send_if_modified(|stage| {
            let is_first = *stage == Self::Preparing;
            if is_first {
                *stage = next;
            }
            is_first
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_that_has_ended_sends_nothing_and_one_that_sends_is_not_ended() {
        let stage = watch::channel(Stage::Preparing).0;
        assert!(Stage::end(&stage) && !Stage::begin(&stage));
        let stage = watch::channel(Stage::Preparing).0;
        assert!(Stage::begin(&stage) && !Stage::end(&stage));
    }
}
