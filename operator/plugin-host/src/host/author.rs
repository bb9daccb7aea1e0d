//! The steps of the way one by one, and the way back into a registry: for whoever writes and
//! publishes plugins.

use flashjob_artifacts::{Repository, Source};

use super::{Host, LoadError, PluginSource};
use crate::config::every_form;
use crate::plugin::Plugin;
use crate::{Artifact, Digest, Logins, Reference, RegistryError, Signature, Verified};

/// Manifest and signatures that a registry or an image layout has of an artifact beside the
/// component.
#[derive(Clone, Debug)]
pub struct Published {
    /// The manifest, as it is stored.
    pub manifest: Vec<u8>,
    /// All signatures, in any form. Nothing of them is believed.
    pub signatures: Vec<Signature>,
}

impl Host {
    /// Goes the whole way, whatever the plugin calls itself.
    ///
    /// # Errors
    /// Says which step failed, for which reference, and what to do.
    pub async fn open(&self, source: &PluginSource, logins: &Logins) -> Result<Plugin, LoadError> {
        let verified = self.obtain(source, logins).await?;
        self.start(&verified, source).await
    }

    /// Compiles and describes.
    ///
    /// # Errors
    /// It does not fit the contract, or breaks.
    pub async fn start(
        &self,
        verified: &Verified,
        source: &PluginSource,
    ) -> Result<Plugin, LoadError> {
        let compiled = self.engine.compile(verified, &self.cache).await?.called(&source.name);
        let plugin = Plugin::new(self.engine.clone(), compiled, verified, &source.reference).await;
        plugin.map_err(|error| LoadError::Describe { name: source.name.clone(), error })
    }

    /// Fetches what the registry, or the image layout, has of a manifest; nothing for a file.
    ///
    /// # Errors
    /// The registry does not answer, or not as it should.
    pub async fn published(
        &self,
        reference: &Reference,
        digest: &Digest,
        logins: &Logins,
    ) -> Result<Option<Published>, RegistryError> {
        let Some(mut remote) = Source::of(reference, &self.settings.registries, logins)? else {
            return Ok(None);
        };
        let manifest = self.manifest(&mut remote, &digest.to_string(), Some(digest)).await?.bytes;
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
        logins: &Logins,
    ) -> Result<Digest, RegistryError> {
        let mut repository = Repository::new(host, repository, &self.settings.registries, logins)?;
        let encoded = artifact.encode().map_err(|error| RegistryError::Form {
            what: repository.what(tag),
            message: error.to_string(),
        })?;
        let blobs = [artifact.component, &encoded.config];
        repository.push(tag, &encoded.manifest, &blobs).await
    }
}
