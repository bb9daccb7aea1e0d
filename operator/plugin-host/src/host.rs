//! The whole way from a reference to a plugin that can be asked.

use std::path::PathBuf;
use std::sync::Arc;

use crate::cache::Cache;
use crate::config::{Limits, PullPolicy, RegistryConfig, TrustEntry};
use crate::engine::{CallError, Engine, EngineError};
use crate::plugin::Plugin;
use crate::registry::{Repository, component_layer};
use crate::trust::{self, TrustError, Unverified};
use crate::{Credentials, Digest, Reference, RegistryError};

/// What a host is set up with.
#[derive(Clone, Debug, Default)]
pub struct HostSettings {
    /// Folder of the cache; nobody else may write into it.
    pub cache: PathBuf,
    /// What plugins may cost.
    pub limits: Limits,
    /// How registries are reached.
    pub registries: Vec<RegistryConfig>,
    /// Whose components are run.
    pub trust: Vec<TrustEntry>,
}

/// A plugin to load.
#[derive(Clone, Debug)]
pub struct PluginSource {
    /// Its name; what it says of itself must be the same.
    pub name: String,
    /// Where it comes from.
    pub reference: Reference,
    /// When a tag is resolved again.
    pub pull_policy: PullPolicy,
    /// Run a file without a digest beside its name.
    pub allow_unsigned: bool,
}

/// Why a plugin is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The registry did not give it.
    #[error(transparent)]
    Fetch(#[from] RegistryError),
    /// The file cannot be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not the one that was meant.
    #[error("{path} has digest {actual}, expected {expected}", path = .path.display())]
    FileChanged {
        /// The file.
        path: PathBuf,
        /// Digest beside its name.
        expected: Digest,
        /// Digest of what was read.
        actual: Digest,
    },
    /// pullPolicy is Never, and the cache has nothing.
    #[error("{0} is not in the cache, and its pullPolicy is Never")]
    NotCached(Reference),
    /// Nothing allows it to be run.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// It is no component that fits the contract.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It does not say what it is.
    #[error("{name} does not describe itself: {error}")]
    Describe {
        /// Name in the configuration.
        name: String,
        /// What happened.
        error: CallError,
    },
    /// It says that it is another.
    #[error("the configuration calls this plugin {configured}, it calls itself {described}; use the same name")]
    WrongName {
        /// Name in the configuration.
        configured: String,
        /// Name that it describes.
        described: String,
    },
}

impl LoadError {
    /// Whether trying again may help without anybody acting.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Fetch(error) if error.is_transient())
    }
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
    /// The cache's folder cannot be made, or the engine does not start.
    pub fn new(settings: HostSettings) -> Result<Self, EngineError> {
        let cache =
            Cache::open(&settings.cache).map_err(|error| EngineError::Start(format!("cache {}: {error}", settings.cache.display())))?;
        let engine = Arc::new(Engine::new(settings.limits)?);
        Ok(Self { settings: Arc::new(settings), cache, engine })
    }

    /// Goes the whole way: resolve, fetch, verify, compile, describe.
    ///
    /// # Errors
    /// Says which step failed, for which reference, and what to do.
    pub async fn load(&self, source: &PluginSource, credentials: Option<&Credentials>) -> Result<Plugin, LoadError> {
        let artifact = match &source.reference {
            Reference::File { path, digest } => read_file(&source.reference, path, digest.as_ref())?,
            Reference::Registry { .. } => self.fetch(source, credentials).await?,
        };
        let verified = trust::verify(artifact, &self.settings.trust, source.allow_unsigned)?;
        let compiled = self.engine.compile(&verified, &self.cache).await?;
        let plugin = Plugin::new(self.engine.clone(), compiled, &verified, source).await;
        plugin.map_err(|error| LoadError::Describe { name: source.name.clone(), error }).and_then(|plugin| {
            let described = plugin.info().name.clone();
            if described == source.name { Ok(plugin) } else { Err(LoadError::WrongName { configured: source.name.clone(), described }) }
        })
    }

    /// Resolves once, then everything is by digest; what the cache has is not fetched.
    async fn fetch(&self, source: &PluginSource, credentials: Option<&Credentials>) -> Result<Unverified, LoadError> {
        let Reference::Registry { host, repository, tag, digest } = &source.reference else {
            return Err(LoadError::NotCached(source.reference.clone()));
        };
        let name = source.reference.to_string();
        let known = digest.clone().or_else(|| if source.pull_policy == PullPolicy::Always { None } else { self.cache.resolved(&name) });
        if let Some(artifact) = known.as_ref().and_then(|digest| self.cached(source, digest)) {
            return Ok(artifact);
        }
        if source.pull_policy == PullPolicy::Never {
            return Err(LoadError::NotCached(source.reference.clone()));
        }
        let limit = self.settings.limits.component;
        let mut remote = Repository::new(host, repository, &self.settings.registries, credentials)?;
        let wanted = digest.as_ref().map(ToString::to_string).or_else(|| tag.clone()).unwrap_or_default();
        let manifest = remote.manifest(&wanted, digest.as_ref(), limit).await?;
        let component = match self.cache.blob(&manifest.layer) {
            Some(component) => component,
            None => remote.blob(&manifest.layer, limit).await?,
        };
        let stored = self.cache.put_blob(&manifest.layer, &component);
        let stored = stored.and_then(|()| self.cache.put_blob(&manifest.digest, &manifest.bytes));
        if let Err(error) = stored.and_then(|()| self.cache.put_resolved(&name, &manifest.digest)) {
            tracing::warn!(%error, plugin = source.name, "cannot write to the cache; the plugin is fetched again after a restart");
        }
        Ok(Unverified { reference: source.reference.clone(), digest: manifest.digest, component })
    }

    fn cached(&self, source: &PluginSource, digest: &Digest) -> Option<Unverified> {
        let manifest = self.cache.blob(digest)?;
        let layer = component_layer(&manifest, &source.name, self.settings.limits.component).ok()?;
        let component = self.cache.blob(&layer)?;
        Some(Unverified { reference: source.reference.clone(), digest: digest.clone(), component })
    }
}

fn read_file(reference: &Reference, path: &std::path::Path, expected: Option<&Digest>) -> Result<Unverified, LoadError> {
    let component = std::fs::read(path).map_err(|source| LoadError::ReadFile { path: path.to_owned(), source })?;
    let actual = Digest::of(&component);
    match expected {
        Some(expected) if *expected != actual => Err(LoadError::FileChanged { path: path.to_owned(), expected: expected.clone(), actual }),
        _ => Ok(Unverified { reference: reference.clone(), digest: actual, component }),
    }
}
