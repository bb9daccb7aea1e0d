//! Signs what is in the registry as cosign does with a key, in both forms.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_client::Reference;
use oci_client::client::{Config, ImageLayer};
use oci_client::manifest::{OciDescriptor, OciImageManifest, OciManifest};
use rcgen::{KeyPair, SigningKey};
use serde_json::{Value, json};

use crate::registry::Registry;

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Somebody with a key.
pub struct Signer {
    /// The public key, in PEM.
    pub public_key: PathBuf,
    key: KeyPair,
}

impl Signer {
    /// Makes a key; the public one is in the folder.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn new(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let (key, public_key) = (KeyPair::generate()?, folder.join(format!("{name}.pub")));
        std::fs::write(&public_key, key.public_key_pem())?;
        Ok(Self { public_key, key })
    }

    /// Attaches a signature over `signed` to the manifest `attach_to`, in the form of simple signing. Digests are `sha256:…`.
    ///
    /// # Errors
    /// The registry refuses.
    pub async fn sign_simple(&self, registry: &Registry, repository: &str, attach_to: &str, signed: &str) -> anyhow::Result<()> {
        let payload = json!({"critical": {
            "identity": {"docker-reference": format!("{}/{repository}", registry.host)},
            "image": {"docker-manifest-digest": signed}, "type": "cosign container image signature",
        }, "optional": null});
        let payload = payload.to_string().into_bytes();
        let signature = STANDARD.encode(self.key.sign(&payload)?);
        let annotations = BTreeMap::from([("dev.cosignproject.cosign/signature".to_owned(), signature)]);
        let layer = ImageLayer::new(payload, SIMPLE.to_owned(), Some(annotations));
        let reference: Reference = format!("{}/{repository}:{}.sig", registry.host, tag(attach_to)).parse()?;
        let config = Config::new(b"{}".to_vec(), "application/vnd.oci.image.config.v1+json".to_owned(), None);
        registry.client()?.push(&reference, &[layer], config, &registry.auth(), None).await?;
        Ok(())
    }

    /// Attaches a bundle over `signed` to the manifest `attach_to`, and lists it under the referrers' tag.
    ///
    /// # Errors
    /// The registry refuses.
    pub async fn sign_bundle(&self, registry: &Registry, repository: &str, attach_to: &str, signed: &str) -> anyhow::Result<()> {
        let bundle = self.bundle(signed)?.to_string().into_bytes();
        let layers = [ImageLayer::new(bundle, BUNDLE.to_owned(), None)];
        let config = Config::new(b"{}".to_vec(), EMPTY.to_owned(), None);
        let mut manifest = OciImageManifest::build(&layers, &config, None);
        manifest.artifact_type = Some(BUNDLE.to_owned());
        let subject = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": attach_to, "size": 1});
        manifest.subject = Some(serde_json::from_value::<OciDescriptor>(subject)?);
        let client = registry.client()?;
        let one: Reference = format!("{}/{repository}:bundle-{}", registry.host, tag(attach_to)).parse()?;
        client.push(&one, &layers, config, &registry.auth(), Some(manifest)).await?;
        let (bytes, digest) = client.pull_manifest_raw(&one, &registry.auth(), &["application/vnd.oci.image.manifest.v1+json"]).await?;
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            // cosign's registry library writes the type of the empty config here.
            "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": bytes.len(), "artifactType": EMPTY}],
        });
        let index: OciManifest = serde_json::from_value(index)?;
        let list: Reference = format!("{}/{repository}:{}", registry.host, tag(attach_to)).parse()?;
        client.push_manifest(&list, &index).await?;
        Ok(())
    }

    fn bundle(&self, signed: &str) -> anyhow::Result<Value> {
        let hex = signed.strip_prefix("sha256:").context("a digest begins with sha256:")?;
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1", "subject": [{"digest": {"sha256": hex}}],
            "predicateType": "https://sigstore.dev/cosign/sign/v1", "predicate": {},
        });
        let (kind, payload) = ("application/vnd.in-toto+json", statement.to_string());
        let signature = self.key.sign(format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len()).as_bytes())?;
        Ok(json!({
            "mediaType": BUNDLE, "verificationMaterial": {"publicKey": {"hint": "testbed"}},
            "dsseEnvelope": {
                "payload": STANDARD.encode(&payload), "payloadType": kind, "signatures": [{"sig": STANDARD.encode(signature)}],
            },
        }))
    }
}

fn tag(digest: &str) -> String {
    digest.replace(':', "-")
}
