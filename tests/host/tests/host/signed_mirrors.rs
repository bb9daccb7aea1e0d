//! Signatures where a registry has a mirror. Both are real, with TLS and separate passwords, each
//! behind a front that records its requests. A signature in the mirror counts, one that the mirror
//! lacks is looked up in the registry, and an invalid one in the mirror is refused.

#![allow(clippy::expect_used, reason = "this is a test, its helpers too")]

use anyhow::Context;
use flashjob_host_tests::front::{Answer, Behaviour, Front};
use flashjob_host_tests::hosts::{component, host, programs, source};
use flashjob_plugin_host::config::{Limits, PullPolicy};
use flashjob_plugin_host::{Credentials, Digest, LoadError, Logins, Verified};
use flashjob_testbed::artifacts::push_plugin;
use flashjob_testbed::certificates::Authority;
use flashjob_testbed::process::repository;
use flashjob_testbed::registry::{PASSWORD, Registry, USER};
use flashjob_testbed::signatures::Signer;
use serde_json::json;
use tempfile::TempDir;

const FORMS: [&str; 2] = ["bundle", "simple"];
/// Path prefix of the mirror's repositories.
const BELOW: &str = "proxy";

/// Signature of a plugin.
#[derive(Clone, Copy, Debug)]
enum Signed {
    Not,
    Rightly,
    /// By a signer who is not trusted.
    ByAnother,
    /// With a signature of another artifact.
    OfAnother,
}

struct World {
    registry: Registry,
    mirror: Registry,
    onward: reqwest::Client,
    /// The trusted signer, and another one.
    signers: [Signer; 2],
    folder: TempDir,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (programs, folder) = (programs()?, tempfile::tempdir()?);
        let authority = Authority::new(folder.path())?;
        let start = async |name: &str| {
            let folder = folder.path().join(name);
            std::fs::create_dir_all(&folder)?;
            Registry::start(&programs, &folder, &authority).await
        };
        let (registry, mirror) = (start("registry").await?, start("mirror").await?);
        let certificate = reqwest::Certificate::from_pem(&std::fs::read(&authority.certificate)?)?;
        let onward = reqwest::Client::builder()
            .tls_certs_only([certificate])
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let signers =
            [Signer::new(folder.path(), "trusted")?, Signer::new(folder.path(), "other")?];
        Ok(Self { registry, mirror, onward, signers, folder })
    }

    /// Pushes the plugin to both under a name, with these signatures in one format; returns the
    /// digest of its manifest.
    async fn push(
        &self,
        name: &str,
        form: &str,
        in_registry: Signed,
        in_mirror: Signed,
    ) -> anyhow::Result<String> {
        let file = repository().join("target/plugins/esp32.wasm");
        let mut digests = Vec::new();
        for (registry, name, signed) in [
            (&self.registry, name.to_owned(), in_registry),
            (&self.mirror, format!("{BELOW}/{name}"), in_mirror),
        ] {
            let pushed = push_plugin(registry, &file, &format!("{name}:1")).await?;
            let digest = pushed.split_once('@').context("a digest")?.1.to_owned();
            let elsewhere = Digest::of(b"another artifact").to_string();
            let (signer, of) = match signed {
                Signed::Not => (None, &digest),
                Signed::Rightly => (Some(&self.signers[0]), &digest),
                Signed::ByAnother => (Some(&self.signers[1]), &digest),
                Signed::OfAnother => (Some(&self.signers[0]), &elsewhere),
            };
            match signer {
                Some(signer) if form == "bundle" => {
                    signer.sign_bundle(registry, &name, &digest, of).await?
                }
                Some(signer) => signer.sign_simple(registry, &name, &digest, of).await?,
                None => {}
            }
            digests.push(digest);
        }
        anyhow::ensure!(digests[0] == digests[1], "the same artifact in both: {digests:?}");
        Ok(digests.remove(0))
    }

    /// Starts a front of either, which itself answers the requests for some paths.
    async fn front(
        &self,
        of: &Registry,
        meddles: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static,
    ) -> anyhow::Result<Front> {
        let answers = move |_: &str, path: &str, _: Option<&str>| meddles(path);
        let registry = format!("https://{}", of.host);
        Front::start(
            &self.onward,
            None,
            Behaviour { registry, answers: Some(Box::new(answers)), ..Behaviour::default() },
        )
        .await
    }

    /// Fetches and verifies the plugin with an empty cache. Trust demands a signature in this
    /// format by the trusted signer.
    async fn obtain(
        &self,
        registry: &Front,
        mirror: &Front,
        name: &str,
        form: &str,
    ) -> anyhow::Result<Result<Verified, LoadError>> {
        let registries = json!([
            {
                "host": registry.host, "plainHttp": true,
                "mirrors": [format!("{}/{BELOW}", mirror.host)],
            },
            {"host": mirror.host, "plainHttp": true},
        ]);
        let cosign = json!({"publicKeyFiles": [self.signers[0].public_key], "forms": [form]});
        let trust = json!([{"match": format!("{}/**", registry.host), "cosign": cosign}]);
        let cache = tempfile::tempdir_in(self.folder.path())?;
        let host = host(cache.path(), registries, trust, Limits::default())?;
        let credentials = Credentials { username: USER.to_owned(), password: PASSWORD.to_owned() };
        let logins: Logins = [registry, mirror]
            .map(|front| (front.host.clone(), credentials.clone()))
            .into_iter()
            .collect();
        let source = source("esp32", &format!("{}/{name}:1", registry.host), PullPolicy::Always)?;
        Ok(host.obtain(&source, &logins).await)
    }
}

/// Returns true if it runs as signed, false if it runs unsigned, or the reason for a refusal.
fn verdict(outcome: &Result<Verified, LoadError>) -> Result<bool, &'static str> {
    outcome.as_ref().map(Verified::signed).map_err(LoadError::reason)
}

/// Returns true if the front got a request for the component or its manifest.
fn gave_the_plugin(front: &Front, digest: &str) -> anyhow::Result<bool> {
    let component = format!("/blobs/{}", Digest::of(&component("esp32")?));
    let manifests = ["/manifests/1".to_owned(), format!("/manifests/{digest}")];
    Ok(front.requests().iter().any(|request| {
        request.path.ends_with(&component)
            || manifests.iter().any(|name| request.path.ends_with(name))
    }))
}

#[tokio::test]
async fn signatures_of_a_mirror_count_and_the_registry_is_asked_only_where_it_has_none()
-> anyhow::Result<()> {
    let world = World::start().await?;
    for (number, (in_mirror, in_registry, expected, registry_is_asked)) in [
        (Signed::Rightly, Signed::Not, Ok(true), false),
        (Signed::Not, Signed::Rightly, Ok(true), true),
        (Signed::Not, Signed::Not, Err("Unsigned"), true),
        (Signed::ByAnother, Signed::Rightly, Err("WrongKey"), false),
        (Signed::OfAnother, Signed::Rightly, Err("OtherDigest"), false),
        (Signed::Not, Signed::ByAnother, Err("WrongKey"), true),
    ]
    .into_iter()
    .enumerate()
    {
        for form in FORMS {
            let (what, name) = (
                format!("{in_mirror:?} in the mirror, {in_registry:?} in the registry, {form}"),
                format!("{form}/{number}"),
            );
            let digest = world.push(&name, form, in_registry, in_mirror).await?;
            let (registry, mirror) = (
                world.front(&world.registry, |_| None).await?,
                world.front(&world.mirror, |_| None).await?,
            );
            let outcome = world.obtain(&registry, &mirror, &name, form).await?;
            assert_eq!(verdict(&outcome), expected, "{what}: {:?}", outcome.err());
            assert_eq!(
                !registry.requests().is_empty(),
                registry_is_asked,
                "{what}: {:?}",
                registry.requests()
            );
            assert!(
                gave_the_plugin(&mirror, &digest)? && !gave_the_plugin(&registry, &digest)?,
                "{what}: the plugin is the mirror's"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn while_the_registry_is_down_a_mirror_must_have_the_signature_too() -> anyhow::Result<()> {
    let world = World::start().await?;
    for form in FORMS {
        let (with, without) = (format!("{form}/with"), format!("{form}/without"));
        world.push(&with, form, Signed::Not, Signed::Rightly).await?;
        world.push(&without, form, Signed::Rightly, Signed::Not).await?;
        let (mut registry, mirror) = (
            world.front(&world.registry, |_| None).await?,
            world.front(&world.mirror, |_| None).await?,
        );
        registry.stop().await;
        assert_eq!(
            verdict(&world.obtain(&registry, &mirror, &with, form).await?),
            Ok(true),
            "{form}"
        );
        let error = world
            .obtain(&registry, &mirror, &without, form)
            .await?
            .map(|_| ())
            .expect_err("refused");
        assert_eq!(error.reason(), "SignaturesUnavailable", "{form}: {error}");
        for front in [&registry, &mirror] {
            assert!(
                error.to_string().contains(&front.host),
                "{form}: {} is not in {error}",
                front.host
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_signature_that_a_mirror_changed_or_denies_is_refused_without_asking_the_registry()
-> anyhow::Result<()> {
    let world = World::start().await?;
    for form in FORMS {
        world.push(form, form, Signed::Rightly, Signed::Rightly).await?;
        let component = format!("/blobs/{}", Digest::of(&component("esp32")?));
        let changed = move |path: &str| {
            (path.contains("/blobs/") && !path.ends_with(&component))
                .then(|| Answer::new(200, "{}"))
        };
        let denied =
            |path: &str| path.contains("/manifests/sha256-").then(|| Answer::new(403, ""));
        let registry = world.front(&world.registry, |_| None).await?;
        for (mirror, words) in [
            (world.front(&world.mirror, changed).await?, "was changed"),
            (world.front(&world.mirror, denied).await?, "403"),
        ] {
            let error = world
                .obtain(&registry, &mirror, form, form)
                .await?
                .map(|_| ())
                .expect_err("refused");
            assert_eq!(error.reason(), "SignaturesUnavailable", "{form}: {error}");
            assert!(
                error.to_string().contains(words) && error.to_string().contains(&mirror.host),
                "{form}: {error}"
            );
        }
        assert_eq!(registry.requests(), [], "{form}");
    }
    Ok(())
}
