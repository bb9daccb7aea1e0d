//! Places that hold artifacts: a registry with its mirrors, or an image layout on disk. Each
//! serves manifests, blobs and the referrers of a manifest, and the digest of everything it serves
//! is checked. A bare file is not such a place.

mod attachment;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod layout;
mod mirrors;
mod signatures;

use tokio::sync::mpsc;

use crate::config::{RegistryConfig, SignatureForm};
use crate::registry::{Forward, Layer, Receive, Referrers};
use crate::{Digest, Logins, Reference, RegistryError};
use layout::Layout;
use mirrors::Mirrored;
pub use mirrors::places;
pub(crate) use mirrors::split;
pub use signatures::Signatures;

/// One place that holds artifacts.
pub struct Source<'a>(Place<'a>);

/// Kinds of places.
enum Place<'a> {
    Registry(Mirrored<'a>),
    Layout(Layout),
}

impl<'a> Source<'a> {
    /// Returns the place that a reference points to; None for a bare file.
    ///
    /// # Errors
    /// The configuration of the registry cannot be used.
    pub fn of(
        reference: &Reference,
        registries: &'a [RegistryConfig],
        logins: &'a Logins,
    ) -> Result<Option<Self>, RegistryError> {
        match reference {
            Reference::Registry { host, repository, .. } => {
                Mirrored::new(host, repository, registries, logins)
                    .map(|mirrored| Some(Self(Place::Registry(mirrored))))
            }
            Reference::Layout { path, .. } => Ok(Some(Self(Place::Layout(Layout::new(path))))),
            Reference::File { .. } => Ok(None),
        }
    }

    /// Fetches a manifest or index by tag or digest, and returns its digest with its bytes.
    ///
    /// # Errors
    /// The object is absent, is not the expected one, or is larger than the limit.
    pub async fn manifest_bytes(
        &mut self,
        tag_or_digest: &str,
        expected: Option<&Digest>,
        limit: usize,
    ) -> Result<(Digest, Vec<u8>), RegistryError> {
        match &mut self.0 {
            Place::Registry(mirrored) => {
                mirrored.manifest_bytes(tag_or_digest, expected, limit).await
            }
            Place::Layout(layout) => layout.manifest_bytes(tag_or_digest, limit).await,
        }
    }

    /// Fetches a blob.
    ///
    /// # Errors
    /// The blob is absent, or is not the expected one.
    pub async fn blob(&mut self, layer: &Layer) -> Result<Vec<u8>, RegistryError> {
        match &mut self.0 {
            Place::Registry(mirrored) => {
                let mut bytes = Vec::new();
                mirrored.blob_into(layer, &mut bytes).await?;
                Ok(bytes)
            }
            Place::Layout(layout) => layout.blob(&layer.digest, layer.size).await,
        }
    }

    /// Fetches a blob, and forwards its bytes while they arrive. They can be trusted only if this
    /// function succeeds.
    pub(crate) async fn forward(
        &mut self,
        layer: &Layer,
        to: mpsc::Sender<Vec<u8>>,
    ) -> Result<(), RegistryError> {
        let mut into = Forward::new(to);
        match &mut self.0 {
            Place::Registry(mirrored) => mirrored.blob_into(layer, &mut into).await,
            Place::Layout(layout) => {
                into.take(&layout.blob(&layer.digest, layer.size).await?).await;
                Ok(())
            }
        }
    }

    /// Fetches the first bytes of a blob, at most `most` of them. Their digest is not checked.
    ///
    /// # Errors
    /// The blob is absent.
    pub async fn blob_start(
        &mut self,
        layer: &Layer,
        most: usize,
    ) -> Result<Vec<u8>, RegistryError> {
        match &mut self.0 {
            Place::Registry(mirrored) => mirrored.blob_start(layer, most).await,
            Place::Layout(layout) => {
                // The whole file is read to check its digest, which a registry's partial answer
                // does not allow.
                let mut blob = layout.blob(&layer.digest, layer.size).await?;
                blob.truncate(most);
                Ok(blob)
            }
        }
    }

    /// Lists the referrers of this manifest that may be signatures in one form. The last `unasked`
    /// places of a registry with mirrors are left out.
    async fn referrers(
        &mut self,
        digest: &Digest,
        form: SignatureForm,
        unasked: usize,
    ) -> Result<Referrers, RegistryError> {
        match &mut self.0 {
            Place::Registry(mirrored) => mirrored.referrers(digest, form, unasked).await,
            Place::Layout(layout) => layout.referrers(digest, form).await,
        }
    }

    /// Returns the full name of a tag or digest for messages.
    #[must_use]
    pub fn what(&self, tag_or_digest: &str) -> String {
        match &self.0 {
            Place::Registry(mirrored) => mirrored.what(tag_or_digest),
            Place::Layout(layout) => layout.what(tag_or_digest),
        }
    }
}
