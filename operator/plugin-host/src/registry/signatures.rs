//! Finds the cosign signatures of a manifest in its repository. What comes is not believed here, only bounded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_client::manifest::OciImageManifest;
use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;

use super::{RegistryError, Repository, authority, layer_of};
use crate::Digest;
use crate::config::SignatureForm;
use crate::trust::{BUNDLE, Signature};

/// The same for a query: a plus sign would be a blank.
const BUNDLE_IN_QUERY: &str = "application%2Fvnd.dev.sigstore.bundle.v0.3%2Bjson";
const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// What tools write where they mean no type.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// More signatures are not looked at.
const SIGNATURES: usize = 64;
const PAGES: usize = 16;
/// One signature, the manifest around it, and one page of a list.
const SIGNATURE_BYTES: usize = 1 << 20;

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Referrer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    digest: String,
    #[serde(default)]
    artifact_type: Option<String>,
}

impl Repository<'_> {
    /// All signatures of a manifest in one form. None is an answer; a registry that does not answer is an error.
    pub async fn signatures(&mut self, digest: &Digest, form: SignatureForm) -> Result<Vec<Signature>, RegistryError> {
        match form {
            SignatureForm::Simple => self.simple_signatures(digest).await,
            SignatureForm::Bundle => self.bundles(digest).await,
        }
    }

    async fn simple_signatures(&mut self, digest: &Digest) -> Result<Vec<Signature>, RegistryError> {
        let tag = format!("sha256-{}.sig", digest.hex());
        let Some((_, bytes)) = found(self.manifest_bytes(&tag, None, SIGNATURE_BYTES).await)? else { return Ok(Vec::new()) };
        let what = self.what(&tag);
        let manifest: OciImageManifest = read(&bytes, &what)?;
        let mut signatures = Vec::new();
        for layer in manifest.layers.iter().filter(|layer| layer.media_type == SIMPLE).take(SIGNATURES) {
            let signature = layer.annotations.as_ref().and_then(|annotations| annotations.get(SIGNATURE_ANNOTATION));
            let Some(signature) = signature else { continue };
            let payload = self.blob(&layer_of(layer, &what, SIGNATURE_BYTES)?).await?;
            signatures.push(Signature::Simple { payload: STANDARD.encode(payload), signature: signature.clone() });
        }
        Ok(signatures)
    }

    async fn bundles(&mut self, digest: &Digest) -> Result<Vec<Signature>, RegistryError> {
        let referrers = match found(self.referrers(digest).await)? {
            Some(referrers) => referrers,
            None => self.referrers_by_tag(digest).await?,
        };
        let may_be = |referrer: &&Referrer| matches!(referrer.artifact_type.as_deref(), None | Some(BUNDLE | EMPTY));
        let mut signatures = Vec::new();
        for referrer in referrers.iter().filter(may_be).take(SIGNATURES) {
            let of: Digest = referrer.digest.parse().map_err(|error: crate::digest::InvalidDigest| RegistryError::Form {
                what: format!("the list of referrers of {digest}"),
                message: error.to_string(),
            })?;
            signatures.extend(self.bundle(&of, digest).await?);
        }
        Ok(signatures)
    }

    /// OCI distribution specification 1.1, "Listing Referrers".
    async fn referrers(&mut self, digest: &Digest) -> Result<Vec<Referrer>, RegistryError> {
        let what = format!("the list of referrers of {digest}");
        let mut referrers = Vec::new();
        let mut next = Some(format!("referrers/{digest}?artifactType={BUNDLE_IN_QUERY}"));
        for _ in 0..PAGES {
            let Some(path) = next.take().filter(|_| referrers.len() < SIGNATURES) else { break };
            let response = self.get(&path, &what, Some("application/vnd.oci.image.index.v1+json")).await?;
            next = self.next_page(response.headers(), &what)?;
            let bytes = self.body(response, &what, SIGNATURE_BYTES).await?;
            referrers.extend(read::<Index>(&bytes, &what)?.manifests.into_iter().filter(|of| of.artifact_type.as_deref() == Some(BUNDLE)));
        }
        Ok(referrers)
    }

    /// The same, "Referrers Tag Schema": for registries without that list.
    async fn referrers_by_tag(&mut self, digest: &Digest) -> Result<Vec<Referrer>, RegistryError> {
        let tag = format!("sha256-{}", digest.hex());
        let Some((_, bytes)) = found(self.manifest_bytes(&tag, None, SIGNATURE_BYTES).await)? else { return Ok(Vec::new()) };
        Ok(read::<Index>(&bytes, &self.what(&tag))?.manifests)
    }

    /// The bundle in a referrer; none where the referrer is something else.
    async fn bundle(&mut self, referrer: &Digest, subject: &Digest) -> Result<Option<Signature>, RegistryError> {
        let name = referrer.to_string();
        let (_, bytes) = self.manifest_bytes(&name, Some(referrer), SIGNATURE_BYTES).await?;
        let manifest: OciImageManifest = read(&bytes, &self.what(&name))?;
        let refers = manifest.subject.as_ref().is_some_and(|of| of.digest == subject.to_string());
        let [layer] = manifest.layers.as_slice() else { return Ok(None) };
        if !refers || layer.media_type != BUNDLE {
            return Ok(None);
        }
        let bytes = self.blob(&layer_of(layer, &self.what(&name), SIGNATURE_BYTES)?).await?;
        Ok(Some(Signature::Bundle(String::from_utf8_lossy(&bytes).into_owned())))
    }

    /// Where the list goes on, as a path in this repository: nowhere else is asked.
    fn next_page(&self, headers: &HeaderMap, what: &str) -> Result<Option<String>, RegistryError> {
        let links = headers.get(LINK).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let next = links.split(',').find(|link| link.contains("rel=\"next\"") || link.contains("rel=next"));
        let Some(target) = next.and_then(|link| link.split_once('<')?.1.split_once('>')).map(|(target, _)| target) else {
            return Ok(None);
        };
        let refused = || RegistryError::Redirect { host: self.host.to_owned(), what: what.to_owned(), location: target.to_owned() };
        let base = self.url("referrers/")?;
        let url = base.join(target).map_err(|_| refused())?;
        let same = url.scheme() == base.scheme() && authority(&url) == authority(&base);
        let rest = url.path().strip_prefix(&format!("/v2/{}/", self.name)).filter(|rest| same && rest.starts_with("referrers/"));
        let rest = rest.ok_or_else(refused)?;
        Ok(Some(url.query().map_or_else(|| rest.to_owned(), |query| format!("{rest}?{query}"))))
    }
}

/// Not being there is an answer.
fn found<T>(answer: Result<T, RegistryError>) -> Result<Option<T>, RegistryError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(RegistryError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes)
        .map_err(|error| RegistryError::Form { what: what.to_owned(), message: format!("it cannot be read: {error}") })
}
