//! The whole way from a reference to a plugin that can be asked.

mod author;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cache::Cache;
use crate::config::{Limits, PullPolicy, RegistryConfig, TrustEntry, every_form};
use crate::engine::{CallError, Engine, EngineError};
use crate::plugin::Plugin;
use crate::registry::{Repository, component_layer};
use crate::trust::{self, Signature, TrustError, Unverified};
use crate::{Credentials, Digest, Reference, RegistryError};
pub use author::Published;

/// What a host is set up with.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// Folder of the cache; nobody else may write into it.
    pub cache: PathBuf,
    /// A program that hands what follows [`COMPILE_PLUGIN`](crate::COMPILE_PLUGIN) on its command line to
    /// [`compile_plugin`](crate::compile_plugin).
    pub compiler: PathBuf,
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
    /// The file is larger than a component may be.
    #[error("{path} is larger than {limit} bytes, the limits.component of the operator's configuration", path = .path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: usize,
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
    /// The registry does not say who signed it, which is not the same as nobody.
    #[error("cannot ask for the signatures of {digest}: {error}")]
    Signatures {
        /// The manifest.
        digest: Digest,
        /// Why not.
        error: RegistryError,
    },
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

/// A step on the way from a reference to a plugin that can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Getting the artifact.
    Resolve,
    /// Deciding whether it may be run.
    Verify,
    /// Compiling it and asking what it is.
    Start,
}

impl LoadError {
    /// The step that failed.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Self::Fetch(_) | Self::ReadFile { .. } | Self::FileTooLarge { .. } | Self::FileChanged { .. } | Self::NotCached(_) => {
                Stage::Resolve
            }
            Self::Signatures { .. } | Self::Trust(_) => Stage::Verify,
            Self::Engine(_) | Self::Describe { .. } | Self::WrongName { .. } => Stage::Start,
        }
    }

    /// What failed, in one word as conditions have it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.reason(),
            Self::ReadFile { .. } => "FileUnreadable",
            Self::FileTooLarge { .. } => "TooLarge",
            Self::FileChanged { .. } => "DigestMismatch",
            Self::NotCached(_) => "NotCached",
            Self::Signatures { .. } => "SignaturesUnavailable",
            Self::Trust(error) => error.reason(),
            Self::Engine(EngineError::Import(..)) => "ImportRefused",
            Self::Engine(EngineError::World(..)) => "ContractMismatch",
            Self::Engine(EngineError::CompileStopped { .. } | EngineError::CompileTimedOut(..)) => "CompileLimitReached",
            Self::Engine(_) => "CompileFailed",
            Self::Describe { .. } => "DescribeFailed",
            Self::WrongName { .. } => "WrongName",
        }
    }

    /// Whether trying again may help without anybody acting.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Fetch(error) | Self::Signatures { error, .. } if error.is_transient())
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
        let engine = Arc::new(Engine::new(settings.limits, settings.compiler.clone())?);
        Ok(Self { settings: Arc::new(settings), cache, engine })
    }

    /// Goes the whole way: resolve, fetch, verify, compile, describe.
    ///
    /// # Errors
    /// Says which step failed, for which reference, and what to do.
    pub async fn load(&self, source: &PluginSource, credentials: Option<&Credentials>) -> Result<Plugin, LoadError> {
        let plugin = self.open(source, credentials).await?;
        let described = plugin.info().name.clone();
        if described == source.name { Ok(plugin) } else { Err(LoadError::WrongName { configured: source.name.clone(), described }) }
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
        let component = match self.cache.blob(&manifest.layer.digest) {
            Some(component) => component,
            None => remote.blob(&manifest.layer).await?,
        };
        let stored = self.cache.put_blob(&manifest.layer.digest, &component);
        let stored = stored.and_then(|()| self.cache.put_blob(&manifest.digest, &manifest.bytes));
        if let Err(error) = stored.and_then(|()| self.cache.put_resolved(&name, &manifest.digest)) {
            tracing::warn!(%error, plugin = source.name, "cannot write to the cache; the plugin is fetched again after a restart");
        }
        Ok(Unverified { reference: source.reference.clone(), digest: manifest.digest, component })
    }

    /// The signatures that trust in this source depends on. Those in the cache do, where they are enough.
    async fn signatures(
        &self,
        source: &PluginSource,
        digest: &Digest,
        credentials: Option<&Credentials>,
    ) -> Result<Vec<Signature>, LoadError> {
        let (Reference::Registry { host, repository, .. }, forms) =
            (&source.reference, trust::forms(&source.reference, &self.settings.trust))
        else {
            return Ok(Vec::new());
        };
        let name = format!("{host}/{repository}");
        let check = |found: &[Signature]| trust::check(&source.reference, digest, &self.settings.trust, source.allow_unsigned, found);
        let cached = self.cache.signatures(&name, digest);
        let enough = forms.is_empty() || source.pull_policy != PullPolicy::Always && check(&cached).is_ok();
        if enough || source.pull_policy == PullPolicy::Never {
            return Ok(cached);
        }
        let failed = |error| LoadError::Signatures { digest: digest.clone(), error };
        let mut remote = Repository::new(host, repository, &self.settings.registries, credentials).map_err(failed)?;
        let mut found = Vec::new();
        for form in forms {
            found.extend(remote.signatures(digest, *form).await.map_err(failed)?);
        }
        match check(&found) {
            Ok(_) => {
                if let Err(error) = self.cache.put_signatures(&name, digest, &found) {
                    tracing::warn!(%error, plugin = source.name, "cannot write signatures to the cache; they are fetched again after a restart");
                }
            }
            // Only to say why: signatures in a form that does not count do not help.
            Err(TrustError::Unsigned { .. }) => {
                for form in every_form().into_iter().filter(|form| !forms.contains(form)) {
                    found.extend(remote.signatures(digest, form).await.unwrap_or_default());
                }
            }
            Err(_) => {}
        }
        Ok(found)
    }

    fn cached(&self, source: &PluginSource, digest: &Digest) -> Option<Unverified> {
        let manifest = self.cache.blob(digest)?;
        let layer = component_layer(&manifest, &source.name, self.settings.limits.component).ok()?;
        let component = self.cache.blob(&layer.digest)?;
        Some(Unverified { reference: source.reference.clone(), digest: digest.clone(), component })
    }
}

fn read_file(reference: &Reference, path: &Path, expected: Option<&Digest>, limit: usize) -> Result<Unverified, LoadError> {
    let failed = |source| LoadError::ReadFile { path: path.to_owned(), source };
    let mut component = Vec::new();
    // One byte more than is taken tells a file that is too large, a device without end among them.
    std::fs::File::open(path).and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut component)).map_err(failed)?;
    if component.len() > limit {
        return Err(LoadError::FileTooLarge { path: path.to_owned(), limit });
    }
    let actual = Digest::of(&component);
    match expected {
        Some(expected) if *expected != actual => Err(LoadError::FileChanged { path: path.to_owned(), expected: expected.clone(), actual }),
        _ => Ok(Unverified { reference: reference.clone(), digest: actual, component }),
    }
}
