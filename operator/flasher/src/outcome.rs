//! Result of an attempt: an exit status for Kubernetes, and a message in JSON that the device
//! plugin reads.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

/// Longest message that Kubernetes keeps of a container, in bytes.
const MESSAGE_BYTES: usize = 4096;
/// Room in it for what is around the words.
const FRAME_BYTES: usize = 256;

/// Reason for a failure, in one word. Its number is the exit status; it does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Code {
    /// A variable is missing or is not what is expected, or a mounted file cannot be used.
    BadConfiguration = 2,
    /// The registry does not give the firmware, or what it gives is none.
    FirmwareUnavailable = 3,
    /// The image has nothing for the type of the device.
    NoPlatform = 4,
    /// The policy demands a signature that the firmware does not have.
    FirmwareNotTrusted = 5,
    /// The device does not answer the request to update.
    DeviceUnreachable = 6,
    /// The device answers that it will not update.
    DeviceRefused = 7,
    /// The device answers, and does not call back.
    NoCallback = 8,
    /// The attestation service does not answer.
    AttestationUnavailable = 9,
    /// The attestation service does not trust the device.
    DeviceNotTrusted = 10,
    /// The transfer began and did not end well. What the device runs is unknown.
    TransferBroken = 11,
    /// The container was told to end, before the transfer began, or once the device had all and
    /// nothing was proven yet: then `bytes` is set.
    Interrupted = 12,
    /// The device is busy with something else.
    DeviceBusy = 13,
    /// The device has the firmware, and does not report the version; or its flash memory does not
    /// hold what was sent.
    VerifyFailed = 14,
    /// The device has tried the firmware, and runs its old one again.
    Reverted = 15,
    /// Another chip is attached than the one that is asked for, or that the firmware is for.
    WrongChip = 16,
}

impl Code {
    /// All codes.
    pub const ALL: [Self; 15] = [
        Self::BadConfiguration,
        Self::FirmwareUnavailable,
        Self::NoPlatform,
        Self::FirmwareNotTrusted,
        Self::DeviceUnreachable,
        Self::DeviceRefused,
        Self::NoCallback,
        Self::AttestationUnavailable,
        Self::DeviceNotTrusted,
        Self::TransferBroken,
        Self::Interrupted,
        Self::DeviceBusy,
        Self::VerifyFailed,
        Self::Reverted,
        Self::WrongChip,
    ];
}

/// A failed attempt.
#[derive(Debug, thiserror::Error)]
#[error("{message}{}", cause(source.as_deref()))]
pub struct AttemptFailure {
    /// In one word.
    pub code: Code,
    /// In words that name the thing and say what to do.
    pub message: String,
    /// Bytes that were handed to the network; none where no transfer began.
    pub bytes: Option<u64>,
    /// Cause of the failure.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// The causes of an error, each after a colon.
fn cause(source: Option<&(dyn Error + Send + Sync)>) -> String {
    let mut text = String::new();
    let mut next = source.map(|source| source as &dyn Error);
    while let Some(error) = next {
        // The kernel's number says nothing that its words do not.
        let words = error.to_string();
        let words = words.split(" (os error").next().unwrap_or_default();
        // Some errors repeat what is below them.
        if !text.ends_with(words) {
            text.push_str(": ");
            text.push_str(words);
        }
        next = error.source();
    }
    text
}

impl AttemptFailure {
    /// A failure of this kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), bytes: None, source: None }
    }

    /// The same, with the error that it comes from.
    pub fn because(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }
}

/// A firmware that was handed over. Unless it is proven here, what the device reports afterwards
/// proves whether it runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Size of the firmware, in bytes.
    pub bytes: u64,
    /// True if the device reported the version, or the hash of its flash memory, to this program
    /// afterwards.
    pub proven: bool,
    /// The same in words.
    pub message: String,
}

/// The message for the device plugin: `code`, `message`, `bytes`, `seconds` and `proven`, in JSON.
/// `bytes` is null where no transfer began.
#[must_use]
pub fn message(ended: &Result<Sent, AttemptFailure>, took: Duration) -> Value {
    let (code, words, bytes) = match ended {
        Ok(sent) => (json!("Sent"), sent.message.clone(), Some(sent.bytes)),
        Err(failure) => (json!(failure.code), failure.to_string(), failure.bytes),
    };
    let end = words.floor_char_boundary(MESSAGE_BYTES - FRAME_BYTES);
    let proven = ended.as_ref().is_ok_and(|sent| sent.proven);
    json!({
        "code": code, "message": &words[..end], "bytes": bytes,
        "seconds": took.as_secs(), "proven": proven,
    })
}

/// Writes the message where Kubernetes looks for it, and returns the exit status. Without that
/// file, as outside of a cluster, the message is in the output alone.
pub fn conclude(ended: &Result<Sent, AttemptFailure>, took: Duration, log: &Path) -> u8 {
    let message = message(ended, took);
    if let Err(error) = std::fs::write(log, message.to_string()) {
        tracing::warn!(file = %log.display(), %error, "the termination message cannot be written");
    }
    match ended {
        Ok(sent) => {
            tracing::info!(bytes = sent.bytes, seconds = took.as_secs(), "{}", sent.message);
            0
        }
        Err(failure) => {
            tracing::error!(code = ?failure.code, seconds = took.as_secs(), "{failure}");
            failure.code as u8
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_code_and_causes_and_fits_whatever_was_said() {
        let cause = std::io::Error::other("connection reset");
        let failure =
            AttemptFailure::new(Code::TransferBroken, "the transfer broke").because(cause);
        let message = message(&Err(failure), Duration::from_secs(7));
        assert_eq!(
            message,
            json!({
                "code": "TransferBroken", "message": "the transfer broke: connection reset",
                "bytes": null, "seconds": 7, "proven": false,
            })
        );
        let long = AttemptFailure::new(Code::DeviceRefused, "ü".repeat(4000));
        assert!(super::message(&Err(long), Duration::ZERO).to_string().len() <= MESSAGE_BYTES);
    }
}
