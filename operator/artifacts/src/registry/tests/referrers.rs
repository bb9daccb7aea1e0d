//! Manifests with many attachments: signatures are found among them, and where more are attached
//! than are examined, that is an error and not the absence of a signature.

mod pages;
mod simple;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::config::{RequiredKeys, TrustEntry};
use crate::fake_registry::Answer;
use crate::firmware::{self, UnverifiedFirmware};
use crate::trust::BUNDLE;
use crate::trust::testing::{BOTH, Keys};

const SIMPLE_ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const SBOM: &str = "application/spdx+json";

fn subject() -> Digest {
    Digest::of(b"manifest")
}

/// Manifests that are attached to [`subject`], and what the registry has of them.
#[derive(Default)]
struct Attachments {
    /// Entries of the list of referrers.
    entries: Vec<Value>,
    /// Manifests and blobs by digest or tag.
    objects: BTreeMap<String, String>,
}

impl Attachments {
    /// Attaches these layers, each with its media type and annotations. The list says this of the
    /// manifest, and the manifest has the same annotations.
    fn attach(&mut self, listed: Value, layers: &[(&str, String, Value)]) {
        let manifest = self.manifest(&listed["annotations"], layers);
        let (digest, mut entry) = (Digest::of(manifest.as_bytes()), listed);
        entry["digest"] = json!(digest);
        self.entries.push(entry);
        self.objects.insert(digest.to_string(), manifest);
    }

    fn manifest(&mut self, annotations: &Value, layers: &[(&str, String, Value)]) -> String {
        let mut descriptors = Vec::new();
        for (kind, content, annotations) in layers {
            let digest = Digest::of(content.as_bytes());
            descriptors.push(json!({
                "mediaType": kind, "digest": digest, "size": content.len(),
                "annotations": annotations,
            }));
            self.objects.insert(digest.to_string(), content.clone());
        }
        json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"),
                "size": 2,
            },
            "layers": descriptors,
            "annotations": annotations,
            "subject": {
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": subject(),
                "size": 1,
            },
        })
        .to_string()
    }

    /// Attaches a bundle with this content.
    fn bundle(&mut self, listed: Value, content: impl Into<String>) {
        self.attach(listed, &[(BUNDLE, content.into(), Value::Null)]);
    }

    /// Attaches as many SBOMs, of which the list says this.
    fn sboms(&mut self, number: usize, listed: &Value) {
        for number in 0..number {
            let content = format!("SBOM {number}");
            self.attach(listed.clone(), &[(SBOM, content, Value::Null)]);
        }
    }

    /// Starts a registry that lists all of them on one page.
    async fn serve(self) -> Fake {
        let page = page(&self.entries);
        self.serve_list(move |_| answer(200, page.clone())).await
    }

    /// Starts a registry that answers requests for the list like this.
    async fn serve_list(
        self,
        list: impl Fn(&str) -> Answer + Clone + Send + Sync + 'static,
    ) -> Fake {
        let objects = Arc::new(self.objects);
        Fake::start(move |_, path, _| {
            if path.contains("/referrers/") {
                return list(path);
            }
            let name = path.rsplit('/').next().unwrap_or_default();
            objects.get(name).map_or_else(|| answer(404, ""), |object| answer(200, object.clone()))
        })
        .await
    }
}

fn page(entries: &[Value]) -> String {
    json!({"schemaVersion": 2, "manifests": entries}).to_string()
}

fn simple_layer(number: usize) -> (&'static str, String, Value) {
    let annotations = json!({"dev.cosignproject.cosign/signature": format!("signature {number}")});
    (SIMPLE, format!("payload {number}"), annotations)
}

fn bundle(content: &str) -> Vec<Signature> {
    vec![Signature::Bundle(content.to_owned())]
}

/// Returns the message that there are more attachments than are examined.
fn beyond_limit(signatures: &Signatures) -> String {
    signatures.beyond_limit.as_ref().expect("there is more").to_string()
}

#[tokio::test]
async fn a_bundle_is_found_behind_any_number_of_attestations() {
    let attestation = json!({
        "artifactType": BUNDLE, "annotations": {PREDICATE: "https://slsa.dev/provenance/v1"},
    });
    let mut attachments = Attachments::default();
    attachments.sboms(500, &attestation);
    attachments.bundle(json!({"artifactType": BUNDLE}), "bundle");
    let fake = attachments.serve().await;
    assert_eq!(bundles(&fake, &subject()).await.expect("all"), bundle("bundle"));
    assert_eq!(fake.asked().len(), 3, "the list, the manifest and its blob");
}

#[tokio::test]
async fn a_bundle_is_found_before_any_number_of_attachments_of_other_types() {
    let mut attachments = Attachments::default();
    attachments.sboms(500, &json!({"artifactType": SBOM}));
    attachments.bundle(json!({"artifactType": BUNDLE}), "bundle");
    let fake = attachments.serve().await;
    let signatures = signatures(&fake, &subject(), SignatureForm::Bundle).await.expect("listed");
    assert_eq!(signatures.fetched, bundle("bundle"));
}

#[tokio::test]
async fn a_bundle_is_found_although_the_registry_lists_it_by_the_type_of_its_config() {
    let listed = json!({"artifactType": "application/vnd.example.config.v1+json"});
    let mut attachments = Attachments::default();
    attachments.sboms(3, &json!({"artifactType": SBOM}));
    attachments.bundle(listed, "bundle");
    let fake = attachments.serve().await;
    assert_eq!(bundles(&fake, &subject()).await.expect("all"), bundle("bundle"));
}

#[tokio::test]
async fn a_bundle_is_found_behind_more_attachments_without_a_type_than_signatures_are_examined() {
    // An old registry says nothing of its attachments, or names the config of each.
    for nothing in [json!({}), json!({"artifactType": "application/vnd.oci.empty.v1+json"})] {
        let mut attachments = Attachments::default();
        attachments.sboms(CANDIDATES - 1, &nothing);
        attachments.bundle(nothing.clone(), "bundle");
        let fake = attachments.serve().await;
        assert_eq!(bundles(&fake, &subject()).await.expect("all"), bundle("bundle"), "{nothing}");
    }
}

#[tokio::test]
async fn more_attachments_that_may_be_signatures_than_are_examined_are_not_the_absence_of_one() {
    let mut attachments = Attachments::default();
    attachments.sboms(CANDIDATES + 1, &json!({}));
    let fake = attachments.serve().await;
    let signatures =
        signatures(&fake, &subject(), SignatureForm::Bundle).await.expect("a part of them");
    assert!(signatures.fetched.is_empty());
    let message = beyond_limit(&signatures);
    let artifact = format!("{}/a/b@{}", fake.host, subject());
    for expected in [artifact.as_str(), "129 attachments", "only 128 manifests", "delete"] {
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn an_attachment_that_is_said_to_be_a_signature_is_examined_before_those_without_a_type() {
    let mut attachments = Attachments::default();
    attachments.sboms(CANDIDATES + 1, &json!({}));
    attachments.bundle(json!({"artifactType": BUNDLE}), "bundle");
    let fake = attachments.serve().await;
    let signatures =
        signatures(&fake, &subject(), SignatureForm::Bundle).await.expect("a part of them");
    assert_eq!(signatures.fetched, bundle("bundle"));
    assert!(beyond_limit(&signatures).contains("130 attachments"));
}

#[tokio::test]
async fn sixty_four_signatures_are_examined_and_one_more_is_said_to_be_too_many() {
    for (number, is_complete) in [(SIGNATURES, true), (SIGNATURES + 1, false)] {
        let mut attachments = Attachments::default();
        for number in 0..number {
            attachments.bundle(json!({"artifactType": BUNDLE}), format!("bundle {number}"));
        }
        let fake = attachments.serve().await;
        let signatures =
            signatures(&fake, &subject(), SignatureForm::Bundle).await.expect("a part of them");
        assert_eq!(signatures.fetched.len(), SIGNATURES);
        assert_eq!(signatures.beyond_limit.is_none(), is_complete);
        if !is_complete {
            let message = beyond_limit(&signatures);
            assert!(message.contains("65 attachments, but only 64 signatures"), "{message}");
        }
    }
}

#[tokio::test]
async fn of_simple_signatures_too_only_so_many_are_examined_under_their_tag_or_as_referrers() {
    let layers: Vec<_> = (0..=SIGNATURES).map(simple_layer).collect();
    let mut tagged = Attachments::default();
    let manifest = tagged.manifest(&Value::Null, &layers);
    tagged.objects.insert(format!("sha256-{}.sig", subject().hex()), manifest);
    let mut referring = Attachments::default();
    referring.attach(json!({"artifactType": SIMPLE_ARTIFACT}), &layers);
    for attachments in [tagged, referring] {
        let fake = attachments.serve().await;
        let signatures =
            signatures(&fake, &subject(), SignatureForm::Simple).await.expect("a part of them");
        assert_eq!(signatures.fetched.len(), SIGNATURES);
        let message = beyond_limit(&signatures);
        assert!(message.contains("65 attachments, but only 64 signatures"), "{message}");
    }
}

#[tokio::test]
async fn attachments_in_one_form_do_not_hide_a_signature_in_the_other() {
    let mut attachments = Attachments::default();
    attachments.bundle(json!({"artifactType": BUNDLE}), "bundle");
    attachments.attach(json!({"artifactType": SIMPLE_ARTIFACT}), &[simple_layer(0)]);
    let fake = attachments.serve().await;
    for form in [SignatureForm::Bundle, SignatureForm::Simple] {
        let signatures = signatures(&fake, &subject(), form).await.expect("listed");
        let forms: Vec<_> = signatures.fetched.iter().map(Signature::form).collect();
        assert_eq!(forms, [form]);
        assert!(signatures.beyond_limit.is_none());
    }
}

#[tokio::test]
async fn an_attachment_of_another_type_that_cannot_be_read_does_not_hide_a_bundle() {
    let mut attachments = Attachments::default();
    attachments.entries.push(json!({"digest": Digest::of(b"deleted"), "artifactType": SBOM}));
    attachments.bundle(json!({"artifactType": BUNDLE}), "bundle");
    let fake = attachments.serve().await;
    let signatures = signatures(&fake, &subject(), SignatureForm::Bundle).await.expect("listed");
    assert_eq!(signatures.fetched, bundle("bundle"));
    assert!(signatures.beyond_limit.is_some(), "it may be the signature that is required");
}

/// Returns the bundles of [`subject`] in a registry with a mirror.
async fn mirrored(mirror: &Fake, registry: &Fake) -> Result<Signatures, RegistryError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let with_mirror = RegistryConfig { mirrors: vec![mirror.host.clone()], ..registry.config() };
    let (registries, logins) = ([with_mirror, mirror.config()], Logins::none());
    let reference = reference(&registry.host);
    let mut source = Source::of(&reference, &registries, &logins)?.expect("a registry");
    source.signatures(&subject(), SignatureForm::Bundle).await
}

#[tokio::test]
async fn a_mirror_with_only_an_sbom_does_not_prove_that_there_is_no_signature() {
    let (mut at_mirror, mut at_registry) = (Attachments::default(), Attachments::default());
    at_mirror.sboms(1, &json!({"artifactType": SBOM}));
    at_registry.sboms(1, &json!({"artifactType": SBOM}));
    at_registry.bundle(json!({"artifactType": BUNDLE}), "bundle");
    let (mirror, registry) = (at_mirror.serve().await, at_registry.serve().await);
    let signatures = mirrored(&mirror, &registry).await.expect("listed");
    assert_eq!(signatures.fetched, bundle("bundle"));
}

#[tokio::test]
async fn a_bundle_of_an_unknown_type_in_a_mirror_counts_where_the_registry_has_none() {
    for (status, is_complete) in [(404, true), (403, false)] {
        let mut at_mirror = Attachments::default();
        at_mirror.bundle(json!({"artifactType": "application/vnd.example.config"}), "bundle");
        let mirror = at_mirror.serve().await;
        let registry = Fake::start(move |_, _, _| answer(status, "")).await;
        let signatures = mirrored(&mirror, &registry).await.expect("listed");
        assert_eq!(signatures.fetched, bundle("bundle"), "{status}");
        assert_eq!(signatures.beyond_limit.is_none(), is_complete, "{status}");
    }
}

/// Verifies firmware with this digest. Trust demands a signature by key 0.
async fn verify(
    fake: &Fake,
    keys: &Keys,
    digests: &[&Digest],
) -> Result<bool, UnverifiedFirmware> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (registries, logins, reference) = ([fake.config()], Logins::none(), reference(&fake.host));
    let trust: Vec<TrustEntry> = keys
        .trust(&BOTH, RequiredKeys::Any, &[0])
        .into_iter()
        .map(|entry| TrustEntry { pattern: format!("{}/**", fake.host), ..entry })
        .collect();
    let mut source = Source::of(&reference, &registries, &logins)
        .expect("a configuration")
        .expect("a registry");
    firmware::verify(&mut source, &reference, &trust, digests).await
}

#[tokio::test]
async fn firmware_with_too_many_signatures_is_trusted_if_a_good_one_is_examined_and_else_unknown()
{
    let keys = Keys::new();
    let signed = |key: usize| {
        let Signature::Bundle(bundle) = keys.signed_bundle(key, &subject()) else {
            panic!("a bundle")
        };
        bundle
    };
    // Each is another text, as each has another number of spaces at its end.
    let by_others = |attachments: &mut Attachments, number: usize| {
        let bundle = signed(1);
        for spaces in 1..=number {
            let text = format!("{bundle}{}", " ".repeat(spaces));
            attachments.bundle(json!({"artifactType": BUNDLE}), text);
        }
    };
    let mut first = Attachments::default();
    first.bundle(json!({"artifactType": BUNDLE}), signed(0));
    by_others(&mut first, SIGNATURES);
    let fake = first.serve().await;
    assert!(verify(&fake, &keys, &[&subject()]).await.expect("signed"));

    let mut last = Attachments::default();
    by_others(&mut last, SIGNATURES);
    last.bundle(json!({"artifactType": BUNDLE}), signed(0));
    let fake = last.serve().await;
    let error = verify(&fake, &keys, &[&subject()]).await.expect_err("it is unknown");
    let UnverifiedFirmware::Signatures { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(source, RegistryError::TooManyAttachments { number: 65, .. }), "{error}");
    assert!(!source.is_transient(), "somebody has to act");
    assert!(error.to_string().contains("cannot be fetched"), "{error}");

    let mut all_by_others = Attachments::default();
    by_others(&mut all_by_others, SIGNATURES);
    let fake = all_by_others.serve().await;
    let error = verify(&fake, &keys, &[&subject()]).await.expect_err("refused");
    assert!(matches!(error, UnverifiedFirmware::Trust { .. }), "{error}");
}
