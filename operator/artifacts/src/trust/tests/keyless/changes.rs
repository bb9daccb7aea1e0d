//! Proofs that lack a part, that have a part of another proof, or that were altered.

use super::*;

#[test]
fn what_has_more_proofs_than_a_signer_makes_is_not_looked_at() {
    let sigstore = sigstore();
    let trusting = Trusting::ours(&sigstore);
    let many = |field: &str, count: usize| {
        let mut bundle =
            sigstore.stamped_bundle(&ours(), &[&this().to_string()], SIGN).expect("signed");
        let list = bundle["verificationMaterial"].pointer_mut(field).expect("a list");
        *list = json!(vec![list[0].clone(); count]);
        trusting.verdict(&[stored(&bundle)])
    };
    for field in ["/tlogEntries", "/timestampVerificationData/rfc3161Timestamps"] {
        assert_eq!(many(field, 8), Ok(true), "{field}");
        assert!(matches!(many(field, 9), Err(TrustError::Tampered { .. })), "{field}");
    }
    let mut long = bundle(&sigstore, &ours());
    let proof = &mut long["verificationMaterial"]["tlogEntries"][0]["inclusionProof"];
    let checkpoint = &mut proof["checkpoint"]["envelope"];
    let line =
        checkpoint.as_str().and_then(|text| text.lines().last()).expect("a signature").to_owned();
    *checkpoint =
        json!(format!("{}{}", checkpoint.as_str().expect("text"), format!("{line}\n").repeat(64)));
    assert!(matches!(trusting.refusal(stored(&long)), TrustError::Tampered { .. }));
}

#[test]
fn a_bundle_without_the_log_s_whole_proof_or_with_that_of_another_entry_is_refused() {
    let sigstore = sigstore();
    let trusting = Trusting::ours(&sigstore);
    let other = bundle(&sigstore, &ours());
    let entry = |bundle: &mut Value| bundle["verificationMaterial"]["tlogEntries"][0].take();
    let of_other = other["verificationMaterial"]["tlogEntries"][0].clone();
    type Change<'a> = Box<dyn Fn(&mut Value) + 'a>;
    let removal_of = |field: &'static str| -> Change<'_> {
        Box::new(move |entry| {
            entry.as_object_mut().expect("an entry").remove(field);
        })
    };
    let put = |field: &'static str| -> Change<'_> {
        Box::new({
            let of_other = &of_other;
            move |entry| entry[field] = of_other[field].clone()
        })
    };
    let cases: Vec<(&str, Change<'_>, &str)> = vec![
        ("no proof", removal_of("inclusionProof"), "must have an inclusion proof"),
        ("no promise", removal_of("inclusionPromise"), "no verified timestamp"),
        (
            "a time that the log does not promise",
            Box::new(|entry| entry["integratedTime"] = json!("1")),
            "inclusion promise",
        ),
        ("the proof of another entry", put("inclusionProof"), "inclusion proof"),
        ("the promise of another entry", put("inclusionPromise"), "inclusion promise"),
        (
            "another entry as a whole",
            Box::new(|entry| *entry = of_other.clone()),
            "does not match the bundle",
        ),
        ("another body", put("canonicalizedBody"), "inclusion promise"),
        (
            "a tree of another size",
            Box::new(|entry| entry["inclusionProof"]["treeSize"] = json!("3")),
            "inclusion proof",
        ),
        (
            "another leaf",
            Box::new(|entry| entry["inclusionProof"]["logIndex"] = json!("0")),
            "inclusion proof",
        ),
    ];
    for (what, change, words) in cases {
        let mut changed = bundle(&sigstore, &ours());
        let mut log_entry = entry(&mut changed);
        change(&mut log_entry);
        changed["verificationMaterial"]["tlogEntries"][0] = log_entry;
        let refused = trusting.refusal(stored(&changed)).to_string();
        assert!(refused.contains(words), "{what}: {refused}");
    }
    let mut without = bundle(&sigstore, &ours());
    without["verificationMaterial"]["tlogEntries"] = json!([]);
    let refused = trusting.refusal(stored(&without)).to_string();
    assert!(refused.contains("proof"), "{refused}");
}

#[test]
fn an_older_signature_without_a_promise_of_the_log_or_with_that_of_another_entry_is_refused() {
    let sigstore = sigstore();
    let trusting = Trusting::ours(&sigstore);
    let Signature::Simple { attached: of_other, signature: other, .. } =
        simple(&sigstore, &ours())
    else {
        panic!("simple")
    };
    let changed = |change: &dyn Fn(&mut String, &mut Attached)| {
        let mut changed_signature = simple(&sigstore, &ours());
        if let Signature::Simple { signature, attached, .. } = &mut changed_signature {
            change(signature, attached);
        }
        trusting.refusal(changed_signature)
    };
    for (what, refused, reason, words) in [
        (
            "no certificate",
            changed(&|_, attached| attached.certificate = None),
            "SignatureUnproven",
            "no certificate",
        ),
        (
            "no promise",
            changed(&|_, attached| attached.bundle = None),
            "SignatureUnproven",
            "no inclusion promise of a transparency log",
        ),
        (
            "another entry",
            changed(&|_, attached| attached.bundle = of_other.bundle.clone()),
            "SignatureUnproven",
            "does not match",
        ),
        (
            "another certificate",
            changed(&|_, attached| attached.certificate = of_other.certificate.clone()),
            "SignatureBroken",
            "not made with this key",
        ),
        (
            "another signature",
            changed(&|signature, _| *signature = other.clone()),
            "SignatureBroken",
            "not made with this key",
        ),
        (
            "no certificate but nonsense",
            changed(&|_, attached| attached.certificate = Some("x".into())),
            "SignatureBroken",
            "0 certificates",
        ),
        (
            "no promise but nonsense",
            changed(&|_, attached| attached.bundle = Some("{}".into())),
            "SignatureBroken",
            "cannot be read",
        ),
    ] {
        assert_eq!(refused.reason(), reason, "{what}: {refused}");
        assert!(refused.to_string().contains(words), "{what}: {refused}");
    }
}

#[test]
fn what_was_changed_after_it_was_signed_is_told_as_that() {
    let sigstore = sigstore();
    let trusting = Trusting::ours(&sigstore);
    let other = bundle(&sigstore, &ours());
    let foreign =
        sigstore.bundle(&ours(), &[&Digest::of(b"other").to_string()], SIGN).expect("signed");
    type Change<'a> = &'a dyn Fn(&mut Value);
    let changes: [Change<'_>; 6] = [
        &|bundle| {
            bundle["dsseEnvelope"]["signatures"] = other["dsseEnvelope"]["signatures"].clone()
        },
        &|bundle| bundle["dsseEnvelope"]["payload"] = foreign["dsseEnvelope"]["payload"].clone(),
        &|bundle| bundle["dsseEnvelope"]["payloadType"] = json!("text/plain"),
        &|bundle| bundle["dsseEnvelope"]["signatures"] = json!([]),
        &|bundle| {
            bundle["mediaType"] = json!("application/vnd.dev.sigstore.bundle+json;version=0.1")
        },
        &|bundle| bundle["verificationMaterial"] = json!({}),
    ];
    for (at, change) in changes.iter().enumerate() {
        let mut changed = bundle(&sigstore, &ours());
        change(&mut changed);
        let refused = trusting.refusal(stored(&changed));
        assert!(matches!(refused, TrustError::Tampered { .. }), "change {at}: {refused}");
    }
}
