//! Finds the cosign signatures of a manifest beside it. What comes is not believed here, only bounded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_client::manifest::OciImageManifest;

use super::{SIGNATURE_BYTES, SIGNATURES, Source, found, read};
use crate::config::SignatureForm;
use crate::registry::layer_of;
use crate::trust::{Attached, BUNDLE, Signature};
use crate::{Digest, RegistryError};

const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// What proves a signature without a key, each under `dev.sigstore.cosign/`.
const PROOFS: &str = "dev.sigstore.cosign/";
/// What tools write where they mean no type.
pub(super) const EMPTY: &str = "application/vnd.oci.empty.v1+json";

impl Source<'_> {
    /// All signatures of a manifest in one form. None is an answer; a registry that does not answer is an error.
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
        let manifest = match self {
            Self::Registry(mirrored) => {
                found(mirrored.manifest_bytes(&tag, None, SIGNATURE_BYTES).await)?
                    .map(|(_, bytes)| bytes)
            }
            Self::Layout(layout) => layout.simple_signatures(digest, &tag).await?,
        };
        let Some(bytes) = manifest else { return Ok(Vec::new()) };
        let what = self.what(&tag);
        let manifest: OciImageManifest = read(&bytes, &what)?;
        let mut signatures = Vec::new();
        for layer in
            manifest.layers.iter().filter(|layer| layer.media_type == SIMPLE).take(SIGNATURES)
        {
            let annotation = |name: &str| {
                layer.annotations.as_ref().and_then(|annotations| annotations.get(name)).cloned()
            };
            let Some(signature) = annotation(SIGNATURE_ANNOTATION) else { continue };
            let proof = |name: &str| annotation(&format!("{PROOFS}{name}"));
            let (certificate, chain) = (proof("certificate"), proof("chain"));
            let attached = Attached {
                certificate,
                chain,
                bundle: proof("bundle"),
                timestamp: proof("rfc3161timestamp"),
            };
            let payload = self.blob(&layer_of(layer, &what, SIGNATURE_BYTES)?).await?;
            signatures.push(Signature::Simple {
                payload: STANDARD.encode(payload),
                signature,
                attached,
            });
        }
        Ok(signatures)
    }

    async fn bundles(&mut self, digest: &Digest) -> Result<Vec<Signature>, RegistryError> {
        let referrers = self.referrers(digest).await?;
        let may_be = |kind: Option<&str>| matches!(kind, None | Some(BUNDLE | EMPTY));
        let mut signatures = Vec::new();
        for referrer in referrers
            .iter()
            .filter(|referrer| may_be(referrer.artifact_type.as_deref()))
            .take(SIGNATURES)
        {
            let of: Digest =
                referrer.digest.parse().map_err(|error: crate::digest::InvalidDigest| {
                    RegistryError::Form {
                        what: format!("the list of referrers of {digest}"),
                        message: error.to_string(),
                    }
                })?;
            signatures.extend(self.bundle(&of, digest).await?);
        }
        Ok(signatures)
    }

    /// The bundle in a referrer; none where the referrer is something else.
    async fn bundle(
        &mut self,
        referrer: &Digest,
        subject: &Digest,
    ) -> Result<Option<Signature>, RegistryError> {
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
}
