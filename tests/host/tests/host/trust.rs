//! A signed plugin in a real registry, and an attacker between the registry and the operator:
//! whatever is changed, withheld, answered with an error or redirected, the plugin is not run, and
//! the refusal says which of these happened.
#![allow(clippy::expect_used, reason = "this is a test, its helpers too")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flashjob_host_tests::front::{Answer, Behaviour, Front};
use flashjob_host_tests::hosts::{component, host, programs, share_compiled, source};
use flashjob_plugin_host::config::{Limits, PullPolicy};
use flashjob_plugin_host::{Credentials, Digest, LoadError, Logins, Plugin};
use flashjob_testbed::artifacts::push_plugin;
use flashjob_testbed::certificates::Authority;
use flashjob_testbed::keyless::{Signing, Sigstore};
use flashjob_testbed::process::repository;
use flashjob_testbed::registry::{PASSWORD, Registry, USER};
use flashjob_testbed::signatures::{SIGN, Signer, attach_bundle, attach_simple};
use serde_json::{Value, json};
use tempfile::TempDir;

const BOTH: [&str; 2] = ["bundle", "simple"];

struct World {
    registry: Registry,
    onward: reqwest::Client,
    signers: [Signer; 2],
    folder: TempDir,
}

/// Interference with a request, by its path.
type Meddles = Box<dyn Fn(&str) -> Option<Answer> + Send + Sync>;

impl World {
    async fn start() -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir()?;
        let authority = Authority::new(folder.path())?;
        let registry = Registry::start(&programs()?, folder.path(), &authority).await?;
        let certificate = reqwest::Certificate::from_pem(&std::fs::read(&authority.certificate)?)?;
        let onward = reqwest::Client::builder()
            .tls_certs_only([certificate])
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let signers =
            [Signer::new(folder.path(), "first")?, Signer::new(folder.path(), "second")?];
        Ok(Self { registry, onward, signers, folder })
    }

    /// Pushes a plugin, and returns the digest of its manifest.
    async fn push(&self, plugin: &str, name: &str) -> anyhow::Result<String> {
        let file = repository().join(format!("target/plugins/{plugin}.wasm"));
        let reference = push_plugin(&self.registry, &file, &format!("flashjob/{name}:1")).await?;
        Ok(reference.split_once('@').expect("a digest").1.to_owned())
    }

    async fn front(&self, meddles: Meddles) -> anyhow::Result<Front> {
        let registry = format!("https://{}", self.registry.host);
        let answers = move |_: &str, path: &str, _: Option<&str>| meddles(path);
        Front::start(
            &self.onward,
            None,
            Behaviour { registry, answers: Some(Box::new(answers)), ..Behaviour::default() },
        )
        .await
    }

    fn trust(&self, front: &Front, forms: &[&str], require: &str) -> Value {
        let keys = self.signers.each_ref().map(|signer| &signer.public_key);
        let keys = if require == "all" { &keys[..] } else { &keys[..1] };
        json!([{
            "match": format!("{}/**", front.host),
            "cosign": {"publicKeyFiles": keys, "forms": forms, "require": require},
        }])
    }

    async fn load(
        &self,
        front: &Front,
        name: &str,
        trust: Value,
        policy: PullPolicy,
        cache: &Path,
    ) -> anyhow::Result<Result<Plugin, LoadError>> {
        let registries = json!([{"host": front.host, "plainHttp": true}]);
        let host = host(cache, registries, trust, Limits::default())?;
        let credentials = Credentials { username: USER.to_owned(), password: PASSWORD.to_owned() };
        let logins: Logins = [(front.host.clone(), credentials)].into_iter().collect();
        Ok(host
            .load(&source("esp32", &format!("{}/flashjob/{name}:1", front.host), policy)?, &logins)
            .await)
    }

    fn cache(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("caches").join(name)
    }
}

fn refused(what: &str, outcome: Result<Plugin, LoadError>, reason: &str, words: &str) {
    let error = outcome.err().unwrap_or_else(|| panic!("{what}: it is run"));
    assert_eq!(error.reason(), reason, "{what}: {error}");
    assert!(error.to_string().contains(words), "{what}: {error}");
}

#[tokio::test]
async fn whatever_is_done_between_registry_and_operator_a_plugin_is_refused_with_what_it_was()
-> anyhow::Result<()> {
    let world = World::start().await?;
    let digest = world.push("esp32", "esp32").await?;
    world.signers[0].sign_simple(&world.registry, "flashjob/esp32", &digest, &digest).await?;
    world.signers[0].sign_bundle(&world.registry, "flashjob/esp32", &digest, &digest).await?;
    let honest = world.front(Box::new(|_| None)).await?;
    let trust = world.trust(&honest, &BOTH, "any");
    let plugin =
        world.load(&honest, "esp32", trust, PullPolicy::Always, &world.cache("honest")).await??;
    assert!(plugin.signed());
    let layer = Digest::of(&component("esp32")?);
    let mut evil = component("esp32")?;
    evil[100] ^= 1;
    let (short, long) = (evil[..evil.len() - 1].to_vec(), [&evil[..], b"x"].concat());
    let at_tag = |path: &str| path.ends_with("/manifests/1");
    let on = |hit: fn(&str) -> bool, answer: Answer| -> Meddles {
        Box::new(move |path| hit(path).then(|| answer.clone()))
    };
    let layer_is = |bytes: Vec<u8>| -> Meddles {
        let name = layer.to_string();
        Box::new(move |path| {
            (path.contains("/blobs/") && path.ends_with(&name))
                .then(|| Answer::new(200, bytes.clone()))
        })
    };
    let other = json!({
        "schemaVersion": 2, "config": {"mediaType": "x", "digest": digest, "size": 1},
        "layers": [{"mediaType": "application/wasm", "digest": layer, "size": evil.len()}],
        "annotations": {"changed": "yes"},
    });
    let other = Answer::new(200, other.to_string());
    let bundles: fn(&str) -> bool = |path| {
        path.contains("/referrers/")
            || path.contains("/manifests/sha256-") && !path.ends_with(".sig")
    };
    let simple: fn(&str) -> bool = |path| path.ends_with(".sig");
    let elsewhere = Answer::new(307, "").with("location", "https://evil.example/v2/x");
    for (what, meddles, forms, reason, words) in [
        (
            "a layer with one bit changed",
            layer_is(evil),
            &BOTH[..],
            "DigestMismatch",
            "was changed",
        ),
        ("a layer that is cut", layer_is(short), &BOTH, "DigestMismatch", "was changed"),
        ("a layer that is longer", layer_is(long), &BOTH, "TooLarge", "is larger than"),
        ("another manifest under the tag", on(at_tag, other), &BOTH, "Unsigned", "is not signed"),
        (
            "a manifest that is elsewhere",
            on(at_tag, elsewhere.clone()),
            &BOTH,
            "RedirectRefused",
            "https://evil.example/v2/x",
        ),
        (
            "a manifest that is denied",
            on(at_tag, Answer::new(403, "")),
            &BOTH,
            "AccessDenied",
            "403",
        ),
        (
            "bundles that cannot be listed",
            on(bundles, Answer::new(503, "")),
            &["bundle"],
            "SignaturesUnavailable",
            "503",
        ),
        (
            "bundles that nobody may list",
            on(bundles, Answer::new(403, "")),
            &["bundle"],
            "SignaturesUnavailable",
            "403",
        ),
        (
            "bundles that are no list",
            on(bundles, Answer::new(200, "<html>")),
            &["bundle"],
            "SignaturesUnavailable",
            "cannot be read",
        ),
        (
            "bundles that are elsewhere",
            on(bundles, elsewhere.clone()),
            &["bundle"],
            "SignaturesUnavailable",
            "redirects",
        ),
        (
            "a signature that is not given",
            on(simple, Answer::new(500, "")),
            &["simple"],
            "SignaturesUnavailable",
            "500",
        ),
        (
            "a signature that is elsewhere",
            on(simple, elsewhere),
            &["simple"],
            "SignaturesUnavailable",
            "redirects",
        ),
        (
            "a signature that is nonsense",
            on(simple, Answer::new(200, "{")),
            &["simple"],
            "SignaturesUnavailable",
            "cannot be read",
        ),
        (
            "a signature that is withheld",
            on(simple, Answer::new(404, "")),
            &["simple"],
            "FormNotAllowed",
            "Bundle",
        ),
        (
            "bundles that are withheld",
            on(bundles, Answer::new(404, "")),
            &["bundle"],
            "FormNotAllowed",
            "Simple",
        ),
    ] {
        let front = world.front(meddles).await?;
        let outcome = world
            .load(
                &front,
                "esp32",
                world.trust(&front, forms, "any"),
                PullPolicy::Always,
                &world.cache(what),
            )
            .await?;
        refused(what, outcome, reason, words);
        let compiled = std::fs::read_dir(world.cache(what).join("compiled"))?.count();
        assert_eq!(compiled, 0, "{what}: what is refused is not compiled");
    }
    Ok(())
}

#[tokio::test]
async fn what_an_identity_signed_without_a_key_is_run_and_what_another_signed_is_not()
-> anyhow::Result<()> {
    let world = World::start().await?;
    let front = world.front(Box::new(|_| None)).await?;
    let sigstore = Sigstore::new()?;
    let root = world.folder.path().join("trusted-root.json");
    std::fs::write(&root, sigstore.trusted_root().to_string())?;
    let (ours, other) = (
        "https://git.example/plugins/.ci/release.yml@refs/tags/v1",
        "https://git.example/other/.ci/release.yml@refs/tags/v1",
    );
    let signing = |subject: &str| Signing::now(subject, "https://ci.example");
    let trust = |forms: &[&str]| {
        let keyless = json!({
            "trustedRootFile": root,
            "identities": [{"issuer": "https://ci.example", "subject": ours}],
        });
        json!([{
            "match": format!("{}/**", front.host), "cosign": {"keyless": keyless, "forms": forms},
        }])
    };
    let load = |name: &'static str, forms: &[&str], policy, cache: &str| {
        let (world, front, trust, cache) = (&world, &front, trust(forms), world.cache(cache));
        async move { world.load(front, name, trust, policy, &cache).await }
    };
    let digest = world.push("esp32", "esp32").await?;
    refused(
        "nobody signed it",
        load("esp32", &BOTH, PullPolicy::Always, "unsigned").await?,
        "Unsigned",
        "is not signed",
    );
    let (payload, annotations) = sigstore.simple(&signing(other), &digest)?;
    attach_simple(&world.registry, "flashjob/esp32", &digest, payload, annotations).await?;
    refused(
        "another identity",
        load("esp32", &BOTH, PullPolicy::Always, "other").await?,
        "WrongIdentity",
        other,
    );
    attach_bundle(
        &world.registry,
        "flashjob/esp32",
        &digest,
        &sigstore.bundle(&signing(ours), &[&digest], SIGN)?,
    )
    .await?;
    assert!(load("esp32", &["bundle"], PullPolicy::Always, "cached").await??.signed());
    refused(
        "a form that is not listed",
        load("esp32", &["simple"], PullPolicy::Always, "form").await?,
        "WrongIdentity",
        other,
    );
    // The annotations of the older format are found and cached like the rest.
    let digest = world.push("esp32", "older").await?;
    let (payload, annotations) = sigstore.simple(&signing(ours), &digest)?;
    attach_simple(&world.registry, "flashjob/older", &digest, payload, annotations).await?;
    assert!(load("older", &["simple"], PullPolicy::IfNotPresent, "cached").await??.signed());
    assert!(load("older", &["simple"], PullPolicy::Never, "cached").await??.signed());
    // With another trusted root, a signature that was trusted is no longer, even from the cache.
    std::fs::write(&root, Sigstore::new()?.trusted_root().to_string())?;
    let kept = load("older", &["simple"], PullPolicy::Never, "cached").await?;
    refused("another trusted root", kept, "SignatureUnproven", "requires proof");
    std::fs::remove_file(&root)?;
    let kept = load("older", &["simple"], PullPolicy::Never, "cached").await?;
    refused("no trusted root", kept, "TrustedRootUnusable", "trusted-root.json");
    Ok(())
}

#[tokio::test]
async fn a_tag_that_moves_while_it_is_fetched_changes_nothing_of_what_was_resolved()
-> anyhow::Result<()> {
    let world = World::start().await?;
    let digest = world.push("esp32", "esp32").await?;
    world.signers[0].sign_simple(&world.registry, "flashjob/esp32", &digest, &digest).await?;
    let was_requested = AtomicBool::new(false);
    // From the second request on, the tag refers to another artifact, which is not signed.
    let moved = move |path: &str| {
        (path.ends_with("/manifests/1") && was_requested.swap(true, Ordering::Relaxed))
            .then(|| Answer::new(200, "{}"))
    };
    let front = world.front(Box::new(moved)).await?;
    let trust = world.trust(&front, &["simple"], "any");
    let plugin =
        world.load(&front, "esp32", trust, PullPolicy::Always, &world.cache("moved")).await??;
    assert_eq!(plugin.digest().to_string(), digest);
    let by_tag = front
        .requests()
        .into_iter()
        .filter(|request| request.path.ends_with("/manifests/1") && request.status == 200)
        .count();
    assert_eq!(by_tag, 1, "a tag is resolved once: {:?}", front.requests());
    Ok(())
}

#[tokio::test]
async fn a_signature_that_is_removed_counts_no_more_once_it_is_asked_for_again()
-> anyhow::Result<()> {
    let world = World::start().await?;
    let digest = world.push("esp32", "esp32").await?;
    world.signers[0].sign_simple(&world.registry, "flashjob/esp32", &digest, &digest).await?;
    let (removed, cache) = (Arc::new(AtomicBool::new(false)), world.cache("removed"));
    let is_removed = removed.clone();
    let meddles = move |path: &str| {
        (path.contains("/manifests/sha256-") && is_removed.load(Ordering::Relaxed))
            .then(|| Answer::new(404, ""))
    };
    let front = world.front(Box::new(meddles)).await?;
    let load = |policy| {
        world.load(&front, "esp32", world.trust(&front, &["simple"], "any"), policy, &cache)
    };
    load(PullPolicy::IfNotPresent).await??;
    removed.store(true, Ordering::Relaxed);
    load(PullPolicy::IfNotPresent).await??;
    refused("a removed signature", load(PullPolicy::Always).await?, "Unsigned", "is not signed");
    removed.store(false, Ordering::Relaxed);
    load(PullPolicy::Always).await??;
    Ok(())
}

#[tokio::test]
async fn where_all_keys_are_required_each_must_have_signed_this_plugin() -> anyhow::Result<()> {
    let world = World::start().await?;
    let digest = world.push("esp32", "esp32").await?;
    let other = world.push("wrong-name", "other").await?;
    let front = world.front(Box::new(|_| None)).await?;
    let (registry, [first, second]) = (&world.registry, &world.signers);
    let all = || world.trust(&front, &BOTH, "all");
    world
        .load(
            &front,
            "esp32",
            json!([{"match": format!("{}/**", front.host), "allowUnsigned": true}]),
            PullPolicy::Always,
            &world.cache("seed"),
        )
        .await??;
    let cache = |name: &str| -> anyhow::Result<std::path::PathBuf> {
        share_compiled(&world.cache("seed"), &world.cache(name))?;
        Ok(world.cache(name))
    };
    first.sign_simple(registry, "flashjob/esp32", &digest, &digest).await?;
    let one = world.load(&front, "esp32", all(), PullPolicy::Always, &cache("one")?).await?;
    refused("one of two signatures", one, "KeysMissing", "second.pub");
    second.sign_bundle(registry, "flashjob/esp32", &digest, &other).await?;
    let foreign =
        world.load(&front, "esp32", all(), PullPolicy::Always, &cache("foreign")?).await?;
    refused("a second signature for another digest", foreign, "KeysMissing", "second.pub");
    second.sign_bundle(registry, "flashjob/esp32", &digest, &digest).await?;
    assert!(
        world.load(&front, "esp32", all(), PullPolicy::Always, &cache("both")?).await??.signed()
    );
    // Signed by the right key, but not the plugin that is meant.
    first.sign_simple(registry, "flashjob/other", &other, &other).await?;
    let trust = world.trust(&front, &["simple"], "any");
    let swapped =
        world.load(&front, "other", trust, PullPolicy::Always, &world.cache("swapped")).await?;
    refused("another plugin by the same key", swapped, "WrongName", "it calls itself another");
    Ok(())
}
