//! Tests of keyless signatures: every proof of the signer is required, and each refusal names what
//! is missing.

mod changes;
mod roots;
mod times;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flashjob_testbed::keyless::{Authority, Signing, Sigstore};
use flashjob_testbed::signatures::SIGN;
use rcgen::KeyPair;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::super::testing::{BOTH, Keys};
use super::super::*;
use super::verdict;
use crate::config::{KeylessTrust, SignerIdentity};

const SUBJECT: &str =
    "https://github.com/nubificus/plugins/.github/workflows/release.yml@refs/tags/v1";
const ISSUER: &str = "https://token.actions.githubusercontent.com";

fn sigstore() -> Sigstore {
    Sigstore::new().expect("a Sigstore")
}

fn ours() -> Signing {
    Signing::now(SUBJECT, ISSUER)
}

fn this() -> Digest {
    Digest::of(b"")
}

fn exact(subject: &str, issuer: &str) -> SignerIdentity {
    SignerIdentity {
        issuer: Some(issuer.into()),
        subject: Some(subject.into()),
        ..SignerIdentity::default()
    }
}

/// Trust entries for these identities, and the trusted root file that they read.
struct Trusting {
    file: NamedTempFile,
    entries: Vec<TrustEntry>,
}

impl Trusting {
    fn new(root: &Value, identities: Vec<SignerIdentity>) -> Self {
        let file = NamedTempFile::new().expect("a file");
        let keyless = KeylessTrust { trusted_root_file: file.path().to_owned(), identities };
        let cosign =
            CosignTrust { forms: BOTH.to_vec(), keyless: Some(keyless), ..CosignTrust::default() };
        let entry = TrustEntry {
            pattern: "harbor.example/flashjob/**".into(),
            cosign: Some(cosign),
            ..TrustEntry::default()
        };
        let trusting = Self { file, entries: vec![entry] };
        trusting.write(&root.to_string());
        trusting
    }

    fn ours(sigstore: &Sigstore) -> Self {
        Self::new(&sigstore.trusted_root(), vec![exact(SUBJECT, ISSUER)])
    }

    fn write(&self, text: &str) {
        std::fs::write(self.file.path(), text).expect("written");
    }

    fn verdict(&self, signatures: &[Signature]) -> Result<bool, TrustError> {
        verdict(&self.entries, signatures)
    }

    fn refusal(&self, signature: Signature) -> TrustError {
        self.verdict(&[signature]).expect_err("refused")
    }
}

fn bundle(sigstore: &Sigstore, signing: &Signing) -> Value {
    sigstore.bundle(signing, &[&this().to_string()], SIGN).expect("signed")
}

fn simple_of(sigstore: &Sigstore, signing: &Signing, digest: &Digest) -> Signature {
    let (payload, mut annotations) =
        sigstore.simple(signing, &digest.to_string()).expect("signed");
    let mut take = |name: &str| annotations.remove(name);
    let signature = take("dev.cosignproject.cosign/signature").expect("a signature");
    let (certificate, chain) =
        (take("dev.sigstore.cosign/certificate"), take("dev.sigstore.cosign/chain"));
    let attached = Attached {
        certificate,
        chain,
        bundle: take("dev.sigstore.cosign/bundle"),
        timestamp: None,
    };
    Signature::Simple { payload: STANDARD.encode(payload), signature, attached }
}

fn simple(sigstore: &Sigstore, signing: &Signing) -> Signature {
    simple_of(sigstore, signing, &this())
}

fn stored(bundle: &Value) -> Signature {
    Signature::Bundle(bundle.to_string())
}

/// Both forms of signature by the same signer.
fn both_forms(sigstore: &Sigstore, signing: &Signing) -> [Signature; 2] {
    [stored(&bundle(sigstore, signing)), simple(sigstore, signing)]
}

#[test]
fn what_a_trusted_identity_signed_counts_in_both_forms() {
    let sigstore = sigstore();
    let trusting = Trusting::ours(&sigstore);
    for signature in both_forms(&sigstore, &ours()) {
        assert_eq!(trusting.verdict(&[signature]), Ok(true));
    }
    let person = Signing::now("who@nubificus.example", "https://accounts.example");
    let trusting = Trusting::new(
        &sigstore.trusted_root(),
        vec![exact(SUBJECT, ISSUER), exact(&person.subject, &person.issuer)],
    );
    for signature in both_forms(&sigstore, &person) {
        assert_eq!(trusting.verdict(&[signature]), Ok(true));
    }
}

#[test]
fn another_identity_is_refused_by_name_and_so_is_the_same_name_by_another_issuer() {
    let sigstore = sigstore();
    let trusting = Trusting::ours(&sigstore);
    for (subject, issuer) in [
        ("https://github.com/evil/plugins/.github/workflows/release.yml@refs/tags/v1", ISSUER),
        (&format!("{SUBJECT}0"), ISSUER),
        (SUBJECT, "https://gitlab.example"),
        (SUBJECT, ""),
    ] {
        for signature in both_forms(&sigstore, &Signing::now(subject, issuer)) {
            let refused = trusting.refusal(signature);
            assert!(
                matches!(
                    &refused,
                    TrustError::WrongIdentity { signer, .. }
                        if *signer == format!("{subject} of {issuer}")
                ),
                "{refused}"
            );
        }
    }
}

#[test]
fn a_pattern_matches_whole_names_alone() {
    let sigstore = sigstore();
    let pattern = |subject: &str| SignerIdentity {
        issuer_regexp: Some("^https://token[.]actions[.]githubusercontent[.]com$".into()),
        subject_regexp: Some(subject.into()),
        ..SignerIdentity::default()
    };
    let accepts = |subject: &str, signer: &str| {
        Trusting::new(&sigstore.trusted_root(), vec![pattern(subject)])
            .verdict(&[simple(&sigstore, &Signing::now(signer, ISSUER))])
            .is_ok()
    };
    assert!(accepts("^https://github[.]com/nubificus/plugins/.*@refs/tags/v[0-9]+$", SUBJECT));
    assert!(!accepts("^https://github[.]com/nubificus/other/.*@refs/tags/v[0-9]+$", SUBJECT));
    // Each of the two alternatives has only one of the anchors.
    assert!(accepts("^https://a[.]example/x|https://b[.]example/x$", "https://b.example/x"));
    assert!(!accepts("^https://a[.]example/x|https://b[.]example/x$", "https://a.example/x/evil"));
    assert!(!accepts(
        "^https://a[.]example/x|https://b[.]example/x$",
        "https://evil.example/?https://b.example/x"
    ));
}

#[test]
fn where_all_identities_are_required_each_must_have_signed() {
    let sigstore = sigstore();
    let (first, second) =
        (ours(), Signing::now("who@nubificus.example", "https://accounts.example"));
    let mut trusting = Trusting::new(
        &sigstore.trusted_root(),
        vec![exact(SUBJECT, ISSUER), exact("who@nubificus.example", "https://accounts.example")],
    );
    for entry in trusting.entries.iter_mut().filter_map(|entry| entry.cosign.as_mut()) {
        entry.require = RequiredKeys::All;
    }
    let refused = trusting.refusal(simple(&sigstore, &first));
    assert!(matches!(
        &refused,
        TrustError::IdentitiesMissing { missing, .. }
            if missing == "who@nubificus.example of https://accounts.example"
    ));
    assert_eq!(
        trusting.verdict(&[simple(&sigstore, &first), stored(&bundle(&sigstore, &second))]),
        Ok(true)
    );
}

#[test]
fn a_signature_for_another_digest_is_refused_with_that_digest() {
    let (sigstore, other) = (sigstore(), Digest::of(b"other"));
    let trusting = Trusting::ours(&sigstore);
    let of_other = sigstore.bundle(&ours(), &[&other.to_string()], SIGN).expect("signed");
    for signature in [stored(&of_other), simple_of(&sigstore, &ours(), &other)] {
        assert_eq!(
            trusting.refusal(signature),
            TrustError::OtherDigest { digest: this(), signed: other.to_string() }
        );
    }
    let two = sigstore
        .bundle(&ours(), &[&this().to_string(), &other.to_string()], SIGN)
        .expect("signed");
    assert!(matches!(trusting.refusal(stored(&two)), TrustError::Tampered { .. }));
    let attestation = sigstore
        .bundle(&ours(), &[&this().to_string()], "https://slsa.dev/provenance/v1")
        .expect("signed");
    assert!(matches!(trusting.refusal(stored(&attestation)), TrustError::Unsigned { .. }));
}

/// Checks that a signature is refused as unproven, with these words in the message.
fn unproven(what: &str, trusting: &Trusting, signature: Signature, words: &str) {
    match trusting.refusal(signature) {
        TrustError::Unproven { message, .. } => {
            assert!(message.contains(words), "{what}: {message}")
        }
        other => panic!("{what}: {other}"),
    }
}

#[test]
fn whoever_takes_no_part_in_the_trusted_root_proves_nothing() {
    let mut sigstore = sigstore();
    let (trusting, signing) = (Trusting::ours(&sigstore), ours());
    let key = || KeyPair::generate().expect("a key");
    let refused = |sigstore: &Sigstore, words: [&str; 2]| {
        for (signature, words) in both_forms(sigstore, &signing).into_iter().zip(words) {
            unproven(words, &trusting, signature, words);
        }
    };
    let ours = std::mem::replace(
        &mut sigstore.authority,
        Authority::new(signing.certified.clone()).expect("an authority"),
    );
    refused(&sigstore, ["certificate chain is invalid"; 2]);
    sigstore.authority = ours;
    let ours = std::mem::replace(&mut sigstore.certificates, key());
    refused(&sigstore, ["signed certificate timestamp"; 2]);
    sigstore.certificates = ours;
    let ours = std::mem::replace(&mut sigstore.log, key());
    refused(&sigstore, ["invalid inclusion promise"; 2]);
    sigstore.log = ours;
    let ours = std::mem::replace(&mut sigstore.checkpoints, key());
    unproven("checkpoints", &trusting, stored(&bundle(&sigstore, &signing)), "invalid checkpoint");
    sigstore.checkpoints = ours;
    for signature in both_forms(&sigstore, &signing) {
        assert_eq!(trusting.verdict(&[signature]), Ok(true), "nobody is exchanged");
    }
}

#[test]
fn a_signature_by_a_key_is_none_by_an_identity_and_the_other_way_round() {
    let (sigstore, keys) = (sigstore(), Keys::new());
    let trusting = Trusting::ours(&sigstore);
    unproven("a bundle", &trusting, keys.signed_bundle(0, &this()), "made with a key");
    unproven("the older form", &trusting, keys.simple(0, &this()), "no certificate");
    let by_key = keys.trust(&BOTH, RequiredKeys::Any, &[0]);
    for signature in both_forms(&sigstore, &ours()) {
        assert!(matches!(verdict(&by_key, &[signature]), Err(TrustError::WrongKey { .. })));
    }
}

#[test]
fn a_trusted_root_that_cannot_be_used_refuses_everything_and_says_why() {
    let sigstore = sigstore();
    let trusting = Trusting::ours(&sigstore);
    let good = [stored(&bundle(&sigstore, &ours()))];
    let with = |field: &str, value: Value| {
        let mut root = sigstore.trusted_root();
        root[field] = value;
        root.to_string()
    };
    for (text, words) in [
        ("", "not a trusted root"),
        ("{}", "not a trusted root"),
        (&with("mediaType", json!("application/json")), "mediaType"),
        (&with("certificateAuthorities", json!([])), "certificateAuthorities are empty"),
        (&with("certificateAuthorities", Value::Null), "certificateAuthorities are empty"),
        (&with("tlogs", json!({})), "not a trusted root"),
        (&" ".repeat(2 << 20), "larger than"),
    ] {
        trusting.write(text);
        let refused = trusting.verdict(&good).expect_err("refused");
        assert!(
            matches!(refused, TrustError::TrustedRoot { .. })
                && refused.to_string().contains(words),
            "{refused}"
        );
    }
    // A changed file takes effect at the next check.
    trusting.write(&sigstore.trusted_root().to_string());
    assert_eq!(trusting.verdict(&good), Ok(true));
    std::fs::remove_file(trusting.file.path()).expect("removed");
    let refused = trusting.verdict(&good).expect_err("refused");
    assert_eq!(refused.reason(), "TrustedRootUnusable", "{refused}");
}
