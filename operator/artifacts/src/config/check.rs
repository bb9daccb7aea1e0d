//! Checks of the configuration that its types cannot express. Pure.

use super::{CosignTrust, KeylessTrust, RegistryConfig, TrustEntry};
use crate::credentials::canonical_host;
use crate::reference::{LAYOUT, is_host, is_repository, names_host};
use crate::source::split;
use crate::trust::SignerRule;

/// Invalid field of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidField {
    /// Path of the field.
    pub field: String,
    /// Description of the fault, and the remedy.
    pub message: String,
}

/// Checks what the types cannot express.
///
/// # Errors
/// Names the first invalid field.
pub fn check(registries: &[RegistryConfig], trust: &[TrustEntry]) -> Result<(), InvalidField> {
    for index in 0..registries.len() {
        check_registry(registries, index)?;
    }
    check_trust("trust", trust)
}

/// Checks the entries of a trust policy. `list` is the name of the field that holds them.
///
/// # Errors
/// Names the first invalid field.
pub fn check_trust(list: &str, trust: &[TrustEntry]) -> Result<(), InvalidField> {
    (0..trust.len()).try_for_each(|index| check_entry(&format!("{list}[{index}]"), trust, index))
}

fn invalid(field: String, message: &str) -> Result<(), InvalidField> {
    Err(InvalidField { field, message: message.to_owned() })
}

fn check_registry(registries: &[RegistryConfig], index: usize) -> Result<(), InvalidField> {
    let registry = &registries[index];
    if !is_host(&registry.host) {
        return invalid(
            format!("registries[{index}].host"),
            "expected a host as in references, such as harbor.example.com or \
             harbor.example.com:5000, without scheme, path or wildcard",
        );
    }
    // `is_at` also finds other spellings, such as the names of Docker Hub and port 443.
    if registries[..index].iter().any(|earlier| earlier.is_at(&registry.host)) {
        return invalid(format!("registries[{index}].host"), "duplicate host");
    }
    if registry.plain_http && registry.ca_file.is_some() {
        return invalid(
            format!("registries[{index}].plainHttp"),
            "a registry without TLS does not use caFile; remove one of the two",
        );
    }
    if let Some(at) = registry.token_hosts.iter().position(|host| !is_host(host)) {
        return invalid(
            format!("registries[{index}].tokenHosts[{at}]"),
            "expected a host, with its port unless that is 443",
        );
    }
    check_mirrors(registry, index)
}

fn check_mirrors(registry: &RegistryConfig, index: usize) -> Result<(), InvalidField> {
    for (at, mirror) in registry.mirrors.iter().enumerate() {
        let field = || format!("registries[{index}].mirrors[{at}]");
        // The host of a mirror is looked up in `registries` for its own TLS settings and password.
        let (host, prefix) = split(mirror);
        if !is_host(host) || prefix.is_some_and(|prefix| !is_repository(prefix)) {
            return invalid(field(), "expected host or host/prefix, without scheme");
        }
        // A registry that fails would otherwise be asked twice. `is_at` also finds other
        // spellings, such as the names of Docker Hub and port 443.
        if prefix.is_none() && registry.is_at(host) {
            return invalid(field(), "this is the registry itself, which is always tried last");
        }
        let is_same = |earlier: &String| {
            let (other, path) = split(earlier);
            path == prefix && canonical_host(other) == canonical_host(host)
        };
        if registry.mirrors[..at].iter().any(is_same) {
            return invalid(field(), "duplicate mirror");
        }
    }
    Ok(())
}

fn check_entry(path: &str, trust: &[TrustEntry], index: usize) -> Result<(), InvalidField> {
    let entry = &trust[index];
    match &entry.cosign {
        Some(_) if entry.allow_unsigned => {
            return invalid(
                format!("{path}.allowUnsigned"),
                "cosign is also set, and requires a signature; remove one of the two",
            );
        }
        Some(cosign) => check_cosign(path, cosign)?,
        None if !entry.allow_unsigned => {
            return invalid(
                path.to_owned(),
                "the entry trusts nothing; set cosign or allowUnsigned: true, or remove the entry",
            );
        }
        None => {}
    }
    let field = || format!("{path}.match");
    let name = entry
        .pattern
        .strip_suffix("/**")
        .or(entry.pattern.strip_suffix("/*"))
        .unwrap_or(&entry.pattern);
    let host = name.split('/').next().unwrap_or_default();
    // A wildcard in the host would trust hosts that anybody can register.
    if host.is_empty() || name.contains('*') || !entry.pattern.contains('/') {
        return invalid(
            field(),
            "expected host/path, host/path/* or host/path/**, with no other wildcard",
        );
    }
    // Docker takes a name without a host for one on Docker Hub; references here name their host.
    if host != LAYOUT && !names_host(host) {
        return invalid(
            field(),
            &format!(
                "references name their host, with a dot, a port or localhost, so this matches \
                 none; expected host/{pattern}, such as docker.io/{pattern}",
                pattern = entry.pattern
            ),
        );
    }
    // The path of a layout is a path on disk, which may have upper-case letters.
    if host != LAYOUT && entry.pattern.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return invalid(
            field(),
            "references have lower-case hosts and paths, so this matches none",
        );
    }
    let (_, repository) = name.split_once('/').unwrap_or((name, ""));
    if host != LAYOUT && repository.contains([':', '@']) {
        return invalid(
            field(),
            "tags and digests are not matched, so this matches none; give only the repository, as \
             host/path, and put the digest in plugins[].image",
        );
    }
    if host != LAYOUT && !(is_host(host) && (repository.is_empty() || is_repository(repository))) {
        return invalid(
            field(),
            "no reference has this form, so it matches none; expected host/path, host/path/* or \
             host/path/**",
        );
    }
    let prefix = crate::trust::literal_prefix(&entry.pattern);
    if trust[..index]
        .iter()
        .any(|earlier| crate::trust::literal_prefix(&earlier.pattern) == prefix)
    {
        return invalid(
            field(),
            "another entry has the same literal prefix, so neither would take precedence",
        );
    }
    Ok(())
}

fn check_cosign(path: &str, cosign: &CosignTrust) -> Result<(), InvalidField> {
    let field = |name: &str| format!("{path}.cosign.{name}");
    match &cosign.keyless {
        Some(_) if !cosign.public_key_files.is_empty() => {
            return invalid(
                field("keyless"),
                "publicKeyFiles is also set, and requires keys; remove one of the two",
            );
        }
        Some(keyless) => check_keyless(keyless, &field("keyless"))?,
        None if cosign.public_key_files.is_empty() => {
            return invalid(
                field("publicKeyFiles"),
                "expected at least one file with a public key, or keyless instead",
            );
        }
        None => {}
    }
    if (1..cosign.public_key_files.len())
        .any(|at| cosign.public_key_files[..at].contains(&cosign.public_key_files[at]))
    {
        return invalid(field("publicKeyFiles"), "duplicate file");
    }
    if cosign.forms.is_empty() {
        return invalid(field("forms"), "expected bundle, simple, or both");
    }
    Ok(())
}

fn check_keyless(keyless: &KeylessTrust, field: &str) -> Result<(), InvalidField> {
    if keyless.trusted_root_file.as_os_str().is_empty() {
        return invalid(
            format!("{field}.trustedRootFile"),
            "expected the file with a trusted root, as cosign trusted-root create writes it",
        );
    }
    if keyless.identities.is_empty() {
        return invalid(
            format!("{field}.identities"),
            "expected at least one identity: anybody can get a certificate",
        );
    }
    for (at, identity) in keyless.identities.iter().enumerate() {
        if let Err((name, message)) = SignerRule::new(identity) {
            return invalid(format!("{field}.identities[{at}].{name}"), &message);
        }
        if keyless.identities[..at].contains(identity) {
            return invalid(format!("{field}.identities[{at}]"), "duplicate identity");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(text: &str) -> Result<(), String> {
        let entries: Vec<TrustEntry> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        check(&[], &entries).map_err(|error| error.to_string())
    }

    #[test]
    fn an_entry_of_trust_says_one_thing_that_this_version_can_do() {
        let good = r#"[
            {"match": "harbor.example/flashjob/**", "cosign": {
                "publicKeyFiles": ["/k"], "forms": ["bundle"], "require": "all"
            }},
            {"match": "harbor.example/**", "allowUnsigned": true},
            {"match": "harbor.example/a/b", "allowUnsigned": true},
            {"match": "localhost/a/*", "allowUnsigned": true},
            {"match": "harbor:5000/a/*", "allowUnsigned": true}
        ]"#;
        assert_eq!(trust(good), Ok(()));
        for (text, field) in [
            (r#"[{"match": "h.x/a"}]"#, "trust[0]"),
            (
                r#"[{
                    "match": "h.x/a", "allowUnsigned": true, "cosign": {"publicKeyFiles": ["/k"]}
                }]"#,
                "trust[0].allowUnsigned",
            ),
            (r#"[{"match": "h.x/a", "cosign": {}}]"#, "trust[0].cosign.publicKeyFiles"),
            (
                r#"[{"match": "h.x/a", "cosign": {"publicKeyFiles": ["/k"], "forms": []}}]"#,
                "trust[0].cosign.forms",
            ),
            (
                r#"[{
                    "match": "h.x/a", "cosign": {"publicKeyFiles": ["/k"], "forms": ["notation"]}
                }]"#,
                "notation",
            ),
            (r#"[{"match": "h.x/a", "cosign": {"key": "/k"}}]"#, "`key`"),
            (r#"[{"match": "*.x/a", "allowUnsigned": true}]"#, "trust[0].match"),
            (r#"[{"match": "h.x/fl*", "allowUnsigned": true}]"#, "trust[0].match"),
            (r#"[{"match": "h.x", "allowUnsigned": true}]"#, "trust[0].match"),
            (r#"[{"match": "team/**", "allowUnsigned": true}]"#, "such as docker.io/team/**"),
            (r#"[{"match": "team/plugin", "allowUnsigned": true}]"#, "docker.io/team/plugin"),
            (r#"[{"match": "H.x/a", "allowUnsigned": true}]"#, "trust[0].match"),
            (
                r#"[
                    {"match": "oci-layout/A", "allowUnsigned": true},
                    {"match": "oci-layout/B*", "allowUnsigned": true}
                ]"#,
                "trust[1].match",
            ),
            (
                r#"[
                    {"match": "h.x/a/*", "allowUnsigned": true},
                    {"match": "h.x/a/**", "allowUnsigned": true}
                ]"#,
                "trust[1].match",
            ),
        ] {
            let error = trust(text).expect_err(text);
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn keyless_names_a_trusted_root_and_says_of_each_identity_who_and_by_whom() {
        let keyless = |text: &str| {
            trust(&format!(r#"[{{"match": "h.x/a", "cosign": {{"keyless": {text}}}}}]"#))
        };
        let identities = |text: &str| {
            keyless(&format!(r#"{{"trustedRootFile": "/r", "identities": [{text}]}}"#))
        };
        let good = r#"{"issuer": "https://i.x", "subject": "a@b.x"},
            {"issuerRegexp": "^https://i[.]x$", "subjectRegexp": "^https://s[.]x/.*$"}"#;
        assert_eq!(identities(good), Ok(()));
        let keys = r#"[{
            "match": "h.x/a", "cosign": {
                "publicKeyFiles": ["/k"], "keyless": {"trustedRootFile": "/r", "identities": []}
            }
        }]"#;
        for (outcome, field) in [
            (trust(keys), "trust[0].cosign.keyless: publicKeyFiles"),
            (keyless("{}"), "`trustedRootFile`"),
            (keyless(r#"{"trustedRootFile": "/r"}"#), "`identities`"),
            (
                keyless(r#"{"trustedRootFile": "", "identities": []}"#),
                "trust[0].cosign.keyless.trustedRootFile",
            ),
            (
                keyless(r#"{"trustedRootFile": "/r", "identities": [], "rekorURL": "x"}"#),
                "`rekorURL`",
            ),
            (identities(""), "trust[0].cosign.keyless.identities:"),
            (identities("{}"), "trust[0].cosign.keyless.identities[0].issuer:"),
            (
                identities(r#"{"issuer": "i", "subject": ""}"#),
                "trust[0].cosign.keyless.identities[0].subject:",
            ),
            (identities(r#"{"subject": "s"}"#), "trust[0].cosign.keyless.identities[0].issuer:"),
            (
                identities(r#"{"issuer": "i", "issuerRegexp": "^i$", "subject": "s"}"#),
                "identities[0].issuerRegexp:",
            ),
            (
                identities(r#"{"issuer": "i", "subject": "s"}, {"issuer": "i", "subject": "s"}"#),
                "identities[1]:",
            ),
            (identities(r#"{"issuer": "i", "email": "s"}"#), "`email`"),
            (identities(r#"{"issuer": "i", "subjectRegexp": "s"}"#), "from ^ to $"),
            (identities(r#"{"issuer": "i", "subjectRegexp": "^s"}"#), "from ^ to $"),
            (
                identities(r#"{"issuer": "i", "subjectRegexp": "^s($"}"#),
                "not a regular expression",
            ),
            (
                identities(r#"{"issuer": "i", "subjectRegexp": "^a)|(b$"}"#),
                "not a regular expression",
            ),
            (identities(r#"{"issuer": "i", "subjectRegexp": "^.*$"}"#), "empty"),
        ] {
            let error = outcome.expect_err(field);
            assert!(error.contains(field), "{field}: {error}");
        }
    }

    #[test]
    fn a_mirror_is_a_host_with_or_without_a_path_and_stands_once() {
        let check_one = |mirrors: &str| {
            let registries: Vec<RegistryConfig> =
                serde_json::from_str(&format!(r#"[{{"host": "h.x", "mirrors": {mirrors}}}]"#))
                    .expect("registries");
            check(&registries, &[]).map_err(|error| error.field)
        };
        assert_eq!(check_one(r#"["m.x", "m.x:5000/proxy/a"]"#), Ok(()));
        for mirrors in [
            r#"["https://m.x"]"#,
            r#"["m.x/"]"#,
            r#"["m.x/A"]"#,
            r#"["H.x"]"#,
            r#"[""]"#,
            r#"["h.x:443"]"#,
            r#"["/proxy"]"#,
        ] {
            assert_eq!(
                check_one(mirrors),
                Err("registries[0].mirrors[0]".to_owned()),
                "{mirrors}"
            );
        }
        for mirrors in [r#"["m.x", "m.x"]"#, r#"["m.x/a", "M.x:443/a"]"#] {
            assert_eq!(
                check_one(mirrors),
                Err("registries[0].mirrors[1]".to_owned()),
                "{mirrors}"
            );
        }
    }
}
