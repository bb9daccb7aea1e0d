//! One function for each kind of external input: any bytes must be accepted or rejected without a
//! crash. The test of this crate runs each with the stored corpus and some thousand mutations of
//! it; `make fuzz` searches for bytes that reach new code.

mod mutations;
mod targets;

use std::path::{Path, PathBuf};

use anyhow::Context;
pub use mutations::Mutations;
pub use targets::{TARGETS, Target};

/// Returns the folder with the corpus of a target.
#[must_use]
pub fn corpus_folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// Reads the corpus of a target, sorted by file name.
///
/// # Errors
/// The folder cannot be read, or is empty.
pub fn corpus(target: &Target) -> anyhow::Result<Vec<Vec<u8>>> {
    let folder = corpus_folder(target);
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    files.sort();
    anyhow::ensure!(!files.is_empty(), "{} is empty", folder.display());
    files
        .iter()
        .map(|file| std::fs::read(file).with_context(|| file.display().to_string()))
        .collect()
}
