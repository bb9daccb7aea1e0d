//! Kinds of authentication of a registry, and the credentials that it gets.

use flashjob_host_tests::front::Answer;
use flashjob_host_tests::tokens::{PATH, TokenService, asked_repository};
use flashjob_plugin_host::Credentials;
use flashjob_testbed::registry::{PASSWORD, USER};
use serde_json::json;

/// `robot:secret-of-the-robot`.
pub const RIGHT: &str = "Basic cm9ib3Q6c2VjcmV0LW9mLXRoZS1yb2JvdA==";

/// Authentication that a registry demands, and the credentials that it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// No authentication, and no credentials are configured.
    Open,
    /// No authentication, and credentials are configured.
    OpenWithCredentials,
    /// Its repositories are public, but it demands authentication, and the password is wrong.
    PublicWrong,
    Password,
    PasswordWrong,
    PasswordMissing,
    Token,
    /// The response has `access_token` instead of `token`.
    TokenByOldName,
    /// The challenge has no scope, like Harbor's.
    TokenWithoutScope,
    TokenWrong,
    TokenMissing,
    TokenExpired,
    /// The token is for another repository.
    TokenRefused,
    /// The token service is on another host, which is not listed.
    TokenForeign,
    TokenForeignListed,
}

pub const AUTHS: [Auth; 15] = [
    Auth::Open,
    Auth::OpenWithCredentials,
    Auth::PublicWrong,
    Auth::Password,
    Auth::PasswordWrong,
    Auth::PasswordMissing,
    Auth::Token,
    Auth::TokenByOldName,
    Auth::TokenWithoutScope,
    Auth::TokenWrong,
    Auth::TokenMissing,
    Auth::TokenExpired,
    Auth::TokenRefused,
    Auth::TokenForeign,
    Auth::TokenForeignListed,
];

impl Auth {
    pub fn credentials(self) -> Option<Credentials> {
        let password = match self {
            Self::Open | Self::PasswordMissing | Self::TokenMissing => return None,
            Self::PublicWrong | Self::PasswordWrong | Self::TokenWrong => "wrong",
            _ => PASSWORD,
        };
        Some(Credentials { username: USER.to_owned(), password: password.to_owned() })
    }

    pub fn error(self) -> Option<&'static str> {
        match self {
            Self::PublicWrong | Self::PasswordWrong | Self::PasswordMissing => {
                Some("AccessDenied")
            }
            Self::TokenWrong | Self::TokenMissing | Self::TokenExpired | Self::TokenRefused => {
                Some("AccessDenied")
            }
            Self::TokenForeign => Some("TokenServiceRefused"),
            _ => None,
        }
    }

    /// Returns the response of the front itself: tokens, and the challenge of a registry with
    /// public repositories.
    pub fn answer(
        self,
        tokens: &TokenService,
        url: &str,
        path: &str,
        authorization: Option<&str>,
    ) -> Option<Answer> {
        if self == Self::PublicWrong && path == "/v2/" {
            return Some(
                Answer::new(401, "")
                    .with("www-authenticate", format!("Bearer realm=\"{url}{PATH}\"")),
            );
        }
        if !path.starts_with(PATH) {
            return None;
        }
        if authorization != Some(RIGHT) {
            return Some(Answer::new(401, ""));
        }
        let Some(repository) = asked_repository(path) else { return Some(Answer::new(400, "")) };
        let repository = if self == Self::TokenRefused { "flashjob/other" } else { &repository };
        let token = tokens.token(repository, self == Self::TokenExpired).expect("signed");
        let name = if self == Self::TokenByOldName { "access_token" } else { "token" };
        Some(Answer::new(200, json!({name: token}).to_string()))
    }
}
