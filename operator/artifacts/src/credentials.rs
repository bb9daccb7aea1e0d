//! User names and passwords for registries, in the format of Docker's `config.json`, which a
//! `dockerconfigjson` Secret has, too.

use std::collections::HashMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;
use serde::Deserialize;

/// User name with which Docker marks a password as an identity token, which a token service
/// exchanges for an access token.
pub const IDENTITY_TOKEN: &str = "<token>";
/// Docker Hub's names. They are one registry, whose API is at the last of them.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
/// Key under which Docker stores the credentials for Docker Hub, in `auths` and in credential
/// stores.
const DOCKER_HUB_SERVER: &str = "https://index.docker.io/v1/";

/// A user name and its password. The password is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
}

impl Credentials {
    /// Returns the identity token, if the password is one (OAuth2 refresh token of distribution's
    /// token specification).
    #[must_use]
    pub fn identity_token(&self) -> Option<&str> {
        (self.username == IDENTITY_TOKEN).then_some(self.password.as_str())
    }
}

/// Returns the canonical name of a registry's host: lower case, without the default port, and one
/// name for all of Docker Hub's names.
#[must_use]
pub(crate) fn canonical_host(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    // With and without its default port, a host is the same registry, and so has the same
    // password.
    let host = host.strip_suffix(":443").unwrap_or(&host);
    if DOCKER_HUB.contains(&host) { DOCKER_HUB[0].to_owned() } else { host.to_owned() }
}

/// Returns the host that serves a registry's API: Docker Hub's public name serves no images.
pub(crate) fn api_host(host: &str) -> &str {
    if canonical_host(host) == DOCKER_HUB[0] { DOCKER_HUB[2] } else { host }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Credentials by registry host. Requests to any other registry are anonymous.
#[derive(Clone, Debug, Default)]
pub struct Logins(HashMap<String, Credentials>);

impl Logins {
    /// Creates an empty set: all requests are anonymous.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Returns the credentials for one host.
    #[must_use]
    pub fn of(&self, host: &str) -> Option<&Credentials> {
        self.0.get(&canonical_host(host))
    }
}

impl FromIterator<(String, Credentials)> for Logins {
    fn from_iter<All: IntoIterator<Item = (String, Credentials)>>(all: All) -> Self {
        Self(
            all.into_iter()
                .map(|(host, credentials)| (canonical_host(&host), credentials))
                .collect(),
        )
    }
}

/// Configured credentials that cannot be used. Such an error never leads to an anonymous pull.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The text is not the JSON of a Docker configuration.
    #[error("not a Docker configuration: {0}")]
    Decode(String),
    /// The configuration has no entry for the registry.
    #[error("no entry for registry {0}")]
    Missing(String),
    /// The entry has neither user name and password nor `auth` nor an identity token.
    #[error(
        "the entry for registry {0} has no user name or no password; expected username and \
         password, auth, or identitytoken"
    )]
    Incomplete(String),
}

#[derive(Deserialize)]
struct DockerConfig {
    /// None if all passwords are in a credential store.
    auths: Option<HashMap<String, Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    identitytoken: Option<String>,
}

/// Splits a key of `auths` or `credHelpers` into host and path.
fn place_of(key: &str) -> (String, String) {
    let bare = key.trim_start_matches("https://").trim_start_matches("http://");
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let path = path.trim_matches('/');
    // API versions of the registry, as `docker login` writes them.
    let path = if matches!(path, "v1" | "v2") { "" } else { path };
    (canonical_host(host), path.to_owned())
}

/// Splits a host into its name and its port.
fn port_of(host: &str) -> (&str, Option<&str>) {
    // The address of IPv6 has colons too, and ends with a bracket.
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, Some(port)),
        _ => (host, None),
    }
}

/// Returns true if one label of a host has the form that a key demands: `*` stands for any
/// characters of the label, and `?` for one.
fn label_matches(form: &str, label: &str) -> bool {
    if !form.contains(['*', '?']) {
        return form == label;
    }
    let expression = regex::escape(form).replace(r"\*", ".*").replace(r"\?", ".");
    Regex::new(&format!("^(?:{expression})$")).is_ok_and(|expression| expression.is_match(label))
}

/// Returns how specifically a key names a repository; None if it does not name it. Wildcards match
/// within one label of the host, as in the kubelet.
fn exactness(key: &str, host: &str, repository: &str) -> Option<(usize, usize)> {
    let (key_host, key_path) = place_of(key);
    let ((key_name, key_port), (name, port)) = (port_of(&key_host), port_of(host));
    // A wildcard must not match a dot: *.example.com would otherwise match hosts of any depth.
    let (key_labels, labels): (Vec<&str>, Vec<&str>) =
        (key_name.split('.').collect(), name.split('.').collect());
    let same_host = key_port == port
        && key_labels.len() == labels.len()
        && key_labels.iter().zip(&labels).all(|(form, label)| label_matches(form, label));
    let rest = repository.strip_prefix(&key_path)?;
    let same_path = key_path.is_empty() || rest.is_empty() || rest.starts_with('/');
    (same_host && same_path).then_some((key_path.len(), usize::from(key_host == host)))
}

/// Returns the key that names a place, `host` or `host/repository`, of the keys that `auths` or
/// `credHelpers` of a Docker configuration have. If several match, the one with the longest
/// matching path wins.
#[must_use]
pub fn docker_key<'a>(keys: impl Iterator<Item = &'a str>, place: &str) -> Option<&'a str> {
    let (host, repository) = place.split_once('/').unwrap_or((place, ""));
    let host = canonical_host(host);
    let matching =
        keys.filter_map(|key| exactness(key, &host, repository).map(|exact| (exact, key)));
    // Ties are broken by the key itself, so that every load selects the same entry.
    matching.max().map(|(_, key)| key)
}

/// Returns the names under which clients keep the credentials for a registry in a credential
/// store: the one that Docker uses first.
#[must_use]
pub fn docker_servers(registry: &str) -> Vec<String> {
    let canonical = canonical_host(registry);
    let first = if canonical == DOCKER_HUB[0] { DOCKER_HUB_SERVER } else { registry };
    let mut servers = vec![first.to_owned(), canonical];
    servers.dedup();
    servers
}

/// Reads the credentials for a place, `host` or `host/repository`. If several entries match, the
/// one with the longest matching path wins.
///
/// # Errors
/// The text is not a Docker configuration, has no entry for the place, or the entry is incomplete.
pub fn parse_docker_config_json(
    text: &[u8],
    place: &str,
) -> Result<Credentials, CredentialsError> {
    // The parser's own message could quote the password.
    let config: DockerConfig = serde_json::from_slice(text).map_err(|error| {
        CredentialsError::Decode(format!("at line {}, column {}", error.line(), error.column()))
    })?;
    let host = place.split('/').next().unwrap_or(place);
    let mut auths = config.auths.unwrap_or_default();
    let key = docker_key(auths.keys().map(String::as_str), place).map(str::to_owned);
    let entry = key.and_then(|key| auths.remove(&key));
    let entry = entry.ok_or_else(|| CredentialsError::Missing(host.to_owned()))?;
    let incomplete = || CredentialsError::Incomplete(host.to_owned());
    let non_empty = |text: Option<String>| text.filter(|text| !text.is_empty());
    // `docker login` writes the identity token beside an `auth` without password, so it comes
    // first.
    if let Some(password) = non_empty(entry.identitytoken) {
        return Ok(Credentials { username: IDENTITY_TOKEN.to_owned(), password });
    }
    if let (Some(username), Some(password)) =
        (non_empty(entry.username), non_empty(entry.password))
    {
        return Ok(Credentials { username, password });
    }
    let auth = STANDARD
        .decode(non_empty(entry.auth).ok_or_else(incomplete)?)
        .map_err(|_| incomplete())?;
    let auth = String::from_utf8(auth).map_err(|_| incomplete())?;
    // Only the first colon separates: a password may contain more (RFC 7617, section 2).
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
        let text = br#"{"auths":{
            "https://harbor.example/v2/":{"auth":"cm9ib3Q6c2VjcmV0"},
            "other:5000":{"username":"u","password":"p"}}}"#;
        let robot = parse_docker_config_json(text, "harbor.example").expect("read");
        assert_eq!((robot.username.as_str(), robot.password.as_str()), ("robot", "secret"));
        assert_eq!(parse_docker_config_json(text, "other:5000").expect("read").username, "u");
        assert!(!format!("{robot:?}").contains("secret"));
    }

    #[test]
    fn the_longest_path_wins_and_spellings_of_a_host_do_not_matter() {
        let text = br#"{"auths":{
            "reg.example/team/a":{"username":"a","password":"p"},
            "https://reg.example/":{"username":"host","password":"p"},
            "REG.example:443/team":{"username":"team","password":"p"},
            "*.wild.example":{"username":"wild","password":"p"},
            "https://index.docker.io/v1/":{"username":"hub","password":"p"},
            "tok.example":{"identitytoken":"t"}}}"#;
        for (place, user) in [
            ("reg.example/team/a", "a"),
            ("reg.example/team/a/b", "a"),
            ("reg.example:443/team/ab", "team"),
            ("reg.example/teams", "host"),
            ("reg.example", "host"),
            ("b.wild.example/x", "wild"),
            ("docker.io/library/x", "hub"),
            ("registry-1.docker.io/x", "hub"),
            ("tok.example/x", IDENTITY_TOKEN),
        ] {
            let username = parse_docker_config_json(text, place).map(|login| login.username);
            assert_eq!(username.as_deref(), Ok(user), "{place}");
        }
        assert!(parse_docker_config_json(text, "a.b.wild.example/x").is_err());
    }

    #[test]
    fn wildcards_match_within_the_labels_of_a_host_as_in_the_kubelet() {
        for (key, host, is_named) in [
            ("edge*.fleet.example", "edge7.fleet.example", true),
            ("edge*.fleet.example", "edge.fleet.example", true),
            ("*-north.fleet.example", "site-north.fleet.example", true),
            ("edge.*.example", "edge.fleet.example", true),
            ("edge?.fleet.example", "edge12.fleet.example", false),
            ("edge*.fleet.example", "edge7.north.fleet.example", false),
            ("*.fleet.example", "fleet.example", false),
            ("edge*.fleet.example", "edge7.fleet.example:5000", false),
            ("edge*.fleet.example:5000", "edge7.fleet.example:5000", true),
            ("https://edge*.fleet.example/v2/", "edge7.fleet.example", true),
            // Everything else in a label is literal.
            ("e(d)+ge*.fleet.example", "edge7.fleet.example", false),
        ] {
            let named = docker_key([key].into_iter(), &format!("{host}/team/image"));
            assert_eq!(named.is_some(), is_named, "{key} {host}");
        }
        let keys = ["*.fleet.example", "edge.fleet.example", "e*.fleet.example/other"];
        let named = docker_key(keys.into_iter(), "edge.fleet.example/team");
        assert_eq!(named, Some("edge.fleet.example"));
    }

    #[test]
    fn a_configuration_without_passwords_has_no_entry_for_a_registry() {
        for text in ["{}", r#"{"auths":null}"#, r#"{"credsStore":"pass","HttpHeaders":{}}"#] {
            assert_eq!(
                parse_docker_config_json(text.as_bytes(), "reg.example/team/image"),
                Err(CredentialsError::Missing("reg.example".into())),
                "{text}"
            );
        }
    }

    #[test]
    fn a_credential_store_keeps_a_registry_under_the_names_that_clients_give_it() {
        for (registry, servers) in [
            ("registry-1.docker.io", vec!["https://index.docker.io/v1/", "docker.io"]),
            ("docker.io", vec!["https://index.docker.io/v1/", "docker.io"]),
            ("reg.example:443", vec!["reg.example:443", "reg.example"]),
            ("reg.example:5000", vec!["reg.example:5000"]),
        ] {
            assert_eq!(docker_servers(registry), servers, "{registry}");
        }
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
