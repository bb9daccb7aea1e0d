//! Tests of signing time: certificates, authorities and timestamps each have a validity period.

use flashjob_testbed::keyless::Timestamps;

use super::*;

#[test]
fn a_certificate_counts_for_the_time_that_it_is_for() {
    let sigstore = sigstore();
    let trusting = Trusting::ours(&sigstore);
    let now = ours();
    let (early, late) = (now.certified.start - 100, now.certified.end + 100);
    // A signature from the past counts if it was made while its certificate was valid.
    let past = Signing {
        certified: now.certified.start - 9000..now.certified.end - 9000,
        logged: now.logged - 9000,
        ..now.clone()
    };
    for signature in both_forms(&sigstore, &past) {
        assert_eq!(trusting.verdict(&[signature]), Ok(true));
    }
    let expired = Signing {
        certified: now.certified.start - 9000..now.certified.start - 8400,
        ..now.clone()
    };
    for signature in both_forms(&sigstore, &expired) {
        unproven("expired", &trusting, signature, "CertExpired");
    }
    for signature in both_forms(&sigstore, &Signing { logged: early, ..now.clone() }) {
        unproven("before its time", &trusting, signature, "CertNotValidYet");
    }
    for signature in both_forms(
        &sigstore,
        &Signing { logged: late, certified: now.certified.start..late + 100, ..now },
    ) {
        unproven("in the future", &trusting, signature, "in the future");
    }
}

#[test]
fn where_the_log_says_no_time_a_trusted_timestamp_authority_must() {
    let mut sigstore = sigstore();
    let trusting = Trusting::ours(&sigstore);
    let now = ours();
    let stamped = |sigstore: &Sigstore, signing: &Signing| {
        sigstore.stamped_bundle(signing, &[&this().to_string()], SIGN).expect("signed")
    };
    let good = stamped(&sigstore, &now);
    assert_eq!(trusting.verdict(&[stored(&good)]), Ok(true));
    let late = Signing { logged: now.certified.end + 1, ..now.clone() };
    unproven("late", &trusting, stored(&stamped(&sigstore, &late)), "CertExpired");
    let mut changed = good.clone();
    changed["verificationMaterial"]["timestampVerificationData"] = json!({});
    unproven("none", &trusting, stored(&changed), "no verified timestamp");
    changed["verificationMaterial"]["timestampVerificationData"] =
        stamped(&sigstore, &now)["verificationMaterial"]["timestampVerificationData"].clone();
    unproven("of another signature", &trusting, stored(&changed), "invalid RFC 3161 timestamp");
    let mut changed = good.clone();
    // In an entry of this kind, no signature covers this field.
    changed["verificationMaterial"]["tlogEntries"][0]["integratedTime"] =
        json!(now.logged.to_string());
    changed["verificationMaterial"]["timestampVerificationData"] = json!({});
    unproven("a time that nobody signed", &trusting, stored(&changed), "no verified timestamp");
    let ours = std::mem::replace(
        &mut sigstore.timestamps,
        Timestamps::new(now.certified.end).expect("an authority"),
    );
    unproven(
        "another authority",
        &trusting,
        stored(&stamped(&sigstore, &now)),
        "invalid RFC 3161 timestamp",
    );
    sigstore.timestamps = ours;
    sigstore.checkpoints = KeyPair::generate().expect("a key");
    unproven("checkpoints", &trusting, stored(&stamped(&sigstore, &now)), "invalid checkpoint");
}

#[test]
fn an_authority_that_has_run_out_proves_nothing() {
    let mut sigstore = sigstore();
    let now = ours();
    sigstore.authority =
        Authority::new(now.logged - 9000..now.logged - 3600).expect("an authority");
    let trusting = Trusting::ours(&sigstore);
    for signature in both_forms(&sigstore, &now) {
        unproven("authority", &trusting, signature, "no trusted certificate authority is valid");
    }
    let past = Signing {
        certified: now.logged - 5000..now.logged - 4400,
        logged: now.logged - 4900,
        ..now.clone()
    };
    for signature in both_forms(&sigstore, &past) {
        assert_eq!(trusting.verdict(&[signature]), Ok(true));
    }
    // Nor does an expired timestamp authority prove when the signature was made.
    sigstore = self::sigstore();
    sigstore.timestamps = Timestamps::new(past.certified.end).expect("an authority");
    let trusting = Trusting::ours(&sigstore);
    let stamped = |signing: &Signing| {
        stored(&sigstore.stamped_bundle(signing, &[&this().to_string()], SIGN).expect("signed"))
    };
    unproven(
        "timestamps",
        &trusting,
        stamped(&now),
        "outside the validity period of the authority",
    );
    assert_eq!(trusting.verdict(&[stamped(&past)]), Ok(true));
}
