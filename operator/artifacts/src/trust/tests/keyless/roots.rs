//! Trusted roots with gaps: missing lists, and entries that cannot be used.

use rcgen::{PKCS_ED25519, PublicKeyData};

use super::*;

const LISTS: [&str; 4] = ["certificateAuthorities", "tlogs", "ctlogs", "timestampAuthorities"];
/// Public key of ML-DSA-65 in DER, an algorithm that is not supported here.
const ML_DSA: [u8; 20] = [
    0x30, 0x12, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x12,
    0x03, 0x03, 0x00, 0xaa, 0xbb,
];

/// Returns the root without a list, in each of the ways to express that.
fn without(root: &Value, list: &str) -> [Value; 3] {
    let (mut absent, mut null, mut empty) = (root.clone(), root.clone(), root.clone());
    absent.as_object_mut().expect("an object").remove(list);
    (null[list], empty[list]) = (Value::Null, json!([]));
    [absent, null, empty]
}

fn stamped(sigstore: &Sigstore) -> Signature {
    let bundle = sigstore.stamped_bundle(&ours(), &[&this().to_string()], SIGN).expect("signed");
    stored(&bundle)
}

/// Both forms, and one whose signing time is proven by a timestamp authority.
fn all(sigstore: &Sigstore) -> [Signature; 3] {
    let [bundle, simple] = both_forms(sigstore, &ours());
    [bundle, simple, stamped(sigstore)]
}

fn trusting(root: &Value) -> Trusting {
    Trusting::new(root, vec![exact(SUBJECT, ISSUER)])
}

/// Returns the entry with another value at this pointer.
fn with(entry: &Value, pointer: &str, value: Value) -> Value {
    let mut entry = entry.clone();
    *entry.pointer_mut(pointer).expect("a field") = value;
    entry
}

/// Returns unusable variants of a good entry, each with words from the reason.
fn broken(list: &str, good: &Value) -> Vec<(Value, &'static str)> {
    let reversed = json!({"start": "2021-01-01T00:00:00Z", "end": "2020-01-01T00:00:00Z"});
    let mut entries = vec![(Value::Null, "null"), (json!({}), "missing field")];
    if list.ends_with("Authorities") {
        let certificate = "/certChain/certificates/0/rawBytes";
        entries.extend([
            (with(good, "/certChain/certificates", json!([])), "empty certificate chain"),
            (with(good, certificate, json!("AAAA")), "cannot be used"),
            (with(good, certificate, json!("?")), "base64"),
            (with(good, "/validFor", json!({})), "missing field"),
            (with(good, "/validFor", json!({"start": "soon"})), "year"),
            (with(good, "/validFor", reversed), "ends before"),
            // Begins after its certificates have expired.
            (with(good, "/validFor/start", json!("2200-01-01T00:00:00Z")), "ends before"),
        ]);
        return entries;
    }
    let mut compressed =
        STANDARD.decode(good["publicKey"]["rawBytes"].as_str().expect("a key")).expect("a key");
    // The encoding of the point of a P-256 key begins here.
    compressed[26] = 2;
    let key = |key: &[u8]| with(good, "/publicKey/rawBytes", json!(STANDARD.encode(key)));
    entries.extend([
        (key(b"nonsense"), "key"),
        (key(&ML_DSA), if list == "tlogs" { "ML" } else { "ECDSA" }),
        (key(&compressed), "uncompressed"),
        (with(good, "/publicKey/rawBytes", json!("?")), "base64"),
        (with(good, "/publicKey/keyDetails", json!(5)), "expected a string"),
        (with(good, "/publicKey/validFor", json!({})), "missing field"),
        (with(good, "/publicKey/validFor", reversed), "ends before"),
        (with(good, "/hashAlgorithm", json!("SHA3_256")), "SHA3_256"),
        (with(good, "/logId", json!({})), "missing field"),
        (with(good, "/logId/keyId", json!("AAAA")), "32"),
    ]);
    if list == "ctlogs" {
        let ed25519 = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        entries.push((key(&ed25519.subject_public_key_info()), "ECDSA"));
    }
    entries
}

#[test]
fn a_root_without_logs_refuses_each_signature_with_what_it_lacks_and_what_to_do() {
    let sigstore = sigstore();
    for (list, option) in [("tlogs", "--rekor"), ("ctlogs", "--ctfe")] {
        for root in without(&sigstore.trusted_root(), list) {
            let trusting = trusting(&root);
            for signature in all(&sigstore) {
                let refused = trusting.refusal(signature);
                assert_eq!(refused.reason(), "SignatureUnproven", "{refused}");
                let (text, file) = (refused.to_string(), trusting.file.path().display());
                let lack = format!("the trusted root {file} has no {list}");
                assert!(text.contains(&lack) && text.contains(option), "{text}");
            }
        }
    }
    let mut root = sigstore.trusted_root();
    (root["tlogs"], root["ctlogs"]) = (Value::Null, Value::Null);
    let trusting = trusting(&root);
    for signature in all(&sigstore) {
        let text = trusting.refusal(signature).to_string();
        assert!(text.contains("has no tlogs") && text.contains("has no ctlogs"), "{text}");
    }
}

#[test]
fn a_timestamp_does_not_stand_in_for_a_log_that_neither_signature_nor_root_has() {
    let sigstore = sigstore();
    let mut without_entry =
        sigstore.stamped_bundle(&ours(), &[&this().to_string()], SIGN).expect("signed");
    without_entry["verificationMaterial"]["tlogEntries"] = json!([]);
    for root in without(&sigstore.trusted_root(), "tlogs") {
        let text = trusting(&root).refusal(stored(&without_entry)).to_string();
        assert!(text.contains("has no tlogs") && text.contains("has a timestamp"), "{text}");
    }
    let whole = trusting(&sigstore.trusted_root()).refusal(stored(&without_entry)).to_string();
    assert!(whole.contains("proof") && !whole.contains("has no"), "{whole}");
}

#[test]
fn what_needs_no_log_is_told_with_a_root_without_logs() {
    let (sigstore, keys) = (sigstore(), Keys::new());
    let mut root = sigstore.trusted_root();
    (root["tlogs"], root["ctlogs"]) = (Value::Null, Value::Null);
    let mut trusting = self::trusting(&root);
    let reason = |trusting: &Trusting, signatures: &[Signature]| {
        trusting.verdict(signatures).expect_err("refused").reason()
    };
    assert_eq!(reason(&trusting, &[]), "Unsigned");
    let attestation = sigstore
        .bundle(&ours(), &[&this().to_string()], "https://slsa.dev/provenance/v1")
        .expect("signed");
    assert_eq!(reason(&trusting, &[stored(&attestation)]), "Unsigned");
    assert_eq!(reason(&trusting, &[Signature::Bundle("{}".into())]), "SignatureBroken");
    let by_key = trusting.refusal(keys.signed_bundle(0, &this())).to_string();
    assert!(by_key.contains("made with a key") && !by_key.contains("tlogs"), "{by_key}");
    for entry in trusting.entries.iter_mut().filter_map(|entry| entry.cosign.as_mut()) {
        entry.forms = vec![SignatureForm::Simple];
    }
    assert_eq!(reason(&trusting, &[stamped(&sigstore)]), "FormNotAllowed");
}

#[test]
fn a_root_without_timestamp_authorities_proves_signatures_without_timestamps() {
    let sigstore = sigstore();
    for root in without(&sigstore.trusted_root(), "timestampAuthorities") {
        let trusting = trusting(&root);
        for signature in both_forms(&sigstore, &ours()) {
            assert_eq!(trusting.verdict(&[signature]), Ok(true));
        }
        let text = trusting.refusal(stamped(&sigstore)).to_string();
        assert!(text.contains("has no timestampAuthorities"), "{text}");
    }
}

#[test]
fn an_entry_that_cannot_be_used_is_passed_over_and_the_others_prove_what_they_did() {
    let sigstore = sigstore();
    let other = self::sigstore().trusted_root();
    let signatures = all(&sigstore);
    for list in LISTS {
        for (entry, words) in broken(list, &other[list][0]) {
            let mut root = sigstore.trusted_root();
            let ours = root[list][0].clone();
            for entries in [[&ours, &entry], [&entry, &ours]] {
                root[list] = json!(entries);
                let trusting = trusting(&root);
                for signature in &signatures {
                    let verdict = trusting.verdict(std::slice::from_ref(signature));
                    assert_eq!(verdict, Ok(true), "{list}, {words}");
                }
            }
        }
    }
}

#[test]
fn who_needs_an_entry_that_was_passed_over_is_refused_with_its_name_and_the_reason() {
    let sigstore = sigstore();
    let other = self::sigstore().trusted_root();
    let signatures = all(&sigstore);
    for (list, address, first) in [
        ("certificateAuthorities", "fulcio.testbed", 0),
        ("tlogs", "rekor.testbed", 0),
        ("ctlogs", "ct.testbed", 0),
        // Only the last of the signatures has a timestamp.
        ("timestampAuthorities", "time.testbed", 2),
    ] {
        let mut root = sigstore.trusted_root();
        for (entry, words) in broken(list, &root[list][0].clone()) {
            let name = match entry.get("certChain").or_else(|| entry.get("publicKey")) {
                Some(_) => format!("{list}[1] (https://{address}): "),
                None => format!("{list}[1]: "),
            };
            // Another entry remains, or none.
            for beside in [&other[list][0], &Value::Null] {
                root[list] = json!([beside, entry]);
                let trusting = trusting(&root);
                // Without a certificate authority nobody can have signed.
                let unusable = beside.is_null() && list == "certificateAuthorities";
                for signature in &signatures[first..] {
                    let refused = trusting.refusal(signature.clone());
                    let text = refused.to_string();
                    assert!(text.contains(&name) && text.contains(words), "{words}: {text}");
                    assert_eq!(refused.reason() == "TrustedRootUnusable", unusable, "{text}");
                }
            }
        }
    }
}

#[test]
fn a_log_that_was_passed_over_is_named_where_it_logged_and_not_where_another_did() {
    let key = || KeyPair::generate().expect("a key");
    for list in ["tlogs", "ctlogs"] {
        let (mut sigstore, third) = (sigstore(), self::sigstore());
        let mut root = sigstore.trusted_root();
        let bad = with(&third.trusted_root()[list][0], "/publicKey/rawBytes", json!("AAAA"));
        root[list] = json!([root[list][0], bad]);
        let trusting = trusting(&root);
        let named = format!("cannot be used: {list}[1]");
        let logs = |sigstore: &mut Sigstore, log: KeyPair| match list {
            "tlogs" => sigstore.log = log,
            _ => sigstore.certificates = log,
        };
        logs(&mut sigstore, key());
        for signature in both_forms(&sigstore, &ours()) {
            let text = trusting.refusal(signature).to_string();
            assert!(!text.contains("entries that cannot be used"), "{text}");
        }
        logs(&mut sigstore, if list == "tlogs" { third.log } else { third.certificates });
        for signature in both_forms(&sigstore, &ours()) {
            let text = trusting.refusal(signature).to_string();
            assert!(text.contains(&named), "{text}");
        }
    }
}

#[test]
fn of_two_logs_with_one_identifier_neither_proves_anything() {
    let sigstore = sigstore();
    let other = self::sigstore().trusted_root();
    for list in ["tlogs", "ctlogs"] {
        let mut root = sigstore.trusted_root();
        let good = root[list][0].clone();
        let same = with(&other[list][0], "/logId", good["logId"].clone());
        for entries in [[&good, &same], [&same, &good]] {
            root[list] = json!(entries);
            let trusting = trusting(&root);
            for signature in all(&sigstore) {
                let text = trusting.refusal(signature).to_string();
                assert!(text.contains("another entry has the same logId"), "{text}");
            }
        }
    }
}

#[test]
fn an_entry_that_has_a_field_twice_is_passed_over() {
    let sigstore = sigstore();
    let text = sigstore.trusted_root().to_string();
    let trusting = Trusting::ours(&sigstore);
    trusting.write(&text.replace(
        r#""hashAlgorithm":"SHA2_256""#,
        r#""hashAlgorithm":"SHA2_256","hashAlgorithm":"SHA2_256""#,
    ));
    let text = trusting.refusal(stamped(&sigstore)).to_string();
    assert!(text.contains("has a duplicate field"), "{text}");
}

#[test]
fn of_many_entries_that_were_passed_over_some_are_named_and_the_others_counted() {
    let sigstore = sigstore();
    let mut root = sigstore.trusted_root();
    let bad = with(&root["tlogs"][0], "/baseUrl", json!("x".repeat(9000)));
    let bad = with(&bad, "/publicKey/keyDetails", json!(["y".repeat(9000)]));
    root["tlogs"] = json!(vec![bad; 20]);
    let text = trusting(&root).refusal(stamped(&sigstore)).to_string();
    assert!(text.contains("tlogs[2]") && text.contains(", and 17 more"), "{text}");
    assert!(text.len() < 4000, "{}", text.len());
}
