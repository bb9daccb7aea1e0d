//! Access to a registry: passwords, authorities and a policy, from a folder that a Secret is
//! mounted to.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use flashjob_artifacts::config::{self, RegistryConfig, TrustEntry};
use flashjob_artifacts::{CredentialsError, Logins, Reference, parse_docker_config_json, places};
use serde::Deserialize;

use crate::outcome::{AttemptFailure, Code};

/// Names under which a Docker configuration is looked for: a Secret's own, and Docker's.
const LOGINS: [&str; 2] = [".dockerconfigjson", "config.json"];
/// Certificates of the authorities of all registries that the policy does not describe.
const AUTHORITIES: &str = "ca.crt";
/// Configuration of registries and of trust, in YAML.
const POLICY: &str = "policy.yaml";

/// Access to the firmware's registry, and the policy for its firmware.
#[derive(Debug)]
pub(super) struct Access {
    pub registries: Vec<RegistryConfig>,
    pub trust: Vec<TrustEntry>,
    pub logins: Logins,
}

/// The policy, as the operator's configuration has these parts.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    #[serde(default)]
    registries: Vec<RegistryConfig>,
    #[serde(default)]
    trust: Vec<TrustEntry>,
}

impl Access {
    /// Reads the folder. What is not there is not needed; what is there and cannot be used is an
    /// error: a broken password never becomes an anonymous pull, a broken policy never none.
    pub fn read(folder: &Path, reference: &Reference) -> Result<Self, AttemptFailure> {
        let Policy { mut registries, mut trust } = match text(&folder.join(POLICY))? {
            Some(text) => serde_saphyr::from_str(&text)
                .map_err(|error| unusable(&folder.join(POLICY)).because(error))?,
            None => Policy::default(),
        };
        if let Some(registry) = registries.iter().find(|registry| registry.credentials.is_some()) {
            let words = format!(
                "registries: {}: credentials names a Secret, which this program cannot read; put \
                 its .dockerconfigjson beside the policy",
                registry.host
            );
            return Err(unusable(&folder.join(POLICY)).because(words));
        }
        config::check(&registries, &trust)
            .map_err(|error| unusable(&folder.join(POLICY)).because(error))?;
        // Files beside the policy are named without their folder.
        let beside = |file: &mut PathBuf| *file = folder.join(&*file);
        registries.iter_mut().filter_map(|registry| registry.ca_file.as_mut()).for_each(beside);
        for cosign in trust.iter_mut().filter_map(|entry| entry.cosign.as_mut()) {
            cosign.public_key_files.iter_mut().for_each(beside);
            cosign.keyless.iter_mut().for_each(|keyless| beside(&mut keyless.trusted_root_file));
        }
        let authorities = folder.join(AUTHORITIES);
        if text(&authorities)?.is_some() {
            // Mirrors of mirrors are not asked for, so these are all.
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
                // A registry that the file does not name asks for no password.
                Err(CredentialsError::Missing(_)) => {}
                Err(error) => return Err(unusable(&file).because(error)),
            }
        }
        return Ok(logins.into_iter().collect());
    }
    Ok(Logins::none())
}

/// The text of a file; none where there is no such file.
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
