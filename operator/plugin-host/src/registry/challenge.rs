//! Reads what a registry asks for in `WWW-Authenticate` (RFC 9110, section 11.6.1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Credentials;

/// How a registry wants to be told who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// With user name and password.
    Basic,
    /// With a token from `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    pub fn parse(header: &str) -> Option<Self> {
        let (scheme, parameters) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameter = |wanted: &str| {
            parameters_of(parameters)
                .into_iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value)
        };
        Some(Self::Bearer {
            realm: parameter("realm")?,
            service: parameter("service"),
            scope: parameter("scope").filter(|scope| !scope.is_empty()),
        })
    }
}

/// `name="value", name=value`; a comma inside quotes separates nothing.
fn parameters_of(text: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([',', ' ']).to_owned();
        let (value, remaining) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        parameters.push((name, value.trim().to_owned()));
        rest = remaining;
    }
    parameters
}

/// The value of `Authorization` for user name and password (RFC 7617).
pub(super) fn basic(credentials: &Credentials) -> String {
    format!(
        "Basic {}",
        STANDARD.encode(format!("{}:{}", credentials.username, credentials.password))
    )
}

#[cfg(test)]
mod tests {
    use super::Challenge;

    #[test]
    fn a_bearer_challenge_is_read_with_its_quoted_commas() {
        let header = r#"Bearer realm="https://harbor.example/service/token",service="harbor-registry",scope="repository:a/b:pull,push""#;
        let expected = Challenge::Bearer {
            realm: "https://harbor.example/service/token".into(),
            service: Some("harbor-registry".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        assert_eq!(Challenge::parse(header), Some(expected));
    }

    #[test]
    fn basic_is_basic_and_anything_else_is_nothing() {
        assert_eq!(Challenge::parse(r#"basic realm="x""#), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse("Bearer service=x"), None);
    }
}
