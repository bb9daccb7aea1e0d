//! Stage of a Dockerfile to build. No I/O.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Stage of a Dockerfile, and the inputs with which an engine would build it.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The Dockerfile.
    pub dockerfile: PathBuf,
    /// Name of the stage.
    pub target: String,
    /// Folders that replace the stages and images from which files are copied, as
    /// `--build-context` does.
    pub contexts: BTreeMap<String, PathBuf>,
    /// Values of build arguments, as `--build-arg` does.
    pub arguments: BTreeMap<String, String>,
    /// Architecture as Go names it.
    pub architecture: String,
}
