//! Registries behind mirrors.

use std::sync::Arc;

use flashjob_artifacts::fake_registry::{Answer, Fake, answer, manifest, with};
use flashjob_artifacts::trust::BUNDLE;
use flashjob_artifacts::trust::testing::{BOTH, Keys};

use super::{Bench, reason, unsigned};
use crate::config::{PullPolicy, RegistryConfig, RequiredKeys};
use crate::{Credentials, Digest, Signature};

pub(super) const COMPONENT: &[u8] = b"component";
/// Registry in the references; nothing listens there.
const ORIGIN: &str = "127.0.0.1:1";
const EVERYTHING: &str = "127.0.0.1:1/**";
const REFERENCE: &str = "127.0.0.1:1/a/b:1";

/// Returns the answers of a registry that has the component in this repository.
fn has(repository: &str) -> impl Fn(&str) -> Answer + Clone + Send + Sync + 'static {
    let prefix = format!("/v2/{repository}/");
    let manifest = manifest(COMPONENT, COMPONENT.len());
    let (by_digest, blob) = (
        format!("manifests/{}", Digest::of(manifest.as_bytes())),
        format!("blobs/{}", Digest::of(COMPONENT)),
    );
    move |path| match path.strip_prefix(&prefix) {
        Some(rest) if rest == by_digest || rest == "manifests/1" => answer(200, manifest.clone()),
        Some(rest) if rest == blob => answer(200, COMPONENT),
        _ => answer(404, ""),
    }
}

pub(super) async fn mirror(
    respond: impl Fn(&str) -> Answer + Clone + Send + Sync + 'static,
) -> Fake {
    Fake::start(move |_, path, _| respond(path)).await
}

/// Returns a host that reaches ORIGIN through these mirrors.
fn bench(trusted: &str, mirrors: &[(&Fake, &str)]) -> Bench {
    let mut bench = Bench::new(unsigned(trusted));
    let names: Vec<String> =
        mirrors.iter().map(|(fake, prefix)| format!("{}{prefix}", fake.host)).collect();
    let origin: RegistryConfig =
        serde_json::from_value(serde_json::json!({"host": ORIGIN, "mirrors": names}))
            .expect("a registry");
    bench.registries = mirrors.iter().map(|(fake, _)| fake.config()).chain([origin]).collect();
    bench
}

async fn outcome(bench: &Bench) -> Result<(), &'static str> {
    let obtained = bench.obtain(REFERENCE, PullPolicy::Always).await;
    obtained
        .map(|verified| assert_eq!(verified.content(), COMPONENT))
        .map_err(|error| error.reason())
}

#[tokio::test]
async fn the_first_mirror_that_has_it_serves_and_is_asked_below_its_own_path() {
    let (empty, full, last) = (
        mirror(|_| answer(404, "")).await,
        mirror(has("proxy/a/b")).await,
        mirror(has("a/b")).await,
    );
    let bench = bench(EVERYTHING, &[(&empty, ""), (&full, "/proxy"), (&last, "")]);
    assert_eq!(outcome(&bench).await, Ok(()));
    assert_eq!((empty.asked().len(), full.asked().len(), last.asked().len()), (2, 2, 0));
}

#[tokio::test]
async fn a_mirror_that_does_not_answer_is_passed_over_and_asked_no_more() {
    let (broken, full) = (mirror(|_| answer(503, "")).await, mirror(has("a/b")).await);
    let bench = bench(EVERYTHING, &[(&broken, ""), (&full, "")]);
    assert_eq!(outcome(&bench).await, Ok(()));
    assert_eq!(broken.asked().len(), 1);
}

#[tokio::test]
async fn where_nobody_has_it_each_says_why() {
    let (broken, empty) = (mirror(|_| answer(503, "")).await, mirror(|_| answer(404, "")).await);
    let bench = bench(EVERYTHING, &[(&broken, ""), (&empty, "")]);
    let error =
        bench.obtain(REFERENCE, PullPolicy::Always).await.map(|_| ()).expect_err("nobody has it");
    assert_eq!(error.reason(), "RegistryUnreachable");
    for host in [ORIGIN, &broken.host, &empty.host] {
        assert!(error.to_string().contains(host), "{error}");
    }
}

#[tokio::test]
async fn where_the_registry_has_it_not_each_mirror_says_why_it_was_passed_over() {
    let (broken, empty, registry) = (
        mirror(|_| answer(503, "")).await,
        mirror(|_| answer(404, "")).await,
        mirror(has("a/b")).await,
    );
    let mut bench = bench("", &[(&broken, ""), (&empty, "")]);
    let mut origin = registry.config();
    origin.mirrors = vec![broken.host.clone(), empty.host.clone()];
    bench.registries.push(origin);
    let obtain = async |bench: &Bench, tag: &str| {
        let reference = format!("{}/a/b:{tag}", registry.host);
        bench.obtain(&reference, PullPolicy::Always).await.map(|_| ()).expect_err("refused")
    };
    bench.trust = unsigned(&format!("{}/**", registry.host));
    let error = obtain(&bench, "2").await;
    assert_eq!(error.reason(), "NotFound");
    let (unavailable, absent) = (
        format!("registry {} answers 503", broken.host),
        format!("registry {} has no", empty.host),
    );
    for words in [format!("registry {} has no", registry.host), unavailable, absent] {
        assert!(error.to_string().contains(&words), "{words}: {error}");
    }
    // A signature that no place has is absent, not unavailable.
    let keys = Keys::new();
    bench.trust = keys.trust(&BOTH, RequiredKeys::Any, &[0]);
    bench.trust[0].pattern = format!("{}/**", registry.host);
    assert_eq!(obtain(&bench, "1").await.reason(), "Unsigned");
}

#[tokio::test]
async fn a_mirror_that_refuses_its_password_is_an_error_and_one_that_wants_some_is_passed_over() {
    let locked =
        Fake::start(|_, _, _| with(answer(401, ""), "www-authenticate", "Basic realm=x")).await;
    let full = mirror(has("a/b")).await;
    let mut bench = bench(EVERYTHING, &[(&locked, ""), (&full, "")]);
    assert_eq!(outcome(&bench).await, Ok(()));
    let password = Credentials { username: "robot".into(), password: "secret".into() };
    bench.logins = [(locked.host.clone(), password.clone())].into_iter().collect();
    assert_eq!(outcome(&bench).await, Err("AccessDenied"));
    assert!(
        full.asked().iter().all(|(_, authorization)| authorization.is_none()),
        "another's password"
    );
    bench.logins = [(full.host.clone(), password)].into_iter().collect();
    assert_eq!(outcome(&bench).await, Ok(()));
    assert!(
        locked.asked().last().is_some_and(|(_, authorization)| authorization.is_none()),
        "another's password"
    );
}

#[tokio::test]
async fn changed_content_of_a_mirror_is_an_error() {
    let changed =
        mirror(
            |path| if path.contains("/blobs/") { answer(200, "evil") } else { has("a/b")(path) },
        )
        .await;
    let full = mirror(has("a/b")).await;
    let bench = bench(EVERYTHING, &[(&changed, ""), (&full, "")]);
    assert_eq!(outcome(&bench).await, Err("DigestMismatch"));
}

#[tokio::test]
async fn trust_is_judged_by_the_name_in_the_reference_and_not_by_the_mirror_s() {
    let full = mirror(has("flashjob/a/b")).await;
    let trusted_mirror = format!("{}/**", full.host);
    let bench = bench(&trusted_mirror, &[(&full, "/flashjob")]);
    assert_eq!(reason(bench.obtain(REFERENCE, PullPolicy::Always).await), "NotTrusted");
}

/// Returns the answers of a registry that has a bundle beside the component.
pub(super) fn signed(bundle: &str) -> impl Fn(&str) -> Answer + Clone + Send + Sync + 'static {
    let subject = Digest::of(manifest(COMPONENT, COMPONENT.len()).as_bytes());
    let referrer = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": BUNDLE,
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"),
            "size": 2,
        },
        "layers": [{
            "mediaType": BUNDLE, "digest": Digest::of(bundle.as_bytes()), "size": bundle.len(),
        }],
        "subject": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": subject,
            "size": 1,
        },
    });
    let (referrer, bundle): (Arc<str>, Arc<str>) = (referrer.to_string().into(), bundle.into());
    move |path| match path {
        path if path.contains("/referrers/") => {
            let list = serde_json::json!({
                "manifests": [{"digest": Digest::of(referrer.as_bytes()), "artifactType": BUNDLE}],
            });
            answer(200, list.to_string())
        }
        path if path.ends_with(Digest::of(referrer.as_bytes()).hex()) => {
            answer(200, referrer.as_bytes())
        }
        path if path.ends_with(Digest::of(bundle.as_bytes()).hex()) => {
            answer(200, bundle.as_bytes())
        }
        path => has("a/b")(path),
    }
}

#[tokio::test]
async fn signatures_are_looked_for_further_on_where_a_mirror_has_the_component_alone() {
    let keys = Keys::new();
    let digest = Digest::of(manifest(COMPONENT, COMPONENT.len()).as_bytes());
    let Signature::Bundle(bundle) = keys.signed_bundle(0, &digest) else { panic!("a bundle") };
    let bare = |path: &str| {
        if path.contains("/referrers/") {
            answer(200, r#"{"manifests": []}"#)
        } else {
            has("a/b")(path)
        }
    };
    let (bare, full) = (mirror(bare).await, mirror(signed(&bundle)).await);
    let mut trust = keys.trust(&BOTH, RequiredKeys::Any, &[0]);
    trust[0].pattern = EVERYTHING.into();
    let mut two_mirrors = bench("", &[(&bare, ""), (&full, "")]);
    two_mirrors.trust = trust.clone();
    assert!(two_mirrors.obtain(REFERENCE, PullPolicy::Always).await.expect("signed").signed());
    // If the registry itself cannot be asked, a mirror without signatures does not prove that
    // there are none.
    let mut one = bench("", &[(&bare, "")]);
    one.trust = trust;
    assert_eq!(reason(one.obtain(REFERENCE, PullPolicy::Always).await), "SignaturesUnavailable");
}
