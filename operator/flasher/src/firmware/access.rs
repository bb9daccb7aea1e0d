//! Access to a registry: credentials, CA certificates and a policy, from the folder in which a
//! Secret is mounted.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use flashjob_artifacts::config::{self, RegistryConfig, TrustEntry};
use flashjob_artifacts::{CredentialsError, Logins, Reference, parse_docker_config_json, places};
use serde::Deserialize;

use crate::outcome::{AttemptFailure, Code};

/// File names of a Docker configuration: the one in a Secret, and Docker's own.
const LOGINS: [&str; 2] = [".dockerconfigjson", "config.json"];
/// CA certificates of all registries that the policy does not describe.
const AUTHORITIES: &str = "ca.crt";
/// Configuration of registries and trust, in YAML.
const POLICY: &str = "policy.yaml";

/// Access to the firmware's registry, and the policy for its firmware.
#[derive(Debug)]
pub(super) struct Access {
    pub registries: Vec<RegistryConfig>,
    pub trust: Vec<TrustEntry>,
    pub logins: Logins,
}

/// Policy, a subset of the operator's configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    #[serde(default)]
    registries: Vec<RegistryConfig>,
    #[serde(default)]
    trust: Vec<TrustEntry>,
}

impl Access {
    /// Reads the folder. Every file is optional, but a file that exists and is invalid is an
    /// error: invalid credentials never lead to an anonymous pull, and an invalid policy never
    /// counts as none.
    pub fn read(folder: &Path, reference: &Reference) -> Result<Self, AttemptFailure> {
        let Policy { mut registries, mut trust } = match text(&folder.join(POLICY))? {
            Some(text) => serde_saphyr::from_str(&text)
                .map_err(|error| unusable(&folder.join(POLICY)).because(error))?,
            None => Policy::default(),
        };
        // The flash Pod has no service account token, so it cannot read Secrets from the API
        // server.
        if let Some(registry) = registries.iter().find(|registry| registry.credentials.is_some()) {
            let words = format!(
                "registries: {}: credentials refers to a Secret, which this program cannot read; \
                 put its .dockerconfigjson in the folder of the policy",
                registry.host
            );
            return Err(unusable(&folder.join(POLICY)).because(words));
        }
        config::check(&registries, &trust)
            .map_err(|error| unusable(&folder.join(POLICY)).because(error))?;
        // Paths in the policy are relative to its folder.
        let beside = |file: &mut PathBuf| *file = folder.join(&*file);
        registries.iter_mut().filter_map(|registry| registry.ca_file.as_mut()).for_each(beside);
        for cosign in trust.iter_mut().filter_map(|entry| entry.cosign.as_mut()) {
            cosign.public_key_files.iter_mut().for_each(beside);
            cosign.keyless.iter_mut().for_each(|keyless| beside(&mut keyless.trusted_root_file));
        }
        let authorities = folder.join(AUTHORITIES);
        if text(&authorities)?.is_some() {
            // Mirrors have no mirrors of their own, so these are all places.
            for (host, _) in places(reference, &registries) {
                if !registries.iter().any(|registry| registry.is_at(&host)) {
                    let ca_file = Some(authorities.clone());
                    registries.push(RegistryConfig { host, ca_file, ..RegistryConfig::default() });
                }
            }
        }
        let logins = logins(folder, reference, &registries)?;
        Ok(Self { registries, trust, logins })
    }
}

fn logins(
    folder: &Path,
    reference: &Reference,
    registries: &[RegistryConfig],
) -> Result<Logins, AttemptFailure> {
    for file in LOGINS.map(|name| folder.join(name)) {
        let Some(text) = text(&file)? else { continue };
        let mut logins = Vec::new();
        for (host, repository) in places(reference, registries) {
            match parse_docker_config_json(text.as_bytes(), &format!("{host}/{repository}")) {
                Ok(credentials) => logins.push((host, credentials)),
                // A registry without an entry in the file needs no password.
                Err(CredentialsError::Missing(_)) => {}
                Err(error) => return Err(unusable(&file).because(error)),
            }
        }
        return Ok(logins.into_iter().collect());
    }
    Ok(Logins::none())
}

/// Returns the text of a file; None if the file does not exist.
fn text(file: &Path) -> Result<Option<String>, AttemptFailure> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(file).because(error)),
    }
}

fn unusable(file: &Path) -> AttemptFailure {
    AttemptFailure::new(Code::BadConfiguration, format!("{} cannot be used", file.display()))
}
