//! Authentication at a registry: answers its challenges with the password, or with a token that it
//! obtains for that password.

use reqwest::header::WWW_AUTHENTICATE;
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;

use super::challenge::{self, Challenge};
use super::client::CLIENT;
use super::{Outgoing, RegistryError, Repository, authority};
use crate::Credentials;
use crate::credentials::canonical_host;

const TOKEN_BYTES: usize = 64 << 10;
const FORM: &str = "application/x-www-form-urlencoded";
/// Host of Docker Hub's token service.
const DOCKER_HUB_TOKENS: &str = "auth.docker.io";

impl Repository<'_> {
    /// Authenticates before the first request ("Determining Support"): a public repository also
    /// answers requests with a wrong password, and the mistake would go unnoticed.
    pub(super) async fn authenticate_first(
        &mut self,
        outgoing: &Outgoing<'_>,
        what: &str,
    ) -> Result<(), RegistryError> {
        // Without credentials there is nothing to verify, and the request would only cost a round
        // trip.
        if self.has_authenticated || self.credentials.is_none() {
            return Ok(());
        }
        let mut url = self.url("")?;
        url.set_path("/v2/");
        let response = self.send(&Outgoing::new(Method::GET, url), None).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.authorize(&response, outgoing, what).await?;
        }
        // Set only after success, so that a failed attempt is repeated with the next request.
        self.has_authenticated = true;
        Ok(())
    }

    /// Obtains the authorization for the first challenge that these credentials can meet.
    pub(super) async fn authorize(
        &mut self,
        response: &Response,
        outgoing: &Outgoing<'_>,
        what: &str,
    ) -> Result<(), RegistryError> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenges: Vec<Challenge> =
            headers.filter_map(|value| value.to_str().ok()).flat_map(Challenge::parse).collect();
        let mut refusal = None;
        for challenge in challenges {
            match challenge {
                Challenge::Basic => {
                    // An identity token is only accepted by a token service; as a password it
                    // would be disclosed in vain.
                    let password =
                        self.credentials.filter(|login| login.identity_token().is_none());
                    let Some(password) = password else { continue };
                    self.authorization = Some(challenge::basic(password));
                    return Ok(());
                }
                Challenge::Bearer { realm, service, scope } => {
                    let url = match self.token_service(&realm) {
                        Ok(url) => url,
                        Err(error) => {
                            refusal = refusal.or(Some(error));
                            continue;
                        }
                    };
                    // Some registries omit the scope from the challenge for `/v2/`, which names
                    // no repository.
                    let scope = scope.unwrap_or_else(|| {
                        format!("repository:{}:{}", self.name, outgoing.actions())
                    });
                    self.authorization = Some(self.token(url, service, &scope, what).await?);
                    return Ok(());
                }
            }
        }
        // A refused token service tells more than that no challenge could be met.
        Err(refusal.unwrap_or_else(|| self.access(what, StatusCode::UNAUTHORIZED)))
    }

    /// Returns the address of the token service that a challenge names, if the credentials may be
    /// sent there.
    fn token_service(&self, realm: &str) -> Result<Url, RegistryError> {
        let foreign =
            || RegistryError::ForeignRealm { host: self.host.clone(), realm: realm.to_owned() };
        let url = Url::parse(realm).map_err(|_| foreign())?;
        let host = authority(&url);
        // The same host on another port is another service: it gets nothing unless tokenHosts
        // lists it.
        let is_own = authority(&self.url("")?) == host
            || canonical_host(&self.host) == "docker.io" && host == DOCKER_HUB_TOKENS;
        // Harbor and others keep the token service on their own host; others, such as GitLab, do
        // not. A URL has no default port, which a person may write.
        let is_listed = self.config.is_some_and(|config| {
            config.token_hosts.iter().any(|name| canonical_host(name) == canonical_host(&host))
        });
        if !(is_own || is_listed) {
            return Err(foreign());
        }
        // A challenge over TLS may still name a plain HTTP realm, where the password would be
        // readable.
        if url.scheme() != "https" && !(url.scheme() == "http" && self.uses_http(&host)) {
            return Err(RegistryError::InsecureRealm {
                host: self.host.clone(),
                realm: realm.to_owned(),
            });
        }
        Ok(url)
    }

    /// Exchanges the credentials, if there are any, for a token (distribution's token
    /// authentication specification).
    async fn token(
        &self,
        mut url: Url,
        service: Option<String>,
        scope: &str,
        what: &str,
    ) -> Result<String, RegistryError> {
        let service = service.map(|service| ("service", service));
        let response = match self.credentials.and_then(Credentials::identity_token) {
            Some(token) => {
                let form = refresh_form(token, service, scope);
                let content = Some((FORM, form.as_bytes()));
                // The token in the form is the credential; no Authorization header accompanies it.
                self.send(&Outgoing { content, ..Outgoing::new(Method::POST, url) }, None).await?
            }
            None => {
                url.query_pairs_mut().extend_pairs(service).append_pair("scope", scope);
                let basic = self.credentials.map(challenge::basic);
                self.send(&Outgoing::new(Method::GET, url), basic.as_deref()).await?
            }
        };
        self.check(&response, &format!("a token for {what}"))?;
        let bytes = self.body(response, "the token", TOKEN_BYTES).await?;
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let token: Token = serde_json::from_slice(&bytes)
            .map_err(|_| self.access(what, StatusCode::UNAUTHORIZED))?;
        // A token that no header can hold would make every later request fail without a clear
        // cause.
        let usable = |token: &String| {
            !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
        };
        // The specification's `access_token` is an alias for clients of OAuth 2.0; either may be
        // present.
        let token = [token.token, token.access_token].into_iter().flatten().find(usable);
        token
            .map(|token| format!("Bearer {token}"))
            .ok_or_else(|| self.access(what, StatusCode::UNAUTHORIZED))
    }
}

/// Returns the form body that exchanges an identity token (distribution's token specification,
/// "Refresh token").
fn refresh_form(token: &str, service: Option<(&str, String)>, scope: &str) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token").extend_pairs(service);
    form.append_pair("client_id", CLIENT).append_pair("scope", scope);
    form.append_pair("refresh_token", token).finish()
}
