//! Blobs of an image layout: their file names, and the blobs that are small enough to be the
//! manifest of a signature.

use std::path::Path;

use super::files::{Files, bounded, open};
use crate::Digest;

const BLOBS: &str = "blobs/sha256";
/// Maximum number and size of the manifests that are searched for signatures: the manifest of a
/// signature has one layer.
pub(super) const REFERRERS: usize = 512;
pub(super) const REFERRER_BYTES: usize = 64 << 10;
/// Maximum number of files in a folder that is searched for blobs.
const NAMES: usize = 8192;

/// Returns the file name of a blob in a layout.
pub(super) fn blob(digest: &Digest) -> String {
    format!("{BLOBS}/{}", digest.hex())
}

/// Collection of small blobs, each of which may be the manifest of a signature. Too many are an
/// error, because an omitted blob could be the signature.
#[derive(Default)]
pub(super) struct SmallBlobs(Files);

impl SmallBlobs {
    /// Returns true if a file of this name and size is a small blob that is not yet in the
    /// collection.
    pub fn takes(&self, name: &str, size: u64) -> bool {
        size <= REFERRER_BYTES as u64 && named(name).is_some() && !self.0.contains_key(name)
    }

    /// Adds a blob.
    pub fn add(&mut self, name: &str, file: impl std::io::Read) -> std::io::Result<()> {
        if self.0.len() == REFERRERS {
            return Err(too_many(&format!("{REFERRERS} small files")));
        }
        self.0.insert(name.to_owned(), bounded(file, name, REFERRER_BYTES)?);
        Ok(())
    }

    /// Returns all blobs.
    pub fn into_files(self) -> Files {
        self.0
    }
}

/// Returns the small blobs in a folder. Links are skipped, as in an archive.
pub(super) fn in_folder(folder: &Path) -> std::io::Result<Files> {
    let mut blobs = SmallBlobs::default();
    let failed =
        |error: std::io::Error| std::io::Error::new(error.kind(), format!("{BLOBS}: {error}"));
    for (at, entry) in std::fs::read_dir(folder.join(BLOBS)).map_err(failed)?.enumerate() {
        // Not the small files alone are counted: even listing a huge folder takes time.
        if at == NAMES {
            return Err(too_many(&format!("{NAMES} files")));
        }
        let entry = entry.map_err(failed)?;
        let Some(name) = entry.file_name().to_str().map(|name| format!("{BLOBS}/{name}")) else {
            continue;
        };
        let metadata = entry.metadata().map_err(failed)?;
        if metadata.is_file() && blobs.takes(&name, metadata.len()) {
            blobs.add(&name, open(&entry.path()).map_err(failed)?)?;
        }
    }
    Ok(blobs.into_files())
}

fn too_many(what: &str) -> std::io::Error {
    std::io::Error::other(format!(
        "more than {what} in {BLOBS}, each of which may be a signature; save only this plugin \
         into an empty folder"
    ))
}

/// Returns the digest in a blob's file name.
pub(super) fn named(file: &str) -> Option<Digest> {
    let hex = file.strip_prefix(BLOBS)?.strip_prefix('/')?;
    format!("sha256:{hex}").parse().ok().filter(|digest| blob(digest) == file)
}
