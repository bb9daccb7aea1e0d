//! Trusted root: a file with the authorities and logs that prove who signed. An entry that cannot
//! be used is skipped, so that one key of a new kind does not invalidate the others. A missing
//! list or a skipped entry proves nothing: the verifier rejects signatures that need it, and the
//! error names the gap.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sigstore_verify::crypto::{
    SigningScheme, VerificationKey, parse_certificate_info, validate_raw_public_key,
};
use sigstore_verify::trust_root::{
    CertificateAuthority, CertificateTransparencyLog, TimeRange, TimestampAuthority,
    TransparencyLog, TrustedRoot,
};
use sigstore_verify::types::{Bundle, DerCertificate, LogKeyId};
use sigstore_verify::{CertificateError, Error, TimestampError, TransparencyLogError, Verifier};

use super::super::provider;

/// Media types in sigstore's protobuf-specs, message TrustedRoot.
const MEDIA_TYPES: [&str; 2] = [
    "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
    "application/vnd.dev.sigstore.trustedroot.v0.2+json",
];
/// Maximum size of the file; the public trusted root has 7 KiB.
const MAX_BYTES: u64 = 1 << 20;
/// One scheme for each algorithm of the keys that sign certificate timestamps: RFC 6962, section
/// 2.1.4, and P-384.
const SCT_SCHEMES: &[SigningScheme] = &[
    SigningScheme::EcdsaP256Sha256,
    SigningScheme::EcdsaP384Sha384,
    SigningScheme::RsaPkcs1Sha256,
];
/// Limits of what a message quotes: a condition shows it, and a file full of broken entries would
/// fill the page.
const NAMED_ENTRIES: usize = 3;
const REASON_CHARACTERS: usize = 200;

/// Authorities and logs from a file.
pub(super) struct Root {
    /// Entries that can be used, each limited to the time in which its certificates are valid.
    pub usable: TrustedRoot,
    file: PathBuf,
    passed_over: Vec<PassedOver>,
}

/// Entry that was skipped because it cannot be used.
struct PassedOver {
    list: List,
    /// Its place in the file, and its URL.
    name: String,
    /// Identifier of a log; None if it cannot be read, and for authorities, which have none.
    log: Option<[u8; 32]>,
    reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    CertificateAuthorities,
    Tlogs,
    Ctlogs,
    TimestampAuthorities,
}

/// The file's JSON. An absent list, `null` and `[]` are the same in protobuf's JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    media_type: String,
    certificate_authorities: Option<Vec<Entry<CertificateAuthority>>>,
    tlogs: Option<Vec<Entry<TransparencyLog>>>,
    ctlogs: Option<Vec<Entry<CertificateTransparencyLog>>>,
    timestamp_authorities: Option<Vec<Entry<TimestampAuthority>>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry<T> {
    Read(T),
    Unreadable(Value),
}

/// Entry that was checked on its own: a root with only this entry, or the reason why it cannot be
/// used.
struct Candidate {
    name: String,
    log: Option<[u8; 32]>,
    alone: Result<TrustedRoot, String>,
}

impl Root {
    pub fn read(file: &Path) -> Result<Self, String> {
        let content = Content::read(file)?;
        let empty = TrustedRoot::from_json(&json!({"mediaType": content.media_type}).to_string())
            .map_err(|error| format!("not a trusted root: {error}"))?;
        let mut root =
            Self { usable: empty.clone(), file: file.to_owned(), passed_over: Vec::new() };
        root.take(List::CertificateAuthorities, content.certificate_authorities, &empty, |root| {
            &mut root.certificate_authorities
        });
        root.take(List::Tlogs, content.tlogs, &empty, |root| &mut root.tlogs);
        root.take(List::Ctlogs, content.ctlogs, &empty, |root| &mut root.ctlogs);
        root.take(List::TimestampAuthorities, content.timestamp_authorities, &empty, |root| {
            &mut root.timestamp_authorities
        });
        // Every keyless signature needs an authority, so this error is reported when the file is
        // read and not with each signature.
        if root.usable.certificate_authorities.is_empty() {
            let list = List::CertificateAuthorities;
            return Err(match root.passed_over(|entry| entry.list == list) {
                Some(entries) => format!("none of its {list} can be used: {entries}"),
                None => format!("its {list} are empty, so it cannot prove anything"),
            });
        }
        Ok(root)
    }

    /// Adds the usable entries of one list.
    fn take<T: Serialize + DeserializeOwned>(
        &mut self,
        list: List,
        entries: Option<Vec<Entry<T>>>,
        empty: &TrustedRoot,
        of: fn(&mut TrustedRoot) -> &mut Vec<T>,
    ) {
        let entries = entries.unwrap_or_default().into_iter().enumerate();
        let candidates: Vec<Candidate> =
            entries.map(|(at, entry)| entry.alone(list, at, empty.clone(), of)).collect();
        let mut usable: BTreeMap<[u8; 32], usize> = BTreeMap::new();
        for log in candidates.iter().filter(|one| one.alone.is_ok()).filter_map(|one| one.log) {
            *usable.entry(log).or_default() += 1;
        }
        for Candidate { name, log, alone } in candidates {
            let twice = log.is_some_and(|log| usable.get(&log) > Some(&1));
            let reason = match alone {
                // The order in the file must not decide which of two keys belongs to a log.
                Ok(_) if twice => "another entry has the same logId".to_owned(),
                Ok(mut alone) => {
                    of(&mut self.usable).append(of(&mut alone));
                    continue;
                }
                Err(reason) => reason.chars().take(REASON_CHARACTERS).collect(),
            };
            self.passed_over.push(PassedOver { list, name, log, reason });
        }
    }

    /// Returns the entries that this root lacks for a signature that was rejected with this error;
    /// None if the root is not the cause.
    pub fn gaps(&self, error: &Error, bundle: &Bundle) -> Option<String> {
        let needed = needed(error)?;
        let gaps: Vec<String> = List::ALL
            .into_iter()
            // Name all gaps at once, so that the user does not find them one after the other.
            .filter(|list| *list == needed || (list.is_required() && self.is_empty(*list)))
            .filter_map(|list| self.gap(list, bundle))
            .collect();
        (!gaps.is_empty()).then(|| gaps.join("; "))
    }

    fn gap(&self, list: List, bundle: &Bundle) -> Option<String> {
        let file = self.file.display();
        let none = self.is_empty(list);
        let concerned =
            |entry: &&PassedOver| entry.list == list && (none || entry.is_named_by(bundle));
        match self.passed_over(concerned) {
            Some(entries) => Some(format!(
                "the trusted root {file} has entries that cannot be used: {entries}; correct the \
                 file"
            )),
            None if none => Some(format!("the trusted root {file} {}", list.lack())),
            None => None,
        }
    }

    fn is_empty(&self, list: List) -> bool {
        match list {
            List::CertificateAuthorities => self.usable.certificate_authorities.is_empty(),
            List::Tlogs => self.usable.tlogs.is_empty(),
            List::Ctlogs => self.usable.ctlogs.is_empty(),
            List::TimestampAuthorities => self.usable.timestamp_authorities.is_empty(),
        }
    }

    /// Names the first of the matching skipped entries; None if there are none.
    fn passed_over(&self, which: impl Fn(&&PassedOver) -> bool) -> Option<String> {
        let entries: Vec<String> =
            self.passed_over.iter().filter(which).map(ToString::to_string).collect();
        let named = entries.get(..NAMED_ENTRIES).unwrap_or(&entries);
        let more = match entries.len() - named.len() {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        (!entries.is_empty()).then(|| named.join(", ") + &more)
    }
}

impl<T: Serialize + DeserializeOwned> Entry<T> {
    fn alone(
        self,
        list: List,
        at: usize,
        mut empty: TrustedRoot,
        of: fn(&mut TrustedRoot) -> &mut Vec<T>,
    ) -> Candidate {
        let (fields, alone) = match self {
            Self::Read(entry) => {
                let fields = serde_json::to_value(&entry).unwrap_or_default();
                of(&mut empty).push(entry);
                (fields, checked(empty))
            }
            Self::Unreadable(fields) => {
                let reason = match serde_json::from_value::<T>(fields.clone()) {
                    Err(error) => error.to_string(),
                    // A JSON value holds each field once, and keeps the last one.
                    Ok(_) => "it has a duplicate field".to_owned(),
                };
                (fields, Err(reason))
            }
        };
        let address = fields.get("baseUrl").or_else(|| fields.get("uri")).and_then(Value::as_str);
        let address = address.map_or_else(String::new, |address| {
            format!(" ({})", address.chars().take(REASON_CHARACTERS).collect::<String>())
        });
        let log = fields.pointer("/logId/keyId").cloned();
        let log = log.and_then(|log| serde_json::from_value::<LogKeyId>(log).ok());
        let log = log.and_then(|log| log.as_bytes().try_into().ok());
        Candidate { name: format!("{list}[{at}]{address}"), log, alone }
    }
}

impl Content {
    fn read(file: &Path) -> Result<Self, String> {
        let mut text = String::new();
        let read = std::fs::File::open(file)
            // One byte more than the limit distinguishes a file of exactly that size from a larger
            // one.
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
        read.map_err(|error| error.to_string())?;
        if text.len() as u64 > MAX_BYTES {
            return Err(format!("it is larger than {MAX_BYTES} bytes"));
        }
        let content: Self =
            serde_json::from_str(&text).map_err(|error| format!("not a trusted root: {error}"))?;
        if !MEDIA_TYPES.contains(&content.media_type.as_str()) {
            return Err(format!(
                "not a trusted root: it has mediaType {:?}, expected {}",
                content.media_type, MEDIA_TYPES[0]
            ));
        }
        Ok(content)
    }
}

impl PassedOver {
    /// Returns true if a bundle needs this entry, as far as the bundle tells.
    fn is_named_by(&self, bundle: &Bundle) -> bool {
        // If the identifier cannot be read, the entry may be the one that is needed.
        let Some(log) = &self.log else { return true };
        match self.list {
            List::Tlogs => {
                let mut entries = bundle.verification_material.tlog_entries.iter();
                entries.any(|entry| entry.log_id.key_id.as_bytes() == log)
            }
            // RFC 6962, section 3.2: a certificate's timestamp has the 32 bytes as they are.
            List::Ctlogs => bundle.signing_certificate().is_some_and(|certificate| {
                certificate.as_bytes().windows(log.len()).any(|bytes| bytes == log)
            }),
            List::CertificateAuthorities | List::TimestampAuthorities => true,
        }
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.name, self.reason)
    }
}

impl List {
    const ALL: [Self; 4] =
        [Self::CertificateAuthorities, Self::Tlogs, Self::Ctlogs, Self::TimestampAuthorities];

    /// Returns true if every signature needs an entry of this list.
    fn is_required(self) -> bool {
        self != Self::TimestampAuthorities
    }

    /// Returns the consequence of an empty list, and the remedy.
    fn lack(self) -> &'static str {
        match self {
            Self::CertificateAuthorities => {
                "has no certificateAuthorities, which certify who signs; add them \
                 (cosign trusted-root create --fulcio)"
            }
            Self::Tlogs => {
                "has no tlogs, and a signature is valid only with an entry in a transparency log, \
                 even if it has a timestamp; sign with a log and add that log (cosign \
                 trusted-root create --rekor)"
            }
            Self::Ctlogs => {
                "has no ctlogs, and a certificate is valid only with a timestamp (SCT) of a \
                 certificate transparency log; add the log of its authority (cosign trusted-root \
                 create --ctfe)"
            }
            Self::TimestampAuthorities => {
                "has no timestampAuthorities, and each timestamp must be verified; add the \
                 authority of this one (cosign trusted-root create --tsa)"
            }
        }
    }
}

impl fmt::Display for List {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::CertificateAuthorities => "certificateAuthorities",
            Self::Tlogs => "tlogs",
            Self::Ctlogs => "ctlogs",
            Self::TimestampAuthorities => "timestampAuthorities",
        })
    }
}

/// Returns the list whose entries could have provided the missing proof.
fn needed(error: &Error) -> Option<List> {
    match error {
        Error::TransparencyLog(
            TransparencyLogError::UnknownLog { .. }
            | TransparencyLogError::Checkpoint(_)
            | TransparencyLogError::InclusionPromise(_),
        ) => Some(List::Tlogs),
        // Signing without a log produces a bundle without the log's proof.
        Error::Bundle(_) => Some(List::Tlogs),
        // The verifier returns this error if no log has a key of the timestamp's algorithm.
        Error::Certificate(CertificateError::Sct(_)) | Error::InvalidTrustRoot(_) => {
            Some(List::Ctlogs)
        }
        Error::Certificate(
            CertificateError::ChainInvalid(_) | CertificateError::NoValidAuthority { .. },
        ) => Some(List::CertificateAuthorities),
        Error::Timestamp(
            TimestampError::Invalid(_) | TimestampError::OutsideAuthorityValidity { .. },
        ) => Some(List::TimestampAuthorities),
        _ => None,
    }
}

/// Checks a root with only one entry as the verifier does, which would reject all other entries
/// with it.
fn checked(mut alone: TrustedRoot) -> Result<TrustedRoot, String> {
    for authority in &mut alone.certificate_authorities {
        let chain = authority.cert_chain.certificates.iter().map(|one| &one.raw_bytes);
        authority.valid_for = narrowed(authority.valid_for, chain)?;
    }
    for authority in &mut alone.timestamp_authorities {
        let chain = authority.cert_chain.certificates.iter().map(|one| &one.raw_bytes);
        authority.valid_for = narrowed(authority.valid_for, chain)?;
    }
    // The verifier rejects a whole root for one bad entry, so each entry is tried alone.
    Verifier::new(&alone).map_err(|error| error.to_string())?;
    // The verifier accepts log keys with which each verification fails later, which would blame
    // the signature.
    for log in &alone.tlogs {
        let key = VerificationKey::from_spki(&log.public_key.raw_bytes);
        check_key(&key.map_err(|error| error.to_string())?)?;
    }
    for log in &alone.ctlogs {
        let key = SCT_SCHEMES
            .iter()
            .find_map(|scheme| VerificationKey::from_der(&log.public_key.raw_bytes, *scheme).ok());
        check_key(&key.ok_or("its key is neither ECDSA on P-256 or P-384 nor RSA")?)?;
    }
    Ok(alone)
}

/// Rejects keys that the verifier accepts but with which each verification fails.
fn check_key(key: &VerificationKey) -> Result<(), String> {
    provider::check_scheme(key.scheme())
        .and_then(|()| validate_raw_public_key(key.scheme(), key.as_bytes()))
        .map_err(|error| error.to_string())
}

/// Limits an authority's validity to that of each of its certificates: the crate would accept
/// expired ones.
fn narrowed<'a>(
    valid: Option<TimeRange>,
    chain: impl Iterator<Item = &'a DerCertificate>,
) -> Result<Option<TimeRange>, String> {
    let mut valid = valid;
    for certificate in chain {
        let info = parse_certificate_info(certificate)
            .map_err(|error| format!("a certificate of an authority cannot be used: {error}"))?;
        let start = valid.map_or(info.not_before, |range| range.start.max(info.not_before));
        let end = valid.and_then(|range| range.end);
        let end = end.map_or(info.not_after, |end| end.min(info.not_after));
        // If the validity periods do not overlap, this range ends before it starts, and the
        // verifier rejects the authority.
        valid = Some(TimeRange::new(start, Some(end)));
    }
    Ok(valid)
}

#[cfg(test)]
mod tests {
    use sigstore_verify::trust_root::SigstoreInstance;
    use tempfile::NamedTempFile;

    use super::*;

    #[test]
    fn of_the_roots_of_public_instances_no_entry_is_passed_over() {
        provider::install();
        for instance in
            [SigstoreInstance::PublicGood, SigstoreInstance::Staging, SigstoreInstance::GitHub]
        {
            let file = NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), instance.embedded_trusted_root_json()).expect("written");
            let root = Root::read(file.path()).expect("a root");
            assert_eq!(root.passed_over(|_| true), None, "{instance:?}");
        }
    }
}
