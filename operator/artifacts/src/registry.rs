//! Pulls artifacts from an OCI registry, and pushes them to one (OCI distribution specification
//! 1.1, "Pull" and "Push").
//!
//! oci-client drops a failed token request, sends the password to whatever realm a challenge
//! names, and sends it along when it follows a redirect. So this module sends the few requests
//! that are needed itself, and uses only oci-client's manifest types.

mod answer;
mod challenge;
mod claim;
mod client;
mod download;
mod error;
mod proxies;
mod push;
mod receive;
mod redirects;
mod referrers;
mod retry_after;
mod server_certificate;
#[cfg(test)]
mod tests;
mod tokens;

use std::time::{Duration, SystemTime};

use oci_client::manifest::{OciDescriptor, OciImageManifest, OciManifest};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RANGE};
use reqwest::{Client, Method, Response, StatusCode, Url};

use crate::config::RegistryConfig;
use crate::credentials::api_host;
use crate::{Credentials, Digest, Logins};
pub(crate) use answer::{none_if_absent, read};
pub(crate) use claim::{Claim, PREDICATE, SIMPLE};
use client::{advice_on_certificate, client};
pub use error::RegistryError;
pub(crate) use receive::{Forward, Receive};
pub(crate) use referrers::{
    CANDIDATES, Index, PAGES, Referrer, Referrers, SIGNATURE_BYTES, SIGNATURES,
};

const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, \
                              application/vnd.docker.distribution.manifest.v2+json, \
                              application/vnd.oci.image.index.v1+json, \
                              application/vnd.docker.distribution.manifest.list.v2+json";
/// Largest manifest or index that is read, in bytes.
pub const MANIFEST_BYTES: usize = 4 << 20;
/// Maximum number of redirects of a blob, for example to the storage behind a registry.
const REDIRECTS: usize = 5;

/// One repository in one registry.
pub struct Repository<'a> {
    client: Client,
    config: Option<&'a RegistryConfig>,
    registries: &'a [RegistryConfig],
    host: String,
    name: String,
    credentials: Option<&'a Credentials>,
    authorization: Option<String>,
    has_authenticated: bool,
}

/// Descriptor of a blob, as a manifest has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Its size, in bytes.
    pub size: usize,
}

/// One request.
struct Outgoing<'a> {
    method: Method,
    url: Url,
    accept: Option<&'a str>,
    /// Media type and bytes of the request's body.
    content: Option<(&'a str, &'a [u8])>,
    /// First and last byte of the requested range (RFC 9110, "Range Requests"); without a last
    /// byte, the range extends to the end.
    range: (usize, Option<usize>),
    /// Timeout of the request; None: the timeout of small requests.
    time: Option<Duration>,
}

impl Outgoing<'_> {
    fn new(method: Method, url: Url) -> Self {
        Self { method, url, accept: None, content: None, range: (0, None), time: None }
    }

    /// Returns the actions that the token for this request must allow, if the registry does not
    /// name them itself.
    fn actions(&self) -> &'static str {
        if matches!(self.method, Method::GET | Method::HEAD) { "pull" } else { "pull,push" }
    }
}

impl<'a> Repository<'a> {
    /// Creates a client for the repository of that name at that host.
    ///
    /// # Errors
    /// The configuration of the registry cannot be used.
    pub fn new(
        host: &str,
        name: &str,
        registries: &'a [RegistryConfig],
        logins: &'a Logins,
    ) -> Result<Self, RegistryError> {
        let config = registries.iter().find(|registry| registry.is_at(host));
        let client = client(config)
            .map_err(|message| RegistryError::Configure { host: host.to_owned(), message })?;
        let credentials = logins.of(host);
        let (host, name) = (api_host(host).to_owned(), name.to_owned());
        Ok(Self {
            client,
            config,
            registries,
            host,
            name,
            credentials,
            authorization: None,
            has_authenticated: false,
        })
    }

    /// Fetches a manifest or index by tag or digest, and checks its digest.
    ///
    /// # Errors
    /// The registry does not return the manifest, or returns another one.
    pub async fn manifest_bytes(
        &mut self,
        reference: &str,
        expected: Option<&Digest>,
        limit: usize,
    ) -> Result<(Digest, Vec<u8>), RegistryError> {
        let what = self.what(reference);
        let response =
            self.get(&format!("manifests/{reference}"), &what, Some(MANIFEST_TYPES)).await?;
        let response = self.follow_manifest(response, expected, &what).await?;
        let is_page = is_page(&response);
        let bytes = self.body(response, &what, limit).await?;
        // This precedes the comparison of digests, which would report a login page as tampering.
        if is_page {
            return Err(html_instead(&what));
        }
        // The header Docker-Content-Digest is only what the server claims; the digest of the
        // received bytes decides.
        let digest = Digest::of(&bytes);
        if expected.is_some_and(|expected| *expected != digest) {
            return Err(RegistryError::Tampered { what, actual: digest });
        }
        Ok((digest, bytes))
    }

    /// Returns true if the next place may be tried: this one does not have the object, does not
    /// answer, or requires a password and none is configured.
    pub(crate) fn allows_fallback(&self, error: &RegistryError) -> bool {
        match error {
            RegistryError::NotFound { .. } => true,
            RegistryError::Access { .. } => self.credentials.is_none(),
            // Other bytes under a known digest are final: a tampered mirror must be noticed and
            // not passed over.
            error => error.is_transient(),
        }
    }

    /// Returns the full name of a tag or digest for messages.
    #[must_use]
    pub fn what(&self, reference: &str) -> String {
        // Only a digest contains a colon; the distribution specification allows none in a tag.
        let separator = if reference.contains(':') { '@' } else { ':' };
        format!("{}/{}{separator}{reference}", self.host, self.name)
    }

    fn url(&self, path: &str) -> Result<Url, RegistryError> {
        let scheme = if self.uses_http(&self.host) { "http" } else { "https" };
        let url = format!("{scheme}://{}/v2/{}/{path}", self.host, self.name);
        Url::parse(&url).map_err(|error| RegistryError::Configure {
            host: self.host.clone(),
            message: error.to_string(),
        })
    }

    /// Returns true if the configuration demands HTTP without TLS for exactly this host.
    fn uses_http(&self, host: &str) -> bool {
        self.registries.iter().any(|config| config.plain_http && config.is_at(host))
    }

    /// Returns true if the configuration lists exactly this host as a registry.
    fn is_configured(&self, host: &str) -> bool {
        self.registries.iter().any(|config| config.is_at(host))
    }

    async fn get(
        &mut self,
        path: &str,
        what: &str,
        accept: Option<&str>,
    ) -> Result<Response, RegistryError> {
        let outgoing = Outgoing { accept, ..Outgoing::new(Method::GET, self.url(path)?) };
        let response = self.ask(outgoing, what).await?;
        self.accepted(response, what, path)
    }

    /// Sends the request, and sends it again with the authorization that a challenge demands.
    async fn ask(
        &mut self,
        outgoing: Outgoing<'_>,
        what: &str,
    ) -> Result<Response, RegistryError> {
        self.authenticate_first(&outgoing, what).await?;
        let sent = self.authorization.clone();
        let response = self.send(&outgoing, sent.as_deref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        // A token is valid for one scope and for minutes, so a 401 can also follow requests that
        // succeeded.
        self.authorize(&response, &outgoing, what).await?;
        // Do not send a rejected password again: some registries lock an account for that.
        if self.authorization == sent {
            Ok(response)
        } else {
            self.send(&outgoing, self.authorization.as_deref()).await
        }
    }

    fn accepted(
        &self,
        response: Response,
        what: &str,
        path: &str,
    ) -> Result<Response, RegistryError> {
        // Registries redirect manifests that have moved; the caller decides whether the target may
        // be used.
        if response.status().is_redirection() && path.starts_with("manifests/") {
            return Ok(response);
        }
        if response.status().is_redirection() {
            return Err(self.redirect_refused(&response, what));
        }
        self.check(&response, what)?;
        Ok(response)
    }

    fn check(&self, response: &Response, what: &str) -> Result<(), RegistryError> {
        let (host, what) = (self.host.clone(), what.to_owned());
        match response.status() {
            status if status.is_success() => Ok(()),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                Err(self.access(&what, status))
            }
            // No other status means absence: an artifact whose signatures cannot be read must not
            // count as unsigned.
            StatusCode::NOT_FOUND => Err(self.has_no(&what)),
            status => {
                let retry_after = retry_after::read(response.headers(), SystemTime::now());
                Err(RegistryError::Status { host, what, status, retry_after })
            }
        }
    }

    pub(crate) fn has_no(&self, what: &str) -> RegistryError {
        RegistryError::NotFound { host: self.host.clone(), what: what.to_owned() }
    }

    fn access(&self, what: &str, status: StatusCode) -> RegistryError {
        RegistryError::Access { host: self.host.clone(), what: what.to_owned(), status }
    }

    async fn send(
        &self,
        outgoing: &Outgoing<'_>,
        authorization: Option<&str>,
    ) -> Result<Response, RegistryError> {
        let mut request = self.client.request(outgoing.method.clone(), outgoing.url.clone());
        if let Some(accept) = outgoing.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        match outgoing.range {
            (0, None) => {}
            (first, None) => request = request.header(RANGE, format!("bytes={first}-")),
            (first, Some(last)) => {
                request = request.header(RANGE, format!("bytes={first}-{last}"))
            }
        }
        // The client's own timeout of 300 s is for small requests; a blob on a slow line takes
        // longer.
        if let Some(time) = outgoing.time {
            request = request.timeout(time);
        }
        if let Some((content_type, content)) = outgoing.content {
            request = request.header(CONTENT_TYPE, content_type).body(content.to_vec());
        }
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &reqwest::Error) -> RegistryError {
        let first: &(dyn std::error::Error + 'static) = error;
        let causes = || std::iter::successors(Some(first), |error| error.source());
        // reqwest puts the reason several sources deep; its own text only names the URL.
        let message = match causes().find_map(advice_on_certificate) {
            Some(advice) => advice,
            None => causes().map(ToString::to_string).collect::<Vec<_>>().join(": "),
        };
        RegistryError::Reach { host: self.host.clone(), message }
    }

    async fn body(
        &self,
        response: Response,
        what: &str,
        limit: usize,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        self.receive(response, what, limit, &mut bytes).await?;
        Ok(bytes)
    }

    /// Receives a body up to the limit, whatever length the server announced.
    async fn receive(
        &self,
        mut response: Response,
        what: &str,
        limit: usize,
        into: &mut impl Receive,
    ) -> Result<(), RegistryError> {
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            // Content-Length may be absent or wrong, so the bytes that arrive are counted.
            if into.at() + chunk.len() > limit {
                return Err(RegistryError::TooLarge { what: what.to_owned(), limit });
            }
            into.take(&chunk).await;
        }
        Ok(())
    }
}

#[cfg(feature = "fuzzing")]
/// Parses a challenge, and returns true if it has one that can be met.
pub fn challenge_is_read(header: &str) -> bool {
    !challenge::Challenge::parse(header).is_empty()
}

fn html_instead(what: &str) -> RegistryError {
    let message = "the server returned an HTML page instead, such as a login page or the page of \
                   a proxy; check what answers at this address";
    RegistryError::Form { what: what.to_owned(), message: message.to_owned() }
}

/// Returns true if the response is an HTML page.
fn is_page(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"))
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Parses an image manifest. An index is an error.
///
/// # Errors
/// The bytes are not an image manifest.
pub fn image_manifest(bytes: &[u8], what: &str) -> Result<OciImageManifest, RegistryError> {
    let form = |message: String| RegistryError::Form { what: what.to_owned(), message };
    match serde_json::from_slice(bytes) {
        Ok(OciManifest::Image(manifest)) => Ok(manifest),
        Ok(OciManifest::ImageIndex(_)) => Err(form(
            "it is an index of several images; give the digest of one manifest".to_owned(),
        )),
        Err(error) => Err(form(format!("its manifest cannot be read: {error}"))),
    }
}

/// Returns the size and digest of a layer, if it does not exceed the limit.
///
/// # Errors
/// The layer is larger than the limit, or the manifest has no valid size or digest.
pub fn layer_of(layer: &OciDescriptor, what: &str, limit: usize) -> Result<Layer, RegistryError> {
    let form = |message: String| RegistryError::Form { what: what.to_owned(), message };
    // The image specification's size is a signed 64-bit number, so a manifest can hold a negative
    // one.
    let size = usize::try_from(layer.size)
        .map_err(|_| form(format!("its layer has the invalid size {}", layer.size)))?;
    // The manifest is small, so a layer that is too large is rejected before any of it is fetched.
    if size > limit {
        return Err(RegistryError::TooLarge { what: what.to_owned(), limit });
    }
    let digest =
        layer.digest.parse().map_err(|error: crate::InvalidDigest| form(error.to_string()))?;
    Ok(Layer { digest, size })
}
