//! Builds container images without a container engine: from files and settings to an OCI image
//! layout (image-spec 1.1). Reads and writes files, nothing else.
//!
//! The same files and settings give the same bytes on every machine: entries are sorted, owned by
//! 0:0, have mode 0755 (folders, programs) or 0644, and share one timestamp.

pub mod command;
mod dockerfile;
mod layer;
mod layout;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use dockerfile::Stage;
pub use layout::Layout;

/// Contents and settings of one image, for one architecture.
///
/// ```no_run
/// use flashjob_xtask::image::{Image, Layout};
/// # fn main() -> anyhow::Result<()> {
/// let entrypoint = vec!["/bin/pause".into()];
/// let image = Image { entrypoint, ..Image::of_folder("target/pause") };
/// Layout::new("localhost/pause:test", [image]).write_tar("target/pause.tar".as_ref())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Image {
    /// Files and folders that are copied into the image, in this order; a later copy replaces
    /// files of an earlier one.
    pub copies: Vec<Copy>,
    /// Architecture as Go names it: `amd64`, `arm64`. Default: this machine's.
    pub architecture: String,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// User, or user and group, as `65532:65532`. None is root.
    pub user: Option<String>,
    /// Command that a container runs, program first.
    pub entrypoint: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A file or folder that is copied into an image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Copy {
    /// Path on this machine. For a folder, its contents are copied; symbolic links stay links.
    pub source: PathBuf,
    /// Absolute path in the image. If it ends in `/`, it is a folder, and a file is copied into
    /// it.
    pub destination: String,
}

impl Image {
    /// Returns an image with the contents of a folder and no settings.
    pub fn of_folder(root: impl Into<PathBuf>) -> Self {
        let copies = vec![Copy { source: root.into(), destination: "/".to_owned() }];
        Self { copies, ..Self::default() }
    }
}

impl Default for Image {
    fn default() -> Self {
        Self {
            copies: Vec::new(),
            architecture: architecture().to_owned(),
            env: Vec::new(),
            user: None,
            entrypoint: Vec::new(),
            labels: BTreeMap::new(),
        }
    }
}

/// Returns this machine's architecture as Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
