//! Puts a component into an OCI registry (OCI distribution specification 1.1, "Push"), as the
//! layout for WebAssembly of the CNCF has it: one layer of the component's bytes, and a config that
//! tells what they are. The same artifact has the same digest each time.

use std::collections::BTreeMap;

use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest};
use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};

use super::{COMPONENT_TYPES, Outgoing, RegistryError, Repository, authority, location};
use crate::Digest;
use crate::engine::Interface;

/// Media type of the config that goes with a component.
const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
/// Where no time of the build is told. Tools want some time in the config, and the true one would
/// change the digest.
const NO_TIME: &str = "1970-01-01T00:00:00Z";
/// Of an artifact what it is called, of a layer the name of its file.
const TITLE: &str = "org.opencontainers.image.title";

/// What is put into a registry.
#[derive(Clone, Debug)]
pub struct Artifact<'a> {
    /// The component.
    pub component: &'a [u8],
    /// What it imports and exports, where that is known.
    pub interface: Option<&'a Interface>,
    /// When it was made, in the form of RFC 3339.
    pub created: Option<String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

impl Artifact<'_> {
    fn config(&self) -> Value {
        let mut config = json!({
            "created": self.created.as_deref().unwrap_or(NO_TIME),
            "architecture": "wasm",
            "os": "wasip2",
            "layerDigests": [Digest::of(self.component)],
        });
        if let Some(interface) = self.interface {
            config["component"] =
                json!({"exports": interface.exports, "imports": interface.imports, "target": null});
        }
        config
    }

    fn manifest(&self, config: &[u8]) -> OciImageManifest {
        let mut annotations = self.annotations.clone();
        if let Some(created) = &self.created {
            annotations.insert("org.opencontainers.image.created".to_owned(), created.clone());
        }
        OciImageManifest {
            media_type: Some(OCI_IMAGE_MEDIA_TYPE.to_owned()),
            config: descriptor(CONFIG_TYPE, config),
            layers: vec![OciDescriptor {
                annotations: self.layer_annotations(),
                ..descriptor(COMPONENT_TYPES[0], self.component)
            }],
            annotations: (!annotations.is_empty()).then_some(annotations),
            ..OciImageManifest::default()
        }
    }

    /// Tools that pull files, as `oras`, write only the layers that have a name. A title is any
    /// text; a name is of no other folder.
    fn layer_annotations(&self) -> Option<BTreeMap<String, String>> {
        let title = self.annotations.get(TITLE)?;
        let name = title
            .rsplit(['/', '\\'])
            .next()
            .map(|name| name.strip_suffix(".wasm").unwrap_or(name))?;
        (!name.is_empty()).then(|| [(TITLE.to_owned(), format!("{name}.wasm"))].into())
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> OciDescriptor {
    let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    OciDescriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes).to_string(),
        size,
        ..OciDescriptor::default()
    }
}

impl Repository<'_> {
    /// Puts an artifact under a tag, and returns the digest of its manifest. The manifest comes
    /// last: a push that is cut off leaves no artifact.
    pub async fn push(
        &mut self,
        tag: &str,
        artifact: &Artifact<'_>,
    ) -> Result<Digest, RegistryError> {
        let what = self.what(tag);
        let unwritable = |error: serde_json::Error| RegistryError::Form {
            what: what.clone(),
            message: error.to_string(),
        };
        let config = serde_json::to_vec(&artifact.config()).map_err(unwritable)?;
        let manifest = serde_json::to_vec(&artifact.manifest(&config)).map_err(unwritable)?;
        self.put_blob(artifact.component).await?;
        self.put_blob(&config).await?;
        let url = self.url(&format!("manifests/{tag}"))?;
        let outgoing = Outgoing {
            content: Some((OCI_IMAGE_MEDIA_TYPE, &manifest)),
            ..Outgoing::new(Method::PUT, url)
        };
        let response = self.ask(outgoing, &what).await?;
        self.check(&response, &what)?;
        Ok(Digest::of(&manifest))
    }

    /// "Pushing a blob monolithically", by POST and then PUT.
    async fn put_blob(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
        let digest = Digest::of(bytes);
        let what = self.what(&digest.to_string());
        let url = self.url(&format!("blobs/{digest}"))?;
        let response = self.ask(Outgoing::new(Method::HEAD, url), &what).await?;
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
        target.query_pairs_mut().append_pair("digest", &digest.to_string());
        let response = self
            .ask(
                Outgoing { content: Some((BYTES, bytes)), ..Outgoing::new(Method::PUT, target) },
                &what,
            )
            .await?;
        self.check(&response, &what)
    }

    /// Where the bytes go: to the registry itself, as the credentials go along.
    fn upload_target(&self, started: &reqwest::Response, what: &str) -> Result<Url, RegistryError> {
        let location = location(started).unwrap_or_default();
        let target = started.url().join(&location).ok();
        let own = |url: &Url| {
            url.scheme() == started.url().scheme() && authority(url) == authority(started.url())
        };
        let refused = || RegistryError::Redirect {
            host: self.host.to_owned(),
            what: what.to_owned(),
            location: location.clone(),
        };
        target.filter(|url| !location.is_empty() && own(url)).ok_or_else(refused)
    }
}

/// Media type of what is sent as bytes.
const BYTES: &str = "application/octet-stream";
