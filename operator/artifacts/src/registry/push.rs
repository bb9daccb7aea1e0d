//! Pushes an artifact to an OCI registry (OCI distribution specification 1.1, "Push").

use oci_client::manifest::OCI_IMAGE_MEDIA_TYPE;
use reqwest::{Method, StatusCode, Url};

use super::redirects::location;
use super::{Outgoing, RegistryError, Repository, authority};
use crate::Digest;

impl Repository<'_> {
    /// Pushes blobs, then the manifest that names them under a tag, and returns the digest of the
    /// manifest. As the manifest comes last, an interrupted push leaves no artifact.
    ///
    /// # Errors
    /// The registry rejects the push.
    pub async fn push(
        &mut self,
        tag: &str,
        manifest: &[u8],
        blobs: &[&[u8]],
    ) -> Result<Digest, RegistryError> {
        let what = self.what(tag);
        for blob in blobs {
            self.put_blob(blob).await?;
        }
        let url = self.url(&format!("manifests/{tag}"))?;
        let outgoing = Outgoing {
            content: Some((OCI_IMAGE_MEDIA_TYPE, manifest)),
            ..Outgoing::new(Method::PUT, url)
        };
        let response = self.ask(outgoing, &what).await?;
        self.check(&response, &what)?;
        Ok(Digest::of(manifest))
    }

    /// Pushes a blob by POST and then PUT (section "Pushing a blob monolithically").
    async fn put_blob(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
        let digest = Digest::of(bytes);
        let what = self.what(&digest.to_string());
        let url = self.url(&format!("blobs/{digest}"))?;
        let response = self.ask(Outgoing::new(Method::HEAD, url), &what).await?;
        // Registries that keep blobs in an object store redirect the HEAD of an existing blob to
        // it.
        if response.status().is_success() || response.status().is_redirection() {
            return Ok(());
        }
        if response.status() != StatusCode::NOT_FOUND {
            self.check(&response, &what)?;
        }
        let url = self.url("blobs/uploads/")?;
        let started = self
            .ask(
                Outgoing { content: Some((BYTES, &[])), ..Outgoing::new(Method::POST, url) },
                &what,
            )
            .await?;
        self.check(&started, &what)?;
        let mut target = self.upload_target(&started, &what)?;
        // The location may have query parameters of the registry's own, which must be kept
        // (section "POST then PUT").
        target.query_pairs_mut().append_pair("digest", &digest.to_string());
        let response = self
            .ask(
                Outgoing { content: Some((BYTES, bytes)), ..Outgoing::new(Method::PUT, target) },
                &what,
            )
            .await?;
        self.check(&response, &what)
    }

    /// Returns the URL to upload to. It must be at the registry itself, because the request
    /// carries the credentials.
    fn upload_target(
        &self,
        started: &reqwest::Response,
        what: &str,
    ) -> Result<Url, RegistryError> {
        let location = location(started).unwrap_or_default();
        // The location may be absolute or relative (section "POST then PUT").
        let target = started.url().join(&location).ok();
        let is_own = |url: &Url| {
            url.scheme() == started.url().scheme() && authority(url) == authority(started.url())
        };
        let refused = || RegistryError::Redirect {
            host: self.host.to_owned(),
            what: what.to_owned(),
            location: location.clone(),
        };
        target.filter(|url| !location.is_empty() && is_own(url)).ok_or_else(refused)
    }
}

/// Media type of an uploaded blob.
const BYTES: &str = "application/octet-stream";
