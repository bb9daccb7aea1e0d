//! The program in the flash image: fetches firmware from a registry and transfers it to one
//! device.
//!
//! ```text
//! Arguments --firmware::fetch--> Firmware --ota, http, smp, serial--> Sent or AttemptFailure
//! ```
//!
//! - [`arguments`] is the command line; each option is also an environment variable, which device
//!   plugins set.
//! - [`firmware`] fetches and verifies the firmware before the first request to a device.
//! - [`ota`] asks the device to call back, and sends it the firmware; [`http`] uploads the
//!   firmware, or lets the device fetch it; [`smp`] is for devices with MCUboot, [`serial`] for
//!   Espressif chips on a serial port.
//! - [`outcome`] is the result of the attempt, in the form that the plugin reads.
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
    /// The device has not been changed.
    Preparing,
    /// The device is receiving firmware.
    Sending,
    /// The device has received all the firmware, this many bytes; the proof that it runs is
    /// pending.
    Delivered(u64),
    /// The device has not been changed, and must no longer be changed.
    Ended,
}

impl Stage {
    /// Begins the transfer of an attempt that runs in its own thread. Returns false if the attempt
    /// has ended: then nothing may be sent.
    #[must_use]
    pub fn begin(stage: &watch::Sender<Self>) -> bool {
        Self::follow(stage, Self::Sending)
    }

    /// Ends an attempt whose transfer has not begun. Returns false if it has begun.
    #[must_use]
    pub fn end(stage: &watch::Sender<Self>) -> bool {
        Self::follow(stage, Self::Ended)
    }

    /// Waits until the device has all the firmware, and returns the number of bytes. Never returns
    /// if the transfer does not complete.
    pub async fn delivered(stage: &watch::Sender<Self>) -> u64 {
        let mut stages = stage.subscribe();
        let reached = stages.wait_for(|stage| matches!(stage, Self::Delivered(_))).await;
        match reached.as_deref() {
            Ok(Self::Delivered(bytes)) => *bytes,
            _ => std::future::pending().await,
        }
    }

    /// Leaves the stage `Preparing`, at most once.
    fn follow(stage: &watch::Sender<Self>, next: Self) -> bool {
        // Comparison and change happen under one lock: a signal and the first byte can coincide.
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
