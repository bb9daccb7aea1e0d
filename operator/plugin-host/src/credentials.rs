//! User names and passwords for registries, in the form of Docker's `config.json`, which is also that of a `dockerconfigjson` Secret.

use std::collections::HashMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// A user name and its password. The password is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Credentials by registry host. A registry without any is asked anonymously.
#[derive(Clone, Debug, Default)]
pub struct Logins(HashMap<String, Credentials>);

impl Logins {
    /// None: every registry is asked anonymously.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Those of one host.
    #[must_use]
    pub fn of(&self, host: &str) -> Option<&Credentials> {
        self.0.get(&host.to_ascii_lowercase())
    }
}

impl FromIterator<(String, Credentials)> for Logins {
    fn from_iter<All: IntoIterator<Item = (String, Credentials)>>(all: All) -> Self {
        Self(
            all.into_iter()
                .map(|(host, credentials)| (host.to_ascii_lowercase(), credentials))
                .collect(),
        )
    }
}

/// Credentials that were configured and cannot be used. They never become an anonymous pull.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Not the JSON of a Docker configuration.
    #[error("not a Docker configuration: {0}")]
    Decode(String),
    /// No entry for the registry.
    #[error("no entry for registry {0}")]
    Missing(String),
    /// The entry has neither user name and password nor `auth`.
    #[error("the entry for registry {0} has no user name or no password")]
    Incomplete(String),
}

#[derive(Deserialize)]
struct DockerConfig {
    auths: HashMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
}

/// Reads the credentials for a registry.
///
/// # Errors
/// The text is no Docker configuration, has no entry for the host, or the entry is incomplete.
pub fn parse_docker_config_json(text: &[u8], host: &str) -> Result<Credentials, CredentialsError> {
    // The parser's own words could quote the password.
    let config: DockerConfig = serde_json::from_slice(text).map_err(|error| {
        CredentialsError::Decode(format!("at line {}, column {}", error.line(), error.column()))
    })?;
    let bare = |name: &str| {
        name.trim_start_matches("https://")
            .trim_start_matches("http://")
            .split('/')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase()
    };
    let entry = config.auths.into_iter().find(|(name, _)| bare(name) == host.to_ascii_lowercase());
    let entry =
        entry.map(|(_, entry)| entry).ok_or_else(|| CredentialsError::Missing(host.to_owned()))?;
    let incomplete = || CredentialsError::Incomplete(host.to_owned());
    let non_empty = |text: Option<String>| text.filter(|text| !text.is_empty());
    if let (Some(username), Some(password)) = (non_empty(entry.username), non_empty(entry.password))
    {
        return Ok(Credentials { username, password });
    }
    let auth =
        STANDARD.decode(non_empty(entry.auth).ok_or_else(incomplete)?).map_err(|_| incomplete())?;
    let auth = String::from_utf8(auth).map_err(|_| incomplete())?;
    match auth.split_once(':') {
        Some((username, password)) if !username.is_empty() && !password.is_empty() => {
            Ok(Credentials { username: username.to_owned(), password: password.to_owned() })
        }
        _ => Err(incomplete()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_entry_are_read_for_the_right_host() {
        let text = br#"{"auths":{"https://harbor.example/v2/":{"auth":"cm9ib3Q6c2VjcmV0"},"other:5000":{"username":"u","password":"p"}}}"#;
        let robot = parse_docker_config_json(text, "harbor.example").expect("read");
        assert_eq!((robot.username.as_str(), robot.password.as_str()), ("robot", "secret"));
        assert_eq!(parse_docker_config_json(text, "other:5000").expect("read").username, "u");
        assert!(!format!("{robot:?}").contains("secret"));
    }

    #[test]
    fn broken_credentials_are_errors_and_never_none() {
        assert!(parse_docker_config_json(b"{}", "a.b").is_err());
        assert_eq!(
            parse_docker_config_json(br#"{"auths":{}}"#, "a.b"),
            Err(CredentialsError::Missing("a.b".into()))
        );
        for entry in [r#"{}"#, r#"{"auth":"%%"}"#, r#"{"auth":"dXNlcg=="}"#, r#"{"username":"u"}"#]
        {
            let text = format!(r#"{{"auths":{{"a.b":{entry}}}}}"#);
            assert_eq!(
                parse_docker_config_json(text.as_bytes(), "a.b"),
                Err(CredentialsError::Incomplete("a.b".into()))
            );
        }
    }
}
