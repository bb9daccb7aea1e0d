//! Reason why a plugin is not loaded, and the step that it came to.

use std::path::PathBuf;
use std::time::Duration;

use flashjob_types::CallError;

use crate::engine::EngineError;
use crate::{Digest, Reference, RegistryError, TrustError};

/// Reason why a plugin is not loaded.
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
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The file is larger than a component may be.
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
        /// Error of the registry.
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
        /// Error of the call.
        error: CallError,
    },
    /// It says that it is another.
    #[error(
        "the configuration calls this plugin {configured}, it calls itself {described}; use the \
         same name"
    )]
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
            Self::Fetch(_)
            | Self::ReadFile { .. }
            | Self::FileTooLarge { .. }
            | Self::FileChanged { .. }
            | Self::NotCached(_) => Stage::Resolve,
            Self::Signatures { .. } | Self::Trust(_) => Stage::Verify,
            Self::Engine(_) | Self::Describe { .. } | Self::WrongName { .. } => Stage::Start,
        }
    }

    /// Returns the reason for the failure, in one word as conditions have it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Fetch(error) => match error.last() {
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

    /// The pause that the registry asks for before it is asked again, at most an hour.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Fetch(error) | Self::Signatures { error, .. } => error.retry_after(),
            _ => None,
        }
    }

    /// Returns true if trying again may help without anybody acting.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Fetch(error) | Self::Signatures { error, .. } if error.is_transient())
    }
}
