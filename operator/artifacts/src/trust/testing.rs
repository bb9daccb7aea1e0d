//! Keys that sign as cosign does, for tests of this and other crates.
#![allow(missing_docs, clippy::expect_used, clippy::new_without_default)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PKCS_ED25519, SigningKey};
use serde_json::json;
use tempfile::TempDir;

use super::key::PublicKey;
use super::keyless::Attached;
use super::signature::{BUNDLE, Signature};
use crate::Digest;
use crate::config::{CosignTrust, RequiredKeys, SignatureForm, TrustEntry};

/// Both forms of signatures.
pub const BOTH: [SignatureForm; 2] = [SignatureForm::Bundle, SignatureForm::Simple];

/// Two keys in files, and the trust entry that names them.
pub struct Keys {
    keys: [KeyPair; 2],
    /// Folder with the public keys, `0.pub` and `1.pub`.
    pub folder: TempDir,
}

impl Keys {
    pub fn new() -> Self {
        let keys = [
            KeyPair::generate().expect("a key"),
            KeyPair::generate_for(&PKCS_ED25519).expect("a key"),
        ];
        let folder = tempfile::tempdir().expect("a folder");
        for (index, key) in keys.iter().enumerate() {
            std::fs::write(folder.path().join(format!("{index}.pub")), key.public_key_pem())
                .expect("written");
        }
        Self { keys, folder }
    }

    pub fn trust(
        &self,
        forms: &[SignatureForm],
        require: RequiredKeys,
        keys: &[usize],
    ) -> Vec<TrustEntry> {
        let public_key_files =
            keys.iter().map(|index| self.folder.path().join(format!("{index}.pub"))).collect();
        let cosign =
            CosignTrust { public_key_files, forms: forms.to_vec(), require, keyless: None };
        vec![TrustEntry {
            pattern: "harbor.example/flashjob/**".into(),
            allow_unsigned: false,
            cosign: Some(cosign),
        }]
    }

    pub fn simple(&self, key: usize, digest: &Digest) -> Signature {
        self.simple_of(key, "cosign container image signature", digest)
    }

    pub fn simple_of(&self, key: usize, kind: &str, digest: &Digest) -> Signature {
        let payload = json!({"critical": {
            "identity": {"docker-reference": "x"},
            "image": {"docker-manifest-digest": digest.to_string()},
            "type": kind,
        }, "optional": null});
        let payload = payload.to_string().into_bytes();
        let signature = self.keys[key].sign(&payload).expect("signed");
        Signature::Simple {
            payload: STANDARD.encode(&payload),
            signature: STANDARD.encode(signature),
            attached: Attached::default(),
        }
    }

    pub fn bundle(&self, key: usize, digests: &[&Digest], predicate: &str) -> serde_json::Value {
        let subject: Vec<_> =
            digests.iter().map(|digest| json!({"digest": {"sha256": digest.hex()}})).collect();
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1", "subject": subject,
            "predicateType": predicate, "predicate": {},
        });
        let (kind, payload) = ("application/vnd.in-toto+json", statement.to_string());
        let signed = format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len());
        let signature = STANDARD.encode(self.keys[key].sign(signed.as_bytes()).expect("signed"));
        let hint =
            PublicKey::read(&self.folder.path().join(format!("{key}.pub"))).expect("a key").hint;
        json!({
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": STANDARD.encode(payload), "payloadType": kind,
                "signatures": [{"sig": signature}],
            },
        })
    }

    pub fn signed_bundle(&self, key: usize, digest: &Digest) -> Signature {
        Signature::Bundle(
            self.bundle(key, &[digest], "https://sigstore.dev/cosign/sign/v1").to_string(),
        )
    }
}
