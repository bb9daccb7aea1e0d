//! Tests with registries that give malicious answers, and with registries that lack features.

mod broken;
mod challenges;
mod download;
mod listing;
mod push;
mod redirects;
mod referrers;

use rustls::CertificateError;

use super::*;
use crate::Reference;
use crate::config::SignatureForm;
use crate::fake_registry::{Answer, Fake, answer, manifest, with};
use crate::source::{Signatures, Source};
use crate::trust::Signature;

fn credentials() -> Credentials {
    Credentials { username: "robot".into(), password: "secret".into() }
}

/// Fetches the manifest of tag 1 and its layer.
async fn pull(fake: &Fake, credentials: Option<&Credentials>) -> Result<Vec<u8>, RegistryError> {
    pull_with(fake.config(), credentials).await
}

async fn pull_with(
    config: RegistryConfig,
    credentials: Option<&Credentials>,
) -> Result<Vec<u8>, RegistryError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let logins = credentials
        .map(|credentials| (config.host.clone(), credentials.clone()))
        .into_iter()
        .collect();
    let (reference, registries) = (reference(&config.host), [config]);
    let mut source = Source::of(&reference, &registries, &logins)?.expect("a registry");
    let (_, manifest) = source.manifest_bytes("1", None, MANIFEST_BYTES).await?;
    let what = source.what("1");
    let manifest = image_manifest(&manifest, &what)?;
    let layer = manifest.layers.first().ok_or(RegistryError::Form {
        what: what.clone(),
        message: "it has no layer".to_owned(),
    })?;
    let layer = layer_of(layer, &what, 1000)?;
    source.blob(&layer).await
}

fn reference(host: &str) -> Reference {
    format!("{host}/a/b:1").parse().expect("a reference")
}

async fn signatures(
    fake: &Fake,
    subject: &Digest,
    form: SignatureForm,
) -> Result<Signatures, RegistryError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (registries, logins) = ([fake.config()], Logins::none());
    let mut source =
        Source::of(&reference(&fake.host), &registries, &logins)?.expect("a registry");
    source.signatures(subject, form).await
}

/// Returns the bundles of a manifest, which must be all that it has.
async fn bundles(fake: &Fake, subject: &Digest) -> Result<Vec<Signature>, RegistryError> {
    let Signatures { fetched, beyond_limit } =
        signatures(fake, subject, SignatureForm::Bundle).await?;
    beyond_limit.map_or(Ok(fetched), Err)
}

#[tokio::test]
async fn a_page_for_people_is_named_as_one() {
    let page = || with(answer(200, "<html>Sign in</html>"), "content-type", "text/html");
    let fake = Fake::start(move |_, _, _| page()).await;
    let error = pull(&fake, None).await.expect_err("refused").to_string();
    assert!(error.contains("login page"), "{error}");
}

#[tokio::test]
async fn what_is_too_large_by_its_manifest_is_never_fetched_and_more_than_announced_is_not_read() {
    let fake = Fake::start(|_, path, _| {
        answer(200, if path.contains("/blobs/") { "x".into() } else { manifest(b"x", 1001) })
    })
    .await;
    assert!(matches!(pull(&fake, None).await, Err(RegistryError::TooLarge { .. })));
    assert_eq!(fake.asked().len(), 1);
    let fake = Fake::start(|_, path, _| {
        answer(200, if path.contains("/blobs/") { "xxxx".into() } else { manifest(b"xxxx", 3) })
    })
    .await;
    assert!(matches!(pull(&fake, None).await, Err(RegistryError::TooLarge { limit: 3, .. })));
}

#[tokio::test]
async fn changed_bytes_and_an_index_are_refused() {
    let fake = Fake::start(|_, path, _| {
        answer(200, if path.contains("/blobs/") { "evil".into() } else { manifest(b"good", 4) })
    })
    .await;
    assert!(matches!(pull(&fake, None).await, Err(RegistryError::Tampered { .. })));
    let index = r#"{
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []
    }"#;
    let fake = Fake::start(move |_, _, _| answer(200, index)).await;
    let error = pull(&fake, None).await.expect_err("refused").to_string();
    assert!(error.contains("index of several images"), "{error}");
}

#[test]
fn what_the_tls_library_has_against_a_certificate_is_said_in_words() {
    let refused = |name: &str| {
        let cause = std::sync::Arc::new(std::io::Error::other(name.to_owned()));
        let refused = CertificateError::Other(rustls::OtherError(cause));
        std::io::Error::other(std::io::Error::other(rustls::Error::InvalidCertificate(refused)))
    };
    assert!(
        advice_on_certificate(&refused("CaUsedAsEndEntity"))
            .is_some_and(|text| text.contains("CA:FALSE"))
    );
    let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
    assert!(
        advice_on_certificate(&std::io::Error::other(unknown))
            .is_some_and(|text| text.contains("an unknown authority; set"))
    );
    let second =
        |second| rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(second));
    let (time, of_certificate) = (second(2_000_000_000), second(86_400));
    let expired = CertificateError::ExpiredContext { time, not_after: of_certificate };
    let early = CertificateError::NotValidYetContext { time, not_before: of_certificate };
    for (refused, to_do) in [(expired, "renew it on the registry"), (early, "correct the clock")] {
        let refused = std::io::Error::other(rustls::Error::InvalidCertificate(refused));
        let advice = advice_on_certificate(&refused).expect("advice");
        assert!(advice.contains(to_do) && advice.contains("Fri, 02 Jan 1970"), "{advice}");
    }
    assert_eq!(advice_on_certificate(&refused("BadDer")), None);
    assert_eq!(advice_on_certificate(&std::io::Error::other("refused")), None);
}

fn bearer(realm: String) -> Answer {
    with(answer(401, ""), "www-authenticate", format!("Bearer realm=\"{realm}\",service=\"x\""))
}
