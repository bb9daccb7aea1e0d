//! Pages of a list of referrers: without end, with unusual headers, and with entries that are
//! malformed.

use super::*;

#[tokio::test]
async fn a_list_without_end_is_read_in_part_unless_the_registry_filters_it() {
    let mut attachments = Attachments::default();
    attachments.bundle(json!({"artifactType": BUNDLE}), "bundle");
    let filtered = page(&attachments.entries);
    for does_filter in [true, false] {
        let filtered = filtered.clone();
        let objects = attachments.objects.clone();
        let attachments = Attachments { entries: Vec::new(), objects };
        let fake = attachments.serve_list(move |path| match path {
            path if does_filter && path.contains("artifactType=") => answer(200, filtered.clone()),
            path => {
                let (list, query) = path.split_once('?').unwrap_or((path, ""));
                let number: usize = query
                    .rsplit("page=")
                    .next()
                    .map_or(0, |page| page.parse().unwrap_or_default());
                let link = format!("<{list}?page={}>; rel=\"next\"", number + 1);
                with(answer(200, page(&attestations(number))), "link", link)
            }
        });
        let fake = fake.await;
        let signatures =
            signatures(&fake, &subject(), SignatureForm::Bundle).await.expect("a part of them");
        if does_filter {
            assert_eq!(signatures.fetched, bundle("bundle"));
            assert!(signatures.beyond_limit.is_none());
        } else {
            assert_eq!(signatures.fetched, Vec::new());
            let message = beyond_limit(&signatures);
            assert!(message.contains("800 attachments, but only 16 pages"), "{message}");
        }
        let query = "artifactType=application%2Fvnd.dev.sigstore.bundle.v0.3%2Bjson";
        let requests = fake.asked();
        assert!(requests.iter().any(|(path, _)| path.ends_with(query)), "{requests:?}");
    }
}

/// Returns the entries of 50 attestations, on a page of this number.
fn attestations(page: usize) -> Vec<Value> {
    let entry = |at: usize| {
        json!({
            "digest": Digest::of(format!("{page} {at}").as_bytes()), "artifactType": BUNDLE,
            "annotations": {PREDICATE: "https://slsa.dev/provenance/v1"},
        })
    };
    (0..50).map(entry).collect()
}

#[tokio::test]
async fn annotations_that_no_tool_writes_say_nothing() {
    for annotations in [json!("text"), json!([1]), json!({PREDICATE: 1}), Value::Null] {
        let mut attachments = Attachments::default();
        attachments.bundle(json!({"artifactType": BUNDLE}), "bundle");
        attachments.entries[0]["annotations"] = annotations.clone();
        let fake = attachments.serve().await;
        let found = bundles(&fake, &subject()).await.expect("listed");
        assert_eq!(found, bundle("bundle"), "{annotations}");
    }
}

#[tokio::test]
async fn the_next_page_is_found_whatever_else_is_in_the_link_headers() {
    for links in [
        vec!["<PATH?last=a,b&n=1>; rel=\"next\""],
        vec!["<PATH?n=1>;rel=next"],
        vec!["<PATH?n=1>; title=\"a\"; Rel=Next"],
        vec!["<PATH?n=0>; rel=\"prev\", <PATH?n=1>; rel=\"next\""],
        vec!["<PATH?n=0>; rel=\"first\"", "<PATH?n=1>; rel=\"next\""],
    ] {
        let mut attachments = Attachments::default();
        attachments.bundle(json!({"artifactType": BUNDLE}), "bundle");
        let (last, headers) = (page(&attachments.entries), links.clone());
        let fake = attachments.serve_list(move |path| {
            if path.contains("n=1") {
                return answer(200, last.clone());
            }
            let first = answer(200, page(&[]));
            headers
                .iter()
                .fold(first, |answer, link| with(answer, "link", link.replace("PATH", path)))
        });
        let found = bundles(&fake.await, &subject()).await.expect("listed");
        assert_eq!(found, bundle("bundle"), "{links:?}");
    }
}

#[tokio::test]
async fn a_list_with_a_malformed_entry_is_an_error_and_not_a_registry_without_lists() {
    for entry in [json!({}), json!(null), json!({"digest": 1})] {
        let list = page(&[entry]);
        let fake = Attachments::default().serve_list(move |_| answer(200, list.clone())).await;
        let error = bundles(&fake, &subject()).await.expect_err("refused");
        assert!(matches!(error, RegistryError::Form { .. }), "{error}");
    }
}
