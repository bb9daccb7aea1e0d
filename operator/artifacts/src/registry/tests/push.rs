//! Uploads to registries that send them elsewhere, or that ask for a token.

use super::*;

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
