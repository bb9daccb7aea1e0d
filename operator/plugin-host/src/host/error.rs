//! Reasons why a plugin is not loaded, and the steps in which loading can fail.

use std::path::PathBuf;
use std::time::Duration;

use flashjob_types::CallError;

use crate::engine::EngineError;
use crate::{Digest, Reference, RegistryError, TrustError};

/// Reason why a plugin is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The registry did not return the artifact.
    #[error(transparent)]
    Fetch(#[from] RegistryError),
    /// The file cannot be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The file is larger than the limit for components.
    #[error(
        "{path} is larger than {limit} bytes, the limits.component of the operator's \
         configuration",
        path = .path.display()
    )]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// The file does not have the digest in the reference.
    #[error("{path} has digest {actual}, expected {expected}", path = .path.display())]
    FileChanged {
        /// The file.
        path: PathBuf,
        /// Digest in the reference.
        expected: Digest,
        /// Digest of what was read.
        actual: Digest,
    },
    /// The pullPolicy is Never, and the cache does not have the component.
    #[error("{0} is not in the cache, and its pullPolicy is Never")]
    NotCached(Reference),
    /// The registry cannot be asked for signatures, which is not the same as having none.
    #[error("cannot fetch the signatures of {digest}: {error}")]
    Signatures {
        /// The manifest.
        digest: Digest,
        /// Error of the registry.
        error: RegistryError,
    },
    /// The trust policy does not allow the component.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The component cannot be compiled, or does not fit the contract.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The plugin fails to describe itself.
    #[error("{name} failed to describe itself: {error}")]
    Describe {
        /// Name in the configuration.
        name: String,
        /// Error of the call.
        error: CallError,
    },
    /// The plugin describes itself by another name.
    #[error(
        "the configuration calls this plugin {configured}, but it calls itself {described}; use \
         the same name"
    )]
    WrongName {
        /// Name in the configuration.
        configured: String,
        /// Name in the plugin's description.
        described: String,
    },
}

/// Step on the way from a reference to a plugin that can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Getting the artifact.
    Resolve,
    /// Deciding whether the artifact may be run.
    Verify,
    /// Compiling the component and calling it to describe itself.
    Start,
}

impl LoadError {
    /// Returns the step that failed.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Self::Fetch(_)
            | Self::ReadFile { .. }
            | Self::FileTooLarge { .. }
            | Self::FileChanged { .. }
            | Self::NotCached(_) => Stage::Resolve,
            Self::Signatures { .. } | Self::Trust(_) => Stage::Verify,
            Self::Engine(_) | Self::Describe { .. } | Self::WrongName { .. } => Stage::Start,
        }
    }

    /// Returns the reason for the failure as one CamelCase word, as in a condition.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Fetch(error) => match error.last() {
                // Mostly a reference to an ordinary container image, which a person understands at
                // once.
                RegistryError::Form { .. } => "NotAPlugin",
                _ => error.reason(),
            },
            Self::ReadFile { .. } => "FileUnreadable",
            Self::FileTooLarge { .. } => "TooLarge",
            Self::FileChanged { .. } => "DigestMismatch",
            Self::NotCached(_) => "NotCached",
            Self::Signatures { .. } => "SignaturesUnavailable",
            Self::Trust(error) => error.reason(),
            Self::Engine(EngineError::LimitReached(..)) => "LimitReached",
            Self::Engine(EngineError::Import(..)) => "ImportRefused",
            Self::Engine(EngineError::World(..)) => "ContractMismatch",
            Self::Engine(EngineError::NotServed { .. }) => "ContractNotServed",
            Self::Engine(
                EngineError::CompileStopped { .. } | EngineError::CompileTimedOut(..),
            ) => "CompileLimitReached",
            Self::Engine(_) => "CompileFailed",
            Self::Describe { .. } => "DescribeFailed",
            Self::WrongName { .. } => "WrongName",
        }
    }

    /// Returns the delay that the registry asks for before the next request, at most an hour.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Fetch(error) | Self::Signatures { error, .. } => error.retry_after(),
            _ => None,
        }
    }

    /// Returns true if a retry may succeed without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Fetch(error) | Self::Signatures { error, .. } if error.is_transient())
    }
}
