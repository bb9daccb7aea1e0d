//! Image layout in the form that `cosign save` writes. Its index has one image, which has a kind
//! and no tag. Simple signatures are one more index entry with a kind; bundles are not in the
//! index at all, only among the blobs. Reads files.

use super::blobs::{in_folder, named};
use super::{Entry, Layout, archive, referrer, signs};
use crate::config::SignatureForm;
use crate::registry::Referrer;
use crate::{Digest, RegistryError};

/// Annotation with which cosign marks the kind of an index entry.
const KIND: &str = "kind";
const IMAGE: &str = "dev.cosignproject.cosign/image";
const SIGNATURES: &str = "dev.cosignproject.cosign/sigs";

impl Entry {
    fn is_a(&self, kind: &str) -> bool {
        self.annotations
            .as_ref()
            .and_then(|annotations| annotations.get(KIND))
            .is_some_and(|of| of == kind)
    }
}

impl Layout {
    /// Returns true if this manifest is the image that cosign saved here.
    async fn is_saved(&mut self, digest: &Digest) -> Result<bool, RegistryError> {
        Ok(self
            .index()
            .await?
            .iter()
            .any(|entry| entry.is_a(IMAGE) && entry.digest == digest.to_string()))
    }

    /// Returns the digest of the manifest with the simple signatures of a saved image.
    pub(super) async fn saved_signatures(
        &mut self,
        image: &Digest,
    ) -> Result<Option<Digest>, RegistryError> {
        if !self.is_saved(image).await? {
            return Ok(None);
        }
        // `cosign save` into a folder that already has an image adds entries to the same index.
        let several =
            format!("have kind {SIGNATURES}; save only this plugin into an empty folder");
        self.one(|entry| entry.is_a(SIGNATURES), &image.to_string(), &several).await
    }

    /// Lists the blobs that refer to a saved image and have a signature in one form.
    pub(super) async fn saved_referrers(
        &mut self,
        image: &Digest,
        form: SignatureForm,
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
            .filter(|(_, bytes)| signs(bytes, image, form))
            .filter_map(|(name, _)| named(name));
        Ok(referrers.map(|digest| referrer(&digest)).collect())
    }
}
