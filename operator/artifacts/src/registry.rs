//! Gets an artifact from an OCI registry, and puts one there (OCI distribution specification 1.1,
//! "Pull" and "Push").
//!
//! oci-client drops a failed token request, sends the password to whatever realm a challenge names,
//! and follows redirects with it; so the few requests that are needed are made here, and only its
//! manifest types are used.

mod challenge;
mod download;
mod error;
mod push;
mod referrers;
mod retry_after;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use oci_client::manifest::{OciDescriptor, OciImageManifest, OciManifest};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, RANGE, WWW_AUTHENTICATE};
use reqwest::{Certificate, Client, Method, Response, StatusCode, Url, redirect};
use serde::Deserialize;

use crate::config::RegistryConfig;
use crate::credentials::{asked_at, canonical_host};
use crate::{Credentials, Digest, Logins};
use challenge::Challenge;
pub use error::RegistryError;
pub(crate) use referrers::{Index, Referrer};

const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json";
/// Largest manifest or index that is read, in bytes.
pub const MANIFEST_BYTES: usize = 4 << 20;
const TOKEN_BYTES: usize = 64 << 10;
/// By what name registries and their token services know this client.
const CLIENT: &str = "flashjob-operator";
const FORM: &str = "application/x-www-form-urlencoded";
/// Host at which Docker Hub gives tokens.
const DOCKER_HUB_TOKENS: &str = "auth.docker.io";
/// Redirects that a blob may take, as to the storage behind a registry.
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
    introduced: bool,
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
    /// Media type and bytes of what is sent along.
    content: Option<(&'a str, &'a [u8])>,
    /// Number of the first byte that is wanted (RFC 9110, "Range Requests"), and of the last one;
    /// without that: to the end.
    range: (usize, Option<usize>),
    /// Time for request and answer; None: as for all small requests.
    time: Option<Duration>,
}

impl Outgoing<'_> {
    fn new(method: Method, url: Url) -> Self {
        Self { method, url, accept: None, content: None, range: (0, None), time: None }
    }

    /// Returns the actions that a token for it must allow, where the registry does not say so
    /// itself.
    fn actions(&self) -> &'static str {
        if matches!(self.method, Method::GET | Method::HEAD) { "pull" } else { "pull,push" }
    }
}

impl<'a> Repository<'a> {
    /// The repository of that name at that host.
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
        let (host, name) = (asked_at(host).to_owned(), name.to_owned());
        Ok(Self {
            client,
            config,
            registries,
            host,
            name,
            credentials,
            authorization: None,
            introduced: false,
        })
    }

    /// Fetches a manifest or index by tag or digest, and checks that it is the one.
    ///
    /// # Errors
    /// The registry does not give it, or gives another.
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
        if is_page {
            return Err(page_in_its_place(&what));
        }
        let digest = Digest::of(&bytes);
        if expected.is_some_and(|expected| *expected != digest) {
            return Err(RegistryError::Tampered { what, actual: digest });
        }
        Ok((digest, bytes))
    }

    /// Returns true if another place may be asked instead: this one does not have it, does not
    /// answer, or wants a password that nobody configured.
    pub(crate) fn may_be_passed_over(&self, error: &RegistryError) -> bool {
        match error {
            RegistryError::NotFound { .. } => true,
            RegistryError::Access { .. } => self.credentials.is_none(),
            error => error.is_transient(),
        }
    }

    /// Returns the name of a tag or digest for messages.
    #[must_use]
    pub fn what(&self, reference: &str) -> String {
        let separator = if reference.contains(':') { '@' } else { ':' };
        format!("{}/{}{separator}{reference}", self.host, self.name)
    }

    /// A manifest that has moved within its registry is asked for there as before; elsewhere only
    /// where it cannot be another one, or where the configuration has that registry, and without
    /// the password.
    async fn follow_manifest(
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

    fn url(&self, path: &str) -> Result<Url, RegistryError> {
        let scheme = if self.plain(&self.host) { "http" } else { "https" };
        let url = format!("{scheme}://{}/v2/{}/{path}", self.host, self.name);
        Url::parse(&url).map_err(|error| RegistryError::Configure {
            host: self.host.clone(),
            message: error.to_string(),
        })
    }

    /// Returns true if the configuration says that this very host is spoken to without TLS.
    fn plain(&self, host: &str) -> bool {
        self.registries.iter().any(|config| config.plain_http && config.is_at(host))
    }

    /// Returns true if the configuration has this very host as a registry.
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

    /// Asks once, and a second time with what the challenge asks for.
    async fn ask(&mut self, outgoing: Outgoing<'_>, what: &str) -> Result<Response, RegistryError> {
        self.introduce(&outgoing, what).await?;
        let sent = self.authorization.clone();
        let response = self.send(&outgoing, sent.as_deref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        self.authorize(&response, &outgoing, what).await?;
        // A password that was refused would be refused again, and some registries lock an account
        // for that.
        if self.authorization == sent {
            Ok(response)
        } else {
            self.send(&outgoing, self.authorization.as_deref()).await
        }
    }

    /// Says who asks before anything is asked for ("Determining Support"): a public repository
    /// would be given to a wrong password as to nobody, and the mistake would go unseen.
    async fn introduce(
        &mut self,
        outgoing: &Outgoing<'_>,
        what: &str,
    ) -> Result<(), RegistryError> {
        if self.introduced || self.credentials.is_none() {
            return Ok(());
        }
        let mut url = self.url("")?;
        url.set_path("/v2/");
        let response = self.send(&Outgoing::new(Method::GET, url), None).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.authorize(&response, outgoing, what).await?;
        }
        self.introduced = true;
        Ok(())
    }

    /// Gets what the first challenge that is known asks for.
    async fn authorize(
        &mut self,
        response: &Response,
        outgoing: &Outgoing<'_>,
        what: &str,
    ) -> Result<(), RegistryError> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let mut challenges =
            headers.filter_map(|value| value.to_str().ok()).flat_map(Challenge::parse);
        let authorization = match challenges.next() {
            Some(Challenge::Basic) => {
                let password = self.credentials.filter(|own| own.identity_token().is_none());
                password.map(challenge::basic)
            }
            Some(Challenge::Bearer { realm, service, scope }) => {
                let scope = scope
                    .unwrap_or_else(|| format!("repository:{}:{}", self.name, outgoing.actions()));
                Some(self.token(&realm, service, &scope, what).await?)
            }
            None => None,
        };
        self.authorization =
            Some(authorization.ok_or_else(|| self.access(what, StatusCode::UNAUTHORIZED))?);
        Ok(())
    }

    fn accepted(
        &self,
        response: Response,
        what: &str,
        path: &str,
    ) -> Result<Response, RegistryError> {
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

    fn redirect(&self, response: &Response, what: &str) -> Result<Url, RegistryError> {
        let target = location(response)
            .filter(|location| !location.is_empty())
            .and_then(|location| response.url().join(&location).ok());
        let taken = |target: &Url| {
            let host = authority(target);
            let is_own = host == authority(response.url());
            // What a registry names must not lead this process to itself, its node, or a cloud's
            // metadata.
            let is_outside = is_own || self.is_configured(&host) || !is_internal(target);
            let scheme =
                target.scheme() == "https" || target.scheme() == "http" && self.plain(&host);
            scheme && is_outside
        };
        target.filter(taken).ok_or_else(|| self.redirect_refused(response, what))
    }

    fn redirect_refused(&self, response: &Response, what: &str) -> RegistryError {
        let location = location(response).unwrap_or_default();
        RegistryError::Redirect { host: self.host.clone(), what: what.to_owned(), location }
    }

    /// Exchanges the credentials, if there are any, for a token (distribution's token
    /// authentication specification).
    async fn token(
        &self,
        realm: &str,
        service: Option<String>,
        scope: &str,
        what: &str,
    ) -> Result<String, RegistryError> {
        let foreign =
            || RegistryError::ForeignRealm { host: self.host.clone(), realm: realm.to_owned() };
        let mut url = Url::parse(realm).map_err(|_| foreign())?;
        let host = authority(&url);
        // The same host on another port is another service: it is named under tokenHosts, or gets
        // nothing.
        let own = authority(&self.url("")?) == host
            || canonical_host(&self.host) == "docker.io" && host == DOCKER_HUB_TOKENS;
        let listed = self.config.is_some_and(|config| {
            config.token_hosts.iter().any(|name| name.eq_ignore_ascii_case(&host))
        });
        if !(own || listed) {
            return Err(foreign());
        }
        if url.scheme() != "https" && !(url.scheme() == "http" && self.plain(&host)) {
            return Err(RegistryError::InsecureRealm {
                host: self.host.clone(),
                realm: realm.to_owned(),
            });
        }
        let service = service.map(|service| ("service", service));
        let response = match self.credentials.and_then(Credentials::identity_token) {
            Some(token) => {
                let form = refresh_form(token, service, scope);
                let content = Some((FORM, form.as_bytes()));
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
        let usable =
            |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let token = [token.token, token.access_token].into_iter().flatten().find(usable);
        token
            .map(|token| format!("Bearer {token}"))
            .ok_or_else(|| self.access(what, StatusCode::UNAUTHORIZED))
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
            (first, Some(last)) => request = request.header(RANGE, format!("bytes={first}-{last}")),
        }
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
        let message = match causes().find_map(advice_on_certificate) {
            Some(advice) => advice.to_owned(),
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
        self.read(response, what, limit, &mut bytes).await?;
        Ok(bytes)
    }

    /// Appends what comes, to no more than the limit, whatever the length that was announced.
    async fn read(
        &self,
        mut response: Response,
        what: &str,
        limit: usize,
        bytes: &mut Vec<u8>,
    ) -> Result<(), RegistryError> {
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + chunk.len() > limit {
                return Err(RegistryError::TooLarge { what: what.to_owned(), limit });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(())
    }
}

/// In words what the TLS library has against a server's certificate and says in one name of its
/// own.
fn advice_on_certificate(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let mut inner = cause;
    // One error of input and output may be in another.
    while let Some(within) = inner.downcast_ref::<std::io::Error>().and_then(|of| of.get_ref()) {
        inner = within;
    }
    let refused = match inner.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidCertificate(refused)) => format!("{refused:?}"),
        _ => return None,
    };
    let advices = [
        (
            "UnknownIssuer",
            "the server's certificate is signed by an authority that is not known; set the authority's certificate as caFile of this registry",
        ),
        (
            "NotValidForName",
            "the server's certificate is for another host name; use a name that it has, or give the server another certificate",
        ),
        (
            "CaUsedAsEndEntity",
            "the server presents the certificate of an authority (CA:TRUE) as its own; give it one with basicConstraints=CA:FALSE, as with openssl req -x509 -addext basicConstraints=CA:FALSE, and that one as caFile, or sign one with the authority",
        ),
        (
            "UnsupportedCertVersion",
            "the server's certificate is of version 1, which has no names; make one of version 3 with subjectAltName",
        ),
    ];
    advices.into_iter().find(|(name, _)| refused.contains(name)).map(|(_, advice)| advice)
}

/// Returns the form that exchanges an identity token (distribution's token specification, "Refresh
/// token").
fn refresh_form(token: &str, service: Option<(&str, String)>, scope: &str) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token").extend_pairs(service);
    form.append_pair("client_id", CLIENT).append_pair("scope", scope);
    form.append_pair("refresh_token", token).finish()
}

fn client(config: Option<&RegistryConfig>) -> Result<Client, String> {
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(30))
        .timeout(Duration::from_secs(300))
        .user_agent(CLIENT);
    if let Some(file) = config.and_then(|config| config.ca_file.as_ref()) {
        let pem =
            std::fs::read(file).map_err(|error| format!("caFile {}: {error}", file.display()))?;
        // Editors leave a byte order mark, before which nothing is read.
        let pem = pem.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&pem);
        let certificates = Certificate::from_pem_bundle(pem)
            .map_err(|error| format!("caFile {}: {error}", file.display()))?;
        if certificates.is_empty() {
            return Err(format!("caFile {} holds no certificate", file.display()));
        }
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|error| error.to_string())
}

#[cfg(feature = "fuzzing")]
/// Reads a challenge, and returns whether anything of it can be met.
pub fn challenge_is_read(header: &str) -> bool {
    !Challenge::parse(header).is_empty()
}

fn page_in_its_place(what: &str) -> RegistryError {
    let message = "a page for people came in its place: a login page, or a proxy on the way; \
                   see what answers under this address";
    RegistryError::Form { what: what.to_owned(), message: message.to_owned() }
}

/// Returns true if the response is a page for people.
fn is_page(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"))
}

/// AWS serves its metadata at a unique local address, too.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Returns true if an address is this machine's own, its link's, or one by which clouds serve their
/// metadata.
fn is_internal(url: &Url) -> bool {
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
            let name = name.trim_end_matches('.');
            name == "localhost"
                || name.ends_with(".localhost")
                || name == "metadata.google.internal"
        }
        None => true,
    }
}

fn location(response: &Response) -> Option<String> {
    response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Reads an image manifest. An index of several is none.
///
/// # Errors
/// The bytes are something else.
pub fn image_manifest(bytes: &[u8], what: &str) -> Result<OciImageManifest, RegistryError> {
    let form = |message: String| RegistryError::Form { what: what.to_owned(), message };
    match serde_json::from_slice(bytes) {
        Ok(OciManifest::Image(manifest)) => Ok(manifest),
        Ok(OciManifest::ImageIndex(_)) => Err(form(
            "it is an index of several images; name the one manifest that is meant".to_owned(),
        )),
        Err(error) => Err(form(format!("its manifest cannot be read: {error}"))),
    }
}

/// Size and digest of a layer, which is fetched only if it is small enough.
///
/// # Errors
/// It is larger than the limit, or the manifest names no size or digest.
pub fn layer_of(layer: &OciDescriptor, what: &str, limit: usize) -> Result<Layer, RegistryError> {
    let form = |message: String| RegistryError::Form { what: what.to_owned(), message };
    let size = usize::try_from(layer.size)
        .map_err(|_| form(format!("its layer has size {}", layer.size)))?;
    if size > limit {
        return Err(RegistryError::TooLarge { what: what.to_owned(), limit });
    }
    let digest =
        layer.digest.parse().map_err(|error: crate::InvalidDigest| form(error.to_string()))?;
    Ok(Layer { digest, size })
}
