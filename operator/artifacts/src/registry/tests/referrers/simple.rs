//! Simple signatures, which may be in two places: under their tag, and among the referrers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// Returns the layer with a simple signature of [`subject`] by this key.
fn signed_layer(keys: &Keys, key: usize) -> (&'static str, String, Value) {
    let Signature::Simple { payload, signature, .. } = keys.simple(key, &subject()) else {
        panic!("a simple signature")
    };
    let payload = String::from_utf8(STANDARD.decode(payload).expect("base64")).expect("text");
    (SIMPLE, payload, json!({"dev.cosignproject.cosign/signature": signature}))
}

/// A registry with a simple signature by `tagged` under the tag, and one by `referring` as a
/// referrer; None: the requests for that place are answered with this status.
async fn simple_in_two_places(
    keys: &Keys,
    tagged: Option<usize>,
    referring: Option<usize>,
    status: u16,
) -> Fake {
    let mut attachments = Attachments::default();
    if let Some(key) = referring {
        attachments.attach(json!({"artifactType": SIMPLE_ARTIFACT}), &[signed_layer(keys, key)]);
    }
    let tag = format!("sha256-{}.sig", subject().hex());
    if let Some(key) = tagged {
        let manifest = attachments.manifest(&Value::Null, &[signed_layer(keys, key)]);
        attachments.objects.insert(tag.clone(), manifest);
    }
    let (list, objects) = (page(&attachments.entries), attachments.objects);
    Fake::start(move |_, path, _| {
        let name = path.rsplit('/').next().unwrap_or_default();
        match objects.get(name) {
            Some(object) => answer(200, object.clone()),
            None if name == tag => answer(status, ""),
            None if path.contains("/referrers/") && referring.is_none() => answer(status, ""),
            None if path.contains("/referrers/") => answer(200, list.clone()),
            None => answer(404, ""),
        }
    })
    .await
}

#[tokio::test]
async fn a_good_simple_signature_counts_in_either_place_whatever_the_other_place_has() {
    let keys = Keys::new();
    for (tagged, referring, status) in [
        (Some(0), Some(1), 404),
        (Some(1), Some(0), 404),
        (Some(0), None, 502),
        (None, Some(0), 502),
        (None, Some(0), 403),
        (Some(0), None, 429),
    ] {
        let fake = simple_in_two_places(&keys, tagged, referring, status).await;
        let verified = verify(&fake, &keys, &[&subject()]).await;
        assert!(verified.is_ok(), "{tagged:?} {referring:?} {status}: {verified:?}");
    }
}

#[tokio::test]
async fn a_place_with_simple_signatures_that_cannot_be_read_is_named_unless_the_other_suffices() {
    let keys = Keys::new();
    for (tagged, referring, place) in
        [(Some(1), None, "signatures that refer to"), (None, Some(1), "tag"), (None, None, "tag")]
    {
        let fake = simple_in_two_places(&keys, tagged, referring, 503).await;
        let found = signatures(&fake, &subject(), SignatureForm::Simple).await;
        let error = found.map_or_else(Some, |found| found.beyond_limit).expect("it is unknown");
        assert!(error.is_transient() && error.to_string().starts_with(place), "{error}");
        let error = verify(&fake, &keys, &[&subject()]).await.expect_err("it is unknown");
        assert!(matches!(error, UnverifiedFirmware::Signatures { .. }), "{error}");
    }
}

#[tokio::test]
async fn one_simple_signature_that_is_in_both_places_is_one_signature() {
    let mut attachments = Attachments::default();
    attachments.attach(json!({"artifactType": SIMPLE_ARTIFACT}), &[simple_layer(3)]);
    let manifest = attachments.manifest(&Value::Null, &[simple_layer(3)]);
    attachments.objects.insert(format!("sha256-{}.sig", subject().hex()), manifest);
    let fake = attachments.serve().await;
    let found = signatures(&fake, &subject(), SignatureForm::Simple).await.expect("listed");
    assert_eq!((found.fetched.len(), found.beyond_limit.is_none()), (1, true));
}

#[tokio::test]
async fn a_mirror_that_decides_about_the_tag_decides_about_referrers_too() {
    for (status, is_registry_asked) in [(200, false), (403, false), (404, true), (502, true)] {
        let mut attachments = Attachments::default();
        let manifest = attachments.manifest(&Value::Null, &[simple_layer(1)]);
        let (objects, tag) = (attachments.objects, format!("sha256-{}.sig", subject().hex()));
        let mirror = Fake::start(move |_, path, _| {
            let name = path.rsplit('/').next().unwrap_or_default();
            match objects.get(name) {
                Some(object) => answer(200, object.clone()),
                None if name == tag && status == 200 => answer(200, manifest.clone()),
                None if name == tag => answer(status, ""),
                None => answer(404, ""),
            }
        })
        .await;
        let registry = Fake::start(|_, _, _| answer(404, "")).await;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let with_mirror =
            RegistryConfig { mirrors: vec![mirror.host.clone()], ..registry.config() };
        let registries = [with_mirror, mirror.config()];
        // A refusal by a mirror is final only for somebody whom the mirror may know.
        let logins = [(mirror.host.clone(), credentials())].into_iter().collect();
        let reference = reference(&registry.host);
        let mut source =
            Source::of(&reference, &registries, &logins).expect("valid").expect("a registry");
        let found = source.signatures(&subject(), SignatureForm::Simple).await;
        assert_eq!(found.is_ok(), status != 403, "{status}: {found:?}");
        assert_eq!(!registry.asked().is_empty(), is_registry_asked, "{status}");
    }
}
