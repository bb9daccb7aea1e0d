//! Services that keyless signatures need, created here: a certificate authority for identities,
//! its certificate transparency log, and the transparency log of signatures. Signs like cosign, in
//! both formats.

mod timestamps;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
    SerialNumber, SigningKey, date_time_ymd,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use spki::der::asn1::{AnyRef, OctetStringRef, Utf8StringRef};
use spki::der::{Decode, Encode, Reader};

use crate::signatures::{BUNDLE, PAYLOAD_TYPE, simple_payload, statement};
pub use timestamps::Timestamps;

/// Extension with the list of signed certificate timestamps: RFC 6962, section 3.3.
const SCT_LIST: [u64; 10] = [1, 3, 6, 1, 4, 1, 11129, 2, 4, 2];
/// Fulcio's extensions with the issuer of the identity: the current one, and the one that older
/// verifiers read.
const ISSUER: [u64; 9] = [1, 3, 6, 1, 4, 1, 57264, 1, 8];
const OLDER_ISSUER: [u64; 9] = [1, 3, 6, 1, 4, 1, 57264, 1, 1];
const NAME: &str = "rekor.testbed";

/// All services that take part in a keyless signature. Tests replace one to simulate an untrusted
/// service.
pub struct Sigstore {
    /// Certificate authority for identities.
    pub authority: Authority,
    /// Key of the log of certificates.
    pub certificates: KeyPair,
    /// Key of the log of signatures.
    pub log: KeyPair,
    /// Key that signs the log's checkpoints: the log's own key, unless a test replaces it.
    pub checkpoints: KeyPair,
    /// Timestamp authority, for signatures whose log entry has no time.
    pub timestamps: Timestamps,
}

/// A certificate authority for identities.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
}

/// Identity of a signer, and the times of the signature. Times are in seconds since 1970.
#[derive(Clone, Debug)]
pub struct Signing {
    /// An e-mail address or a URI.
    pub subject: String,
    /// URL of the identity provider that vouches for the subject.
    pub issuer: String,
    /// Period for which the certificate is valid.
    pub certified: Range<i64>,
    /// Time at which the log accepted the signature.
    pub logged: i64,
}

/// A key for one signature, and the certificate for it.
struct Certified {
    key: KeyPair,
    der: Vec<u8>,
    pem: String,
}

impl Signing {
    /// Returns a signer who signs now, with a certificate valid for ten minutes.
    #[must_use]
    pub fn now(subject: &str, issuer: &str) -> Self {
        let now = jiff::Timestamp::now().as_second();
        Self {
            subject: subject.to_owned(),
            issuer: issuer.to_owned(),
            certified: now - 60..now + 540,
            logged: now - 1,
        }
    }
}

impl Authority {
    /// Creates an authority that is valid in this period.
    ///
    /// # Errors
    /// The authority cannot be created.
    pub fn new(valid: Range<i64>) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, "fulcio.testbed");
        (parameters.not_before, parameters.not_after) = (
            date_time_ymd(1970, 1, 1) + after(valid.start)?,
            date_time_ymd(1970, 1, 1) + after(valid.end)?,
        );
        let certificate = parameters.self_signed(&key)?.der().to_vec();
        Ok(Self { issuer: Issuer::new(parameters, key), certificate })
    }

    /// Certifies an identity for a new key, with a timestamp signed by the log of certificates.
    fn certify(&self, signing: &Signing, log: &KeyPair) -> anyhow::Result<Certified> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.serial_number = Some(SerialNumber::from(0x0f1a_5b00_u64));
        parameters.distinguished_name = DistinguishedName::new();
        let subject = signing.subject.as_str().try_into()?;
        parameters.subject_alt_names = vec![if subject_is_uri(signing) {
            SanType::URI(subject)
        } else {
            SanType::Rfc822Name(subject)
        }];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        parameters.use_authority_key_identifier_extension = true;
        (parameters.not_before, parameters.not_after) = (
            date_time_ymd(1970, 1, 1) + after(signing.certified.start)?,
            date_time_ymd(1970, 1, 1) + after(signing.certified.end)?,
        );
        let issuer = Utf8StringRef::new(&signing.issuer)?.to_der()?;
        let older = signing.issuer.as_bytes().to_vec();
        parameters.custom_extensions = vec![
            CustomExtension::from_oid_content(&OLDER_ISSUER, older),
            CustomExtension::from_oid_content(&ISSUER, issuer),
        ];
        // The log signs the certificate without the timestamp itself.
        let without = parameters.clone().signed_by(&key, &self.issuer)?;
        let timestamps =
            self.signed_timestamps(to_be_signed(without.der())?, signing.certified.start, log)?;
        parameters.custom_extensions.push(CustomExtension::from_oid_content(
            &SCT_LIST,
            OctetStringRef::new(&timestamps)?.to_der()?,
        ));
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        Ok(Certified { key, der: certificate.der().to_vec(), pem: certificate.pem() })
    }

    /// Returns a list with one signed certificate timestamp: RFC 6962, section 3.2.
    fn signed_timestamps(
        &self,
        to_be_signed: &[u8],
        at: i64,
        log: &KeyPair,
    ) -> anyhow::Result<Vec<u8>> {
        let at = u64::try_from(at)?.saturating_mul(1000).to_be_bytes();
        let issuer = Sha256::digest(self.issuer.key().subject_public_key_info());
        let length = u32::try_from(to_be_signed.len())?.to_be_bytes();
        // Version 1, signature type certificate_timestamp, the time, entry type precert_entry; at
        // the end, no extensions.
        let signed =
            [&[0, 0], &at[..], &[0, 1], &issuer[..], &length[1..], to_be_signed, &[0, 0]].concat();
        let signature = log.sign(&signed)?;
        // SHA-256 and ECDSA.
        let kind = [4, 3];
        let timestamp =
            [&[0][..], &key_id(log), &at, &[0, 0], &kind, &length_of(&signature)?, &signature]
                .concat();
        let one = [&length_of(&timestamp)?[..], &timestamp].concat();
        Ok([&length_of(&one)?[..], &one].concat())
    }
}

impl Certified {
    /// Returns a statement in its envelope, the statement's text, and the signature over it.
    fn envelope(
        &self,
        digests: &[&str],
        predicate: &str,
    ) -> anyhow::Result<(Value, String, Vec<u8>)> {
        let payload = statement(digests, predicate).to_string();
        let signature = self.key.sign(encoded(&payload).as_bytes())?;
        let signatures = json!([{"sig": STANDARD.encode(&signature), "keyid": ""}]);
        let envelope = json!({
            "payload": STANDARD.encode(&payload), "payloadType": PAYLOAD_TYPE,
            "signatures": signatures,
        });
        Ok((envelope, payload, signature))
    }

    fn bundle(&self, envelope: &Value, entry: &Value) -> Value {
        let material = json!({
            "certificate": {"rawBytes": STANDARD.encode(&self.der)}, "tlogEntries": [entry],
        });
        json!({"mediaType": BUNDLE, "dsseEnvelope": envelope, "verificationMaterial": material})
    }
}

impl Sigstore {
    /// Creates all services with new keys.
    ///
    /// # Errors
    /// A key cannot be created.
    pub fn new() -> anyhow::Result<Self> {
        let now = jiff::Timestamp::now().as_second();
        let log = KeyPair::generate()?;
        let checkpoints = KeyPair::from_pem(&log.serialize_pem())?;
        let authority = Authority::new(now - 86_400 * 365..now + 86_400)?;
        Ok(Self {
            authority,
            certificates: KeyPair::generate()?,
            log,
            checkpoints,
            timestamps: Timestamps::new(now + 86_400)?,
        })
    }

    /// Returns the trusted root for verifiers.
    #[must_use]
    pub fn trusted_root(&self) -> Value {
        let log = |name: &str, key: &KeyPair| {
            json!([{
                "baseUrl": format!("https://{name}"), "hashAlgorithm": "SHA2_256",
                "logId": {"keyId": STANDARD.encode(key_id(key))},
                "publicKey": {
                    "rawBytes": STANDARD.encode(key.subject_public_key_info()),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": {"start": "2020-01-01T00:00:00Z"},
                },
            }])
        };
        let certificate = |der: &Vec<u8>| json!({"rawBytes": STANDARD.encode(der)});
        let timestamp_chain = self.timestamps.chain.each_ref().map(certificate);
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": log(NAME, &self.log),
            "ctlogs": log("ct.testbed", &self.certificates),
            "certificateAuthorities": [{
                "subject": {"organization": "testbed", "commonName": "fulcio.testbed"},
                "uri": "https://fulcio.testbed",
                "certChain": {
                    "certificates": [{"rawBytes": STANDARD.encode(&self.authority.certificate)}],
                },
                "validFor": {"start": "2020-01-01T00:00:00Z"},
            }],
            "timestampAuthorities": [{
                "subject": {"organization": "testbed", "commonName": "time.testbed"},
                "uri": "https://time.testbed",
                "certChain": {"certificates": timestamp_chain},
                "validFor": {"start": "2020-01-01T00:00:00Z"},
            }],
        })
    }

    /// Returns a bundle with a signature over these artifacts and a log entry with the time at
    /// which the log accepted it. Digests are `sha256:…`.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn bundle(
        &self,
        signing: &Signing,
        digests: &[&str],
        predicate: &str,
    ) -> anyhow::Result<Value> {
        let certified = self.authority.certify(signing, &self.certificates)?;
        let (envelope, payload, signature) = certified.envelope(digests, predicate)?;
        let body = json!({"apiVersion": "0.0.1", "kind": "dsse", "spec": {
            "envelopeHash": {
                "algorithm": "sha256", "value": hex(&Sha256::digest(envelope.to_string())),
            },
            "payloadHash": {"algorithm": "sha256", "value": hex(&Sha256::digest(&payload))},
            "signatures": [{
                "signature": STANDARD.encode(signature),
                "verifier": STANDARD.encode(&certified.pem),
            }],
        }});
        let mut entry = self.entry(&body, "7")?;
        entry["integratedTime"] = json!(signing.logged.to_string());
        entry["inclusionPromise"] =
            json!({"signedEntryTimestamp": self.promise(&body.to_string(), signing.logged)?});
        Ok(certified.bundle(&envelope, &entry))
    }

    /// Returns a bundle with an entry of a version 2 log, which has no time: a timestamp authority
    /// states the time.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn stamped_bundle(
        &self,
        signing: &Signing,
        digests: &[&str],
        predicate: &str,
    ) -> anyhow::Result<Value> {
        let certified = self.authority.certify(signing, &self.certificates)?;
        let (envelope, payload, signature) = certified.envelope(digests, predicate)?;
        let record = json!({
            "data": {
                "algorithm": "SHA2_256",
                "digest": STANDARD.encode(Sha256::digest(encoded(&payload))),
            },
            "signature": {"content": STANDARD.encode(&signature), "verifier": {
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "x509Certificate": {"rawBytes": STANDARD.encode(&certified.der)},
            }},
        });
        let body = json!({
            "apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": record},
        });
        let mut bundle = certified.bundle(&envelope, &self.entry(&body, "1")?);
        let timestamp =
            STANDARD.encode(self.timestamps.timestamp_token(&signature, signing.logged)?);
        bundle["verificationMaterial"]["timestampVerificationData"] =
            json!({"rfc3161Timestamps": [{"signedTimestamp": timestamp}]});
        Ok(bundle)
    }

    /// Returns a signature in the older format: the signed payload, and the annotations that name
    /// the signer.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn simple(
        &self,
        signing: &Signing,
        digest: &str,
    ) -> anyhow::Result<(String, BTreeMap<String, String>)> {
        let certified = self.authority.certify(signing, &self.certificates)?;
        let payload = simple_payload("testbed", digest).to_string();
        let signature = STANDARD.encode(certified.key.sign(payload.as_bytes())?);
        let body = json!({"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": hex(&Sha256::digest(&payload))}},
            "signature": {
                "content": signature, "publicKey": {"content": STANDARD.encode(&certified.pem)},
            },
        }});
        let body = body.to_string();
        let bundle = json!({
            "SignedEntryTimestamp": self.promise(&body, signing.logged)?,
            "Payload": {
                "body": STANDARD.encode(&body), "integratedTime": signing.logged, "logIndex": 7,
                "logID": hex(&key_id(&self.log)),
            },
        });
        let annotations = BTreeMap::from([
            ("dev.cosignproject.cosign/signature".to_owned(), signature),
            ("dev.sigstore.cosign/certificate".to_owned(), certified.pem),
            ("dev.sigstore.cosign/chain".to_owned(), pem(&self.authority.certificate)),
            ("dev.sigstore.cosign/bundle".to_owned(), bundle.to_string()),
        ]);
        Ok((payload, annotations))
    }

    /// Returns an entry of the log, with its inclusion proof.
    fn entry(&self, body: &Value, index: &str) -> anyhow::Result<Value> {
        let (kind, version, body) = (&body["kind"], &body["apiVersion"], body.to_string());
        Ok(json!({
            "logIndex": index, "logId": {"keyId": STANDARD.encode(key_id(&self.log))},
            "kindVersion": {"kind": kind, "version": version},
            "canonicalizedBody": STANDARD.encode(&body), "inclusionProof": self.proof(&body)?,
        }))
    }

    /// Returns the log's inclusion promise for an entry, which also states the time of inclusion.
    fn promise(&self, body: &str, logged: i64) -> anyhow::Result<String> {
        let entry = format!(
            r#"{{"body":"{}","integratedTime":{logged},"logID":"{}","logIndex":7}}"#,
            STANDARD.encode(body),
            hex(&key_id(&self.log))
        );
        Ok(STANDARD.encode(self.log.sign(entry.as_bytes())?))
    }

    /// Returns the inclusion proof of an entry: it is the second of two, and the log signs the
    /// root of the tree above both. RFC 6962, section 2.1.
    fn proof(&self, body: &str) -> anyhow::Result<Value> {
        let leaf = |body: &str| Sha256::digest([&[0], body.as_bytes()].concat());
        let first = leaf("the first entry");
        let root = STANDARD.encode(Sha256::digest([&[1], &first[..], &leaf(body)].concat()));
        let tree = format!("{NAME} - 1\n2\n{root}\n");
        let signature =
            [&key_id(&self.checkpoints)[..4], &self.checkpoints.sign(tree.as_bytes())?].concat();
        let checkpoint = format!("{tree}\n\u{2014} {NAME} {}\n", STANDARD.encode(signature));
        Ok(json!({
            "logIndex": "1", "treeSize": "2", "rootHash": root, "hashes": [STANDARD.encode(first)],
            "checkpoint": {"envelope": checkpoint},
        }))
    }
}

/// Encodes a payload in the form that is signed (DSSE pre-authentication encoding).
fn encoded(payload: &str) -> String {
    format!("DSSEv1 {} {PAYLOAD_TYPE} {} {payload}", PAYLOAD_TYPE.len(), payload.len())
}

fn subject_is_uri(signing: &Signing) -> bool {
    signing.subject.contains("://")
}

/// Converts seconds since 1970 to a duration.
fn after(seconds: i64) -> anyhow::Result<Duration> {
    Ok(Duration::from_secs(u64::try_from(seconds)?))
}

/// Returns the part of a certificate that its authority signs (TBSCertificate).
fn to_be_signed(certificate: &[u8]) -> anyhow::Result<&[u8]> {
    Ok(AnyRef::from_der(certificate)?.sequence(|parts| {
        let first = parts.tlv_bytes()?;
        parts.tlv_bytes()?;
        parts.tlv_bytes()?;
        Ok::<_, spki::der::Error>(first)
    })?)
}

/// Returns the id of a log, the SHA-256 of its public key.
fn key_id(key: &KeyPair) -> [u8; 32] {
    Sha256::digest(key.subject_public_key_info()).into()
}

fn length_of(bytes: &[u8]) -> anyhow::Result<[u8; 2]> {
    Ok(u16::try_from(bytes.len())?.to_be_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
