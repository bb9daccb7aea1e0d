//! Lists the referrers of a manifest in its repository that may be signatures. This module does not
//! trust the answers; it bounds their size, and says if it read only a part.

use std::collections::BTreeSet;

use reqwest::header::{HeaderMap, LINK};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::answer::{none_if_absent, read};
use super::claim::{Claim, PREDICATE, artifact_types};
use super::{Outgoing, RegistryError, Repository, authority};
use crate::Digest;
use crate::config::SignatureForm;

/// Maximum number of signatures of one manifest that are examined in one form and place.
pub(crate) const SIGNATURES: usize = 64;
/// Maximum number of attachments whose manifests are fetched to find signatures in one form. More
/// than [`SIGNATURES`], because not every list says which of them are signatures.
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
    /// Predicate of the statement in a bundle, from the annotation [`PREDICATE`].
    #[serde(default, rename = "annotations", deserialize_with = "predicate")]
    pub predicate: Option<String>,
}

/// Reads the predicate from annotations of any form: one that cannot be read says nothing.
fn predicate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let annotations = Value::deserialize(deserializer)?;
    Ok(annotations[PREDICATE].as_str().map(str::to_owned))
}

impl Referrer {
    fn claim(&self, form: SignatureForm) -> Claim {
        Claim::of(form, self.artifact_type.as_deref(), self.predicate.as_deref())
    }
}

/// Referrers of a manifest, reduced to those that may be signatures in one form.
#[derive(Default)]
pub(crate) struct Referrers {
    /// Those that are said to be signatures come first, those of an unknown type last; each occurs
    /// once.
    pub candidates: Vec<Referrer>,
    /// Number of those before the ones of an unknown type.
    pub likely: usize,
    /// Number of all referrers that were listed, if the list is longer than what is read of it.
    pub cut_after: Option<usize>,
    /// Error of a place whose referrers are not among the candidates.
    pub incomplete: Option<RegistryError>,
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
        let likely = candidates.partition_point(|referrer| referrer.claim(form) < Claim::Unknown);
        Self { candidates, likely, ..Self::default() }
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
        // Others, such as SBOMs, can outnumber the signatures by far, and the registry's own filter
        // leaves them out.
        let filter = format!("{path}?artifactType={}", in_query(artifact_types(form)[0]));
        let mut listed = self.listed(&filter, digest, form).await?;
        // A registry that has not stored the type of a signature filters the signature out.
        if listed.as_ref().is_some_and(|referrers| referrers.candidates.is_empty()) {
            listed = self.listed(&path, digest, form).await?;
        }
        match listed {
            Some(referrers) => Ok(referrers),
            // The tag is only read if the API is missing: with the API, clients do not write it
            // (section "Pushing Manifests with Subject").
            None => self.referrers_by_tag(digest, form).await,
        }
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
        let (mut likely, mut unknown) = (Vec::new(), Vec::new());
        // A list that changes while its pages are read can have an entry twice.
        let mut digests = BTreeSet::new();
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
                    // Only as many are kept as show that there are too many, which bounds the
                    // memory.
                    for referrer in list {
                        if !digests.insert(referrer.digest.clone()) {
                            continue;
                        }
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
        let cut_after = next.map(|_| digests.len());
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
    // These say that there may be a list, which this client may not read, or not now.
    let withholds_list = matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_EARLY
            | StatusCode::TOO_MANY_REQUESTS
    );
    // A server that does not know the path answers with any of the others: the distribution
    // specification only prescribes 404, and firewalls refuse unusual paths with codes of their
    // own.
    status.is_redirection()
        || status.is_client_error() && !withholds_list
        || status == StatusCode::NOT_IMPLEMENTED
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
