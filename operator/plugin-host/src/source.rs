//! Where artifacts are: a registry with its mirrors, or an image layout on disk. Each is asked for
//! manifests, blobs and what refers to a manifest; everything that comes is hashed. A bare file is
//! read whole instead.

mod archive;
pub(crate) mod file;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod layout;
mod mirrors;
mod signatures;
#[cfg(test)]
mod tests;

use serde::Deserialize;

use crate::config::RegistryConfig;
use crate::registry::{Layer, MANIFEST_BYTES, Referrer, component_layer};
use crate::{Digest, Logins, Reference, RegistryError};
use layout::Layout;
use mirrors::Mirrored;
pub use mirrors::places;
pub(crate) use mirrors::split;

/// More signatures of one manifest are not looked at.
pub(crate) const SIGNATURES: usize = 64;
/// One signature, the manifest around it, and one page of a list.
pub(crate) const SIGNATURE_BYTES: usize = 1 << 20;

/// A manifest, and the layer in it that is the component.
pub(crate) struct Manifest {
    pub digest: Digest,
    pub layer: Layer,
    pub bytes: Vec<u8>,
}

/// One place that has artifacts.
pub(crate) enum Source<'a> {
    Registry(Mirrored<'a>),
    Layout(Layout),
}

impl<'a> Source<'a> {
    /// Where a reference leads; nowhere for a bare file.
    pub fn of(
        reference: &Reference,
        registries: &'a [RegistryConfig],
        logins: &'a Logins,
    ) -> Result<Option<Self>, RegistryError> {
        match reference {
            Reference::Registry { host, repository, .. } => {
                Mirrored::new(host, repository, registries, logins)
                    .map(|mirrored| Some(Self::Registry(mirrored)))
            }
            Reference::Layout { path, .. } => Ok(Some(Self::Layout(Layout::new(path)))),
            Reference::File { .. } => Ok(None),
        }
    }

    /// Fetches the manifest of a component by tag or digest, and finds the component's layer in it.
    pub async fn manifest(
        &mut self,
        wanted: &str,
        expected: Option<&Digest>,
        component_limit: usize,
    ) -> Result<Manifest, RegistryError> {
        let (digest, bytes) = self.manifest_bytes(wanted, expected, MANIFEST_BYTES).await?;
        let layer = component_layer(&bytes, &self.what(wanted), component_limit)?;
        Ok(Manifest { digest, layer, bytes })
    }

    /// Fetches a manifest or index by tag or digest.
    async fn manifest_bytes(
        &mut self,
        wanted: &str,
        expected: Option<&Digest>,
        limit: usize,
    ) -> Result<(Digest, Vec<u8>), RegistryError> {
        match self {
            Self::Registry(mirrored) => mirrored.manifest_bytes(wanted, expected, limit).await,
            Self::Layout(layout) => layout.manifest_bytes(wanted, limit).await,
        }
    }

    /// Fetches a blob.
    pub async fn blob(&mut self, layer: &Layer) -> Result<Vec<u8>, RegistryError> {
        match self {
            Self::Registry(mirrored) => mirrored.blob(layer).await,
            Self::Layout(layout) => layout.blob(&layer.digest, layer.size).await,
        }
    }

    /// What may be a bundle that refers to a manifest.
    async fn referrers(&mut self, digest: &Digest) -> Result<Vec<Referrer>, RegistryError> {
        match self {
            Self::Registry(mirrored) => mirrored.referrers(digest).await,
            Self::Layout(layout) => layout.referrers(digest).await,
        }
    }

    /// How a tag or digest is called in messages.
    fn what(&self, wanted: &str) -> String {
        match self {
            Self::Registry(mirrored) => mirrored.what(wanted),
            Self::Layout(layout) => layout.what(wanted),
        }
    }
}

/// Not being there is an answer.
pub(crate) fn found<T>(answer: Result<T, RegistryError>) -> Result<Option<T>, RegistryError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_absence() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads JSON, and says of what it is not.
pub(crate) fn read<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    what: &str,
) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes).map_err(|error| RegistryError::Form {
        what: what.to_owned(),
        message: format!("it cannot be read: {error}"),
    })
}
