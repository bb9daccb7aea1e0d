//! An image layout as `cosign save` writes it. Its index has one image, marked by a kind and
//! without a tag; signatures in the older form are one more entry with a kind, and bundles are not
//! in the index at all, only among the blobs. Reads files.

use std::path::Path;

use super::{
    BLOBS, Entry, Files, Layout, REFERRER_BYTES, REFERRERS, archive, blob, bounded, open, refers,
};
use crate::registry::Referrer;
use crate::{Digest, RegistryError};

/// The annotation with which cosign says what an entry of the index is.
const KIND: &str = "kind";
const IMAGE: &str = "dev.cosignproject.cosign/image";
const SIGNATURES: &str = "dev.cosignproject.cosign/sigs";
/// A folder with more files than this is not looked through for blobs.
const NAMES: usize = 8192;

impl Entry {
    fn is_a(&self, kind: &str) -> bool {
        self.annotations
            .as_ref()
            .and_then(|annotations| annotations.get(KIND))
            .is_some_and(|of| of == kind)
    }
}

impl Layout {
    /// Returns true if this very manifest is the image that cosign saved here.
    async fn is_saved(&mut self, digest: &Digest) -> Result<bool, RegistryError> {
        Ok(self
            .index()
            .await?
            .iter()
            .any(|entry| entry.is_a(IMAGE) && entry.digest == digest.to_string()))
    }

    /// The manifest with the older signatures of a saved image.
    pub(super) async fn saved_signatures(
        &mut self,
        image: &Digest,
    ) -> Result<Option<Digest>, RegistryError> {
        if !self.is_saved(image).await? {
            return Ok(None);
        }
        let several = format!("have kind {SIGNATURES}; save the one plugin into an empty folder");
        self.one(|entry| entry.is_a(SIGNATURES), &image.to_string(), &several).await
    }

    /// Blobs that refer to a saved image.
    pub(super) async fn saved_referrers(
        &mut self,
        image: &Digest,
    ) -> Result<Vec<Referrer>, RegistryError> {
        if !self.is_saved(image).await? {
            return Ok(Vec::new());
        }
        let blobs = self
            .reading(
                |path| if path.is_dir() { in_folder(path) } else { archive::small_blobs(path) },
            )
            .await?;
        let referrers = blobs
            .iter()
            .filter(|(_, bytes)| refers(bytes, image))
            .filter_map(|(name, _)| named(name));
        Ok(referrers
            .map(|digest| Referrer { digest: digest.to_string(), artifact_type: None })
            .collect())
    }
}

/// Small blobs, each of which may be the manifest of a signature. Too many are an error: one that
/// is passed over could be it.
#[derive(Default)]
pub(in crate::source) struct SmallBlobs(Files);

impl SmallBlobs {
    /// Returns true if a file of this name and size is a small blob, and not there yet.
    pub fn takes(&self, name: &str, size: u64) -> bool {
        size <= REFERRER_BYTES as u64 && named(name).is_some() && !self.0.contains_key(name)
    }

    /// Adds one.
    pub fn add(&mut self, name: &str, file: impl std::io::Read) -> std::io::Result<()> {
        if self.0.len() == REFERRERS {
            return Err(too_many(&format!("{REFERRERS} small files")));
        }
        self.0.insert(name.to_owned(), bounded(file, name, REFERRER_BYTES)?);
        Ok(())
    }

    /// All of them.
    pub fn into_files(self) -> Files {
        self.0
    }
}

/// The small blobs in a folder. Links are passed over, as in an archive.
fn in_folder(folder: &Path) -> std::io::Result<Files> {
    let mut blobs = SmallBlobs::default();
    let failed =
        |error: std::io::Error| std::io::Error::new(error.kind(), format!("{BLOBS}: {error}"));
    for (at, entry) in std::fs::read_dir(folder.join(BLOBS)).map_err(failed)?.enumerate() {
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
        "more than {what} in {BLOBS}, each of which may be a signature; save the one plugin into \
         an empty folder"
    ))
}

/// The digest that a file is named for.
fn named(file: &str) -> Option<Digest> {
    let hex = file.strip_prefix(BLOBS)?.strip_prefix('/')?;
    format!("sha256:{hex}").parse().ok().filter(|digest| blob(digest) == file)
}
