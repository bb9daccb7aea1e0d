//! Signs artifacts in the registry like cosign with a key, in both formats.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use oci_client::Reference;
use oci_client::client::{Config, ImageLayer};
use oci_client::manifest::{OciDescriptor, OciImageManifest, OciManifest};
use rcgen::{KeyPair, SigningKey};
use serde_json::{Value, json};

use crate::registry::Registry;

pub(crate) const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
pub(crate) const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Predicate of a statement that asserts nothing but the signature.
pub const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// A signer with a key.
pub struct Signer {
    /// Path of the public key, in PEM.
    pub public_key: PathBuf,
    key: KeyPair,
}

impl Signer {
    /// Creates a key, and writes the public key into the folder.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn new(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let (key, public_key) = (KeyPair::generate()?, folder.join(format!("{name}.pub")));
        std::fs::write(&public_key, key.public_key_pem())?;
        Ok(Self { public_key, key })
    }

    /// Attaches a signature over `signed` to the manifest `attach_to`, in the simple signing
    /// format. Digests are `sha256:…`.
    ///
    /// # Errors
    /// The registry refuses.
    pub async fn sign_simple(
        &self,
        registry: &Registry,
        repository: &str,
        attach_to: &str,
        signed: &str,
    ) -> anyhow::Result<()> {
        let payload =
            simple_payload(&format!("{}/{repository}", registry.host), signed).to_string();
        let signature = STANDARD.encode(self.key.sign(payload.as_bytes())?);
        let annotations =
            BTreeMap::from([("dev.cosignproject.cosign/signature".to_owned(), signature)]);
        attach_simple(registry, repository, attach_to, payload, annotations).await
    }

    /// Attaches a bundle over `signed` to the manifest `attach_to`, and lists it under the
    /// referrers tag.
    ///
    /// # Errors
    /// The registry refuses.
    pub async fn sign_bundle(
        &self,
        registry: &Registry,
        repository: &str,
        attach_to: &str,
        signed: &str,
    ) -> anyhow::Result<()> {
        attach_bundle(registry, repository, attach_to, &self.bundle(signed)?).await
    }

    fn bundle(&self, signed: &str) -> anyhow::Result<Value> {
        let payload = statement(&[signed], SIGN).to_string();
        let message =
            format!("DSSEv1 {} {PAYLOAD_TYPE} {} {payload}", PAYLOAD_TYPE.len(), payload.len());
        let signature = self.key.sign(message.as_bytes())?;
        Ok(json!({
            "mediaType": BUNDLE, "verificationMaterial": {"publicKey": {"hint": "testbed"}},
            "dsseEnvelope": {
                "payload": STANDARD.encode(&payload), "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": STANDARD.encode(signature)}],
            },
        }))
    }
}

/// Attaches a signature in the simple signing format to a manifest.
///
/// # Errors
/// The registry refuses.
pub async fn attach_simple(
    registry: &Registry,
    repository: &str,
    attach_to: &str,
    payload: String,
    annotations: BTreeMap<String, String>,
) -> anyhow::Result<()> {
    let layer = ImageLayer::new(payload.into_bytes(), SIMPLE.to_owned(), Some(annotations));
    let reference: Reference =
        format!("{}/{repository}:{}.sig", registry.host, tag(attach_to)).parse()?;
    let config =
        Config::new(b"{}".to_vec(), "application/vnd.oci.image.config.v1+json".to_owned(), None);
    let (client, manifest) =
        (registry.client()?, OciImageManifest::build(std::slice::from_ref(&layer), &config, None));
    client.store_auth_if_needed(&registry.host, &registry.auth()).await;
    client.push_blob(&reference, layer.data, &manifest.layers[0].digest).await?;
    client.push_blob(&reference, config.data, &manifest.config.digest).await?;
    // As plain JSON: the client's own encoding leaves the line breaks of a certificate unescaped.
    let kind = HeaderValue::from_static("application/vnd.oci.image.manifest.v1+json");
    client.push_manifest_raw(&reference, serde_json::to_vec(&manifest)?, kind).await?;
    Ok(())
}

/// Attaches a bundle to a manifest, and lists it under the referrers tag.
///
/// # Errors
/// The registry refuses.
pub async fn attach_bundle(
    registry: &Registry,
    repository: &str,
    attach_to: &str,
    bundle: &Value,
) -> anyhow::Result<()> {
    let layers = [ImageLayer::new(bundle.to_string().into_bytes(), BUNDLE.to_owned(), None)];
    let config = Config::new(b"{}".to_vec(), EMPTY.to_owned(), None);
    let mut manifest = OciImageManifest::build(&layers, &config, None);
    manifest.artifact_type = Some(BUNDLE.to_owned());
    let subject = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": attach_to, "size": 1,
    });
    manifest.subject = Some(serde_json::from_value::<OciDescriptor>(subject)?);
    let client = registry.client()?;
    let one: Reference =
        format!("{}/{repository}:bundle-{}", registry.host, tag(attach_to)).parse()?;
    client.push(&one, &layers, config, &registry.auth(), Some(manifest)).await?;
    let (bytes, digest) = client
        .pull_manifest_raw(&one, &registry.auth(), &["application/vnd.oci.image.manifest.v1+json"])
        .await?;
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        // cosign's registry library writes the type of the empty config here.
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
            "size": bytes.len(), "artifactType": EMPTY,
        }],
    });
    let index: OciManifest = serde_json::from_value(index)?;
    let list: Reference = format!("{}/{repository}:{}", registry.host, tag(attach_to)).parse()?;
    client.push_manifest(&list, &index).await?;
    Ok(())
}

/// Returns the payload that is signed in the older format.
pub(crate) fn simple_payload(reference: &str, digest: &str) -> Value {
    json!({"critical": {
        "identity": {"docker-reference": reference}, "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }, "optional": null})
}

/// Returns the statement that is signed in a bundle.
pub(crate) fn statement(digests: &[&str], predicate: &str) -> Value {
    let subject: Vec<_> = digests
        .iter()
        .map(|digest| json!({"digest": {"sha256": digest.trim_start_matches("sha256:")}}))
        .collect();
    json!({
        "_type": "https://in-toto.io/Statement/v1", "subject": subject, "predicateType": predicate,
        "predicate": {},
    })
}

fn tag(digest: &str) -> String {
    digest.replace(':', "-")
}
