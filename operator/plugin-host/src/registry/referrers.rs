//! Lists what refers to a manifest in its repository. What comes is not believed here, only bounded.

use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;

use super::{RegistryError, Repository, authority};
use crate::Digest;
use crate::source::{SIGNATURE_BYTES, SIGNATURES, found, read};
use crate::trust::BUNDLE;

/// The same for a query: a plus sign would be a blank.
const BUNDLE_IN_QUERY: &str = "application%2Fvnd.dev.sigstore.bundle.v0.3%2Bjson";
const PAGES: usize = 16;

/// An image index, as far as it lists what refers to a manifest.
#[derive(Deserialize)]
pub(crate) struct Index {
    #[serde(default)]
    pub manifests: Vec<Referrer>,
}

/// A manifest that may refer to another.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Referrer {
    pub digest: String,
    #[serde(default)]
    pub artifact_type: Option<String>,
}

impl Repository<'_> {
    /// What may be a bundle that refers to a manifest.
    pub async fn referrers(&mut self, digest: &Digest) -> Result<Vec<Referrer>, RegistryError> {
        match found(self.listed(digest).await)? {
            Some(referrers) => Ok(referrers),
            None => self.referrers_by_tag(digest).await,
        }
    }

    /// OCI distribution specification 1.1, "Listing Referrers".
    async fn listed(&mut self, digest: &Digest) -> Result<Vec<Referrer>, RegistryError> {
        let what = format!("the list of referrers of {digest}");
        let mut referrers = Vec::new();
        let mut next = Some(format!("referrers/{digest}?artifactType={BUNDLE_IN_QUERY}"));
        for _ in 0..PAGES {
            let Some(path) = next.take().filter(|_| referrers.len() < SIGNATURES) else { break };
            let response =
                self.get(&path, &what, Some("application/vnd.oci.image.index.v1+json")).await?;
            next = self.next_page(response.headers(), &what)?;
            let bytes = self.body(response, &what, SIGNATURE_BYTES).await?;
            referrers.extend(
                read::<Index>(&bytes, &what)?
                    .manifests
                    .into_iter()
                    .filter(|of| of.artifact_type.as_deref() == Some(BUNDLE)),
            );
        }
        Ok(referrers)
    }

    /// The same, "Referrers Tag Schema": for registries without that list.
    async fn referrers_by_tag(&mut self, digest: &Digest) -> Result<Vec<Referrer>, RegistryError> {
        let tag = format!("sha256-{}", digest.hex());
        let Some((_, bytes)) = found(self.manifest_bytes(&tag, None, SIGNATURE_BYTES).await)?
        else {
            return Ok(Vec::new());
        };
        Ok(read::<Index>(&bytes, &self.what(&tag))?.manifests)
    }

    /// Where the list goes on, as a path in this repository: nowhere else is asked.
    fn next_page(&self, headers: &HeaderMap, what: &str) -> Result<Option<String>, RegistryError> {
        let links = headers.get(LINK).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let next = links
            .split(',')
            .find(|link| link.contains("rel=\"next\"") || link.contains("rel=next"));
        let Some(target) =
            next.and_then(|link| link.split_once('<')?.1.split_once('>')).map(|(target, _)| target)
        else {
            return Ok(None);
        };
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
