//! The steps of the way one by one, and the way back into a registry: for whoever writes and publishes plugins.

use super::{Host, LoadError, PluginSource, read_file};
use crate::config::every_form;
use crate::plugin::Plugin;
use crate::registry::{Artifact, Repository};
use crate::trust::{self, Signature, Verified};
use crate::{Credentials, Digest, Reference, RegistryError};

/// What a registry has of an artifact beside the component.
#[derive(Clone, Debug)]
pub struct Published {
    /// The manifest, as it is stored.
    pub manifest: Vec<u8>,
    /// All signatures, in any form. Nothing of them is believed.
    pub signatures: Vec<Signature>,
}

impl Host {
    /// Resolves, fetches and verifies.
    ///
    /// # Errors
    /// Says which step failed, for which reference, and what to do.
    pub async fn verify(&self, source: &PluginSource, credentials: Option<&Credentials>) -> Result<Verified, LoadError> {
        let artifact = match &source.reference {
            Reference::File { path, digest } => read_file(&source.reference, path, digest.as_ref(), self.settings.limits.component)?,
            Reference::Registry { .. } => self.fetch(source, credentials).await?,
        };
        let signatures = self.signatures(source, &artifact.digest, credentials).await?;
        Ok(trust::verify(artifact, &self.settings.trust, source.allow_unsigned, &signatures)?)
    }

    /// Goes the whole way, whatever the plugin calls itself.
    ///
    /// # Errors
    /// Says which step failed, for which reference, and what to do.
    pub async fn open(&self, source: &PluginSource, credentials: Option<&Credentials>) -> Result<Plugin, LoadError> {
        let verified = self.verify(source, credentials).await?;
        self.start(&verified, source).await
    }

    /// Compiles and describes.
    ///
    /// # Errors
    /// It does not fit the contract, or breaks.
    pub async fn start(&self, verified: &Verified, source: &PluginSource) -> Result<Plugin, LoadError> {
        let compiled = self.engine.compile(verified, &self.cache).await?;
        let plugin = Plugin::new(self.engine.clone(), compiled, verified, source).await;
        plugin.map_err(|error| LoadError::Describe { name: source.name.clone(), error })
    }

    /// What the registry has of a manifest; nothing for a file.
    ///
    /// # Errors
    /// The registry does not answer, or not as it should.
    pub async fn published(
        &self,
        reference: &Reference,
        digest: &Digest,
        credentials: Option<&Credentials>,
    ) -> Result<Option<Published>, RegistryError> {
        let Reference::Registry { host, repository, .. } = reference else { return Ok(None) };
        let mut remote = Repository::new(host, repository, &self.settings.registries, credentials)?;
        let manifest = remote.manifest(&digest.to_string(), Some(digest), self.settings.limits.component).await?.bytes;
        let mut signatures = Vec::new();
        for form in every_form() {
            signatures.extend(remote.signatures(digest, form).await?);
        }
        Ok(Some(Published { manifest, signatures }))
    }

    /// Puts an artifact into a repository under a tag, and returns the digest of its manifest.
    ///
    /// # Errors
    /// The registry does not take it.
    pub async fn push(
        &self,
        (host, repository, tag): (&str, &str, &str),
        artifact: &Artifact<'_>,
        credentials: Option<&Credentials>,
    ) -> Result<Digest, RegistryError> {
        Repository::new(host, repository, &self.settings.registries, credentials)?.push(tag, artifact).await
    }
}
