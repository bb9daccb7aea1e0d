//! Lists of the signatures that refer to a manifest: by the API or by tag, as different registries
//! serve them.

use super::*;
use crate::fake_registry::Answer;
use crate::trust::BUNDLE;

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
