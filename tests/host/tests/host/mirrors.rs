//! Two real registries, each behind a front that records its requests: one is the registry of a
//! reference, the other its mirror, below a path prefix.

use std::path::{Path, PathBuf};

use flashjob_host_tests::front::{Answer, Behaviour, Front, ReceivedRequest};
use flashjob_host_tests::hosts::{component, host, programs, share_compiled, source};
use flashjob_host_tests::push::{COMPONENT, Pusher};
use flashjob_host_tests::registry::Registry;
use flashjob_plugin_host::config::{Limits, PullPolicy};
use flashjob_plugin_host::{Digest, LoadError, Logins, Plugin};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Path prefix of the mirror's repositories.
const BELOW: &str = "proxy";

/// Returns a working plugin with this letter in a custom section, of the same size for each
/// letter.
fn plugin(letter: u8) -> anyhow::Result<Vec<u8>> {
    let mut bytes = component("esp32")?;
    // A custom section of two bytes: the length of its name, and the name.
    bytes.extend([0, 2, 1, letter]);
    Ok(bytes)
}

struct World {
    /// The registry itself, then its mirror.
    registries: [Registry; 2],
    onward: reqwest::Client,
    digest: Digest,
    folder: TempDir,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (programs, folder) = (programs()?, tempfile::tempdir()?);
        let (first, second) = (folder.path().join("registry"), folder.path().join("mirror"));
        std::fs::create_dir_all(&first)?;
        std::fs::create_dir_all(&second)?;
        let (registry, mirror) = tokio::try_join!(
            Registry::start(&programs, &first, "registry", Value::Null),
            Registry::start(&programs, &second, "mirror", Value::Null),
        )?;
        let onward = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let component = plugin(b'a')?;
        let push = async |registry: &str, repository: &str| {
            let pusher = Pusher { client: &onward, registry, repository };
            pusher.artifact("1", &[(COMPONENT, &component)]).await
        };
        let digest = push(&registry.url, "flashjob/esp32").await?;
        assert_eq!(
            push(&mirror.url, &format!("{BELOW}/flashjob/esp32")).await?,
            digest,
            "the same artifact in both"
        );
        Ok(Self { registries: [registry, mirror], onward, digest, folder })
    }

    /// Starts a front of the registry itself.
    async fn registry(&self) -> anyhow::Result<Front> {
        let behaviour =
            Behaviour { registry: self.registries[0].url.clone(), ..Behaviour::default() };
        Front::start(&self.onward, None, behaviour).await
    }

    /// Starts a front of the mirror, which itself answers the requests for some paths.
    async fn mirror(
        &self,
        meddles: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static,
    ) -> anyhow::Result<Front> {
        let answers = move |_: &str, path: &str, _: Option<&str>| meddles(path);
        let registry = self.registries[1].url.clone();
        Front::start(
            &self.onward,
            None,
            Behaviour { registry, answers: Some(Box::new(answers)), ..Behaviour::default() },
        )
        .await
    }

    /// Returns a mirror that is down.
    async fn down(&self) -> anyhow::Result<Front> {
        let mut front = self.mirror(|_| None).await?;
        front.stop().await;
        Ok(front)
    }

    /// Loads the plugin of this version, a tag or a digest, with a separate host and cache.
    async fn load(
        &self,
        registry: &Front,
        mirrors: &[&Front],
        version: &str,
        cache: &Path,
    ) -> anyhow::Result<Result<Plugin, LoadError>> {
        let names: Vec<String> =
            mirrors.iter().map(|mirror| format!("{}/{BELOW}", mirror.host)).collect();
        let mut registries =
            vec![json!({"host": registry.host, "plainHttp": true, "mirrors": names})];
        registries
            .extend(mirrors.iter().map(|mirror| json!({"host": mirror.host, "plainHttp": true})));
        let trust = json!([{"match": format!("{}/**", registry.host), "allowUnsigned": true}]);
        let host = host(cache, registries.into(), trust, Limits::default())?;
        let reference = format!("{}/flashjob/esp32{version}", registry.host);
        Ok(host.load(&source("esp32", &reference, PullPolicy::Always)?, &Logins::default()).await)
    }

    fn cache(&self, name: &str) -> PathBuf {
        self.folder.path().join("caches").join(name)
    }

    /// Returns the tag and the digest of the plugin, as they follow its name.
    fn versions(&self) -> [String; 2] {
        [":1".to_owned(), format!("@{}", self.digest)]
    }
}

fn served(front: &Front) -> bool {
    let blob =
        |request: &ReceivedRequest| request.path.contains("/blobs/") && request.status == 200;
    front.requests().iter().any(blob)
}

#[tokio::test]
async fn where_mirrors_are_down_the_next_that_is_up_serves_and_where_all_are_down_each_is_named()
-> anyhow::Result<()> {
    let world = World::start().await?;
    let mut seed: Option<PathBuf> = None;
    for version in world.versions() {
        let (mut registry, down, mut mirror) =
            (world.registry().await?, world.down().await?, world.mirror(|_| None).await?);
        let cache = |name: &str, seed: Option<&PathBuf>| -> anyhow::Result<PathBuf> {
            let cache = world.cache(&format!("{name}{}", version.len()));
            seed.map_or(Ok(()), |seed| share_compiled(seed, &cache))?;
            Ok(cache)
        };
        let first = cache("mirror", seed.as_ref())?;
        let plugin = world.load(&registry, &[&down, &mirror], &version, &first).await??;
        assert_eq!(
            (&plugin.info().name[..], plugin.digest()),
            ("esp32", &world.digest),
            "{version}"
        );
        assert!(served(&mirror), "{version}: {:?}", mirror.requests());
        assert_eq!(
            registry.requests(),
            [],
            "{version}: the registry is asked though a mirror has it"
        );
        assert_eq!(down.requests(), []);
        let seed = seed.get_or_insert(first);

        mirror.stop().await;
        world
            .load(&registry, &[&down, &mirror], &version, &cache("registry", Some(seed))?)
            .await??;
        assert!(served(&registry), "{version}: {:?}", registry.requests());

        registry.stop().await;
        let outcome = world
            .load(&registry, &[&down, &mirror], &version, &cache("nobody", Some(seed))?)
            .await?;
        let error = outcome.err().unwrap_or_else(|| panic!("{version}: it is run"));
        assert_eq!(error.reason(), "RegistryUnreachable", "{version}: {error}");
        for front in [&down, &mirror, &registry] {
            assert!(
                error.to_string().contains(&front.host),
                "{version}: {} is not in {error}",
                front.host
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_a_mirror_has_changed_is_refused_and_never_run_though_the_registry_has_the_true_one()
-> anyhow::Result<()> {
    let world = World::start().await?;
    // Only its digest shows the change.
    let changed = plugin(b'b')?;
    let manifest = json!({
        "schemaVersion": 2, "config": {"mediaType": "x", "digest": world.digest, "size": 1},
        "layers": [
            {"mediaType": COMPONENT, "digest": Digest::of(&changed), "size": changed.len()},
        ],
    });
    let layer = Digest::of(&plugin(b'a')?).to_string();
    let bytes = changed.clone();
    let blob = move |path: &str| {
        path.ends_with(&format!("/blobs/{layer}")).then(|| Answer::new(200, bytes.clone()))
    };
    let [tag, pinned] = world.versions();
    let registry = world.registry().await?;
    for (what, version) in [("bytes of a tag", &tag), ("bytes of a digest", &pinned)] {
        let mirror = world.mirror(blob.clone()).await?;
        let outcome = world.load(&registry, &[&mirror], version, &world.cache(what)).await?;
        check_refused(what, &world, outcome, &mirror)?;
    }
    // Manifest and bytes match each other, but not the digest of the reference.
    let (what, all) = ("manifest of a digest", move |path: &str| {
        let body = if path.contains("/manifests/") {
            manifest.to_string().into_bytes()
        } else {
            changed.clone()
        };
        Some(Answer::new(200, body))
    });
    let mirror = world.mirror(all).await?;
    let outcome = world.load(&registry, &[&mirror], &pinned, &world.cache(what)).await?;
    check_refused(what, &world, outcome, &mirror)?;
    assert_eq!(registry.requests(), [], "what was changed is told, not passed over");
    Ok(())
}

fn check_refused(
    what: &str,
    world: &World,
    outcome: Result<Plugin, LoadError>,
    mirror: &Front,
) -> anyhow::Result<()> {
    let error = outcome.err().unwrap_or_else(|| panic!("{what}: it is run"));
    assert_eq!(error.reason(), "DigestMismatch", "{what}: {error}");
    assert!(error.to_string().contains(&mirror.host), "{what}: {error}");
    let compiled = std::fs::read_dir(world.cache(what).join("compiled"))?.count();
    assert_eq!(compiled, 0, "{what}: what is refused is not compiled");
    Ok(())
}
