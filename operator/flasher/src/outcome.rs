//! Result of an attempt: an exit status for Kubernetes, and a JSON message that the device plugin
//! reads.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

/// Largest termination message that Kubernetes keeps, in bytes.
const MESSAGE_BYTES: usize = 4096;
/// Bytes of it that are reserved for the other fields.
const FRAME_BYTES: usize = 256;

/// Reason for a failure. Its number is the exit status, which must not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Code {
    /// A variable is missing or invalid, or a mounted file cannot be used.
    BadConfiguration = 2,
    /// The registry does not return the firmware, or returns something else.
    FirmwareUnavailable = 3,
    /// The image has no firmware for the device type.
    NoPlatform = 4,
    /// The policy demands a signature that the firmware does not have.
    FirmwareNotTrusted = 5,
    /// The device does not answer the request to update.
    DeviceUnreachable = 6,
    /// The device rejects the update.
    DeviceRefused = 7,
    /// The device answers, but does not call back.
    NoCallback = 8,
    /// The attestation service does not answer.
    AttestationUnavailable = 9,
    /// The attestation service does not trust the device.
    DeviceNotTrusted = 10,
    /// The transfer began and failed. What the device runs is unknown.
    TransferBroken = 11,
    /// The container was asked to end before the transfer began, or, with `bytes` set, after the
    /// device had received everything but before the proof.
    Interrupted = 12,
    /// The device is busy with something else.
    DeviceBusy = 13,
    /// The device has the firmware but does not report the version, or its flash memory differs
    /// from the sent data.
    VerifyFailed = 14,
    /// The device tried the firmware, and runs its old one again.
    Reverted = 15,
    /// The attached chip is not the requested one, or not the one that the firmware is for.
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
    /// Reason in one word.
    pub code: Code,
    /// Message that names the object and the remedy.
    pub message: String,
    /// Bytes that were handed to the network; None if no transfer began.
    pub bytes: Option<u64>,
    /// Cause of the failure.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// Formats the sources of an error, each after a colon.
fn cause(source: Option<&(dyn Error + Send + Sync)>) -> String {
    let mut text = String::new();
    let mut next = source.map(|source| source as &dyn Error);
    while let Some(error) = next {
        // The errno adds nothing to the text before it.
        let words = error.to_string();
        let words = words.split(" (os error").next().unwrap_or_default();
        // Some errors repeat the text of their source.
        if !text.ends_with(words) {
            text.push_str(": ");
            text.push_str(words);
        }
        next = error.source();
    }
    text
}

impl AttemptFailure {
    /// Creates a failure of this kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), bytes: None, source: None }
    }

    /// Adds the error that caused the failure.
    pub fn because(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }
}

/// Successful transfer. Unless `proven` is set, the version that the device reports afterwards
/// must prove that the firmware runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Size of the firmware, in bytes.
    pub bytes: u64,
    /// True if this program itself read back the version, or the hash of the flash memory.
    pub proven: bool,
    /// Result as text for people.
    pub message: String,
}

/// Returns the message for the device plugin in JSON: `code`, `message`, `bytes`, `seconds` and
/// `proven`. `bytes` is null if no transfer began.
#[must_use]
pub fn message(ended: &Result<Sent, AttemptFailure>, took: Duration) -> Value {
    let (code, words, bytes) = match ended {
        Ok(sent) => (json!("Sent"), sent.message.clone(), Some(sent.bytes)),
        Err(failure) => (json!(failure.code), failure.to_string(), failure.bytes),
    };
    // The kubelet truncates a longer message, and the plugin could not parse JSON without its end.
    let words = fitting(&words, MESSAGE_BYTES - FRAME_BYTES);
    // A failure proves nothing, whatever had been read back before it.
    let proven = ended.as_ref().is_ok_and(|sent| sent.proven);
    json!({
        "code": code, "message": words, "bytes": bytes,
        "seconds": took.as_secs(), "proven": proven,
    })
}

/// Returns the beginning of a text that has at most this many bytes as the content of a JSON
/// string, where a quote or a line break takes two and a control character six.
fn fitting(text: &str, limit: usize) -> &str {
    let mut length = 0;
    let too_long = text.char_indices().find(|(_, character)| {
        length += json!(character).to_string().len() - "\"\"".len();
        length > limit
    });
    too_long.map_or(text, |(end, _)| &text[..end])
}

/// Writes the termination message for Kubernetes, and returns the exit status. If the file cannot
/// be written, for example outside a cluster, the message is only in the log.
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
        for character in ["ü", "\"", "\u{1b}"] {
            let long = AttemptFailure::new(Code::DeviceRefused, character.repeat(4000));
            let length = super::message(&Err(long), Duration::ZERO).to_string().len();
            let fits = MESSAGE_BYTES - FRAME_BYTES..=MESSAGE_BYTES;
            assert!(fits.contains(&length), "{character:?}: {length}");
        }
    }

    #[test]
    fn a_termination_message_of_quotes_and_line_breaks_is_whole_json_that_the_kubelet_keeps() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("termination-log");
        let words = "\"\n\r\t\\".repeat(4000);
        let failure = AttemptFailure {
            bytes: Some(u64::MAX),
            ..AttemptFailure::new(Code::AttestationUnavailable, words.clone())
        };
        conclude(&Err(failure), Duration::from_secs(u64::MAX), &log);
        let text = std::fs::read_to_string(log).expect("a message");
        assert!(text.len() <= MESSAGE_BYTES, "{}", text.len());
        let message: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(message["code"], "AttestationUnavailable");
        let kept = message["message"].as_str().expect("text");
        assert!(words.starts_with(kept) && kept.len() > 1000, "{kept:?}");
    }
}
