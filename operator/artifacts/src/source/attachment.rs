//! Reads the cosign signatures in the manifest of an attachment.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_client::manifest::{OciDescriptor, OciImageManifest};

use crate::Digest;
use crate::config::SignatureForm;
use crate::registry::{Claim, PREDICATE, SIMPLE};
use crate::trust::{Attached, BUNDLE, Signature};

const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// Prefix of each annotation with a proof of a keyless signature.
const PROOFS: &str = "dev.sigstore.cosign/";

/// Returns true if a manifest refers to this one.
pub(super) fn refers(manifest: &OciImageManifest, subject: &Digest) -> bool {
    manifest.subject.as_ref().is_some_and(|of| of.digest == subject.to_string())
}

/// Returns the layers of a manifest with signatures in one form. There are none in other
/// attachments, such as SBOMs; a signature beside them still counts.
pub(super) fn signature_layers(
    manifest: &OciImageManifest,
    form: SignatureForm,
) -> Vec<&OciDescriptor> {
    let layers = manifest.layers.iter();
    match form {
        SignatureForm::Simple => layers
            .filter(|layer| layer.media_type == SIMPLE)
            .filter(|layer| annotation(layer, SIGNATURE_ANNOTATION).is_some())
            .collect(),
        SignatureForm::Bundle => {
            let annotations = manifest.annotations.as_ref();
            let predicate = annotations.and_then(|annotations| annotations.get(PREDICATE));
            // The layer decides what it is, but it does not show whether it is an attestation.
            let is_attestation =
                Claim::of(form, None, predicate.map(String::as_str)) == Claim::Other;
            // A bundle is the only layer of its manifest.
            let is_bundle = manifest.layers.len() == 1 && !is_attestation;
            layers.filter(|layer| is_bundle && layer.media_type == BUNDLE).collect()
        }
    }
}

/// Returns the signature that cosign stores in the annotations of a layer, with the layer as its
/// payload.
pub(super) fn simple_signature(payload: &[u8], layer: &OciDescriptor) -> Signature {
    let proof = |name: &str| annotation(layer, &format!("{PROOFS}{name}")).cloned();
    Signature::Simple {
        payload: STANDARD.encode(payload),
        signature: annotation(layer, SIGNATURE_ANNOTATION).cloned().unwrap_or_default(),
        attached: Attached {
            certificate: proof("certificate"),
            chain: proof("chain"),
            bundle: proof("bundle"),
            timestamp: proof("rfc3161timestamp"),
        },
    }
}

fn annotation<'a>(layer: &'a OciDescriptor, name: &str) -> Option<&'a String> {
    layer.annotations.as_ref()?.get(name)
}
