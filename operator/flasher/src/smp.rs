//! Update of devices with MCUboot (Zephyr and others) over SMP, the Simple Management Protocol of
//! MCUmgr, on UDP or on a serial port.
//!
//! ```text
//! fetch firmware --> upload --> test --> reset --> wait for its hash --> confirm --> Sent
//! ```
//!
//! The new image is confirmed only after the device has restarted and reports the image's hash: if
//! an image does not start, the boot loader reverts to the old one.

use std::io::Cursor;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flashjob_artifacts::Digest;
use mcumgr_toolkit::MCUmgrClient;
use mcumgr_toolkit::client::MCUmgrClientError;
use mcumgr_toolkit::commands::image::ImageState;
use mcumgr_toolkit::connection::ExecuteError;
use mcumgr_toolkit::mcuboot::{ImageInfo, get_image_info};
use tokio::sync::watch;

use crate::Stage;
use crate::arguments::Smp;
use crate::endpoint::host_and_port;
use crate::firmware::{self, Firmware};
use crate::outcome::{AttemptFailure, Code, Sent};
use crate::serial::port::unusable;

/// UDP port of SMP, used if the endpoint names none.
const PORT: u16 = 1337;
/// Interval between checks of a device that restarts.
const LOOK: Duration = Duration::from_millis(500);
/// Number of retries before a device counts as unreachable.
const RETRIES: u8 = 5;
/// Steps in which the progress is logged, in percent.
const STEP: u64 = 10;

/// Makes one attempt.
///
/// # Errors
/// Names what failed, and what is known about the device.
pub async fn flash(options: &Smp, stage: &watch::Sender<Stage>) -> Result<Sent, AttemptFailure> {
    let place = match (&options.port, &options.host_endpoint) {
        (Some(port), _) => port.display().to_string(),
        (None, endpoint) => host_and_port(endpoint.as_deref().unwrap_or_default(), PORT)?,
    };
    // The image is read and checked before the device is contacted, so a bad one changes nothing.
    let firmware = firmware::fetch(&options.pull).await?;
    let (Firmware { digest, name, signed, .. }, size) = (&firmware, firmware.size());
    tracing::info!(%digest, file = name, bytes = size, signed, "firmware fetched");
    let image = Image::read(firmware, options)?;
    let (options, stage) = (options.clone(), stage.clone());
    // The client blocks on each answer, and a device takes minutes.
    let attempt =
        tokio::task::spawn_blocking(move || Attempt { options, place, stage, image }.run());
    attempt.await.unwrap_or_else(|error| {
        Err(AttemptFailure::new(Code::TransferBroken, "the attempt ended unexpectedly")
            .because(error))
    })
}

/// Image for MCUboot.
struct Image {
    bytes: Bytes,
    info: ImageInfo,
    name: String,
    /// Digest of the manifest that the image was fetched by.
    digest: Digest,
}

impl Image {
    /// Parses the header and the hash.
    ///
    /// # Errors
    /// The firmware is not such an image, or does not have the requested version.
    fn read(firmware: Firmware, options: &Smp) -> Result<Self, AttemptFailure> {
        let broken = |words: &str| {
            let message = format!("firmware {}: {words}", options.pull.firmware);
            AttemptFailure::new(Code::FirmwareUnavailable, message)
        };
        let Firmware { name, digest, bytes, .. } = firmware;
        let info = get_image_info(Cursor::new(&bytes)).map_err(|error| {
            broken("not an MCUboot image; sign it with imgtool").because(error)
        })?;
        let (requested_version, image_version) =
            // imgtool writes 1.2.3+4 for the version that devices report as 1.2.3.4.
            (options.device_version.replace('+', "."), info.version.to_string());
        if !requested_version.is_empty() && requested_version != image_version {
            let message = format!(
                "firmware {} has version {image_version} in its header, but version \
                 {requested_version} is requested, which the device would never report",
                options.pull.firmware
            );
            return Err(AttemptFailure::new(Code::BadConfiguration, message));
        }
        Ok(Self { bytes, info, name, digest })
    }

    fn is_in(&self, slot: &ImageState) -> bool {
        slot.hash.as_deref() == Some(self.info.hash.as_ref())
    }
}

/// One attempt.
struct Attempt {
    options: Smp,
    /// The device's address, or its serial port.
    place: String,
    stage: watch::Sender<Stage>,
    image: Image,
}

impl Attempt {
    fn run(&self) -> Result<Sent, AttemptFailure> {
        let device = self.connect()?;
        let slots = self.slots(&device)?;
        let active = slots.iter().find(|slot| slot.active);
        if self.options.dry_run {
            let runs = active.map_or("an unknown image", |slot| slot.version.as_str());
            let message = format!(
                "dry run: {} of {} would be sent to {}, which runs {runs}; nothing was sent",
                self.image.name, self.image.digest, self.place
            );
            return Ok(Sent { bytes: 0, proven: false, message });
        }
        // An earlier attempt may have ended between restart and confirmation; only the latter is
        // missing.
        if active.is_some_and(|slot| self.image.is_in(slot)) {
            tracing::info!("the device already runs this image");
            self.begin()?;
            drop(device);
        } else {
            // An upload would overwrite the other slot, which has the only confirmed image to
            // revert to.
            if active.is_some_and(|slot| !slot.confirmed) {
                let message = format!(
                    "device {} is testing another image that is not confirmed; it can be updated \
                     once that image is confirmed or reverted",
                    self.place
                );
                return Err(AttemptFailure::new(Code::DeviceBusy, message));
            }
            self.swap(device, &slots)?;
        }
        self.confirm()?;
        let Image { bytes, info, name, digest } = &self.image;
        let message =
            format!("{} runs {name} of {digest}, version {}, confirmed", self.place, info.version);
        Ok(Sent { bytes: bytes.len() as u64, proven: true, message })
    }

    /// Begins the transfer: from here on the device may be changed.
    fn begin(&self) -> Result<(), AttemptFailure> {
        match Stage::begin(&self.stage) {
            true => Ok(()),
            false => Err(AttemptFailure::new(Code::Interrupted, "the attempt has already ended")),
        }
    }

    /// Uploads the image to the other slot, and marks it for a test. The connection ends with
    /// that: a serial port can only be opened once, and that of a USB device disappears when it
    /// restarts.
    fn swap(&self, device: MCUmgrClient, slots: &[ImageState]) -> Result<(), AttemptFailure> {
        self.begin()?;
        // An earlier attempt may have uploaded it, and an upload takes minutes on a serial line.
        if !slots.iter().any(|slot| self.image.is_in(slot)) {
            self.upload(&device)?;
        }
        let test = device.image_set_state(Some(self.image.info.hash.as_ref()), false);
        test.map_err(|error| self.refused("to try the new image", error))?;
        self.restart(&device)?;
        drop(device);
        self.stage.send_replace(Stage::Delivered(self.image.bytes.len() as u64));
        self.wait()
    }

    /// Sends one request to restart. A second request could reach the device when it already runs
    /// the new image, and the boot loader reverts an image that restarts before it is confirmed.
    fn restart(&self, device: &MCUmgrClient) -> Result<(), AttemptFailure> {
        // The client would otherwise repeat the request by itself after a lost answer.
        device.set_retries(0);
        match device.os_system_reset(false, None) {
            // Some devices restart before they answer, and a request may be lost.
            Ok(()) | Err(MCUmgrClientError::ExecuteError(ExecuteError::ReceiveFailed(_))) => {
                Ok(())
            }
            Err(error) => Err(self.refused("to restart", error)),
        }
    }

    fn upload(&self, device: &MCUmgrClient) -> Result<(), AttemptFailure> {
        let mut logged_step = 0;
        let mut sent = 0;
        let mut progress = |bytes: u64, total: u64| {
            sent = bytes;
            let percent = bytes * 100 / total.max(1);
            if percent / STEP > logged_step {
                logged_step = percent / STEP;
                tracing::info!(bytes, total, percent, "sending");
            }
            true
        };
        let number = Some(self.options.image_number);
        let uploaded =
            device.image_upload(&self.image.bytes, number, None, false, Some(&mut progress));
        uploaded.map_err(|error| match error {
            // An error response is the device's decision, which a retry repeats; all else is the
            // line's.
            error @ MCUmgrClientError::ExecuteError(ExecuteError::ErrorResponse(_)) => {
                self.refused("the upload", error)
            }
            error => {
                let message = format!("the transfer to {} failed", self.place);
                let failure = AttemptFailure::new(Code::TransferBroken, message).because(error);
                AttemptFailure { bytes: Some(sent), ..failure }
            }
        })
    }

    /// Waits until the device has restarted and runs the image.
    fn wait(&self) -> Result<(), AttemptFailure> {
        let end = Instant::now() + self.options.restart_timeout;
        let mut asked_at = Instant::now();
        loop {
            std::thread::sleep(LOOK);
            // Each look connects anew: the USB serial port of a device disappears while it
            // restarts.
            let answer = self.connect().and_then(|device| Ok((self.slots(&device)?, device)));
            let words = match answer {
                Ok((slots, device)) => {
                    let active = slots.iter().find(|slot| slot.active);
                    if active.is_some_and(|slot| self.image.is_in(slot)) {
                        return Ok(());
                    }
                    // While the new image is pending, the device has not restarted yet.
                    if !slots.iter().any(|slot| slot.pending) {
                        let runs = active.map_or("another image", |slot| slot.version.as_str());
                        return Err(self.reverted(runs));
                    }
                    // The request may have been lost. The image is still pending, so a second one
                    // is safe.
                    if asked_at.elapsed() >= self.options.answer_timeout {
                        self.restart(&device)?;
                        asked_at = Instant::now();
                    }
                    "it has not restarted".to_owned()
                }
                Err(failure) => failure.to_string(),
            };
            if Instant::now() >= end {
                let message = format!(
                    "{} did not come back with the new image within {:?}: {words}",
                    self.place, self.options.restart_timeout
                );
                return Err(self.after(Code::VerifyFailed, message));
            }
            tracing::info!("waiting for the device: {words}");
        }
    }

    /// Confirms the image. Otherwise the boot loader reverts it at the next restart.
    fn confirm(&self) -> Result<(), AttemptFailure> {
        let device = self.connect()?;
        let hash = match self.options.image_number {
            // Without a hash the request confirms the application that runs when it arrives. With
            // a hash it would make an image permanent that was reverted in the meantime.
            0 => None,
            // Only a hash can name another image; without it, image 0 would be confirmed.
            _ => {
                let slots = self.slots(&device)?;
                let active = slots.iter().find(|slot| slot.active);
                if !active.is_some_and(|slot| self.image.is_in(slot)) {
                    let runs = active.map_or("another image", |slot| slot.version.as_str());
                    return Err(self.reverted(runs));
                }
                Some(self.image.info.hash.as_ref())
            }
        };
        let slots = device
            .image_set_state(hash, true)
            .map_err(|error| self.refused("to confirm the new image", error))?;
        // The answer must show that it is the new image that was confirmed.
        let stays =
            slots.iter().any(|slot| slot.active && slot.confirmed && self.image.is_in(slot));
        match stays {
            true => Ok(()),
            false => {
                let message = format!("{} does not report the new image as confirmed", self.place);
                Err(self.after(Code::VerifyFailed, message))
            }
        }
    }

    fn slots(&self, device: &MCUmgrClient) -> Result<Vec<ImageState>, AttemptFailure> {
        let slots = device.image_get_state().map_err(|error| self.unreachable(error))?;
        let number = self.options.image_number;
        // A device with several cores can have slots of several images, each of which swaps on its
        // own.
        Ok(slots.into_iter().filter(|slot| slot.image == number).collect())
    }

    fn connect(&self) -> Result<MCUmgrClient, AttemptFailure> {
        let Smp { port, baud, answer_timeout, .. } = &self.options;
        let device = match port {
            Some(port) => {
                let opened =
                    serialport::new(port.to_string_lossy(), *baud).timeout(*answer_timeout).open();
                MCUmgrClient::new_from_serial(opened.map_err(|error| unusable(port, error))?)
            }
            None => {
                let place = &self.place;
                MCUmgrClient::new_from_udp(place, *answer_timeout).map_err(|error| {
                    let message = format!("device {place} cannot be reached");
                    AttemptFailure::new(Code::DeviceUnreachable, message).because(error)
                })?
            }
        };
        device.set_retries(RETRIES);
        // Devices without this request use the frame size that all devices accept.
        let _ = device.use_auto_frame_size();
        Ok(device)
    }

    fn unreachable(&self, error: MCUmgrClientError) -> AttemptFailure {
        let message = format!("device {} does not answer", self.place);
        AttemptFailure::new(Code::DeviceUnreachable, message).because(error)
    }

    fn reverted(&self, runs: &str) -> AttemptFailure {
        let message = format!(
            "the boot loader of {} reverted version {}: it runs {runs} again",
            self.place, self.image.info.version
        );
        self.after(Code::Reverted, message)
    }

    /// Returns the failure for a request that the device rejected or did not answer.
    fn refused(&self, what: &str, error: MCUmgrClientError) -> AttemptFailure {
        let code = match &error {
            MCUmgrClientError::ExecuteError(ExecuteError::ErrorResponse(_)) => Code::DeviceRefused,
            _ => Code::TransferBroken,
        };
        let message = format!("device {} refuses {what}", self.place);
        AttemptFailure::new(code, message).because(error)
    }

    /// Returns the failure of an attempt after all bytes were sent.
    fn after(&self, code: Code, message: String) -> AttemptFailure {
        let bytes = Some(self.image.bytes.len() as u64);
        AttemptFailure { bytes, ..AttemptFailure::new(code, message) }
    }
}
