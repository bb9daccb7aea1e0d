//! Follows redirects of a registry, as far as that is safe.

use std::net::{IpAddr, Ipv6Addr};

use reqwest::header::LOCATION;
use reqwest::{Method, Response, Url};

use super::{MANIFEST_TYPES, Outgoing, REDIRECTS, RegistryError, Repository, authority};
use crate::Digest;

/// AWS serves instance metadata at a unique local address, too.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

impl Repository<'_> {
    /// Follows redirects of a manifest. Within the registry the request keeps its credentials.
    /// Elsewhere it is sent without the password, and only if the digest is known, or if the
    /// configuration lists that registry.
    pub(super) async fn follow_manifest(
        &self,
        mut response: Response,
        expected: Option<&Digest>,
        what: &str,
    ) -> Result<Response, RegistryError> {
        for _ in 0..REDIRECTS {
            if !response.status().is_redirection() {
                break;
            }
            let target = self.redirect(&response, what)?;
            let host = authority(&target);
            let is_own = host == authority(&self.url("")?);
            // Without a digest, the other host would decide what the tag means.
            if !(is_own || expected.is_some() || self.is_configured(&host)) {
                return Err(self.redirect_refused(&response, what));
            }
            let authorization = self.authorization.as_deref().filter(|_| is_own);
            let outgoing =
                Outgoing { accept: Some(MANIFEST_TYPES), ..Outgoing::new(Method::GET, target) };
            response = self.send(&outgoing, authorization).await?;
        }
        if response.status().is_redirection() {
            return Err(self.redirect_refused(&response, what));
        }
        self.check(&response, what)?;
        Ok(response)
    }

    pub(super) fn redirect(&self, response: &Response, what: &str) -> Result<Url, RegistryError> {
        let target = location(response)
            .filter(|location| !location.is_empty())
            .and_then(|location| response.url().join(&location).ok());
        let is_allowed = |target: &Url| {
            let host = authority(target);
            let is_own = host == authority(response.url());
            // A redirect must not lead to this process, its node, or a cloud's metadata service.
            let is_outside = is_own || self.is_configured(&host) || !is_internal(target);
            // A DNS name may resolve to an internal address; https still requires a certificate
            // for the name.
            let scheme =
                target.scheme() == "https" || target.scheme() == "http" && self.uses_http(&host);
            scheme && is_outside
        };
        target.filter(is_allowed).ok_or_else(|| self.redirect_refused(response, what))
    }

    pub(super) fn redirect_refused(&self, response: &Response, what: &str) -> RegistryError {
        let location = location(response).unwrap_or_default();
        RegistryError::Redirect { host: self.host.clone(), what: what.to_owned(), location }
    }
}

/// Returns true for loopback and link-local addresses, and for those at which clouds serve
/// instance metadata.
fn is_internal(url: &Url) -> bool {
    // An IPv4-mapped address, such as ::ffff:127.0.0.1, reaches the same host as the IPv4 address.
    let of = |address: IpAddr| match address.to_canonical() {
        IpAddr::V4(address) => {
            address.is_loopback() || address.is_link_local() || address.is_unspecified()
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified()
        }
    };
    match url.host() {
        Some(url::Host::Ipv4(address)) => of(address.into()),
        Some(url::Host::Ipv6(address)) => of(address.into()) || address == METADATA_V6,
        Some(url::Host::Domain(name)) => {
            // The trailing dot of a fully qualified name does not change the host.
            let name = name.trim_end_matches('.');
            // Names below localhost are loopback, too (RFC 6761, section 6.3).
            name == "localhost"
                || name.ends_with(".localhost")
                || name == "metadata.google.internal"
        }
        None => true,
    }
}

pub(super) fn location(response: &Response) -> Option<String> {
    response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned)
}
