//! Flashes Espressif chips on a serial port, through the loader in their ROM.
//!
//! ```text
//! fetch firmware --> open port --> detect chip and flash --> write --> compare MD5 --> restart
//! ```
//!
//! The library espflash communicates with the chip and blocks on each answer, so it runs in a
//! thread. The async side watches the thread's steps, each of which has a timeout. A chip that was
//! put into its loader is restarted however the attempt ends, so that an unchanged chip continues
//! to run.

mod chip;
mod image;
pub(crate) mod port;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use espflash::Error;
use espflash::connection::{Connection, Port, ResetAfterOperation, ResetBeforeOperation};
use espflash::flasher::Flasher;
use espflash::target::{Chip, ProgressCallbacks};
use tokio::sync::watch;

use crate::Stage;
use crate::arguments::{Before, Serial};
use crate::firmware::{self, Firmware};
use crate::outcome::{AttemptFailure, Code, Sent};
use image::Image;
use port::{FIRST_BAUD, Opened};

/// Attempts to detect the chip: serial lines lose bytes.
const CONNECTS: u32 = 3;
/// Steps in which the progress is logged, in percent.
const STEP: u64 = 10;

/// Makes one attempt.
///
/// # Errors
/// Names what failed, and what is known about the device.
pub async fn flash(
    options: &Serial,
    stage: &watch::Sender<Stage>,
) -> Result<Sent, AttemptFailure> {
    let firmware = firmware::fetch(&options.pull).await?;
    let (Firmware { digest, name, signed, .. }, size) = (&firmware, firmware.size());
    tracing::info!(%digest, file = name, bytes = size, signed, "firmware fetched");
    let image = Image::read(firmware, options)?;
    // The port is opened before the thread starts, so that a second handle can restart the chip
    // even if the thread hangs.
    let Opened { port, usb, mut restart } = port::open(options)?;
    let written = Arc::new(AtomicU64::new(0));
    let (steps, receiver) = watch::channel(Step::Connecting);
    let attempt = Attempt {
        options: options.clone(),
        expected: image::chip_of(&options.pull.device),
        image,
        usb,
        stage: stage.clone(),
        steps,
        written: written.clone(),
    };
    let thread = tokio::task::spawn_blocking(move || attempt.run(port));
    let ended = watched(thread, receiver, options, stage).await;
    // However the attempt ended, the chip may still be in its loader, where it runs no firmware.
    let restarted = restart.now();
    match (ended, restarted) {
        (Err(failure), _) => {
            let bytes =
                (*stage.borrow() == Stage::Sending).then(|| written.load(Ordering::Relaxed));
            Err(AttemptFailure { bytes, ..failure })
        }
        (Ok(sent), Ok(())) => Ok(sent),
        (Ok(sent), Err(error)) => {
            let message = format!("{}, but the chip cannot be restarted", sent.message);
            let failure = AttemptFailure::new(Code::VerifyFailed, message).because(error);
            Err(AttemptFailure { bytes: Some(sent.bytes), ..failure })
        }
    }
}

/// Step of an attempt, with its own timeout. Sent again whenever the chip has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Chip and flash memory are detected.
    Connecting,
    /// Blocks are written, or compared.
    Writing,
}

impl Step {
    fn limit(self, options: &Serial) -> Duration {
        match self {
            Self::Connecting => options.connect_timeout,
            Self::Writing => options.stall_timeout,
        }
    }
}

/// Waits for the thread while each of its steps ends before its timeout. A thread that exceeds it
/// is abandoned; this process ends soon.
async fn watched(
    thread: tokio::task::JoinHandle<Result<Sent, AttemptFailure>>,
    mut receiver: watch::Receiver<Step>,
    options: &Serial,
    stage: &watch::Sender<Stage>,
) -> Result<Sent, AttemptFailure> {
    let port = options.port.display();
    loop {
        // Each answer of the chip sends the step again, which restarts its timeout.
        let step = *receiver.borrow_and_update();
        match tokio::time::timeout(step.limit(options), receiver.changed()).await {
            Ok(Ok(())) => {}
            // The thread has ended.
            Ok(Err(_)) => break,
            // The thread has just begun to write.
            Err(_) if step == Step::Connecting && !Stage::end(stage) => {
                receiver.changed().await.ok();
            }
            Err(_) => {
                let limit = step.limit(options);
                return Err(match step {
                    Step::Connecting => AttemptFailure::new(
                        Code::DeviceUnreachable,
                        format!("no chip was detected on {port} within {limit:?}"),
                    ),
                    Step::Writing => AttemptFailure::new(
                        Code::TransferBroken,
                        format!("the chip on {port} has accepted no block for {limit:?}"),
                    ),
                });
            }
        }
    }
    thread.await.unwrap_or_else(|error| {
        // The library panics if the length of an answer is not the announced one.
        let code = match *receiver.borrow() {
            Step::Connecting => Code::DeviceUnreachable,
            Step::Writing => Code::TransferBroken,
        };
        Err(AttemptFailure::new(code, format!("the response on {port} cannot be read"))
            .because(error))
    })
}

/// One attempt, in a thread of its own.
struct Attempt {
    options: Serial,
    /// Chip that must be on the port; None if the device type does not name one.
    expected: Option<Chip>,
    image: Image,
    usb: serialport::UsbPortInfo,
    stage: watch::Sender<Stage>,
    steps: watch::Sender<Step>,
    /// Bytes of the image that the chip has received.
    written: Arc<AtomicU64>,
}

impl Attempt {
    fn run(mut self, port: Port) -> Result<Sent, AttemptFailure> {
        let mut flasher = self.connect(port)?;
        let (chip, place) = (flasher.chip(), self.options.port.display().to_string());
        chip::check(&mut flasher, &self.image, &self.options)?;
        // In Secure Download Mode the ROM does not execute the command that returns the MD5.
        let is_locked = flasher.secure_download_mode();
        let (size, offset) = (self.image.size, self.options.offset);
        let name = format!("{} of {}", self.image.name, self.image.digest);
        if self.options.dry_run {
            let message = format!(
                "dry run: {name} would be written to {chip} on {place} at {offset:#x}; nothing \
                 was written"
            );
            return Ok(Sent { bytes: 0, proven: false, message });
        }
        // The thread cannot be cancelled, so it asks before the first change whether it still may.
        if !Stage::begin(&self.stage) {
            return Err(AttemptFailure::new(Code::Interrupted, "the attempt has already ended"));
        }
        self.steps.send_replace(Step::Writing);
        let mut progress = Progress::new(&self);
        let written = flasher.write_bins_to_flash(&self.image.segments(offset), &mut progress);
        let is_unchanged = progress.written == 0;
        written.map_err(|error| self.broken(error))?;
        let message = match (is_locked, is_unchanged) {
            (true, _) => format!(
                "{chip} on {place} has {name}; in Secure Download Mode its flash memory cannot be \
                 verified"
            ),
            (false, true) => format!("{chip} on {place} already had {name}; its MD5 matches"),
            (false, false) => format!("{chip} on {place} has {name}; its MD5 matches"),
        };
        Ok(Sent { bytes: size, proven: !is_locked, message })
    }

    /// Detects chip and flash memory.
    fn connect(&mut self, mut port: Port) -> Result<Flasher, AttemptFailure> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let Serial { before, baud, no_stub, .. } = &self.options;
            let before = match before {
                Before::DefaultReset => ResetBeforeOperation::DefaultReset,
                Before::UsbReset => ResetBeforeOperation::UsbReset,
                Before::NoReset => ResetBeforeOperation::NoReset,
            };
            // This module restarts the chip itself, because that is needed however the attempt
            // ends.
            let after = ResetAfterOperation::NoResetNoStub;
            let first = FIRST_BAUD.min(*baud);
            let connection = Connection::new(port, self.usb.clone(), after, before, first);
            let connected =
                Flasher::try_connect(connection, !no_stub, true, true, self.expected, Some(*baud));
            let (error, mut connection) = match connected {
                Ok(flasher) => return Ok(flasher),
                Err(failed) => *failed,
            };
            // Another chip stays another chip; only lost bytes are worth a new attempt.
            if attempts == CONNECTS || is_final(&error) {
                return Err(chip::failed(&self.options, error));
            }
            tracing::info!(%error, "the chip was not detected; trying again");
            // The failed attempt may have raised the speed, and a restarted ROM loader answers at
            // the first one.
            connection.set_baud(first).map_err(|error| chip::failed(&self.options, error))?;
            port = connection.into_serial();
        }
    }

    /// Returns the failure of a transfer that began.
    fn broken(&self, error: Error) -> AttemptFailure {
        let port = self.options.port.display();
        match error {
            error @ Error::VerifyFailed => {
                let message = format!(
                    "the flash memory of the chip on {port} does not contain the written data; it \
                     may be worn out or have an unstable power supply"
                );
                AttemptFailure::new(Code::VerifyFailed, message).because(error)
            }
            error => {
                let message = format!("the transfer to the chip on {port} failed");
                AttemptFailure::new(Code::TransferBroken, message).because(error)
            }
        }
    }
}

/// Returns true for an error that a retry would repeat.
fn is_final(error: &Error) -> bool {
    matches!(error, Error::ChipMismatch(..) | Error::ChipDetectError(_))
}

/// Progress of a transfer, over all segments.
struct Progress<'a> {
    attempt: &'a Attempt,
    /// Offset in the image of the current segment, and its number of blocks.
    begin: u64,
    blocks: u64,
    /// Number of segments that were not in the flash memory yet.
    written: u32,
    logged_step: u64,
}

impl<'a> Progress<'a> {
    fn new(attempt: &'a Attempt) -> Self {
        Self { attempt, begin: 0, blocks: 1, written: 0, logged_step: 0 }
    }

    /// Records that the flash memory holds the image up to this byte.
    fn reach(&mut self, bytes: u64) {
        let total = self.attempt.image.size;
        let bytes = bytes.min(total);
        // Read by the async side for the message, if this thread hangs.
        self.attempt.written.store(bytes, Ordering::Relaxed);
        self.attempt.steps.send_replace(Step::Writing);
        let percent = bytes * 100 / total.max(1);
        if percent / STEP > self.logged_step {
            self.logged_step = percent / STEP;
            tracing::info!(bytes, total, percent, "sending");
        }
    }
}

impl ProgressCallbacks for Progress<'_> {
    fn init(&mut self, address: u32, blocks: usize) {
        self.begin = u64::from(address - self.attempt.options.offset);
        self.blocks = blocks.max(1) as u64;
        self.written += 1;
        self.reach(self.begin);
    }

    fn update(&mut self, block: usize) {
        let segment = (self.attempt.image.size - self.begin).min(image::SEGMENT_BYTES as u64);
        self.reach(self.begin + segment * block as u64 / self.blocks);
    }

    // The MD5 of a segment takes the chip seconds, in which no block is written.
    fn verifying(&mut self) {
        self.attempt.steps.send_replace(Step::Writing);
    }

    fn finish(&mut self, _was_there: bool) {
        self.begin += image::SEGMENT_BYTES as u64;
        self.reach(self.begin);
    }
}
