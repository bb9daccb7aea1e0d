//! The parts of the operator's configuration file that concern registries, trust and limits.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// When a tag is resolved again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum PullPolicy {
    /// At every load.
    Always,
    /// Only where the digest is not known from an earlier load.
    #[default]
    IfNotPresent,
    /// Never: what is not in the cache is an error.
    Never,
}

/// How one registry is reached.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryConfig {
    /// Host as in references, with its port where it is not the usual one.
    pub host: String,
    /// The Secret with the password.
    #[serde(default)]
    pub credentials: Option<CredentialsReference>,
    /// Certificates of the authority that signed the registry's, in PEM; those of the system count no more.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Speak HTTP without TLS. Nothing else makes it so, loopback neither.
    #[serde(default)]
    pub plain_http: bool,
    /// Other hosts that may ask for the password to give out tokens.
    #[serde(default)]
    pub token_hosts: Vec<String>,
}

/// Names a Secret of type `kubernetes.io/dockerconfigjson` in the operator's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CredentialsReference {
    /// The Secret's name.
    pub secret_name: String,
}

/// Whose components are run. The longest literal prefix of `match` wins; nothing matching means refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustEntry {
    /// `host/path`, `host/path/*` or `host/path/**`.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Run what nobody signed.
    #[serde(default)]
    pub allow_unsigned: bool,
    /// Demand a cosign signature.
    #[serde(default)]
    pub cosign: Option<serde_json::Value>,
}

/// What a plugin may cost.
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
    /// What is copied between host and plugin in one call, in bytes. Default 1Mi.
    #[serde(deserialize_with = "size")]
    pub copied: usize,
    /// One answer, in bytes. Default 256Ki.
    #[serde(deserialize_with = "size")]
    pub answer: usize,
    /// A component, in bytes. Default 32Mi.
    #[serde(deserialize_with = "size")]
    pub component: usize,
    /// Time to compile a component. Default 60s.
    #[serde(deserialize_with = "duration")]
    pub compile_timeout: Duration,
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
        }
    }
}

/// A field that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidField {
    /// Path of the field.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// Checks what the types alone cannot.
///
/// # Errors
/// Names the first field that breaks its rule.
pub fn check(registries: &[RegistryConfig], trust: &[TrustEntry], limits: &Limits) -> Result<(), InvalidField> {
    let invalid = |field: String, message: &str| Err(InvalidField { field, message: message.to_owned() });
    for (index, registry) in registries.iter().enumerate() {
        if registry.host.is_empty() || registry.host.contains('/') {
            return invalid(format!("registries[{index}].host"), "expected a host as in references, without scheme and path");
        }
        if registries[..index].iter().any(|earlier| earlier.host == registry.host) {
            return invalid(format!("registries[{index}].host"), "this host stands twice");
        }
        if registry.plain_http && registry.ca_file.is_some() {
            return invalid(format!("registries[{index}].plainHttp"), "a registry without TLS has no use for caFile; take one of them out");
        }
    }
    for (index, entry) in trust.iter().enumerate() {
        if entry.cosign.is_some() {
            return invalid(
                format!("trust[{index}].cosign"),
                "this version cannot verify signatures; remove it and decide on allowUnsigned: true",
            );
        }
        if !entry.allow_unsigned {
            return invalid(format!("trust[{index}]"), "it trusts nothing; set allowUnsigned: true or remove it");
        }
        let host = entry.pattern.split('/').next().unwrap_or_default();
        if host.is_empty() || host.contains('*') {
            return invalid(format!("trust[{index}].match"), "expected host/path with a literal host");
        }
        let prefix = crate::trust::literal_prefix(&entry.pattern);
        if trust[..index].iter().any(|earlier| crate::trust::literal_prefix(&earlier.pattern) == prefix) {
            return invalid(format!("trust[{index}].match"), "another entry has the same literal prefix, so neither would win");
        }
    }
    if limits.memory == 0 || limits.total_memory < limits.memory {
        return invalid("limits.totalMemory".to_owned(), "must be at least limits.memory");
    }
    Ok(())
}

/// `250ms`, `1s`, `2m`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return Err(serde::de::Error::custom(format!("{text:?} is not a duration; expected 250ms, 1s or 2m"))),
    };
    let number: u64 = number.parse().map_err(|_| serde::de::Error::custom(format!("{text:?} is not a duration")))?;
    Ok(Duration::from_millis(number.saturating_mul(factor)))
}

/// `64Mi`, `256Ki`, a number of bytes.
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
        _ => return Err(serde::de::Error::custom(format!("{text:?} is not a size; expected 256Ki, 64Mi or bytes"))),
    };
    let number: usize = number.parse().map_err(|_| serde::de::Error::custom(format!("{text:?} is not a size")))?;
    number.checked_mul(1 << shift).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is too large")))
}
