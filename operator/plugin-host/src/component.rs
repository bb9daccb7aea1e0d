//! Component as an OCI artifact in the CNCF's layout for WebAssembly: one layer with the
//! component's bytes, and a config that describes them. Encoding is deterministic: equal input
//! gives an equal digest. Does no I/O.

use std::collections::BTreeMap;

use flashjob_artifacts::{Digest, Layer, RegistryError, image_manifest, layer_of};
use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest};
use serde_json::{Value, json};

use crate::engine::Interface;

/// Media types of a layer that holds a component: the standard one and its older form.
const COMPONENT_TYPES: [&str; 2] =
    ["application/wasm", "application/vnd.module.wasm.content.layer.v1+wasm"];
/// Media type of the config that goes with a component.
const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
/// Creation time in the config if none is given. Tools expect a time there, and the current time
/// would change the digest.
const NO_TIME: &str = "1970-01-01T00:00:00Z";
/// Annotation with the title of an artifact, or the file name of a layer.
const TITLE: &str = "org.opencontainers.image.title";

/// Component with its metadata, as it is pushed to a registry.
#[derive(Clone, Debug)]
pub struct Artifact<'a> {
    /// The component.
    pub component: &'a [u8],
    /// Imports and exports of the component, if they are known.
    pub interface: Option<&'a Interface>,
    /// Creation time in RFC 3339 format.
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
            let (exports, imports) = (&interface.exports, &interface.imports);
            config["component"] = json!({"exports": exports, "imports": imports, "target": null});
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

    /// Tools that pull files, such as `oras`, only write the layers that have a name. The title
    /// may be any text, so the name is its last path segment.
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

/// Manifest and config of an artifact, as they are stored.
pub(crate) struct Encoded {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
}

impl Artifact<'_> {
    /// Encodes manifest and config as they are stored.
    pub(crate) fn encode(&self) -> serde_json::Result<Encoded> {
        let config = serde_json::to_vec(&self.config())?;
        let manifest = serde_json::to_vec(&self.manifest(&config))?;
        Ok(Encoded { manifest, config })
    }
}

/// Returns the only layer that is a component, if it does not exceed the size limit.
pub(crate) fn component_layer(
    manifest: &[u8],
    what: &str,
    limit: usize,
) -> Result<Layer, RegistryError> {
    let form = |message: String| RegistryError::Form { what: what.to_owned(), message };
    let manifest = image_manifest(manifest, what)?;
    // The CNCF's layout has exactly one layer; of several it would be ambiguous which one is run.
    let [layer] = manifest.layers.as_slice() else {
        return Err(form(format!(
            "it has {} layers, expected one with the component",
            manifest.layers.len()
        )));
    };
    // The config's type is not checked: oras writes an empty one unless told otherwise.
    if !COMPONENT_TYPES.contains(&layer.media_type.as_str()) {
        return Err(form(format!(
            "its layer has media type {}, expected {}",
            layer.media_type, COMPONENT_TYPES[0]
        )));
    }
    layer_of(layer, what, limit)
}
