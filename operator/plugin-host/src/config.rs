//! The parts of the operator's configuration file that concern registries, trust and limits.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

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
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
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
    pub cosign: Option<CosignTrust>,
}

/// By whom a component must be signed, and how.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CosignTrust {
    /// Files with one public key each, in PEM: ECDSA on P-256, Ed25519, or RSA from 2048 bits on. Read anew at every load.
    #[serde(default)]
    pub public_key_files: Vec<PathBuf>,
    /// Forms in which a signature counts.
    #[serde(default = "every_form")]
    pub forms: Vec<SignatureForm>,
    /// How many of the keys must have signed.
    #[serde(default)]
    pub require: RequiredKeys,
    /// Signatures without keys. Here so that it is refused by name: this version does not verify them.
    #[serde(default)]
    pub keyless: Option<serde_json::Value>,
}

/// How a cosign signature is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SignatureForm {
    /// A Sigstore bundle that refers to the manifest: what cosign 3 writes.
    Bundle,
    /// Simple signing, under the tag `sha256-<digest>.sig`: what cosign wrote before.
    Simple,
}

/// All that this version can verify.
pub(crate) fn every_form() -> Vec<SignatureForm> {
    vec![SignatureForm::Bundle, SignatureForm::Simple]
}

/// How many of the keys must have signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RequiredKeys {
    /// One of them.
    #[default]
    Any,
    /// Each of them.
    All,
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
    for index in 0..registries.len() {
        check_registry(registries, index)?;
    }
    for index in 0..trust.len() {
        check_trust(trust, index)?;
    }
    check_limits(limits)
}

fn invalid(field: String, message: &str) -> Result<(), InvalidField> {
    Err(InvalidField { field, message: message.to_owned() })
}

fn check_registry(registries: &[RegistryConfig], index: usize) -> Result<(), InvalidField> {
    let registry = &registries[index];
    if registry.host.is_empty() || registry.host.contains('/') {
        return invalid(format!("registries[{index}].host"), "expected a host as in references, without scheme and path");
    }
    if registries[..index].iter().any(|earlier| earlier.host.eq_ignore_ascii_case(&registry.host)) {
        return invalid(format!("registries[{index}].host"), "this host stands twice");
    }
    if registry.plain_http && registry.ca_file.is_some() {
        return invalid(format!("registries[{index}].plainHttp"), "a registry without TLS has no use for caFile; take one of them out");
    }
    match registry.token_hosts.iter().position(|host| host.is_empty() || host.contains('/')) {
        Some(at) => invalid(format!("registries[{index}].tokenHosts[{at}]"), "expected a host, with its port where it is not 443"),
        None => Ok(()),
    }
}

fn check_trust(trust: &[TrustEntry], index: usize) -> Result<(), InvalidField> {
    let entry = &trust[index];
    match &entry.cosign {
        Some(_) if entry.allow_unsigned => {
            return invalid(format!("trust[{index}].allowUnsigned"), "cosign beside it demands a signature; take one of them out");
        }
        Some(cosign) => check_cosign(cosign, index)?,
        None if !entry.allow_unsigned => {
            return invalid(format!("trust[{index}]"), "it trusts nothing; set cosign, or allowUnsigned: true, or remove it");
        }
        None => {}
    }
    let field = || format!("trust[{index}].match");
    let path = entry.pattern.strip_suffix("/**").or(entry.pattern.strip_suffix("/*")).unwrap_or(&entry.pattern);
    let host = path.split('/').next().unwrap_or_default();
    if host.is_empty() || path.contains('*') || !entry.pattern.contains('/') {
        return invalid(field(), "expected host/path, host/path/* or host/path/**, with no other wildcard");
    }
    if entry.pattern.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return invalid(field(), "references have lower-case hosts and paths, so this matches none");
    }
    let prefix = crate::trust::literal_prefix(&entry.pattern);
    if trust[..index].iter().any(|earlier| crate::trust::literal_prefix(&earlier.pattern) == prefix) {
        return invalid(field(), "another entry has the same literal prefix, so neither would win");
    }
    Ok(())
}

fn check_cosign(cosign: &CosignTrust, index: usize) -> Result<(), InvalidField> {
    let field = |name: &str| format!("trust[{index}].cosign.{name}");
    if cosign.keyless.is_some() {
        return invalid(field("keyless"), "this version verifies signatures by key alone; use publicKeyFiles");
    }
    if cosign.public_key_files.is_empty() {
        return invalid(field("publicKeyFiles"), "expected at least one file with a public key");
    }
    if (1..cosign.public_key_files.len()).any(|at| cosign.public_key_files[..at].contains(&cosign.public_key_files[at])) {
        return invalid(field("publicKeyFiles"), "a file stands twice");
    }
    if cosign.forms.is_empty() {
        return invalid(field("forms"), "expected bundle, simple, or both");
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<(), InvalidField> {
    if limits.memory == 0 || limits.total_memory < limits.memory {
        return invalid("limits.totalMemory".to_owned(), "must be at least limits.memory, which must not be 0");
    }
    if limits.call_timeout.is_zero() || limits.compile_timeout.is_zero() {
        return invalid("limits.callTimeout, limits.compileTimeout".to_owned(), "must not be 0");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(text: &str) -> Result<(), String> {
        let entries: Vec<TrustEntry> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        check(&[], &entries, &Limits::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_entry_of_trust_says_one_thing_that_this_version_can_do() {
        let good = r#"[{"match": "harbor.example/flashjob/**", "cosign": {"publicKeyFiles": ["/k"], "forms": ["bundle"], "require": "all"}},
            {"match": "harbor.example/**", "allowUnsigned": true}, {"match": "harbor.example/a/b", "allowUnsigned": true}]"#;
        assert_eq!(trust(good), Ok(()));
        for (text, field) in [
            (r#"[{"match": "h.x/a"}]"#, "trust[0]"),
            (r#"[{"match": "h.x/a", "allowUnsigned": true, "cosign": {"publicKeyFiles": ["/k"]}}]"#, "trust[0].allowUnsigned"),
            (r#"[{"match": "h.x/a", "cosign": {}}]"#, "trust[0].cosign.publicKeyFiles"),
            (r#"[{"match": "h.x/a", "cosign": {"keyless": {"issuer": "x"}}}]"#, "trust[0].cosign.keyless"),
            (r#"[{"match": "h.x/a", "cosign": {"publicKeyFiles": ["/k"], "forms": []}}]"#, "trust[0].cosign.forms"),
            (r#"[{"match": "h.x/a", "cosign": {"publicKeyFiles": ["/k"], "forms": ["notation"]}}]"#, "notation"),
            (r#"[{"match": "h.x/a", "cosign": {"key": "/k"}}]"#, "`key`"),
            (r#"[{"match": "*.x/a", "allowUnsigned": true}]"#, "trust[0].match"),
            (r#"[{"match": "h.x/fl*", "allowUnsigned": true}]"#, "trust[0].match"),
            (r#"[{"match": "h.x", "allowUnsigned": true}]"#, "trust[0].match"),
            (r#"[{"match": "H.x/a", "allowUnsigned": true}]"#, "trust[0].match"),
            (r#"[{"match": "h.x/a/*", "allowUnsigned": true}, {"match": "h.x/a/**", "allowUnsigned": true}]"#, "trust[1].match"),
        ] {
            let error = trust(text).expect_err(text);
            assert!(error.contains(field), "{error}");
        }
    }
}
