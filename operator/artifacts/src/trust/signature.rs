//! Verifies one stored cosign signature with keys or identities. Does no I/O.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use sigstore_verify::types::{Artifact, MediaType, Sha256Hash, SignatureContent};

use super::finding::Finding;
use super::key::PublicKey;
use super::keyless::{Attached, Keyless};
use super::signers::Signers;
use crate::Digest;
use crate::config::SignatureForm;

/// Media type of a bundle: as a layer, as an artifact type, and inside the bundle.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SIMPLE_TYPE: &str = "cosign container image signature";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPES: [&str; 2] =
    ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
/// Predicate of a statement that asserts nothing but the signature.
pub(crate) const SIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// Signature as stored in a registry. Untrusted until it has been checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Signature {
    /// Simple signing: the signed payload, and the signature over it, both in base64.
    Simple {
        /// The payload.
        payload: String,
        /// Signature over the payload's bytes.
        signature: String,
        /// Annotations that cosign attached to it.
        #[serde(default)]
        attached: Attached,
    },
    /// The JSON of a Sigstore bundle.
    Bundle(String),
}

impl Signature {
    /// Returns the form in which it is stored.
    #[must_use]
    pub fn form(&self) -> SignatureForm {
        match self {
            Self::Simple { .. } => SignatureForm::Simple,
            Self::Bundle(_) => SignatureForm::Bundle,
        }
    }

    pub(super) fn check(&self, digest: &Digest, signers: &Signers) -> Finding {
        let checked = match (self, signers) {
            (Self::Simple { payload, signature, attached }, _) => {
                check_simple(payload, signature, attached, digest, signers)
            }
            (Self::Bundle(text), Signers::Keys(keys)) => check_bundle(text, digest, keys),
            (Self::Bundle(text), Signers::Keyless(keyless)) => {
                check_keyless_bundle(text, digest, keyless)
            }
        };
        checked.unwrap_or_else(Finding::Tampered)
    }
}

#[derive(Deserialize)]
struct SimplePayload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: Image,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

fn check_simple(
    payload: &str,
    signature: &str,
    attached: &Attached,
    digest: &Digest,
    by: &Signers,
) -> Result<Finding, String> {
    let payload = decode("its payload", payload)?;
    let signature = decode("its signature", signature)?;
    let signers = match by {
        Signers::Keys(keys) => signers(keys, &payload, &signature),
        Signers::Keyless(keyless) => {
            match keyless.signers_of_simple(&payload, &signature, attached) {
                Ok(signers) => signers,
                Err(finding) => return Ok(finding),
            }
        }
    };
    // Nothing in the payload is read before its signature is valid.
    if signers.is_empty() {
        return Ok(Finding::WrongKey);
    }
    let payload: SimplePayload = serde_json::from_slice(&payload)
        .map_err(|error| format!("its payload cannot be read: {error}"))?;
    if payload.critical.kind != SIMPLE_TYPE {
        return Err(format!(
            "critical.type is {:?}, expected {SIMPLE_TYPE:?}",
            payload.critical.kind
        ));
    }
    Ok(finding(signers, payload.critical.image.digest, digest))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    #[serde(default)]
    verification_material: Material,
    dsse_envelope: Option<Envelope>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    #[serde(default)]
    public_key: Option<KeyHint>,
}

#[derive(Deserialize)]
struct KeyHint {
    #[serde(default)]
    hint: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct Subject {
    digest: HashMap<String, String>,
}

fn check_bundle(text: &str, digest: &Digest, keys: &[PublicKey]) -> Result<Finding, String> {
    let bundle: Bundle = serde_json::from_str(text)
        .map_err(|error| format!("its bundle cannot be read: {error}"))?;
    if bundle.media_type != BUNDLE {
        return Err(format!(
            "its bundle has mediaType {:?}, expected {BUNDLE}",
            bundle.media_type
        ));
    }
    // `cosign sign-blob` writes bundles with a message signature, which is over a file and no
    // image.
    let Some(envelope) = bundle.dsse_envelope else { return Ok(Finding::Unrelated) };
    // DSSE allows several signatures. cosign writes a bundle for each signer, and of several it
    // would be ambiguous which one must be trusted.
    let [signature] = envelope.signatures.as_slice() else {
        return Err(format!(
            "its envelope has {} signatures, expected one",
            envelope.signatures.len()
        ));
    };
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(format!(
            "its envelope has payloadType {:?}, expected {PAYLOAD_TYPE}",
            envelope.payload_type
        ));
    }
    let payload = decode("its payload", &envelope.payload)?;
    let signature = decode("its signature", &signature.sig)?;
    let signers =
        signers(keys, &pre_authentication_encoding(&envelope.payload_type, &payload), &signature);
    let statement = Statement::read(&payload)?;
    // Attestations such as SBOMs are often signed with other keys, so this comes before the keys:
    // they must not be reported as signatures with a wrong key.
    if statement.predicate_type != SIGN_PREDICATE {
        return Ok(Finding::Unrelated);
    }
    if signers.is_empty() {
        // The hint is unsigned; it only distinguishes an altered signature from one by another
        // key.
        let named = bundle
            .verification_material
            .public_key
            .is_some_and(|key| keys.iter().any(|trusted_key| trusted_key.hint == key.hint));
        return if named {
            Err("it names a trusted key, but was not made with that key".to_owned())
        } else {
            Ok(Finding::WrongKey)
        };
    }
    Ok(finding(signers, format!("sha256:{}", statement.signed()?), digest))
}

fn check_keyless_bundle(
    text: &str,
    digest: &Digest,
    keyless: &Keyless,
) -> Result<Finding, String> {
    let bundle = sigstore_verify::types::Bundle::from_json(text)
        .map_err(|error| format!("its bundle cannot be read: {error}"))?;
    // A bundle of version 0.1 may have the log's promise of inclusion in place of the proof.
    if bundle.media_type() != MediaType::Bundle0_3 {
        return Err(format!(
            "its bundle has mediaType {:?}, expected {BUNDLE}",
            bundle.media_type().as_str()
        ));
    }
    let SignatureContent::DsseEnvelope(envelope) = &bundle.content else {
        return Ok(Finding::Unrelated);
    };
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(format!(
            "its envelope has payloadType {:?}, expected {PAYLOAD_TYPE}",
            envelope.payload_type
        ));
    }
    let statement = Statement::read(envelope.payload.as_bytes())?;
    if statement.predicate_type != SIGN_PREDICATE {
        return Ok(Finding::Unrelated);
    }
    let signed = statement.signed()?;
    // Use the digest that the statement claims, so that the signer of another digest is reported
    // too. It is compared with the expected digest last.
    let artifact = Sha256Hash::from_hex(signed)
        .map_err(|error| format!("its subject has no sha256 digest: {error}"))?;
    match keyless.signers(&bundle, Artifact::from(artifact)) {
        Ok(signers) => Ok(finding(signers, format!("sha256:{signed}"), digest)),
        Err(finding) => Ok(finding),
    }
}

impl Statement {
    fn read(payload: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(payload)
            .map_err(|error| format!("its statement cannot be read: {error}"))
    }

    /// Returns the SHA-256 digest of the statement's subject, in hexadecimal.
    fn signed(&self) -> Result<&str, String> {
        if !STATEMENT_TYPES.contains(&self.kind.as_str()) {
            return Err(format!(
                "its statement has _type {:?}, expected {}",
                self.kind, STATEMENT_TYPES[0]
            ));
        }
        // cosign signs one artifact a statement. Of several subjects it would be ambiguous which
        // one the signer meant.
        let [subject] = self.subject.as_slice() else {
            return Err(format!(
                "its statement has {} subjects, expected one",
                self.subject.len()
            ));
        };
        let hex = subject.digest.get("sha256").ok_or("its subject has no sha256 digest")?;
        Ok(hex)
    }
}

/// Encodes type and payload unambiguously (DSSE specification 1.0.2, "PAE"), so that no byte can
/// move from one to the other.
fn pre_authentication_encoding(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut encoded = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    encoded.extend_from_slice(payload);
    encoded
}

fn finding(signers: Vec<usize>, signed: String, digest: &Digest) -> Finding {
    if signed == digest.to_string() {
        Finding::Signed(signers)
    } else {
        Finding::OtherDigest(signed)
    }
}

fn signers(keys: &[PublicKey], message: &[u8], signature: &[u8]) -> Vec<usize> {
    keys.iter()
        .enumerate()
        .filter(|(_, key)| key.signed(message, signature))
        .map(|(index, _)| index)
        .collect()
}

fn decode(what: &str, text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text.trim()).map_err(|error| format!("{what} is not base64: {error}"))
}
