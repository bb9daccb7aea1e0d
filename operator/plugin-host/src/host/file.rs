//! Component in a bare file.

use std::io::Read;
use std::path::Path;

use super::LoadError;
use crate::{Digest, Reference, Unverified};

/// Reads a component, and checks the digest in its reference.
pub(super) fn read(
    reference: &Reference,
    path: &Path,
    expected: Option<&Digest>,
    limit: usize,
) -> Result<Unverified, LoadError> {
    let failed = |source| LoadError::ReadFile { path: path.to_owned(), source };
    let mut component = Vec::new();
    // Reading one byte more than the limit detects files that are too large, including endless
    // devices.
    std::fs::File::open(path)
        .and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut component))
        .map_err(failed)?;
    if component.len() > limit {
        return Err(LoadError::FileTooLarge { path: path.to_owned(), limit });
    }
    let actual = Digest::of(&component);
    match expected {
        Some(expected) if *expected != actual => Err(LoadError::FileChanged {
            path: path.to_owned(),
            expected: expected.clone(),
            actual,
        }),
        _ => Ok(Unverified { reference: reference.clone(), digest: actual, content: component }),
    }
}
