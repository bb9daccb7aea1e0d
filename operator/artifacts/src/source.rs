//! Places that have artifacts: a registry with its mirrors, or an image layout on disk. Each is
//! asked for manifests, blobs and what refers to a manifest; everything that comes is hashed. A
//! bare file is no such place.

#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod layout;
mod mirrors;
mod signatures;

use tokio::sync::mpsc;

use crate::config::RegistryConfig;
use crate::registry::{HandOn, Layer, Receive, Referrer};
use crate::{Digest, Logins, Reference, RegistryError};
use layout::Layout;
use mirrors::Mirrored;
pub use mirrors::places;
pub(crate) use mirrors::split;

/// One place that has artifacts.
pub struct Source<'a>(Place<'a>);

/// The kinds of places.
enum Place<'a> {
    Registry(Mirrored<'a>),
    Layout(Layout),
}

impl<'a> Source<'a> {
    /// Returns the place that a reference leads to; none for a bare file.
    ///
    /// # Errors
    /// The configuration of a registry cannot be used.
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
    /// It is not there, is another than the expected one, or is larger than the limit.
    pub async fn manifest_bytes(
        &mut self,
        wanted: &str,
        expected: Option<&Digest>,
        limit: usize,
    ) -> Result<(Digest, Vec<u8>), RegistryError> {
        match &mut self.0 {
            Place::Registry(mirrored) => mirrored.manifest_bytes(wanted, expected, limit).await,
            Place::Layout(layout) => layout.manifest_bytes(wanted, limit).await,
        }
    }

    /// Fetches a blob.
    ///
    /// # Errors
    /// It is not there, or is another.
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

    /// Fetches a blob, and hands its bytes on while they come: they are the right ones only if
    /// this succeeds.
    pub(crate) async fn hand_on(
        &mut self,
        layer: &Layer,
        to: mpsc::Sender<Vec<u8>>,
    ) -> Result<(), RegistryError> {
        let mut into = HandOn::new(to);
        match &mut self.0 {
            Place::Registry(mirrored) => mirrored.blob_into(layer, &mut into).await,
            Place::Layout(layout) => {
                into.take(&layout.blob(&layer.digest, layer.size).await?).await;
                Ok(())
            }
        }
    }

    /// Fetches the first bytes of a blob, at most so many. Their digest is not checked.
    ///
    /// # Errors
    /// It is not there.
    pub async fn blob_start(
        &mut self,
        layer: &Layer,
        most: usize,
    ) -> Result<Vec<u8>, RegistryError> {
        match &mut self.0 {
            Place::Registry(mirrored) => mirrored.blob_start(layer, most).await,
            Place::Layout(layout) => {
                let mut blob = layout.blob(&layer.digest, layer.size).await?;
                blob.truncate(most);
                Ok(blob)
            }
        }
    }

    /// Lists what may be a bundle that refers to a manifest.
    async fn referrers(&mut self, digest: &Digest) -> Result<Vec<Referrer>, RegistryError> {
        match &mut self.0 {
            Place::Registry(mirrored) => mirrored.referrers(digest).await,
            Place::Layout(layout) => layout.referrers(digest).await,
        }
    }

    /// Returns the name of a tag or digest for messages.
    #[must_use]
    pub fn what(&self, wanted: &str) -> String {
        match &self.0 {
            Place::Registry(mirrored) => mirrored.what(wanted),
            Place::Layout(layout) => layout.what(wanted),
        }
    }
}
