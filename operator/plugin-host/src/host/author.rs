//! Single steps of loading, and publishing to a registry: for authors of plugins.

use flashjob_artifacts::{Repository, Source};

use super::{Host, LoadError, PluginSource};
use crate::config::every_form;
use crate::plugin::Plugin;
use crate::{Artifact, Digest, Logins, Reference, RegistryError, Signature, Verified};

/// Manifest and signatures that a registry or an image layout has of an artifact.
#[derive(Clone, Debug)]
pub struct Published {
    /// The manifest, as it is stored.
    pub manifest: Vec<u8>,
    /// Signatures, in any form. Not verified.
    pub signatures: Vec<Signature>,
    /// True if these are all signatures; false if there may be more than are fetched.
    pub has_all_signatures: bool,
}

impl Host {
    /// Runs all steps, whatever name the plugin describes itself by.
    ///
    /// # Errors
    /// Names the failed step, the reference, and the remedy.
    pub async fn open(&self, source: &PluginSource, logins: &Logins) -> Result<Plugin, LoadError> {
        let verified = self.obtain(source, logins).await?;
        self.start(&verified, source).await
    }

    /// Compiles the component, and calls it to describe itself.
    ///
    /// # Errors
    /// The component does not fit the contract, or fails.
    pub async fn start(
        &self,
        verified: &Verified,
        source: &PluginSource,
    ) -> Result<Plugin, LoadError> {
        let compiled = self.engine.compile(verified, &self.cache).await?.called(&source.name);
        let plugin = Plugin::new(self.engine.clone(), compiled, verified, &source.reference).await;
        plugin.map_err(|error| LoadError::Describe { name: source.name.clone(), error })
    }

    /// Fetches the manifest and signatures of an artifact from its registry or image layout; None
    /// for a file.
    ///
    /// # Errors
    /// The registry does not answer, or its answer is malformed.
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
        let (mut signatures, mut has_all_signatures) = (Vec::new(), true);
        // All forms, whatever the policy accepts: authors want to see what is attached.
        for form in every_form() {
            let attached = remote.signatures(digest, form).await?;
            signatures.extend(attached.fetched);
            has_all_signatures &= attached.beyond_limit.is_none();
        }
        Ok(Some(Published { manifest, signatures, has_all_signatures }))
    }

    /// Pushes an artifact to a repository under a tag, and returns the digest of its manifest.
    ///
    /// # Errors
    /// The registry rejects the push.
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
