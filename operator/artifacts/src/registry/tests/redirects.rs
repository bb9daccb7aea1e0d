//! Redirects of blobs and manifests: where they may lead, and with which credentials.

use super::*;

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
