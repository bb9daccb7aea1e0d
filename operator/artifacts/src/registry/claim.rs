//! Decides by what a list or a manifest says of an attachment whether it may be a signature. Pure.

use crate::config::SignatureForm;
use crate::trust::{BUNDLE, SIGN_PREDICATE};

/// Annotation in which cosign and other tools name the predicate of the statement in a bundle.
pub(crate) const PREDICATE: &str = "dev.sigstore.bundle.predicateType";
/// Layer with the payload of a simple signature.
pub(crate) const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Artifact type of simple signatures that refer to the signed manifest, as cosign 2 writes it.
const SIMPLE_ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// Artifact types that say nothing. Registries and clients that do not know the field put the type
/// of the manifest or of its config there; oras calls a type that nobody gave unknown.
const SAY_NOTHING: [&str; 7] = [
    "",
    "application/vnd.oci.empty.v1+json",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.unknown.artifact.v1",
    "application/vnd.unknown.config.v1+json",
];

/// Statement of a list or a manifest about an attachment: a signature in one form, or not. The
/// order is that in which attachments are examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Claim {
    /// It is one.
    Signature,
    /// Nothing is said, so its manifest decides.
    Nothing,
    /// It has a type that signatures do not have. Its manifest still decides, because a registry
    /// may put the type of the config there, and clients choose that freely.
    Unknown,
    /// It is something else: an attestation, or a signature in another form.
    Other,
}

impl Claim {
    /// Reads the artifact type, and the annotation [`PREDICATE`], of an attachment.
    pub fn of(form: SignatureForm, artifact_type: Option<&str>, predicate: Option<&str>) -> Self {
        let by_type = match artifact_type {
            Some(kind) if artifact_types(form).contains(&kind) => Self::Signature,
            Some(kind) if all_artifact_types().any(|of_other| of_other == kind) => Self::Other,
            Some(kind) if !SAY_NOTHING.contains(&kind) => Self::Unknown,
            _ => Self::Nothing,
        };
        match predicate.filter(|predicate| !predicate.is_empty()) {
            // Attestations are bundles too, and each run of a pipeline may attach several.
            Some(predicate) if form == SignatureForm::Bundle && by_type != Self::Other => {
                if predicate == SIGN_PREDICATE {
                    Self::Signature
                } else {
                    Self::Other
                }
            }
            _ => by_type,
        }
    }
}

/// Returns the artifact types of signatures in all forms.
fn all_artifact_types() -> impl Iterator<Item = &'static str> {
    let forms = [SignatureForm::Bundle, SignatureForm::Simple];
    forms.into_iter().flat_map(artifact_types).copied()
}

/// Returns the artifact types of signatures in one form; the first is the usual one.
pub(super) fn artifact_types(form: SignatureForm) -> &'static [&'static str] {
    match form {
        SignatureForm::Bundle => &[BUNDLE],
        SignatureForm::Simple => &[SIMPLE_ARTIFACT, SIMPLE],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_excludes_an_attachment_only_if_it_is_that_of_another_form() {
        use SignatureForm::{Bundle, Simple};
        for (kind, of_bundle, of_simple) in [
            (BUNDLE, Claim::Signature, Claim::Other),
            (SIMPLE_ARTIFACT, Claim::Other, Claim::Signature),
            (SIMPLE, Claim::Other, Claim::Signature),
            ("application/spdx+json", Claim::Unknown, Claim::Unknown),
        ] {
            assert_eq!(Claim::of(Bundle, Some(kind), None), of_bundle, "{kind}");
            assert_eq!(Claim::of(Simple, Some(kind), None), of_simple, "{kind}");
        }
        for kind in SAY_NOTHING.map(Some).into_iter().chain([None]) {
            for form in [Bundle, Simple] {
                assert_eq!(Claim::of(form, kind, None), Claim::Nothing, "{kind:?}");
            }
        }
    }

    #[test]
    fn a_bundle_with_another_predicate_than_a_signature_s_is_an_attestation() {
        use SignatureForm::{Bundle, Simple};
        let slsa = Some("https://slsa.dev/provenance/v1");
        for kind in [Some(BUNDLE), None] {
            assert_eq!(Claim::of(Bundle, kind, Some(SIGN_PREDICATE)), Claim::Signature);
            assert_eq!(Claim::of(Bundle, kind, slsa), Claim::Other);
        }
        assert_eq!(Claim::of(Bundle, Some(BUNDLE), Some("")), Claim::Signature);
        assert_eq!(Claim::of(Simple, Some(SIMPLE), slsa), Claim::Signature);
        assert_eq!(Claim::of(Bundle, Some("text/plain"), Some(SIGN_PREDICATE)), Claim::Signature);
        assert_eq!(Claim::of(Bundle, Some(SIMPLE), Some(SIGN_PREDICATE)), Claim::Other);
    }
}
