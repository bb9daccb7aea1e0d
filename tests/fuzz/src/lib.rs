//! One function for each thing that comes from outside: any bytes must be taken or refused, and
//! nothing else. The test of this crate gives each the stored corpus and some thousand changes of
//! it; `make fuzz` looks for bytes that lead to code not seen before.

mod mutations;
mod targets;

use std::path::{Path, PathBuf};

use anyhow::Context;
pub use mutations::Mutations;
pub use targets::{TARGETS, Target};

/// The folder with what is stored for a target.
#[must_use]
pub fn corpus_folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// Reads what is stored for a target, in the order of its names.
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
