//! Finds the cosign signatures of a manifest in the place that holds it. This module does not
//! trust the content; it only bounds its size.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_client::manifest::OciImageManifest;

use super::{Place, Source};
use crate::config::SignatureForm;
use crate::registry::{SIGNATURE_BYTES, SIGNATURES, layer_of, none_if_absent, read};
use crate::trust::{Attached, BUNDLE, Signature};
use crate::{Digest, RegistryError};

const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// Prefix of each annotation with a proof of a keyless signature.
const PROOFS: &str = "dev.sigstore.cosign/";

impl Source<'_> {
    /// Returns all signatures of a manifest in one form. No signature is a valid result; a
    /// registry that does not answer is an error.
    ///
    /// # Errors
    /// The place does not answer, or its answer is malformed.
    pub async fn signatures(
        &mut self,
        digest: &Digest,
        form: SignatureForm,
    ) -> Result<Vec<Signature>, RegistryError> {
        match form {
            SignatureForm::Simple => self.simple_signatures(digest).await,
            SignatureForm::Bundle => self.bundles(digest).await,
        }
    }

    async fn simple_signatures(
        &mut self,
        digest: &Digest,
    ) -> Result<Vec<Signature>, RegistryError> {
        let tag = format!("sha256-{}.sig", digest.hex());
        let manifest = match &mut self.0 {
            Place::Registry(mirrored) => {
                none_if_absent(mirrored.manifest_bytes(&tag, None, SIGNATURE_BYTES).await)?
                    .map(|(_, bytes)| bytes)
            }
            Place::Layout(layout) => layout.simple_signatures(digest, &tag).await?,
        };
        // Older versions of cosign keep all simple signatures of a manifest under one tag.
        if let Some(bytes) = manifest {
            let what = self.what(&tag);
            return self.signatures_in(&read(&bytes, &what)?, &what).await;
        }
        // Newer tools make the manifest with the signatures refer to the signed one.
        let mut signatures = Vec::new();
        for (manifest, what) in self.referring(digest).await? {
            signatures.extend(self.signatures_in(&manifest, &what).await?);
        }
        Ok(signatures)
    }

    /// Returns the simple signatures in the layers of a manifest.
    async fn signatures_in(
        &mut self,
        manifest: &OciImageManifest,
        what: &str,
    ) -> Result<Vec<Signature>, RegistryError> {
        let mut signatures = Vec::new();
        for layer in
            manifest.layers.iter().filter(|layer| layer.media_type == SIMPLE).take(SIGNATURES)
        {
            let annotation = |name: &str| {
                layer.annotations.as_ref().and_then(|annotations| annotations.get(name)).cloned()
            };
            // cosign stores the signature in an annotation of the layer, and its payload as the
            // layer.
            let Some(signature) = annotation(SIGNATURE_ANNOTATION) else { continue };
            let proof = |name: &str| annotation(&format!("{PROOFS}{name}"));
            let (certificate, chain) = (proof("certificate"), proof("chain"));
            let attached = Attached {
                certificate,
                chain,
                bundle: proof("bundle"),
                timestamp: proof("rfc3161timestamp"),
            };
            let payload = self.blob(&layer_of(layer, what, SIGNATURE_BYTES)?).await?;
            signatures.push(Signature::Simple {
                payload: STANDARD.encode(payload),
                signature,
                attached,
            });
        }
        Ok(signatures)
    }

    async fn bundles(&mut self, digest: &Digest) -> Result<Vec<Signature>, RegistryError> {
        let mut signatures = Vec::new();
        for (manifest, what) in self.referring(digest).await? {
            // Referrers of other kinds, such as SBOMs, are no error; a signature beside them still
            // counts.
            let [layer] = manifest.layers.as_slice() else { continue };
            if layer.media_type != BUNDLE {
                continue;
            }
            let bytes = self.blob(&layer_of(layer, &what, SIGNATURE_BYTES)?).await?;
            signatures.push(Signature::Bundle(String::from_utf8_lossy(&bytes).into_owned()));
        }
        Ok(signatures)
    }

    /// Returns the manifests that refer to this one, each with its name. The subject in each
    /// manifest decides, not the list of referrers.
    async fn referring(
        &mut self,
        digest: &Digest,
    ) -> Result<Vec<(OciImageManifest, String)>, RegistryError> {
        let mut manifests = Vec::new();
        for referrer in self.referrers(digest).await?.iter().take(SIGNATURES) {
            // A malformed entry is an error: skipping it could drop the only signature.
            let of: Digest = referrer.digest.parse().map_err(|error: crate::InvalidDigest| {
                RegistryError::Form {
                    what: format!("the list of referrers of {digest}"),
                    message: error.to_string(),
                }
            })?;
            let name = of.to_string();
            // A listed referrer that is missing is an error, too, as it may have been the
            // signature.
            let (_, bytes) = self.manifest_bytes(&name, Some(&of), SIGNATURE_BYTES).await?;
            let what = self.what(&name);
            // An index may refer to a manifest too, but it is not a signature.
            let Ok(manifest) = read::<OciImageManifest>(&bytes, &what) else { continue };
            let refers =
                manifest.subject.as_ref().is_some_and(|of| of.digest == digest.to_string());
            if refers {
                manifests.push((manifest, what));
            }
        }
        Ok(manifests)
    }
}
