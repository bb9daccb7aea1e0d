//! Lists the referrers of a manifest in its repository. This module does not trust the answers; it
//! only bounds their size.

use reqwest::header::{HeaderMap, LINK};
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::answer::{none_if_absent, read};
use super::{Outgoing, RegistryError, Repository, authority};
use crate::Digest;
use crate::trust::BUNDLE;

/// Maximum number of signatures of one manifest that are examined.
pub(crate) const SIGNATURES: usize = 64;
/// Maximum size of one signature, of the manifest around it, and of one page of a list, in bytes.
pub(crate) const SIGNATURE_BYTES: usize = 1 << 20;
/// Media type of a bundle, percent-encoded for a query: a plus sign would mean a space.
const BUNDLE_IN_QUERY: &str = "application%2Fvnd.dev.sigstore.bundle.v0.3%2Bjson";
const PAGES: usize = 16;

/// Image index, reduced to its list of referrers.
#[derive(Deserialize)]
pub(crate) struct Index {
    /// None: no list at all, which some registries without the referrers API return.
    #[serde(default)]
    pub manifests: Option<Vec<Referrer>>,
}

/// Manifest that may refer to another one.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Referrer {
    pub digest: String,
    #[serde(default)]
    pub artifact_type: Option<String>,
}

impl Repository<'_> {
    /// Lists the referrers of a manifest. The artifact type in the list only affects the order:
    /// some registries put the config's type there, or nothing.
    pub(crate) async fn referrers(
        &mut self,
        digest: &Digest,
    ) -> Result<Vec<Referrer>, RegistryError> {
        // Other referrers, such as SBOMs, can outnumber the signatures; the filter keeps them out
        // of the list.
        let bundles = format!("referrers/{digest}?artifactType={BUNDLE_IN_QUERY}");
        let mut listed = self.listed(bundles, digest).await?;
        // A registry that does not recognize a bundle's type filters the bundle out.
        if listed.as_ref().is_some_and(Vec::is_empty) {
            listed = self.listed(format!("referrers/{digest}"), digest).await?;
        }
        let mut referrers = match listed {
            Some(referrers) => referrers,
            // The tag is only read if the API is missing: with the API, clients do not write it
            // (section "Pushing Manifests with Subject").
            None => self.referrers_by_tag(digest).await?,
        };
        // Only the first of them are examined, so those that say that they are bundles come first.
        referrers.sort_by_key(|of| of.artifact_type.as_deref() != Some(BUNDLE));
        Ok(referrers)
    }

    /// Requests the list of referrers (OCI distribution specification 1.1, "Listing Referrers").
    /// None: the registry does not support it.
    async fn listed(
        &mut self,
        path: String,
        digest: &Digest,
    ) -> Result<Option<Vec<Referrer>>, RegistryError> {
        let what = format!("the list of referrers of {digest}");
        let mut referrers = Vec::new();
        let mut next = Some(path);
        for page in 0..PAGES {
            let Some(path) = next.take().filter(|_| referrers.len() < SIGNATURES) else { break };
            let outgoing = Outgoing {
                accept: Some("application/vnd.oci.image.index.v1+json"),
                ..Outgoing::new(Method::GET, self.url(&path)?)
            };
            let response = self.ask(outgoing, &what).await?;
            // An error on a later page is not missing support: that page may have the signature.
            if page == 0 && knows_no_referrers(response.status()) {
                return Ok(None);
            }
            let response = self.accepted(response, &what, &path)?;
            // RFC 8288 Link headers name the next page (distribution specification 1.1, "Listing
            // Referrers").
            next = self.next_page(response.headers(), &what)?;
            let bytes = self.body(response, &what, SIGNATURE_BYTES).await?;
            // Anything that is not such a list comes from a server that does not support the API,
            // such as an HTML page or an empty answer.
            let list =
                serde_json::from_slice(&bytes).ok().and_then(|index: Index| index.manifests);
            match list {
                Some(list) => referrers.extend(list),
                // The first page decides whether the API exists; after it, a malformed page may
                // hide a signature.
                None if page == 0 => return Ok(None),
                None => return Err(broken_list(&what)),
            }
        }
        Ok(Some(referrers))
    }

    /// Reads the referrers' tag (same specification, "Referrers Tag Schema"), for registries
    /// without the API.
    async fn referrers_by_tag(&mut self, digest: &Digest) -> Result<Vec<Referrer>, RegistryError> {
        let tag = format!("sha256-{}", digest.hex());
        let Some((_, bytes)) =
            none_if_absent(self.manifest_bytes(&tag, None, SIGNATURE_BYTES).await)?
        else {
            return Ok(Vec::new());
        };
        Ok(read::<Index>(&bytes, &self.what(&tag))?.manifests.unwrap_or_default())
    }

    /// Returns the path of the list's next page in this repository. A link to anywhere else is an
    /// error.
    fn next_page(&self, headers: &HeaderMap, what: &str) -> Result<Option<String>, RegistryError> {
        let links = headers.get(LINK).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let next = links
            .split(',')
            .find(|link| link.contains("rel=\"next\"") || link.contains("rel=next"));
        let Some(target) = next
            .and_then(|link| link.split_once('<')?.1.split_once('>'))
            .map(|(target, _)| target)
        else {
            return Ok(None);
        };
        // The next request carries the credentials, so the link must stay in this repository.
        let refused = || RegistryError::Redirect {
            host: self.host.clone(),
            what: what.to_owned(),
            location: target.to_owned(),
        };
        let base = self.url("referrers/")?;
        let url = base.join(target).map_err(|_| refused())?;
        let same = url.scheme() == base.scheme() && authority(&url) == authority(&base);
        let rest = url
            .path()
            .strip_prefix(&format!("/v2/{}/", self.name))
            .filter(|rest| same && rest.starts_with("referrers/"));
        let rest = rest.ok_or_else(refused)?;
        Ok(Some(url.query().map_or_else(|| rest.to_owned(), |query| format!("{rest}?{query}"))))
    }
}

/// Returns true for the statuses with which registries, and proxies in front of them, answer if
/// they do not support the referrers API.
fn knows_no_referrers(status: StatusCode) -> bool {
    status.is_redirection()
        || matches!(
            status,
            StatusCode::BAD_REQUEST
                | StatusCode::NOT_FOUND
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::NOT_ACCEPTABLE
                | StatusCode::NOT_IMPLEMENTED
        )
}

fn broken_list(what: &str) -> RegistryError {
    let message = "one of its pages is not a list".to_owned();
    RegistryError::Form { what: what.to_owned(), message }
}
