//! Termination message, in JSON, of this project's flash program (`operator/flasher`,
//! docs/flasher.md).

pub mod settings;

use flashjob_plugin_sdk::{Outcome, PluginError, Proof, Verdict};
use serde_json::Value;

/// Slot of the Secret with the credentials and policy of the firmware's registry, and its mount
/// path.
pub const REGISTRY: (&str, &str) = ("firmware-registry", "/etc/flashjob/registry");

/// Returns the flash image for a plugin that has none of its own: the one in the request, or else
/// the one in the settings.
///
/// # Errors
/// Neither names an image.
pub fn image(
    request_image: Option<String>,
    settings_image: Option<String>,
) -> Result<String, PluginError> {
    request_image.or(settings_image).ok_or_else(|| {
        PluginError::InvalidRequest(
            "no flash image is configured; set flashImage of the plugin in the operator's \
             configuration, or flashjobPodImage"
                .into(),
        )
    })
}

/// Codes after which a retry would fail in the same way.
const FINAL: [&str; 7] = [
    "BadConfiguration",
    "NoPlatform",
    "FirmwareNotTrusted",
    "DeviceRefused",
    "DeviceNotTrusted",
    // The device went back to its old image: its boot loader does not accept the new one.
    "Reverted",
    // Firmware and device stay what they are, so the chip is the same at each attempt.
    "WrongChip",
];

/// Returns true if the termination message is from this program, for plugins that also run other
/// programs.
#[must_use]
pub fn is_message(outcome: &Outcome) -> bool {
    let report: Option<Value> = serde_json::from_str(outcome.termination_message.trim()).ok();
    // Other programs may end with JSON too, so both fields are required.
    report.is_some_and(|report| ["code", "message"].iter().all(|name| report[name].is_string()))
}

/// Returns the verdict on an ended container, of this program or another one. An exit code of 0 is
/// not proof by itself unless the program has read back the version or the flash memory: an image
/// may exit with 0 although the device was not trusted or the transfer broke.
#[must_use]
pub fn judge(outcome: Outcome) -> Verdict {
    let report: Option<Value> = serde_json::from_str(outcome.termination_message.trim()).ok();
    let text = |name: &str| {
        let text = report.as_ref()?.get(name)?.as_str()?;
        (!text.is_empty()).then(|| text.to_owned())
    };
    if outcome.exit_code == Some(0) {
        let proven =
            report.as_ref().and_then(|report| report.get("proven")) == Some(&Value::Bool(true));
        return Verdict::Flashed(if proven { Proof::Pod } else { Proof::ReportedVersion });
    }
    match (text("code"), text("message")) {
        (Some(code), Some(message)) if FINAL.contains(&code.as_str()) => {
            Verdict::GiveUp(format!("{code}: {message}"))
        }
        // Also a code that a newer flash program has added: an attempt too many costs less than a
        // device that is given up wrongly.
        (Some(code), Some(message)) => Verdict::Retry(format!("{code}: {message}")),
        // Another program, or a container that was killed: the operator sets
        // FallbackToLogsOnError, so the message is the end of the log.
        _ => Verdict::Retry(outcome.explanation()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_only_proven_by_a_version_that_was_read_and_a_failure_says_why() {
        let judged = |exit_code, message: &str| {
            judge(Outcome {
                exit_code,
                reason: "Error".into(),
                termination_message: message.into(),
                attempt: 1,
                reported_version: None,
            })
        };
        assert_eq!(judged(Some(0), ""), Verdict::Flashed(Proof::ReportedVersion));
        let proven = r#"{"code": "Sent", "message": "done", "proven": true}"#;
        assert_eq!(judged(Some(0), proven), Verdict::Flashed(Proof::Pod));
        assert_eq!(judged(Some(1), "no device"), Verdict::Retry("no device".into()));
        assert_eq!(judged(None, ""), Verdict::Retry("Error".into()));
        let broken = r#"{"code": "TransferBroken", "message": "it broke", "proven": true}"#;
        assert_eq!(judged(Some(11), broken), Verdict::Retry("TransferBroken: it broke".into()));
        let refused = r#"{"code": "NoPlatform", "message": "it is for custom/esp32"}"#;
        let words = "NoPlatform: it is for custom/esp32";
        assert_eq!(judged(Some(4), refused), Verdict::GiveUp(words.into()));
        let other = r#"{"code": "WrongChip", "message": "it is esp32"}"#;
        assert_eq!(judged(Some(16), other), Verdict::GiveUp("WrongChip: it is esp32".into()));
    }

    #[test]
    fn only_a_message_with_code_and_words_is_this_programs() {
        for (text, expected) in [
            (r#"{"code": "Sent", "message": ""}"#, true),
            (r#"{"code": 7, "message": ""}"#, false),
            (r#"{"code": "Sent"}"#, false),
            ("A fatal error occurred", false),
            ("[]", false),
            ("", false),
        ] {
            let outcome = Outcome {
                exit_code: Some(0),
                reason: "Completed".into(),
                termination_message: text.into(),
                attempt: 1,
                reported_version: None,
            };
            assert_eq!(is_message(&outcome), expected, "{text}");
        }
    }
}
