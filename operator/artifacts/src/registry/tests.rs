//! Tests with registries that give malicious answers, and with registries that lack features.

mod broken;
mod download;
mod referrers;

use rustls::CertificateError;

use super::*;
use crate::Reference;
use crate::config::SignatureForm;
use crate::fake_registry::{Answer, Fake, answer, manifest, with};
use crate::source::{Signatures, Source};
use crate::trust::{BUNDLE, Signature};

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

fn bearer(realm: String) -> Answer {
    with(answer(401, ""), "www-authenticate", format!("Bearer realm=\"{realm}\",service=\"x\""))
}

#[tokio::test]
async fn a_token_service_that_refuses_the_password_ends_the_pull() {
    let fake = Fake::start(|host, path, authorization| match path {
        path if path.starts_with("/token") => answer(401, ""),
        _ if authorization.is_some() => answer(200, manifest(b"component", 9)),
        _ => bearer(format!("http://{host}/token")),
    })
    .await;
    let error = pull(&fake, Some(&credentials())).await.expect_err("refused");
    assert!(matches!(error, RegistryError::Access { .. }), "{error}");
    assert_eq!(
        fake.asked().len(),
        2,
        "nothing is asked again without the password: {:?}",
        fake.asked()
    );
}

#[tokio::test]
async fn both_names_of_a_token_are_read_and_a_missing_scope_is_filled_in() {
    for token in
        [r#"{"token": "t"}"#, r#"{"access_token": "t"}"#, r#"{"token": "", "access_token": "t"}"#]
    {
        let fake = Fake::start(move |host, path, authorization| match (path, authorization) {
            (path, _) if path.starts_with("/token") => answer(200, token),
            (path, Some("Bearer t")) if path.contains("/blobs/") => answer(200, "component"),
            (_, Some("Bearer t")) => answer(200, manifest(b"component", 9)),
            _ => bearer(format!("http://{host}/token")),
        })
        .await;
        assert_eq!(pull(&fake, Some(&credentials())).await.expect("pulled"), b"component");
        let (path, authorization) = fake
            .asked()
            .into_iter()
            .find(|(path, _)| path.starts_with("/token"))
            .expect("a token was asked for");
        assert!(path.contains("scope=repository%3Aa%2Fb%3Apull"), "{path}");
        assert_eq!(authorization.as_deref(), Some("Basic cm9ib3Q6c2VjcmV0"));
    }
}

#[tokio::test]
async fn the_password_goes_to_no_other_host_and_not_in_the_clear() {
    let other = Fake::start(|_, _, _| answer(200, r#"{"token": "t"}"#)).await;
    let realm = format!("http://{}/token", other.host);
    let fake = Fake::start(move |_, _, _| bearer(realm.clone())).await;
    let error = pull(&fake, Some(&credentials())).await.expect_err("refused");
    assert!(matches!(error, RegistryError::ForeignRealm { .. }), "{error}");
    let mut config = fake.config();
    config.token_hosts = vec![other.host.clone()];
    let error = pull_with(config, Some(&credentials())).await.expect_err("refused");
    assert!(matches!(error, RegistryError::InsecureRealm { .. }), "{error}");
    assert!(other.asked().is_empty());
}

#[tokio::test]
async fn a_blob_is_fetched_from_elsewhere_without_credentials_and_a_manifest_is_not() {
    let fake = Fake::start(|_, path, authorization| match path {
        "/storage" => answer(200, "component"),
        _ if authorization.is_none() => with(answer(401, ""), "www-authenticate", "Basic realm=x"),
        path if path.contains("/blobs/") => with(answer(307, ""), "location", "/storage"),
        _ => answer(200, manifest(b"component", 9)),
    })
    .await;
    assert_eq!(pull(&fake, Some(&credentials())).await.expect("pulled"), b"component");
    assert!(fake.asked().contains(&("/storage".to_owned(), None)));
    // A manifest that has moved within its registry is requested with the same credentials.
    let fake = Fake::start(|_, path, authorization| match path {
        _ if authorization.is_none() => with(answer(401, ""), "www-authenticate", "Basic realm=x"),
        "/moved" => answer(200, manifest(b"component", 9)),
        path if path.contains("/blobs/") => answer(200, "component"),
        _ => with(answer(308, ""), "location", "/moved"),
    })
    .await;
    assert_eq!(pull(&fake, Some(&credentials())).await.expect("pulled"), b"component");
    // Another host may have another manifest under the tag, and a redirect loop must end.
    let other = Fake::start(|_, _, _| answer(200, manifest(b"component", 9))).await;
    let target = format!("http://{}/x", other.host);
    for location in [target, "/v2/a/b/manifests/1".to_owned()] {
        let fake =
            Fake::start(move |_, _, _| with(answer(307, ""), "location", location.clone())).await;
        let error = pull(&fake, None).await.expect_err("refused");
        assert!(matches!(error, RegistryError::Redirect { .. }), "{error}");
    }
    assert!(other.asked().is_empty());
}

#[tokio::test]
async fn a_registry_leads_nobody_to_the_machine_itself_its_link_or_a_cloud_s_metadata() {
    for host in [
        "127.0.0.1:1",
        "[::1]",
        "169.254.169.254",
        "[fe80::1]",
        "localhost",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
        "2852039166",
        "[fd00:ec2::254]",
        "metadata.google.internal",
    ] {
        let target = format!("https://{host}/latest/meta-data");
        let fake = Fake::start(move |_, path, _| match path.contains("/blobs/") {
            true => with(answer(307, ""), "location", target.clone()),
            false => answer(200, manifest(b"component", 9)),
        })
        .await;
        let error = pull(&fake, None).await.expect_err("refused");
        assert!(matches!(error, RegistryError::Redirect { .. }), "{host}: {error}");
    }
}

#[tokio::test]
async fn a_page_for_people_is_named_as_one() {
    let page = || with(answer(200, "<html>Sign in</html>"), "content-type", "text/html");
    let fake = Fake::start(move |_, _, _| page()).await;
    let error = pull(&fake, None).await.expect_err("refused").to_string();
    assert!(error.contains("login page"), "{error}");
}

#[tokio::test]
async fn an_identity_token_is_exchanged_and_never_sent_as_a_password() {
    let fake = Fake::start(|host, path, authorization| match (path, authorization) {
        ("/token", None) => answer(200, r#"{"access_token": "t"}"#),
        (path, Some("Bearer t")) if path.contains("/blobs/") => answer(200, "component"),
        (_, Some("Bearer t")) => answer(200, manifest(b"component", 9)),
        _ => bearer(format!("http://{host}/token")),
    })
    .await;
    let token = Credentials { username: crate::IDENTITY_TOKEN.into(), password: "secret".into() };
    assert_eq!(pull(&fake, Some(&token)).await.expect("pulled"), b"component");
    let basic =
        Fake::start(|_, _, _| with(answer(401, ""), "www-authenticate", "Basic realm=x")).await;
    let error = pull(&basic, Some(&token)).await.expect_err("refused");
    assert!(matches!(error, RegistryError::Access { .. }), "{error}");
    assert!(basic.asked().iter().all(|(_, authorization)| authorization.is_none()));
}

#[tokio::test]
async fn of_several_challenges_in_one_header_the_one_that_can_be_met_is_taken() {
    let fake = Fake::start(|_, path, authorization| match authorization {
        None => with(answer(401, ""), "www-authenticate", r#"Negotiate, Basic realm="a, b""#),
        Some(_) if path.contains("/blobs/") => answer(200, "component"),
        Some(_) => answer(200, manifest(b"component", 9)),
    })
    .await;
    assert_eq!(pull(&fake, Some(&credentials())).await.expect("pulled"), b"component");
}

/// A registry that offers these challenges, with `HOST` for its own name, and lets in whoever has
/// a token of its own token service or the password.
async fn with_challenges(challenges: String) -> Fake {
    Fake::start(move |host, path, authorization| match (path, authorization) {
        (path, _) if path.starts_with("/token") => answer(200, r#"{"token": "t"}"#),
        (path, Some("Bearer t" | "Basic cm9ib3Q6c2VjcmV0")) if path.contains("/blobs/") => {
            answer(200, "component")
        }
        (_, Some("Bearer t" | "Basic cm9ib3Q6c2VjcmV0")) => answer(200, manifest(b"component", 9)),
        _ => with(answer(401, ""), "www-authenticate", challenges.replace("HOST", host)),
    })
    .await
}

#[tokio::test]
async fn of_several_challenges_the_first_that_these_credentials_can_meet_is_taken() {
    let password = credentials();
    let token = Credentials { username: crate::IDENTITY_TOKEN.into(), password: "id".into() };
    let (bearer, foreign) =
        (r#"Bearer realm="http://HOST/token""#, r#"Bearer realm="https://elsewhere.example/t""#);
    for (challenges, login, begins) in [
        (format!("{foreign}, Basic realm=x"), Some(&password), "Basic cm9i"),
        (format!("{foreign}, {bearer}"), None, "Bearer"),
        (format!("Basic realm=x, {bearer}"), Some(&token), "Bearer"),
        (format!("Basic realm=x, {bearer}"), None, "Bearer"),
        (format!("Basic realm=x, {bearer}"), Some(&password), "Basic cm9i"),
    ] {
        let fake = with_challenges(challenges.clone()).await;
        assert_eq!(pull(&fake, login).await.expect(&challenges), b"component", "{challenges}");
        let (_, last) = fake.asked().pop().expect("a request");
        assert!(last.is_some_and(|value| value.starts_with(begins)), "{challenges}");
    }
}

#[tokio::test]
async fn a_challenge_that_nobody_can_meet_is_refused_by_its_realm_or_by_the_credentials() {
    let token = Credentials { username: crate::IDENTITY_TOKEN.into(), password: "id".into() };
    let foreign = r#"Basic realm=x, Bearer realm="https://elsewhere.example/t""#;
    for login in [None, Some(&token)] {
        let fake = with_challenges(foreign.to_owned()).await;
        let error = pull(&fake, login).await.expect_err("refused");
        assert!(matches!(error, RegistryError::ForeignRealm { .. }), "{error}");
        let fake = with_challenges("Negotiate, Basic realm=x".to_owned()).await;
        let error = pull(&fake, login).await.expect_err("refused");
        assert!(matches!(error, RegistryError::Access { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_token_host_may_have_the_default_port_and_upper_case_letters() {
    let realm = "http://tokens.example/token".to_owned();
    for (listed, is_listed) in [
        ("tokens.example:443", true),
        ("TOKENS.example", true),
        ("tokens.example:8443", false),
        ("other.example:443", false),
    ] {
        let realm = realm.clone();
        let fake = Fake::start(move |_, _, _| bearer(realm.clone())).await;
        let config = RegistryConfig { token_hosts: vec![listed.to_owned()], ..fake.config() };
        let error = pull_with(config, Some(&credentials())).await.expect_err("refused");
        // A listed host is refused for its missing encryption, before anything is sent there.
        let refused_as_insecure = matches!(error, RegistryError::InsecureRealm { .. });
        assert_eq!(refused_as_insecure, is_listed, "{listed}: {error}");
    }
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

/// A registry with one bundle that refers to `subject`, listed by the API on its second page, or
/// else by tag.
async fn with_bundle(subject: Digest, listing: StatusCode, by_tag: bool) -> Fake {
    let referrer = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": BUNDLE,
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"),
            "size": 2,
        },
        "layers": [{"mediaType": BUNDLE, "digest": Digest::of(b"bundle"), "size": 6}],
        "subject": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": subject,
            "size": 1,
        },
    })
    .to_string();
    let digest = Digest::of(referrer.as_bytes());
    let index = serde_json::json!({
        "schemaVersion": 2, "manifests": [{"digest": digest, "artifactType": BUNDLE}],
    })
    .to_string();
    let tag = format!("/v2/a/b/manifests/sha256-{}", subject.hex());
    Fake::start(move |_, path, _| match path {
        path if path.contains("/referrers/") && !listing.is_success() => {
            answer(listing.as_u16(), "")
        }
        path if path.contains("/referrers/") && path.contains("page=2") => {
            answer(200, index.clone())
        }
        path if path.contains("/referrers/") => with(
            answer(200, r#"{"manifests": []}"#),
            "link",
            format!("<{path}?page=2>; rel=\"next\""),
        ),
        path if path == tag && by_tag => answer(200, index.clone()),
        path if path.ends_with(&digest.to_string()) => answer(200, referrer.clone()),
        path if path.contains("/blobs/") => answer(200, "bundle"),
        _ => answer(404, ""),
    })
    .await
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
async fn bundles_are_found_by_the_api_over_its_pages_and_by_tag_where_there_is_none() {
    let subject = Digest::of(b"manifest");
    let expected = vec![Signature::Bundle("bundle".into())];
    let listed = with_bundle(subject.clone(), StatusCode::OK, false).await;
    assert_eq!(bundles(&listed, &subject).await.expect("listed"), expected);
    let tagged = with_bundle(subject.clone(), StatusCode::NOT_FOUND, true).await;
    assert_eq!(bundles(&tagged, &subject).await.expect("tagged"), expected);
    let nothing = with_bundle(subject.clone(), StatusCode::NOT_FOUND, false).await;
    assert_eq!(bundles(&nothing, &subject).await.expect("none"), Vec::new());
}

#[tokio::test]
async fn a_registry_that_fails_to_list_is_not_taken_for_one_without_signatures() {
    let subject = Digest::of(b"manifest");
    for status in [
        StatusCode::BAD_GATEWAY,
        StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::TOO_MANY_REQUESTS,
    ] {
        let fake = with_bundle(subject.clone(), status, true).await;
        assert!(bundles(&fake, &subject).await.is_err(), "{status}");
        assert_eq!(fake.asked().len(), 1, "the tag is asked for only where there is no list");
    }
}

#[tokio::test]
async fn a_registry_that_does_not_know_the_list_is_asked_for_the_tag_whatever_it_answers() {
    let expected = vec![Signature::Bundle("bundle".into())];
    let pages = ["", "{}", "[]", r#"{"manifests": null}"#, "<html>Sign in</html>", "null"];
    let answers = pages.map(|page| answer(200, page)).into_iter();
    let refusals = [400, 404, 405, 406, 410, 415, 418, 422, 451, 501, 301, 303, 307]
        .map(|code| answer(code, ""));
    for instead in answers.chain(refusals) {
        let subject = Digest::of(b"manifest");
        let case = format!("{instead:?}");
        let fake = with_referrer(subject.clone(), Some(BUNDLE), Listing::Instead(instead)).await;
        assert_eq!(bundles(&fake, &subject).await.expect(&case), expected, "{case}");
    }
}

#[tokio::test]
async fn what_a_list_says_of_a_referrer_does_not_decide_what_it_is() {
    let expected = vec![Signature::Bundle("bundle".into())];
    let config = "application/vnd.oci.image.config.v1+json";
    for kind in [Some(BUNDLE), Some("application/vnd.oci.empty.v1+json"), Some(config), None] {
        for listing in [Listing::Api, Listing::Unfiltered] {
            let subject = Digest::of(b"manifest");
            let fake = with_referrer(subject.clone(), kind, listing).await;
            assert_eq!(bundles(&fake, &subject).await.expect("listed"), expected, "{kind:?}");
        }
    }
}

/// Way in which a registry lists referrers.
#[derive(Clone)]
enum Listing {
    /// By the API.
    Api,
    /// By the API, but only if the query does not filter by type.
    Unfiltered,
    /// Only by the tag; the API gives this answer.
    Instead(Answer),
}

/// A registry with one bundle that refers to `subject` and is listed with the type `kind`.
async fn with_referrer(subject: Digest, kind: Option<&'static str>, listing: Listing) -> Fake {
    let referrer = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"),
            "size": 2,
        },
        "layers": [{"mediaType": BUNDLE, "digest": Digest::of(b"bundle"), "size": 6}],
        "subject": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": subject,
            "size": 1,
        },
    })
    .to_string();
    let digest = Digest::of(referrer.as_bytes());
    let mut entry = serde_json::json!({"digest": digest});
    if let Some(kind) = kind {
        entry["artifactType"] = kind.into();
    }
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    let tag = format!("/v2/a/b/manifests/sha256-{}", subject.hex());
    Fake::start(move |_, path, _| match path {
        path if path.contains("/referrers/") => match &listing {
            Listing::Api => answer(200, index.clone()),
            Listing::Unfiltered if path.contains("artifactType") => {
                answer(200, r#"{"manifests": []}"#)
            }
            Listing::Unfiltered => answer(200, index.clone()),
            Listing::Instead(instead) => instead.clone(),
        },
        path if path == tag && matches!(listing, Listing::Instead(_)) => {
            answer(200, index.clone())
        }
        path if path.ends_with(&digest.to_string()) => answer(200, referrer.clone()),
        path if path.contains("/blobs/") => answer(200, "bundle"),
        _ => answer(404, ""),
    })
    .await
}

/// Pushes a small artifact to tag 1.
async fn push(fake: &Fake, credentials: &Credentials) -> Result<Digest, RegistryError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (registries, logins) =
        ([fake.config()], [(fake.host.clone(), credentials.clone())].into_iter().collect());
    Repository::new(&fake.host, "a/b", &registries, &logins)?
        .push("1", b"{}", &[b"component"])
        .await
}

#[tokio::test]
async fn an_upload_that_is_sent_elsewhere_is_refused_before_anything_goes_there() {
    let elsewhere = Fake::start(|_, _, _| answer(201, "")).await;
    let target = format!("http://{}/upload", elsewhere.host);
    let fake = Fake::start(move |_, path, _| match path.contains("/uploads/") {
        true => with(answer(202, ""), "location", &target),
        false => answer(404, ""),
    })
    .await;
    let refused = push(&fake, &credentials()).await;
    assert!(matches!(refused, Err(RegistryError::Redirect { .. })), "{refused:?}");
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn a_push_asks_for_a_token_that_may_push_where_the_registry_names_no_scope() {
    let fake = Fake::start(|host, path, authorization| match (path, authorization) {
        (path, _) if path.starts_with("/token") => answer(
            200,
            format!(r#"{{"token":"{}"}}"#, if path.contains("push") { "push" } else { "pull" }),
        ),
        (path, Some("Bearer push"))
            if path.contains("/uploads/?") || path.contains("/manifests/") =>
        {
            answer(201, "")
        }
        (path, Some("Bearer push")) if path.contains("/uploads/") => {
            with(answer(202, ""), "location", "/v2/a/b/blobs/uploads/?state=x")
        }
        (path, Some(_)) if path.contains("/blobs/sha256:") => answer(404, ""),
        _ => with(
            answer(401, ""),
            "www-authenticate",
            format!(r#"Bearer realm="http://{host}/token""#),
        ),
    })
    .await;
    let pushed = push(&fake, &credentials()).await;
    assert!(pushed.is_ok(), "{pushed:?}");
    let requests = fake.asked();
    let puts: Vec<&str> = requests
        .iter()
        .map(|(path, _)| path.as_str())
        .filter(|path| path.contains("state=x&digest=sha256"))
        .collect();
    assert_eq!(puts.len(), 1, "the blob, once: {requests:?}");
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
