//! Lists the referrers of a manifest in its repository that may be signatures. This module does not
//! trust the answers; it bounds their size, and says if it read only a part.

use std::collections::BTreeSet;

use reqwest::header::{HeaderMap, LINK};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::answer::{none_if_absent, read};
use super::claim::{Claim, artifact_types};
use super::{Outgoing, RegistryError, Repository, authority};
use crate::Digest;
use crate::config::SignatureForm;

/// Maximum number of signatures of one manifest that are examined in one form.
pub(crate) const SIGNATURES: usize = 64;
/// Maximum number of attachments whose manifests are fetched to find signatures in one form. More
/// than [`SIGNATURES`], because not every list says which of them are signatures; few enough for
/// the operator's timeout of 60 s.
pub(crate) const CANDIDATES: usize = 128;
/// Maximum size of one signature, of the manifest around it, and of one page of a list, in bytes.
pub(crate) const SIGNATURE_BYTES: usize = 1 << 20;
/// Maximum number of pages of a list that are read.
pub(crate) const PAGES: usize = 16;

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
    #[serde(default)]
    pub annotations: Option<Annotations>,
}

/// Annotations of a referrer, reduced to [`PREDICATE`](super::claim::PREDICATE).
#[derive(Clone, Deserialize)]
pub(crate) struct Annotations {
    #[serde(default, rename = "dev.sigstore.bundle.predicateType")]
    predicate: Option<String>,
}

impl Referrer {
    fn claim(&self, form: SignatureForm) -> Claim {
        let annotations = self.annotations.as_ref();
        let predicate = annotations.and_then(|annotations| annotations.predicate.as_deref());
        Claim::of(form, self.artifact_type.as_deref(), predicate)
    }
}

/// Referrers of a manifest, reduced to those that may be signatures in one form.
#[derive(Default)]
pub(crate) struct Referrers {
    /// Those that are said to be signatures come first; each occurs once.
    pub candidates: Vec<Referrer>,
    /// Number of all referrers that were listed, if the list is longer than what is read of it.
    pub cut_after: Option<usize>,
}

impl Referrers {
    /// Selects the candidates of a list.
    pub fn of(listed: Vec<Referrer>, form: SignatureForm) -> Self {
        let mut candidates = listed;
        candidates.retain(|referrer| referrer.claim(form) != Claim::Other);
        candidates.sort_by_key(|referrer| referrer.claim(form));
        // A list that changes while its pages are read can have an entry twice.
        let mut digests = BTreeSet::new();
        candidates.retain(|referrer| digests.insert(referrer.digest.clone()));
        Self { candidates, cut_after: None }
    }
}

impl Repository<'_> {
    /// Lists the referrers of a manifest that may be signatures in one form.
    pub(crate) async fn referrers(
        &mut self,
        digest: &Digest,
        form: SignatureForm,
    ) -> Result<Referrers, RegistryError> {
        let path = format!("referrers/{digest}");
        let Some(mut referrers) = self.listed(&path, digest, form).await? else {
            // The tag is only read if the API is missing: with the API, clients do not write it
            // (section "Pushing Manifests with Subject").
            return self.referrers_by_tag(digest, form).await;
        };
        // Others, such as SBOMs, can fill all pages that are read, and the registry's own filter
        // leaves them out. It cannot replace the whole list, because it also leaves out signatures
        // whose type the registry has not stored.
        if referrers.cut_after.is_some() {
            let kind = in_query(artifact_types(form)[0]);
            let filtered =
                self.listed(&format!("{path}?artifactType={kind}"), digest, form).await?;
            let listed = [filtered.unwrap_or_default().candidates, referrers.candidates].concat();
            referrers.candidates = Referrers::of(listed, form).candidates;
        }
        Ok(referrers)
    }

    /// Requests the list of referrers (OCI distribution specification 1.1, "Listing Referrers").
    /// None: the registry does not support it.
    async fn listed(
        &mut self,
        path: &str,
        digest: &Digest,
        form: SignatureForm,
    ) -> Result<Option<Referrers>, RegistryError> {
        let what = format!("the list of referrers of {digest}");
        let (mut listed, mut likely, mut unknown) = (0, Vec::new(), Vec::new());
        let mut next = Some(path.to_owned());
        for page in 0..PAGES {
            let Some(path) = next.take_if(|_| likely.len() <= CANDIDATES) else { break };
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
                Some(list) => {
                    listed += list.len();
                    // Only as many are kept as show that there are too many, which bounds the
                    // memory.
                    for referrer in list {
                        match referrer.claim(form) {
                            Claim::Signature | Claim::Nothing => likely.push(referrer),
                            Claim::Unknown if unknown.len() <= CANDIDATES => {
                                unknown.push(referrer)
                            }
                            Claim::Unknown | Claim::Other => {}
                        }
                    }
                }
                // The first page decides whether the API exists. After it, a malformed page may
                // hide a signature, and so may a malformed entry on the first page.
                None if page == 0 && !has_entries(&bytes) => return Ok(None),
                None => return Err(broken_list(&what)),
            }
        }
        let cut_after = next.map(|_| listed);
        likely.append(&mut unknown);
        Ok(Some(Referrers { cut_after, ..Referrers::of(likely, form) }))
    }

    /// Reads the referrers' tag (same specification, "Referrers Tag Schema"), for registries
    /// without the API.
    async fn referrers_by_tag(
        &mut self,
        digest: &Digest,
        form: SignatureForm,
    ) -> Result<Referrers, RegistryError> {
        let tag = format!("sha256-{}", digest.hex());
        let Some((_, bytes)) =
            none_if_absent(self.manifest_bytes(&tag, None, SIGNATURE_BYTES).await)?
        else {
            return Ok(Referrers::default());
        };
        let index: Index = read(&bytes, &self.what(&tag))?;
        Ok(Referrers::of(index.manifests.unwrap_or_default(), form))
    }

    /// Returns the path of the list's next page in this repository. A link to anywhere else is an
    /// error.
    fn next_page(&self, headers: &HeaderMap, what: &str) -> Result<Option<String>, RegistryError> {
        // A link that is overlooked would end the list early, and hide a signature.
        let mut links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
        let Some(target) = links.find_map(next_link) else { return Ok(None) };
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

/// Returns the target of the link to the next page in a Link header (RFC 8288, section 3).
fn next_link(header: &str) -> Option<&str> {
    // A comma separates links, but may also occur in a target.
    header.split('<').filter_map(|link| link.split_once('>')).find_map(|(target, parameters)| {
        let parameters = parameters.to_ascii_lowercase().replace([' ', '"'], "");
        let is_next = parameters.split([';', ',']).any(|parameter| parameter == "rel=next");
        is_next.then_some(target)
    })
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

/// Encodes a media type for a query, in which a plus sign would mean a space.
fn in_query(media_type: &str) -> String {
    media_type.replace('/', "%2F").replace('+', "%2B")
}

/// Returns true if this is a list, whatever its entries are.
fn has_entries(page: &[u8]) -> bool {
    serde_json::from_slice::<Value>(page).is_ok_and(|page| page["manifests"].is_array())
}

fn broken_list(what: &str) -> RegistryError {
    let message = "one of its pages is not a list of manifests".to_owned();
    RegistryError::Form { what: what.to_owned(), message }
}
