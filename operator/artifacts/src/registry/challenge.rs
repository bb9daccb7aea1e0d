//! Parses authentication challenges of a registry in `WWW-Authenticate` (RFC 9110, section
//! 11.6.1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_auth::{ChallengeParser, ChallengeRef};

use crate::Credentials;

/// Authentication scheme that a registry demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// With user name and password.
    Basic,
    /// With a token from `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// Returns the supported challenges of one header, in their order. A header may hold several
    /// challenges, and some of unknown schemes.
    pub fn parse(header: &str) -> Vec<Self> {
        // Nothing after a syntax error can be parsed.
        let challenges = ChallengeParser::new(header).map_while(Result::ok);
        challenges.filter_map(|challenge| Self::of(&challenge)).collect()
    }

    fn of(challenge: &ChallengeRef<'_>) -> Option<Self> {
        if challenge.scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !challenge.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameter = |key: &str| {
            let mut parameters = challenge.params.iter();
            let pair = parameters.find(|(name, _)| name.eq_ignore_ascii_case(key));
            pair.map(|(_, value)| value.to_unescaped())
        };
        Some(Self::Bearer {
            realm: parameter("realm")?,
            service: parameter("service"),
            scope: parameter("scope").filter(|scope| !scope.is_empty()),
        })
    }
}

/// Returns the value of `Authorization` for user name and password (RFC 7617).
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
        let header = concat!(
            r#"Bearer realm="https://harbor.example/service/token","#,
            r#"service="harbor-registry",scope="repository:a/b:pull,push""#
        );
        let expected = Challenge::Bearer {
            realm: "https://harbor.example/service/token".into(),
            service: Some("harbor-registry".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        assert_eq!(Challenge::parse(header), [expected]);
    }

    #[test]
    fn basic_is_basic_and_anything_else_is_nothing() {
        assert_eq!(Challenge::parse(r#"basic realm="x""#), [Challenge::Basic]);
        assert_eq!(Challenge::parse("Basic"), [Challenge::Basic]);
        for header in
            ["Negotiate", "Bearer service=x", "", ",,", "Digest realm=\"a\", nonce=\"b\""]
        {
            assert_eq!(Challenge::parse(header), [], "{header}");
        }
    }

    #[test]
    fn what_can_be_met_is_found_wherever_it_stands_in_the_header() {
        let header =
            r#"Negotiate, NTLM, Bearer realm="https://a/t",service=b, Basic realm="c, d""#;
        let bearer = Challenge::Bearer {
            realm: "https://a/t".into(),
            service: Some("b".into()),
            scope: None,
        };
        assert_eq!(Challenge::parse(header), [bearer, Challenge::Basic]);
    }
}
