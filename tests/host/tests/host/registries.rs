//! Every way to reach a registry, crossed with every kind of authentication, every form of a
//! reference and every kind of artifact: each combination works or causes a specific error, and no
//! password is sent to the wrong host.
#![allow(clippy::expect_used, reason = "this is a test, its helpers too")]

mod auth;

use std::path::Path;
use std::sync::Arc;

use flashjob_host_tests::front::{Behaviour, Certificate, Front, ReceivedRequest};
use flashjob_host_tests::hosts::{component, host, programs, share_compiled, source};
use flashjob_host_tests::push::{COMPONENT, INDEX, Pusher};
use flashjob_host_tests::registry::Registry;
use flashjob_host_tests::tokens::{PATH, TokenService};
use flashjob_plugin_host::config::{Limits, PullPolicy};
use flashjob_plugin_host::{Digest, LoadError, Logins, Plugin};
use flashjob_testbed::certificates::Authority;
use flashjob_testbed::registry::PASSWORD;
use rustls::crypto::ring::default_provider;
use serde_json::{Value, json};
use tempfile::TempDir;

use self::auth::{AUTHS, Auth, RIGHT};

/// Protocol of a registry, and its configuration in the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    PrivateAuthority,
    AuthorityMissing,
    PlainConfigured,
    PlainNotConfigured,
}

const TLS: [Tls; 4] =
    [Tls::PrivateAuthority, Tls::AuthorityMissing, Tls::PlainConfigured, Tls::PlainNotConfigured];

impl Tls {
    fn works(self) -> bool {
        matches!(self, Self::PrivateAuthority | Self::PlainConfigured)
    }
}

/// Form of the reference that names a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Tag,
    Digest,
    TagAndDigest,
    Scheme,
}

const FORMS: [Form; 4] = [Form::Tag, Form::Digest, Form::TagAndDigest, Form::Scheme];

/// Artifacts in the registry: repository, and true for a plugin.
const ARTIFACTS: [(&str, bool); 5] =
    [("wasm", true), ("older", true), ("text", false), ("two", false), ("index", false)];

struct World {
    registries: [Registry; 3],
    tokens: Arc<TokenService>,
    digests: Vec<Digest>,
    onward: reqwest::Client,
    authority: Authority,
    certificate: Certificate,
    folder: TempDir,
}

/// One registry with its fronts, in one combination of authentication and protocol.
struct RegistryUnderTest {
    own: Front,
    foreign: Front,
    auth: Auth,
    tls: Tls,
}

impl RegistryUnderTest {
    fn logins(&self) -> Logins {
        self.auth
            .credentials()
            .map(|credentials| (self.own.host.clone(), credentials))
            .into_iter()
            .collect()
    }
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let _ = default_provider().install_default();
        let (programs, folder) = (programs()?, tempfile::tempdir()?);
        let (authority, tokens) =
            (Authority::new(folder.path())?, TokenService::new(folder.path())?);
        let passwords = folder.path().join("htpasswd");
        std::fs::write(&passwords, flashjob_testbed::registry::htpasswd()?)?;
        let start = |name, auth| Registry::start(&programs, folder.path(), name, auth);
        let (open, password, token) = tokio::try_join!(
            start("open", Value::Null),
            start("password", json!({"htpasswd": {"realm": "testbed", "path": passwords}})),
            start("token", tokens.auth()),
        )?;
        let onward = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let digests = push(&onward, &open.url).await?;
        let certificate = Certificate::new(&authority, "front")?;
        let world = Self {
            registries: [open, password, token],
            tokens: Arc::new(tokens),
            digests,
            onward,
            authority,
            certificate,
            folder,
        };
        world.compile().await?;
        Ok(world)
    }

    /// Compiles each plugin once.
    async fn compile(&self) -> anyhow::Result<()> {
        let registry = self.registry_under_test(Auth::Open, Tls::PlainConfigured).await?;
        for artifact in 0..2 {
            let reference = self.reference(&registry, artifact, Form::Tag);
            self.load(&registry, &reference, PullPolicy::Always, &self.seed()).await??;
        }
        Ok(())
    }

    fn seed(&self) -> std::path::PathBuf {
        self.folder.path().join("seed")
    }

    async fn registry_under_test(
        &self,
        auth: Auth,
        tls: Tls,
    ) -> anyhow::Result<RegistryUnderTest> {
        let certificate = matches!(tls, Tls::PrivateAuthority | Tls::AuthorityMissing)
            .then_some(&self.certificate);
        let tokens = self.tokens.clone();
        let answers = move |url: &str, path: &str, authorization: Option<&str>| {
            auth.answer(&tokens, url, path, authorization)
        };
        let behaviour =
            Behaviour { answers: Some(Box::new(answers.clone())), ..Behaviour::default() };
        let foreign = Front::start(&self.onward, certificate, behaviour).await?;
        let registry = match auth {
            Auth::Open | Auth::OpenWithCredentials | Auth::PublicWrong => 0,
            Auth::Password | Auth::PasswordWrong | Auth::PasswordMissing => 1,
            _ => 2,
        };
        let elsewhere = format!("realm=\"{}{PATH}\"", foreign.url);
        let challenges = move |challenge: &str| match auth {
            Auth::TokenWithoutScope => {
                challenge.split(",scope").next().unwrap_or_default().to_owned()
            }
            Auth::TokenForeign | Auth::TokenForeignListed => {
                let (before, after) = challenge.split_once("realm=\"").expect("a realm");
                format!("{before}{elsewhere}{}", after.split_once('"').expect("its end").1)
            }
            _ => challenge.to_owned(),
        };
        let registry = self.registries[registry].url.clone();
        let behaviour = Behaviour {
            registry,
            answers: Some(Box::new(answers)),
            challenges: Some(Box::new(challenges)),
        };
        Ok(RegistryUnderTest {
            own: Front::start(&self.onward, certificate, behaviour).await?,
            foreign,
            auth,
            tls,
        })
    }

    fn registries(&self, registry: &RegistryUnderTest) -> Value {
        let ca =
            (registry.tls == Tls::PrivateAuthority).then(|| self.authority.certificate.clone());
        let plain_http = registry.tls == Tls::PlainConfigured;
        let hosts: &[&str] = if registry.auth == Auth::TokenForeignListed {
            &[&registry.foreign.host]
        } else {
            &[]
        };
        json!([
            {
                "host": registry.own.host, "caFile": ca, "plainHttp": plain_http,
                "tokenHosts": hosts,
            },
            {"host": registry.foreign.host, "plainHttp": plain_http},
        ])
    }

    /// Returns the reference of an artifact, in one of its forms.
    fn reference(&self, registry: &RegistryUnderTest, artifact: usize, form: Form) -> String {
        let (host, name, digest) =
            (&registry.own.host, ARTIFACTS[artifact].0, &self.digests[artifact]);
        match form {
            Form::Tag => format!("{host}/flashjob/{name}:1"),
            Form::Digest => format!("{host}/flashjob/{name}@{digest}"),
            Form::TagAndDigest => format!("{host}/flashjob/{name}:1@{digest}"),
            Form::Scheme => format!("oci://{host}/flashjob/{name}:1"),
        }
    }

    /// Loads an artifact with a separate host. A new cache begins with the code that
    /// [`Self::compile`] compiled.
    async fn load(
        &self,
        registry: &RegistryUnderTest,
        reference: &str,
        policy: PullPolicy,
        cache: &Path,
    ) -> anyhow::Result<Result<Plugin, LoadError>> {
        if cache != self.seed() && !cache.exists() {
            share_compiled(&self.seed(), cache)?;
        }
        let trust = json!([{"match": format!("{}/**", registry.own.host), "allowUnsigned": true}]);
        let host = host(cache, self.registries(registry), trust, Limits::default())?;
        Ok(host.load(&source("esp32", reference, policy)?, &registry.logins()).await)
    }
}

async fn push(client: &reqwest::Client, registry: &str) -> anyhow::Result<Vec<Digest>> {
    let component = component("esp32")?;
    let mut digests = Vec::new();
    for (name, _) in ARTIFACTS {
        let pusher = Pusher { client, registry, repository: &format!("flashjob/{name}") };
        digests.push(match name {
            "wasm" => pusher.artifact("1", &[(COMPONENT, &component)]).await?,
            "older" => {
                pusher
                    .artifact(
                        "1",
                        &[("application/vnd.module.wasm.content.layer.v1+wasm", &component)],
                    )
                    .await?
            }
            "text" => pusher.artifact("1", &[("text/plain", &component)]).await?,
            "two" => {
                pusher.artifact("1", &[(COMPONENT, &component), (COMPONENT, b"more")]).await?
            }
            _ => {
                pusher.artifact("part", &[(COMPONENT, &component)]).await?;
                let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
                pusher.manifest("1", INDEX, &index).await?
            }
        });
    }
    Ok(digests)
}

/// Returns the documented reason of a combination's error, and a word that its message must
/// contain; `None` if it works.
fn expected(registry: &RegistryUnderTest, artifact: usize) -> Option<(&'static str, String)> {
    if !registry.tls.works() {
        return Some(("RegistryUnreachable", registry.own.host.clone()));
    }
    if let Some(reason) = registry.auth.error() {
        return Some((reason, registry.own.host.clone()));
    }
    let why = match ARTIFACTS[artifact].0 {
        "text" => "text/plain",
        "two" => "2 layers",
        "index" => "an index",
        _ => return None,
    };
    Some(("NotAPlugin", why.to_owned()))
}

/// Checks that nothing was delivered without the configured credentials, and that the password was
/// sent only where it may be sent.
fn check_requests(registry: &RegistryUnderTest) {
    let (own_requests, foreign_requests) = (registry.own.requests(), registry.foreign.requests());
    let all =
        format!("{:?} {:?}: {own_requests:#?} {foreign_requests:#?}", registry.auth, registry.tls);
    if !registry.tls.works() {
        assert!(own_requests.is_empty() && foreign_requests.is_empty(), "{all}");
        return;
    }
    let basic = |request: &&ReceivedRequest| {
        request.authorization.as_deref().is_some_and(|text| text.starts_with("Basic "))
    };
    let bearer = |request: &&ReceivedRequest| {
        request.authorization.as_deref().is_some_and(|text| text.starts_with("Bearer "))
    };
    let password_here = |request: &ReceivedRequest| match registry.auth {
        Auth::Password | Auth::PasswordWrong => request.path.starts_with("/v2/"),
        Auth::TokenForeign | Auth::TokenForeignListed => false,
        _ => request.path.starts_with(PATH),
    };
    assert!(own_requests.iter().filter(basic).all(password_here), "{all}");
    assert!(
        own_requests.iter().filter(bearer).all(|request| request.path.starts_with("/v2/")),
        "{all}"
    );
    let token_requests = usize::from(registry.auth == Auth::TokenForeignListed);
    assert_eq!(foreign_requests.len(), token_requests, "{all}");
    assert!(
        foreign_requests.iter().all(|request| request.path.starts_with(PATH)
            && request.authorization.as_deref() == Some(RIGHT)),
        "{all}"
    );
    if registry.auth.credentials().is_some() && registry.auth != Auth::OpenWithCredentials {
        let anonymous_request = own_requests
            .iter()
            .find(|request| request.authorization.is_none() && request.status < 400);
        assert_eq!(anonymous_request, None, "something was given to nobody: {all}");
    }
    if registry.auth == Auth::OpenWithCredentials {
        assert!(
            own_requests.iter().all(|request| request.authorization.is_none()),
            "nobody asked for the password: {all}"
        );
    }
    if registry.auth.error() == Some("AccessDenied") {
        // A token may have expired, so another is requested once. A password is sent once.
        let refused = own_requests
            .iter()
            .filter(|request| request.authorization.is_some() && request.status == 401)
            .count();
        let most =
            if matches!(registry.auth, Auth::TokenExpired | Auth::TokenRefused) { 2 } else { 1 };
        let last = own_requests.iter().rfind(|request| request.path.starts_with("/v2/"));
        assert!(
            refused <= most && last.is_some_and(|request| request.status == 401),
            "it goes on after a refusal: {all}"
        );
    }
    if registry.auth == Auth::TokenForeign {
        assert_eq!(own_requests.len(), 1, "{all}");
    }
}

fn check_outcome(
    cell: &str,
    outcome: &Result<Plugin, LoadError>,
    expected: Option<(&str, String)>,
) {
    match (outcome, expected) {
        (Ok(plugin), None) => assert_eq!(plugin.info().name, "esp32", "{cell}"),
        (Ok(_), Some((reason, _))) => panic!("{cell}: loaded, expected {reason}"),
        (Err(error), None) => panic!("{cell}: {} {error}", error.reason()),
        (Err(error), Some((reason, word))) => {
            assert_eq!(error.reason(), reason, "{cell}: {error}");
            assert!(error.to_string().contains(&word), "{cell}: {error}");
            assert!(!error.to_string().contains(PASSWORD), "{cell}: {error}");
        }
    }
}

#[tokio::test]
async fn every_registry_gives_what_it_has_or_the_documented_error() -> anyhow::Result<()> {
    let world = World::start().await?;
    let mut cells = 0;
    for (auth, tls) in AUTHS.into_iter().flat_map(|auth| TLS.map(|tls| (auth, tls))) {
        let registry = world.registry_under_test(auth, tls).await?;
        // Without a connection the stored artifacts make no difference.
        let artifacts = if tls.works() { ARTIFACTS.len() } else { 1 };
        for (artifact, form) in
            (0..artifacts).flat_map(|artifact| FORMS.map(|form| (artifact, form)))
        {
            let cache = tempfile::tempdir()?;
            let cell = format!("{auth:?} {tls:?} {form:?} {}", ARTIFACTS[artifact].0);
            let (reference, cache) =
                (world.reference(&registry, artifact, form), cache.path().join("cache"));
            let outcome =
                world.load(&registry, &reference, PullPolicy::IfNotPresent, &cache).await?;
            check_outcome(&cell, &outcome, expected(&registry, artifact));
            check_requests(&registry);
            registry.own.clear_requests();
            registry.foreign.clear_requests();
            cells += 1;
        }
    }
    assert_eq!(cells, 15 * 4 * (5 + 5 + 1 + 1));
    Ok(())
}

#[tokio::test]
async fn the_pull_policy_says_when_a_registry_is_asked_and_what_happens_where_it_is_down()
-> anyhow::Result<()> {
    let world = World::start().await?;
    for (auth, form) in [Auth::Open, Auth::Password, Auth::Token]
        .into_iter()
        .flat_map(|auth| FORMS.map(|form| (auth, form)))
    {
        for policy in [PullPolicy::Always, PullPolicy::IfNotPresent, PullPolicy::Never] {
            let mut registry = world.registry_under_test(auth, Tls::PrivateAuthority).await?;
            let folder = tempfile::tempdir()?;
            let (cold, warm) = (folder.path().join("cold"), folder.path().join("warm"));
            let cell = |what: &str| format!("{what} {policy:?} {auth:?} {form:?}");
            let asks = policy != PullPolicy::Never;
            let reference = world.reference(&registry, 0, form);
            let outcome = world.load(&registry, &reference, policy, &cold).await?;
            check_outcome(
                &cell("cold"),
                &outcome,
                (!asks).then(|| ("NotCached", registry.own.host.clone())),
            );
            assert_eq!(!registry.own.requests().is_empty(), asks, "{}", cell("cold"));
            world.load(&registry, &reference, PullPolicy::IfNotPresent, &warm).await??;
            registry.own.clear_requests();
            check_outcome(
                &cell("warm"),
                &world.load(&registry, &reference, policy, &warm).await?,
                None,
            );
            let by_tag = matches!(form, Form::Tag | Form::Scheme);
            let resolves = policy == PullPolicy::Always && by_tag;
            assert_eq!(
                !registry.own.requests().is_empty(),
                resolves,
                "{}: {:?}",
                cell("warm"),
                registry.own.requests()
            );
            let blobs =
                registry.own.requests().iter().any(|request| request.path.contains("/blobs/"));
            assert!(!blobs, "{}: what the cache has is fetched again", cell("warm"));
            registry.own.stop().await;
            let unreachable = ("RegistryUnreachable", registry.own.host.clone());
            let outcome = world.load(&registry, &reference, policy, &warm).await?;
            check_outcome(&cell("stopped, warm"), &outcome, resolves.then(|| unreachable.clone()));
            let empty = folder.path().join("empty");
            let outcome = world.load(&registry, &reference, policy, &empty).await?;
            let nothing =
                if asks { unreachable } else { ("NotCached", registry.own.host.clone()) };
            check_outcome(&cell("stopped, cold"), &outcome, Some(nothing));
        }
    }
    Ok(())
}
