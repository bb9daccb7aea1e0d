//! Loads plugins: from a reference to a plugin that can be called.

mod author;
mod error;
mod file;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use flashjob_artifacts::{Layer, MANIFEST_BYTES, Source, trust};

use crate::cache::Cache;
use crate::component::component_layer;
use crate::config::{Limits, PullPolicy, RegistryConfig, TrustEntry, every_form};
use crate::engine::{Engine, EngineError};
use crate::plugin::Plugin;
use crate::{
    Digest, Logins, Reference, RegistryError, Signature, TrustError, Unverified, Verified,
};
pub use author::Published;
pub use error::{LoadError, Stage};

/// Settings of a host.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// Folder of the cache; no other process may write into it.
    pub cache: PathBuf,
    /// Program that passes the arguments after [`COMPILE_PLUGIN`](crate::COMPILE_PLUGIN) on its
    /// command line to [`compile_plugin`](crate::compile_plugin).
    pub compiler: PathBuf,
    /// Resource limits of plugins.
    pub limits: Limits,
    /// Connection settings of registries.
    pub registries: Vec<RegistryConfig>,
    /// Trust policy: the signers whose components are run.
    pub trust: Vec<TrustEntry>,
}

/// A plugin to load.
#[derive(Clone, Debug)]
pub struct PluginSource {
    /// Name of the plugin; the plugin must describe itself by the same name.
    pub name: String,
    /// Reference that the plugin is loaded from.
    pub reference: Reference,
    /// Policy for resolving a tag again.
    pub pull_policy: PullPolicy,
    /// Run a file whose reference has no digest.
    pub allow_unsigned: bool,
}

/// Manifest with the layer that is the component.
struct Manifest {
    digest: Digest,
    layer: Layer,
    bytes: Vec<u8>,
}

/// Loads plugins.
#[derive(Clone)]
pub struct Host {
    settings: Arc<HostSettings>,
    cache: Cache,
    engine: Arc<Engine>,
}

impl Host {
    /// Sets up engine and cache.
    ///
    /// # Errors
    /// The cache's folder cannot be created, or the engine does not start.
    pub fn new(settings: HostSettings) -> Result<Self, EngineError> {
        let cache = Cache::open(&settings.cache).map_err(|error| {
            EngineError::Start(format!("cache {}: {error}", settings.cache.display()))
        })?;
        let engine = Arc::new(Engine::new(settings.limits, settings.compiler.clone())?);
        Ok(Self { settings: Arc::new(settings), cache, engine })
    }

    /// Runs all steps: resolve, fetch, verify, compile, describe.
    ///
    /// # Errors
    /// Names the failed step, the reference, and the remedy.
    pub async fn load(&self, source: &PluginSource, logins: &Logins) -> Result<Plugin, LoadError> {
        let verified = self.obtain(source, logins).await?;
        self.start_named(&verified, source).await
    }

    /// Runs the second half of the steps: compile, describe.
    ///
    /// # Errors
    /// The plugin does not fit the contract, fails, or describes itself by a name other than the
    /// configured one.
    pub async fn start_named(
        &self,
        verified: &Verified,
        source: &PluginSource,
    ) -> Result<Plugin, LoadError> {
        let plugin = self.start(verified, source).await?;
        let described = plugin.info().name.clone();
        // A signature only says who built a component; another plugin by the same signer must not
        // take this one's settings and grants.
        if described == source.name {
            Ok(plugin)
        } else {
            Err(LoadError::WrongName { configured: source.name.clone(), described })
        }
    }

    /// Runs the first half of the steps: resolve, fetch, verify.
    ///
    /// # Errors
    /// As [`Host::load`].
    pub async fn obtain(
        &self,
        source: &PluginSource,
        logins: &Logins,
    ) -> Result<Verified, LoadError> {
        let artifact = match &source.reference {
            Reference::File { path, digest } => file::read(
                &source.reference,
                path,
                digest.as_ref(),
                self.settings.limits.component,
            )?,
            Reference::Registry { .. } | Reference::Layout { .. } => {
                self.fetch(source, logins).await?
            }
        };
        // Verification runs at each load, from the cache, too: keys may have been revoked
        // meanwhile.
        let signatures = self.signatures(source, &artifact.digest, logins).await?;
        Ok(trust::verify(artifact, &self.settings.trust, source.allow_unsigned, &signatures)?)
    }

    /// Resolves the tag once, and identifies everything else by digest; does not fetch what the
    /// cache has.
    async fn fetch(
        &self,
        source: &PluginSource,
        logins: &Logins,
    ) -> Result<Unverified, LoadError> {
        let (name, digest) = (source.reference.to_string(), source.reference.digest());
        let resolved_digest = digest.cloned().or_else(|| {
            // The tag may have moved since, so the digest that was stored for it does not count.
            if source.pull_policy == PullPolicy::Always {
                None
            } else {
                self.cache.resolved(&name)
            }
        });
        if let Some(artifact) =
            resolved_digest.as_ref().and_then(|digest| self.cached(source, digest))
        {
            return Ok(artifact);
        }
        let remote = if source.pull_policy == PullPolicy::Never {
            None
        } else {
            self.remote(source, logins)?
        };
        let Some(mut remote) = remote else {
            return Err(LoadError::NotCached(source.reference.clone()));
        };
        let tag_or_digest = digest
            .map(ToString::to_string)
            .or_else(|| source.reference.tag().map(str::to_owned))
            .unwrap_or_default();
        let manifest = self.manifest(&mut remote, &tag_or_digest, digest).await?;
        // A new manifest may have the same component, for example after a change of annotations.
        let component = match self.cache.blob(&manifest.layer.digest) {
            Some(component) => component,
            None => remote.blob(&manifest.layer).await?,
        };
        // The tag is stored last, so that it never points to content that the cache does not have.
        let stored = self.cache.put_blob(&manifest.layer.digest, &component);
        let stored = stored.and_then(|()| self.cache.put_blob(&manifest.digest, &manifest.bytes));
        if let Err(error) = stored.and_then(|()| self.cache.put_resolved(&name, &manifest.digest))
        {
            tracing::warn!(
                %error, plugin = source.name,
                "cannot write to the cache; the plugin is fetched again after a restart"
            );
        }
        Ok(Unverified {
            reference: source.reference.clone(),
            digest: manifest.digest,
            content: component,
        })
    }

    /// Fetches the manifest of a component by tag or digest, and finds the component's layer in
    /// it.
    async fn manifest(
        &self,
        remote: &mut Source<'_>,
        tag_or_digest: &str,
        expected: Option<&Digest>,
    ) -> Result<Manifest, RegistryError> {
        let (digest, bytes) =
            remote.manifest_bytes(tag_or_digest, expected, MANIFEST_BYTES).await?;
        let limit = self.settings.limits.component;
        let layer = component_layer(&bytes, &remote.what(tag_or_digest), limit)?;
        Ok(Manifest { digest, layer, bytes })
    }

    /// Returns the signatures needed to trust this source. Uses the cached ones if they suffice.
    async fn signatures(
        &self,
        source: &PluginSource,
        digest: &Digest,
        logins: &Logins,
    ) -> Result<Vec<Signature>, LoadError> {
        let Some(name) = source.reference.name() else { return Ok(Vec::new()) };
        let forms = trust::forms(&source.reference, &self.settings.trust);
        let check = |signatures: &[Signature]| {
            trust::check(
                &source.reference,
                digest,
                &self.settings.trust,
                source.allow_unsigned,
                signatures,
            )
        };
        let cached = self.cache.signatures(&name, digest);
        let enough =
            // With Always the registry is asked again, so that a signature removed there no longer
            // counts.
            forms.is_empty() || source.pull_policy != PullPolicy::Always && check(&cached).is_ok();
        if enough || source.pull_policy == PullPolicy::Never {
            return Ok(cached);
        }
        let failed = |error| LoadError::Signatures { digest: digest.clone(), error };
        let Some(mut remote) = self.remote(source, logins).map_err(failed)? else {
            return Ok(cached);
        };
        let (mut fetched_signatures, mut broken, mut beyond_limit) = (Vec::new(), None, None);
        for form in forms {
            match remote.signatures(digest, *form).await {
                Ok(signatures) => {
                    fetched_signatures.extend(signatures.fetched);
                    beyond_limit = beyond_limit.or(signatures.beyond_limit);
                }
                Err(error) => broken = broken.or(Some(error)),
            }
            // One form suffices, even if the place cannot be asked for the other one.
            if check(&fetched_signatures).is_ok() {
                break;
            }
        }
        // A form that could not be fetched, or not completely, may hold the missing signature. The
        // former comes first, as a retry may succeed.
        if let Some(error) =
            broken.or(beyond_limit).filter(|_| check(&fetched_signatures).is_err())
        {
            return Err(failed(error));
        }
        match check(&fetched_signatures) {
            Ok(_) => {
                if let Err(error) = self.cache.put_signatures(&name, digest, &fetched_signatures) {
                    tracing::warn!(
                        %error, plugin = source.name,
                        "cannot write signatures to the cache; they are fetched again after a \
                         restart"
                    );
                }
            }
            // Only for a better error message: signatures in a form that is not allowed do not
            // count.
            Err(TrustError::Unsigned { .. }) => {
                for form in every_form().into_iter().filter(|form| !forms.contains(form)) {
                    let signatures = remote.signatures(digest, form).await.unwrap_or_default();
                    fetched_signatures.extend(signatures.fetched);
                }
            }
            Err(_) => {}
        }
        Ok(fetched_signatures)
    }

    fn remote<'a>(
        &'a self,
        source: &PluginSource,
        logins: &'a Logins,
    ) -> Result<Option<Source<'a>>, RegistryError> {
        Source::of(&source.reference, &self.settings.registries, logins)
    }

    fn cached(&self, source: &PluginSource, digest: &Digest) -> Option<Unverified> {
        let manifest = self.cache.blob(digest)?;
        let layer =
            component_layer(&manifest, &source.name, self.settings.limits.component).ok()?;
        // Any gap is a miss of the whole artifact; the registry then supplies what is missing.
        let component = self.cache.blob(&layer.digest)?;
        Some(Unverified {
            reference: source.reference.clone(),
            digest: digest.clone(),
            content: component,
        })
    }
}
