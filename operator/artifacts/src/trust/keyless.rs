//! Keyless signatures: an authority issues a certificate for an identity, valid for minutes, and a
//! log proves when it was used. [`root`] reads the file with the trusted authorities and logs;
//! verification does no I/O.

mod root;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sigstore_verify::types::{Artifact, Bundle};
use sigstore_verify::{Error, VerificationPolicy, VerificationResult, Verifier};

use super::error::TrustError;
use super::finding::Finding;
use super::identity::SignerRule;
use super::provider;
use crate::config::KeylessTrust;
use root::Root;

/// Maximum number of log entries, and of timestamps. A signer makes one of each; verifying more
/// takes time, and anybody with write access to the registry could attach them.
const PROOFS: usize = 8;
/// Maximum number of lines of a checkpoint, which the log and its witnesses sign. About ten are
/// usual.
const CHECKPOINT_LINES: usize = 64;
/// Bundle version that can hold the annotations of a simple signature: the log's promise of
/// inclusion instead of its proof.
const WITH_PROMISE: &str = "application/vnd.dev.sigstore.bundle+json;version=0.1";

/// Proof of a keyless simple signature, as its annotations hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attached {
    /// Certificate of the signer, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Certificates of the authority that issued that certificate, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<String>,
    /// Entry of a transparency log and its promise, in JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// Response of a timestamp authority, in JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
}

/// Identities that may sign, and the verifier of their signatures.
pub(super) struct Keyless {
    root: Root,
    verifier: Verifier,
    pub identities: Vec<SignerRule>,
}

impl Keyless {
    pub fn read(config: &KeylessTrust) -> Result<Self, TrustError> {
        let file = &config.trusted_root_file;
        let failed = |message: String| TrustError::TrustedRoot { file: file.clone(), message };
        // Reading the root verifies its keys, which already needs the cryptography.
        provider::install();
        let root = Root::read(file).map_err(failed)?;
        let verifier = Verifier::new(&root.usable).map_err(|error| failed(error.to_string()))?;
        // The configuration was validated before. An identity that is invalid all the same is an
        // error here, so that nobody is trusted.
        let identities =
            config.identities.iter().map(SignerRule::new).collect::<Result<Vec<_>, _>>();
        let identities = identities
            .map_err(|(field, message)| failed(format!("identities: {field}: {message}")))?;
        Ok(Self { root, verifier, identities })
    }

    /// Returns the indexes of the identities that signed this digest, as the bundle proves.
    pub fn signers(&self, bundle: &Bundle, signed: Artifact<'_>) -> Result<Vec<usize>, Finding> {
        if bundle.signing_certificate().is_none() {
            return Err(Finding::Unproven(
                "it was made with a key and has no certificate".to_owned(),
            ));
        }
        // The bundle is untrusted until it is verified, so its size is bounded first.
        if is_excessive(bundle) {
            return Err(Finding::Tampered(format!(
                "it has more than {PROOFS} proofs, or a checkpoint with more than \
                 {CHECKPOINT_LINES} lines"
            )));
        }
        // Verify everything except the identity, which is compared with each configured one below.
        let proven = self
            .verifier
            .verify(signed, bundle, &VerificationPolicy::any_identity())
            .map_err(|error| self.finding(error, bundle))?;
        // A policy of the crate can skip each of these steps, so the results are checked and not
        // assumed.
        if !(proven.certificate_verified() && proven.sct_verified() && proven.tlog_verified()) {
            return Err(Finding::Unproven(
                "the verifier did not check all of the certificate, its SCT and the log entry"
                    .to_owned(),
            ));
        }
        self.identities_of(&proven)
    }

    /// The same for a simple signature.
    pub fn signers_of_simple(
        &self,
        payload: &[u8],
        signature: &[u8],
        attached: &Attached,
    ) -> Result<Vec<usize>, Finding> {
        let bundle = bundle_of(signature, attached)?;
        provider::verifying(payload, || self.signers(&bundle, Artifact::from(payload)))
    }

    fn identities_of(&self, proven: &VerificationResult) -> Result<Vec<usize>, Finding> {
        let (Some(subject), Some(issuer)) = (proven.identity(), proven.issuer()) else {
            return Err(Finding::Unproven(
                "its certificate has no issuer, or no subject such as an e-mail address or URI"
                    .to_owned(),
            ));
        };
        let matching = self
            .identities
            .iter()
            .enumerate()
            .filter(|(_, identity)| identity.matches(issuer, subject.as_str()));
        let matching: Vec<usize> = matching.map(|(at, _)| at).collect();
        if matching.is_empty() {
            Err(Finding::OtherIdentity(format!("{subject} of {issuer}")))
        } else {
            Ok(matching)
        }
    }

    /// Converts an error of the verifier to a finding: the signature was altered, or it lacks a
    /// proof, or the trusted root lacks the key that the proof needs.
    fn finding(&self, error: Error, bundle: &Bundle) -> Finding {
        let gaps =
            self.root.gaps(&error, bundle).map_or_else(String::new, |gaps| format!("; {gaps}"));
        match error {
            Error::SignatureInvalid(_) | Error::InvalidBundle(_) | Error::Types(_) => {
                Finding::Tampered(error.to_string())
            }
            Error::Bundle(what) => Finding::Unproven(format!("{what}{gaps}")),
            _ => Finding::Unproven(format!("{error}{gaps}")),
        }
    }
}

/// Returns true if the bundle has more to verify than any signer attaches.
fn is_excessive(bundle: &Bundle) -> bool {
    let material = &bundle.verification_material;
    let too_long = |text: &str| text.lines().count() > CHECKPOINT_LINES;
    material.tlog_entries.len() > PROOFS
        || material.timestamp_verification_data.rfc3161_timestamps.len() > PROOFS
        || material
            .tlog_entries
            .iter()
            .filter_map(|entry| entry.inclusion_proof.as_ref())
            .any(|proof| too_long(proof.checkpoint.envelope()))
}

/// Content of the annotation `dev.sigstore.cosign/bundle`: a log entry, and the log's promise to
/// include it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Promised {
    signed_entry_timestamp: String,
    payload: Entry,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    body: String,
    integrated_time: i64,
    log_index: i64,
    #[serde(rename = "logID")]
    log: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EntryKind {
    kind: String,
    api_version: String,
}

/// Content of the annotation `dev.sigstore.cosign/rfc3161timestamp`.
#[derive(Deserialize)]
struct Timestamp {
    #[serde(rename = "SignedRFC3161Timestamp")]
    token: String,
}

/// Converts the annotations of a simple signature to a bundle.
fn bundle_of(signature: &[u8], attached: &Attached) -> Result<Bundle, Finding> {
    let missing = |what: &str| Finding::Unproven(format!("it has no {what} in its annotations"));
    let certificate = attached.certificate.as_deref().ok_or_else(|| missing("certificate"))?;
    let promised = attached
        .bundle
        .as_deref()
        .ok_or_else(|| missing("inclusion promise of a transparency log"))?;
    let build_bundle = || -> Result<Bundle, String> {
        let mut certificates = pem("certificate", certificate)?;
        if certificates.len() != 1 {
            return Err(format!(
                "it has {} certificates, expected one, with its chain in the chain annotation",
                certificates.len()
            ));
        }
        certificates.extend(pem("chain", attached.chain.as_deref().unwrap_or_default())?);
        let promised: Promised = serde_json::from_str(promised)
            .map_err(|error| format!("its log entry cannot be read: {error}"))?;
        let body = STANDARD
            .decode(&promised.payload.body)
            .map_err(|error| format!("its log entry is not base64: {error}"))?;
        // A bundle requires the kind of the entry, which the annotation does not repeat; the
        // entry's body, which the log signed, has it.
        let kind: EntryKind = serde_json::from_slice(&body)
            .map_err(|error| format!("its log entry cannot be read: {error}"))?;
        let mut material = json!({
            "x509CertificateChain": {"certificates": certificates},
            "tlogEntries": [{
                "logIndex": promised.payload.log_index,
                // The annotation has the log's identity in hexadecimal, the bundle in base64.
                "logId": {"keyId": STANDARD.encode(hex(&promised.payload.log)?)},
                "kindVersion": {"kind": kind.kind, "version": kind.api_version},
                "integratedTime": promised.payload.integrated_time,
                "inclusionPromise": {"signedEntryTimestamp": promised.signed_entry_timestamp},
                "canonicalizedBody": promised.payload.body,
            }],
        });
        if let Some(timestamp) = &attached.timestamp {
            let timestamp: Timestamp = serde_json::from_str(timestamp)
                .map_err(|error| format!("its timestamp cannot be read: {error}"))?;
            material["timestampVerificationData"] =
                json!({"rfc3161Timestamps": [{"signedTimestamp": timestamp.token}]});
        }
        let signature = json!({"signature": STANDARD.encode(signature)});
        let bundle = json!({
            "mediaType": WITH_PROMISE, "verificationMaterial": material,
            "messageSignature": signature,
        });
        serde_json::from_value(bundle)
            .map_err(|error| format!("its annotations cannot be read: {error}"))
    };
    build_bundle().map_err(Finding::Tampered)
}

fn pem(what: &str, text: &str) -> Result<Vec<Value>, String> {
    CertificateDer::pem_slice_iter(text.as_bytes())
        .map(|certificate| match certificate {
            Ok(certificate) => Ok(json!({"rawBytes": STANDARD.encode(certificate)})),
            Err(error) => Err(format!("its {what} is not in PEM: {error}")),
        })
        .collect()
}

/// Decodes the identity of a log, which annotations hold in hexadecimal and bundles in base64.
fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> = digits
        .0
        .iter()
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    bytes
        .filter(|_| digits.1.is_empty())
        .ok_or_else(|| format!("its logID {text:?} is not hexadecimal"))
}
