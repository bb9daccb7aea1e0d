//! Sections of the operator's configuration file for plugins: access to registries, trust in
//! components, and the limits of calls.

use std::time::Duration;

pub use flashjob_artifacts::config::{
    CosignTrust, CredentialsReference, InvalidField, KeylessTrust, RegistryConfig, RequiredKeys,
    SignatureForm, SignerIdentity, TrustEntry, every_form,
};
use serde::{Deserialize, Deserializer};

/// Policy for resolving a tag again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum PullPolicy {
    /// At every load.
    Always,
    /// Only if no digest is known from an earlier load.
    #[default]
    IfNotPresent,
    /// Never: an artifact that is not in the cache is an error.
    Never,
}

/// Resource limits of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Time for one call. Default 1s.
    #[serde(deserialize_with = "duration")]
    pub call_timeout: Duration,
    /// Linear memory of one call, in bytes. Default 64Mi.
    #[serde(deserialize_with = "size")]
    pub memory: usize,
    /// Linear memory of all calls at once, in bytes. Default 256Mi.
    #[serde(deserialize_with = "size")]
    pub total_memory: usize,
    /// Data that is copied between host and plugin in one call, in bytes. Default 1Mi.
    #[serde(deserialize_with = "size")]
    pub copied: usize,
    /// Size of an answer, in bytes. Default 256Ki.
    #[serde(deserialize_with = "size")]
    pub answer: usize,
    /// Size of a component, in bytes. Default 32Mi.
    #[serde(deserialize_with = "size")]
    pub component: usize,
    /// Time to compile a component. Default 60s.
    #[serde(deserialize_with = "duration")]
    pub compile_timeout: Duration,
    /// Address space of the process that compiles a component, in bytes. Default 384Mi.
    #[serde(deserialize_with = "size")]
    pub compile_memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_secs(1),
            memory: 64 << 20,
            total_memory: 256 << 20,
            copied: 1 << 20,
            answer: 256 << 10,
            component: 32 << 20,
            compile_timeout: Duration::from_secs(60),
            compile_memory: 384 << 20,
        }
    }
}

/// Parses a duration such as `250ms`, `1s` or `2m`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => {
            return Err(serde::de::Error::custom(format!(
                "{text:?} is not a duration; expected a value such as 250ms, 1s or 2m"
            )));
        }
    };
    let number: u64 = number
        .parse()
        .map_err(|_| serde::de::Error::custom(format!("{text:?} is not a duration")))?;
    // Saturates, as an absurd value means no limit and must not wrap around to a short one.
    Ok(Duration::from_millis(number.saturating_mul(factor)))
}

/// Parses a size such as `64Mi`, `256Ki`, or a number of bytes.
fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Size {
        Bytes(usize),
        Text(String),
    }
    let text = match Size::deserialize(deserializer)? {
        Size::Bytes(bytes) => return Ok(bytes),
        Size::Text(text) => text,
    };
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit {
        "" => 0,
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        _ => {
            return Err(serde::de::Error::custom(format!(
                "{text:?} is not a size; expected a value such as 256Ki or 64Mi, or a number of \
                 bytes"
            )));
        }
    };
    let number: usize =
        number.parse().map_err(|_| serde::de::Error::custom(format!("{text:?} is not a size")))?;
    number
        // Unlike for a duration, a wrapped or saturated size could reserve all memory, so it is an
        // error.
        .checked_mul(1 << shift)
        .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is too large")))
}

/// Checks what the types cannot express.
///
/// # Errors
/// Names the first invalid field.
pub fn check(
    registries: &[RegistryConfig],
    trust: &[TrustEntry],
    limits: &Limits,
) -> Result<(), InvalidField> {
    flashjob_artifacts::config::check(registries, trust)?;
    check_limits(limits)
}

fn invalid(field: &str, message: &str) -> Result<(), InvalidField> {
    Err(InvalidField { field: field.to_owned(), message: message.to_owned() })
}

fn check_limits(limits: &Limits) -> Result<(), InvalidField> {
    // The number of concurrent calls is the quotient of the two, which must be at least one.
    if limits.memory == 0 || limits.total_memory < limits.memory {
        return invalid(
            "limits.totalMemory",
            "must be at least limits.memory, which must not be 0",
        );
    }
    if limits.call_timeout.is_zero() || limits.compile_timeout.is_zero() {
        return invalid("limits.callTimeout, limits.compileTimeout", "must not be 0");
    }
    Ok(())
}
