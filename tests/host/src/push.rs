//! Pushes blobs and manifests of any form to a registry without authentication.

use anyhow::Context;
use flashjob_plugin_host::Digest;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use serde_json::{Value, json};

/// Media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of a component.
pub const COMPONENT: &str = "application/wasm";

/// A repository to push to.
pub struct Pusher<'a> {
    /// HTTP client for the registry.
    pub client: &'a reqwest::Client,
    /// URL of the registry.
    pub registry: &'a str,
    /// Name of the repository.
    pub repository: &'a str,
}

impl Pusher<'_> {
    /// Pushes a blob, and returns its descriptor for a manifest.
    ///
    /// # Errors
    /// The registry refuses.
    pub async fn blob(&self, media_type: &str, bytes: &[u8]) -> anyhow::Result<Value> {
        let digest = Digest::of(bytes);
        let begin = self
            .client
            .post(format!("{}/v2/{}/blobs/uploads/", self.registry, self.repository))
            .send()
            .await?;
        let place = begin
            .error_for_status()?
            .headers()
            .get(LOCATION)
            .context("no place to upload to")?
            .to_str()?
            .to_owned();
        let place =
            format!("{place}{}digest={digest}", if place.contains('?') { '&' } else { '?' });
        self.client.put(place).body(bytes.to_vec()).send().await?.error_for_status()?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
    }

    /// Pushes a manifest or an index under a tag, and returns its digest.
    ///
    /// # Errors
    /// The registry refuses.
    pub async fn manifest(
        &self,
        tag: &str,
        media_type: &str,
        manifest: &Value,
    ) -> anyhow::Result<Digest> {
        let bytes = manifest.to_string().into_bytes();
        let url = format!("{}/v2/{}/manifests/{tag}", self.registry, self.repository);
        let digest = Digest::of(&bytes);
        self.client
            .put(url)
            .header(CONTENT_TYPE, media_type)
            .body(bytes)
            .send()
            .await?
            .error_for_status()?;
        Ok(digest)
    }

    /// Pushes an artifact with these layers, given as media type and bytes.
    ///
    /// # Errors
    /// The registry refuses.
    pub async fn artifact(&self, tag: &str, layers: &[(&str, &[u8])]) -> anyhow::Result<Digest> {
        let config = self.blob("application/vnd.oci.empty.v1+json", b"{}").await?;
        let mut described = Vec::new();
        for (media_type, bytes) in layers {
            described.push(self.blob(media_type, bytes).await?);
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described,
        });
        self.manifest(tag, MANIFEST, &manifest).await
    }
}
