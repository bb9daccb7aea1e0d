//! Finds the cosign signatures of a manifest in the place that holds it. This module does not
//! trust the content; it bounds its size, and says if there is more than it examines.

use oci_client::manifest::OciImageManifest;

use super::attachment::{refers, signature_layers, simple_signature};
use super::{Place, Source};
use crate::config::SignatureForm;
use crate::registry::{CANDIDATES, PAGES, SIGNATURE_BYTES, SIGNATURES, layer_of, read};
use crate::trust::Signature;
use crate::{Digest, RegistryError};

/// Signatures of a manifest in one form, not verified.
#[derive(Debug, Default)]
pub struct Signatures {
    /// Signatures that were fetched.
    pub fetched: Vec<Signature>,
    /// Error to report if the fetched signatures do not suffice: there may be others that were not
    /// fetched. None: these are all.
    pub beyond_limit: Option<RegistryError>,
}

impl Signatures {
    /// Joins the signatures under their tag and those that refer to the manifest. An error of one
    /// place counts only if the signatures in the other one do not suffice.
    fn of_both(
        tagged: Result<Self, RegistryError>,
        referring: Result<Self, RegistryError>,
    ) -> Result<Self, RegistryError> {
        match (tagged, referring) {
            (Ok(tagged), Ok(referring)) => Ok(tagged.and(referring)),
            (Ok(found), Err(error)) | (Err(error), Ok(found)) if !found.fetched.is_empty() => {
                Ok(Self { beyond_limit: Some(error), ..found })
            }
            // Of two errors, the one that may pass: a retry can then succeed.
            (Err(tagged), Err(referring))
                if referring.is_transient() && !tagged.is_transient() =>
            {
                Err(referring)
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    fn and(mut self, other: Self) -> Self {
        for signature in other.fetched {
            // One manifest may be under the tag and also refer to the signed one.
            if !self.fetched.contains(&signature) {
                self.fetched.push(signature);
            }
        }
        self.beyond_limit = self.beyond_limit.or(other.beyond_limit);
        self
    }
}

impl Source<'_> {
    /// Returns the signatures of a manifest in one form. No signature is a valid result; a
    /// registry that does not answer is an error.
    ///
    /// # Errors
    /// The place does not answer, or its answer is malformed.
    pub async fn signatures(
        &mut self,
        digest: &Digest,
        form: SignatureForm,
    ) -> Result<Signatures, RegistryError> {
        if form == SignatureForm::Bundle {
            return self.referring_signatures(digest, form, 0).await;
        }
        // Tools of different age sign the same manifest in different places, so neither place is
        // complete, and neither hides the other.
        let tag = format!("sha256-{}.sig", digest.hex());
        // Where a mirror decides about the tag, it decides about the referrers, too.
        let (unasked, tagged) = self.tagged_signatures(digest, &tag).await;
        let referring = self.referring_signatures(digest, form, unasked).await;
        let (tag, manifest) = (self.what(&tag), self.what(&digest.to_string()));
        let tagged = tagged.map_err(|error| error.at(format!("tag {tag} with signatures")));
        let referring =
            referring.map_err(|error| error.at(format!("signatures that refer to {manifest}")));
        Signatures::of_both(tagged, referring)
    }

    /// Returns the signatures under the tag where older versions of cosign keep all simple
    /// signatures of a manifest, and the number of places that were not asked for the tag.
    async fn tagged_signatures(
        &mut self,
        digest: &Digest,
        tag: &str,
    ) -> (usize, Result<Signatures, RegistryError>) {
        let (unasked, manifest) = match &mut self.0 {
            Place::Registry(mirrored) => mirrored.manifest_if_present(tag, SIGNATURE_BYTES).await,
            Place::Layout(layout) => (0, layout.simple_signatures(digest, tag).await),
        };
        let signatures = match manifest {
            Ok(Some(bytes)) => self.signatures_in(&bytes, digest, tag).await,
            Ok(None) => Ok(Signatures::default()),
            Err(error) => Err(error),
        };
        (unasked, signatures)
    }

    /// Returns the signatures in the manifest under that tag.
    async fn signatures_in(
        &mut self,
        bytes: &[u8],
        digest: &Digest,
        tag: &str,
    ) -> Result<Signatures, RegistryError> {
        let what = self.what(tag);
        let manifest: OciImageManifest = read(bytes, &what)?;
        let mut signatures = Signatures::default();
        if !self.fetch(&manifest, &what, SignatureForm::Simple, &mut signatures.fetched).await? {
            signatures.beyond_limit = Some(RegistryError::TooManyAttachments {
                what: self.what(&digest.to_string()),
                number: signature_layers(&manifest, SignatureForm::Simple).len(),
                limit: format!("{SIGNATURES} signatures"),
            });
        }
        Ok(signatures)
    }

    /// Returns the signatures in the manifests that refer to this one, as newer tools attach them.
    /// The subject in each manifest decides, not the list of referrers. The last `unasked` places
    /// are left out.
    async fn referring_signatures(
        &mut self,
        digest: &Digest,
        form: SignatureForm,
        unasked: usize,
    ) -> Result<Signatures, RegistryError> {
        let referrers = self.referrers(digest, form, unasked).await?;
        let number = referrers.candidates.len();
        let mut signatures = Signatures::default();
        let mut unreadable = None;
        // The number and the limit that is exceeded.
        let mut exceeded =
            referrers.cut_after.map(|listed| (listed, format!("{PAGES} pages of their list")));
        for (at, referrer) in referrers.candidates.iter().enumerate() {
            if at == CANDIDATES {
                exceeded = Some((number, format!("{CANDIDATES} manifests")));
                break;
            }
            // A malformed entry is an error: skipping it could drop the only signature.
            let of: Digest = referrer.digest.parse().map_err(|error: crate::InvalidDigest| {
                RegistryError::Form {
                    what: format!("the list of referrers of {digest}"),
                    message: error.to_string(),
                }
            })?;
            let name = of.to_string();
            // A listed referrer that is missing is an error, too, as it may have been the
            // signature. One of an unknown type is hardly that, and must not hide those that were
            // found.
            let bytes = match self.manifest_bytes(&name, Some(&of), SIGNATURE_BYTES).await {
                Ok((_, bytes)) => bytes,
                Err(error) if at >= referrers.likely => {
                    unreadable.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let what = self.what(&name);
            // An index may refer to a manifest too, but it is not a signature.
            let Ok(manifest) = read::<OciImageManifest>(&bytes, &what) else { continue };
            if refers(&manifest, digest)
                && !self.fetch(&manifest, &what, form, &mut signatures.fetched).await?
            {
                // One manifest may hold several simple signatures.
                let number = number.max(SIGNATURES + 1);
                exceeded = Some((number, format!("{SIGNATURES} signatures")));
                break;
            }
        }
        let what = self.what(&digest.to_string());
        signatures.beyond_limit = exceeded
            .map(|(number, limit)| RegistryError::TooManyAttachments { what, number, limit })
            .or(unreadable)
            .or(referrers.incomplete);
        Ok(signatures)
    }

    /// Fetches the signatures in a manifest. Returns false if it has more than may be added.
    async fn fetch(
        &mut self,
        manifest: &OciImageManifest,
        what: &str,
        form: SignatureForm,
        into: &mut Vec<Signature>,
    ) -> Result<bool, RegistryError> {
        for layer in signature_layers(manifest, form) {
            if into.len() == SIGNATURES {
                return Ok(false);
            }
            let bytes = self.blob(&layer_of(layer, what, SIGNATURE_BYTES)?).await?;
            into.push(match form {
                SignatureForm::Simple => simple_signature(&bytes, layer),
                SignatureForm::Bundle => {
                    Signature::Bundle(String::from_utf8_lossy(&bytes).into_owned())
                }
            });
        }
        Ok(true)
    }
}
