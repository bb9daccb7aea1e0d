//! Tests that trust follows the configuration, and that each refusal names its reason. The
//! signatures are made here in cosign's format.

mod keyless;

use rcgen::KeyPair;
use serde_json::json;

use super::testing::{BOTH, Keys};
use super::*;

const REFERENCE: &str = "harbor.example/flashjob/esp32:1";

fn artifact(reference: &str) -> Unverified {
    Unverified {
        reference: reference.parse().expect("a reference"),
        digest: Digest::of(b""),
        content: Vec::new(),
    }
}

fn entry(pattern: &str) -> TrustEntry {
    TrustEntry { pattern: pattern.into(), allow_unsigned: true, cosign: None }
}

fn verdict(trust: &[TrustEntry], signatures: &[Signature]) -> Result<bool, TrustError> {
    verify(artifact(REFERENCE), trust, true, signatures).map(|verified| verified.signed())
}

#[test]
fn nothing_matching_means_refused() {
    assert!(verify(artifact(REFERENCE), &[], true, &[]).is_err());
    let other_entries = [entry("harbor.example.evil/**"), entry("harbor.example/flash/**")];
    assert!(verify(artifact(REFERENCE), &other_entries, true, &[]).is_err());
    for pattern in
        ["harbor.example/**", "harbor.example/flashjob/*", "harbor.example/flashjob/esp32"]
    {
        assert!(verify(artifact(REFERENCE), &[entry(pattern)], false, &[]).is_ok(), "{pattern}");
    }
}

#[test]
fn a_file_needs_its_digest_or_a_permission() {
    assert!(verify(artifact("file:///a.wasm"), &[], false, &[]).is_err());
    assert!(verify(artifact("file:///a.wasm"), &[], true, &[]).is_ok());
    assert!(
        verify(artifact(&format!("file:///a.wasm@{}", Digest::of(b""))), &[], false, &[]).is_ok()
    );
}

#[test]
fn a_signature_by_a_trusted_key_counts_in_both_forms_and_with_both_kinds_of_key() {
    let (keys, digest) = (Keys::new(), Digest::of(b""));
    let trust = keys.trust(&BOTH, RequiredKeys::Any, &[0, 1]);
    for key in [0, 1] {
        assert_eq!(verdict(&trust, &[keys.simple(key, &digest)]), Ok(true));
        assert_eq!(verdict(&trust, &[keys.signed_bundle(key, &digest)]), Ok(true));
    }
    let mixed = [
        keys.simple(0, &Digest::of(b"other")),
        Signature::Bundle("{".into()),
        keys.signed_bundle(1, &digest),
    ];
    assert_eq!(verdict(&trust, &mixed), Ok(true), "one good signature among others is enough");
}

#[test]
fn a_longer_prefix_that_demands_a_signature_beats_a_shorter_one_that_demands_none() {
    let keys = Keys::new();
    let mut trust = keys.trust(&BOTH, RequiredKeys::Any, &[0]);
    trust.push(entry("harbor.example/**"));
    assert!(matches!(verdict(&trust, &[]), Err(TrustError::Unsigned { .. })));
}

#[test]
fn each_refusal_says_what_is_wrong() {
    let (keys, digest, other) = (Keys::new(), Digest::of(b""), Digest::of(b"other"));
    let trust = keys.trust(&BOTH, RequiredKeys::Any, &[0]);
    let refusal = |signature: Signature| verdict(&trust, &[signature]).expect_err("refused");
    for wrong in [keys.simple(1, &digest), keys.signed_bundle(1, &digest)] {
        assert!(matches!(refusal(wrong), TrustError::WrongKey { .. }));
    }
    for wrong in [keys.simple(0, &other), keys.signed_bundle(0, &other)] {
        assert_eq!(
            refusal(wrong),
            TrustError::OtherDigest { digest: digest.clone(), signed: other.to_string() }
        );
    }
    let sign = "https://sigstore.dev/cosign/sign/v1";
    let altered = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut bundle = keys.bundle(0, &[&digest], sign);
        change(&mut bundle);
        Signature::Bundle(bundle.to_string())
    };
    let foreign = keys.bundle(0, &[&other], sign)["dsseEnvelope"]["payload"].clone();
    for tampered in [
        keys.simple_of(0, "atomic container signature", &digest),
        Signature::Simple {
            payload: "%".into(),
            signature: String::new(),
            attached: Attached::default(),
        },
        Signature::Bundle("{}".into()),
        Signature::Bundle(keys.bundle(0, &[&digest, &digest], sign).to_string()),
        Signature::Bundle(keys.bundle(0, &[], sign).to_string()),
        altered(&|bundle| bundle["dsseEnvelope"]["payload"] = foreign.clone()),
        altered(&|bundle| bundle["dsseEnvelope"]["payloadType"] = json!("text/plain")),
        altered(&|bundle| bundle["dsseEnvelope"]["signatures"] = json!([])),
        altered(&|bundle| {
            bundle["mediaType"] = json!("application/vnd.dev.sigstore.bundle+json;version=0.2")
        }),
    ] {
        assert!(matches!(refusal(tampered.clone()), TrustError::Tampered { .. }), "{tampered:?}");
    }
}

#[test]
fn an_attestation_by_a_trusted_key_is_no_signature() {
    let keys = Keys::new();
    let trust = keys.trust(&BOTH, RequiredKeys::Any, &[0]);
    let attestation = Signature::Bundle(
        keys.bundle(0, &[&Digest::of(b"")], "https://slsa.dev/provenance/v1").to_string(),
    );
    assert!(matches!(verdict(&trust, &[attestation]), Err(TrustError::Unsigned { .. })));
}

#[test]
fn a_form_that_is_not_listed_does_not_count() {
    let (keys, digest) = (Keys::new(), Digest::of(b""));
    let trust = keys.trust(&[SignatureForm::Bundle], RequiredKeys::Any, &[0]);
    let refused = verdict(&trust, &[keys.simple(0, &digest)]);
    assert!(
        matches!(refused, Err(TrustError::FormNotAllowed { form: SignatureForm::Simple, .. })),
        "{refused:?}"
    );
}

#[test]
fn where_all_keys_are_required_each_must_have_signed() {
    let (keys, digest) = (Keys::new(), Digest::of(b""));
    let trust = keys.trust(&BOTH, RequiredKeys::All, &[0, 1]);
    let refused = verdict(&trust, &[keys.simple(0, &digest)]).expect_err("refused").to_string();
    assert!(refused.contains("1.pub") && !refused.contains("0.pub"), "{refused}");
    assert_eq!(
        verdict(&trust, &[keys.simple(0, &digest), keys.signed_bundle(1, &digest)]),
        Ok(true)
    );
}

#[test]
fn a_key_that_cannot_be_used_refuses_everything() {
    let (keys, digest) = (Keys::new(), Digest::of(b""));
    let trust = keys.trust(&BOTH, RequiredKeys::Any, &[0, 1]);
    let p384 =
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key").public_key_pem();
    for text in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", &p384] {
        std::fs::write(keys.folder.path().join("1.pub"), text).expect("written");
        assert!(matches!(
            verdict(&trust, &[keys.simple(0, &digest)]),
            Err(TrustError::Key { .. })
        ));
    }
}

#[test]
fn the_fingerprint_of_an_entry_is_another_one_once_its_text_or_the_content_of_a_key_is() {
    let keys = Keys::new();
    let of = |trust: &[TrustEntry]| fingerprint(&trust[0]);
    let first = keys.trust(&BOTH, RequiredKeys::Any, &[0]);
    assert_eq!(of(&first), of(&keys.trust(&BOTH, RequiredKeys::Any, &[0])));
    for other in [
        keys.trust(&BOTH, RequiredKeys::Any, &[1]),
        keys.trust(&BOTH, RequiredKeys::All, &[0]),
        keys.trust(&BOTH[..1], RequiredKeys::Any, &[0]),
        vec![entry("harbor.example/flashjob/**")],
    ] {
        assert_ne!(of(&first), of(&other), "{other:?}");
    }
    let before = of(&first);
    let file = keys.folder.path().join("0.pub");
    std::fs::copy(keys.folder.path().join("1.pub"), &file).expect("copied");
    let exchanged = of(&first);
    std::fs::remove_file(&file).expect("removed");
    assert!(before != exchanged && before != of(&first) && exchanged != of(&first));
}
