//! Decides which artifacts may be used. Only one function creates a [`Verified`] artifact, and
//! only that type can be run. Reads the files with keys and trusted roots, and does no other I/O:
//! the caller passes in the signatures from the registry.

mod error;
mod finding;
mod identity;
mod key;
mod keyless;
mod provider;
mod signature;
mod signers;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::config::{CosignTrust, RequiredKeys, SignatureForm, TrustEntry};
use crate::{Digest, Reference};
pub use error::TrustError;
use finding::Finding;
pub(crate) use identity::SignerRule;
pub use keyless::Attached;
pub(crate) use signature::SIGN_PREDICATE;
pub use signature::{BUNDLE, Signature};
use signers::Signers;

/// Artifact whose bytes were fetched and have the expected digest.
#[derive(Clone, Debug)]
pub struct Unverified {
    /// Reference that it came from.
    pub reference: Reference,
    /// Digest of its manifest; of the file itself for `file://`.
    pub digest: Digest,
    /// The artifact's payload, for example the component.
    pub content: Vec<u8>,
}

/// Artifact that may be used. Never stored: every load verifies again.
#[derive(Debug)]
pub struct Verified {
    artifact: Unverified,
    signed: bool,
}

impl Verified {
    /// Returns the digest of the manifest.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.artifact.digest
    }

    /// Returns the artifact's payload, for example the component.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.artifact.content
    }

    /// Returns true if a signature was required and found.
    #[must_use]
    pub fn signed(&self) -> bool {
        self.signed
    }
}

/// Decides whether an artifact may be used. This is the only function that creates a [`Verified`].
///
/// # Errors
/// The configuration does not allow the artifact.
pub fn verify(
    artifact: Unverified,
    trust: &[TrustEntry],
    allow_unsigned_file: bool,
    signatures: &[Signature],
) -> Result<Verified, TrustError> {
    let signed =
        check(&artifact.reference, &artifact.digest, trust, allow_unsigned_file, signatures)?;
    Ok(Verified { artifact, signed })
}

/// Returns the forms of signatures to look for; none if no signature is required.
#[must_use]
pub fn forms<'a>(reference: &Reference, trust: &'a [TrustEntry]) -> &'a [SignatureForm] {
    entry(reference, trust)
        .and_then(|entry| entry.cosign.as_ref())
        .map_or(&[], |cosign| &cosign.forms)
}

/// Checks that the trust policy allows an artifact; returns true if a signature allows it.
///
/// # Errors
/// The trust policy does not allow the artifact.
pub fn check(
    reference: &Reference,
    digest: &Digest,
    trust: &[TrustEntry],
    allow_unsigned_file: bool,
    signatures: &[Signature],
) -> Result<bool, TrustError> {
    // A digest in the operator's configuration already names the exact bytes, and a file has no
    // repository that a pattern could match.
    if let Reference::File { digest: beside, .. } = reference {
        let named = beside.is_some() || allow_unsigned_file;
        return if named {
            Ok(false)
        } else {
            Err(TrustError::FileWithoutDigest(reference.to_string()))
        };
    }
    match entry(reference, trust) {
        Some(TrustEntry { cosign: Some(cosign), pattern, .. }) => {
            check_signatures(digest, pattern, cosign, signatures).map(|()| true)
        }
        Some(TrustEntry { allow_unsigned: true, .. }) => Ok(false),
        // Fail closed: an empty policy allows nothing.
        _ => Err(TrustError::NothingMatches(reference.to_string())),
    }
}

fn check_signatures(
    digest: &Digest,
    entry: &str,
    cosign: &CosignTrust,
    signatures: &[Signature],
) -> Result<(), TrustError> {
    // The key files are read at every check, so that a replaced key counts without a restart.
    let signers = Signers::read(cosign)?;
    let counts = |signature: &&Signature| cosign.forms.contains(&signature.form());
    // Anybody with write access to the repository can attach a bad signature, so one of them must
    // not invalidate a good one.
    let findings: Vec<Finding> = signatures
        .iter()
        .filter(counts)
        .map(|signature| signature.check(digest, &signers))
        .collect();
    let signed: BTreeSet<usize> = findings.iter().flat_map(signed_by).copied().collect();
    let missing: Vec<String> = signers
        .names()
        .into_iter()
        .enumerate()
        .filter(|(at, _)| !signed.contains(at))
        .map(|(_, name)| name)
        .collect();
    let (digest, entry) = (digest.clone(), entry.to_owned());
    match cosign.require {
        RequiredKeys::Any if !signed.is_empty() => return Ok(()),
        // With an empty list of keys nothing would be missing; the second condition fails closed.
        RequiredKeys::All if missing.is_empty() && !signed.is_empty() => return Ok(()),
        RequiredKeys::All if !signed.is_empty() => {
            let missing = missing.join(", ");
            return Err(match signers {
                Signers::Keys(_) => TrustError::KeysMissing { digest, missing, entry },
                Signers::Keyless(_) => TrustError::IdentitiesMissing { digest, missing, entry },
            });
        }
        _ => {}
    }
    // Report the finding that explains the failure best.
    if let Some(finding) = findings.into_iter().min_by_key(Finding::rank)
        && let Some(error) = finding.refusal(&digest, &entry)
    {
        return Err(error);
    }
    // Signatures in other forms are only fetched to explain the refusal; they never count.
    match signatures.iter().find(|signature| !counts(signature)) {
        Some(signature) => {
            Err(TrustError::FormNotAllowed { digest, form: signature.form(), entry })
        }
        None => Err(TrustError::Unsigned { digest, entry }),
    }
}

fn signed_by(finding: &Finding) -> &[usize] {
    if let Finding::Signed(signers) = finding { signers } else { &[] }
}

/// Returns the entry that applies to an artifact: of all that match, the one with the longest
/// literal prefix.
#[must_use]
pub fn entry<'a>(reference: &Reference, trust: &'a [TrustEntry]) -> Option<&'a TrustEntry> {
    let name = reference.name()?;
    let matching = trust.iter().filter(|entry| matches(&entry.pattern, &name));
    // Two matching entries never tie: the configuration check rejects equal literal prefixes.
    matching.max_by_key(|entry| literal_prefix(&entry.pattern).len())
}

/// Returns the digest of everything that affects the decisions of an entry: its fields, and the
/// current content of its key or trusted root files. Entries with equal fingerprints accept the
/// same signatures.
#[must_use]
pub fn fingerprint(entry: &TrustEntry) -> Digest {
    // The paths come from text, so serializing them cannot fail.
    let mut decisive = serde_json::to_vec(entry).unwrap_or_default();
    // A mounted Secret replaces the key under an unchanged path, so the path alone does not
    // suffice.
    for file in entry.cosign.iter().flat_map(CosignTrust::files) {
        let content = std::fs::read(file).map(|bytes| Digest::of(&bytes));
        // An unreadable file accepts no signature, and counts as different content.
        decisive.extend(content.map_or_else(|_| "none".to_owned(), |of| of.to_string()).bytes());
    }
    Digest::of(&decisive)
}

/// Returns the part of a pattern before its first wildcard.
pub(crate) fn literal_prefix(pattern: &str) -> &str {
    pattern.split('*').next().unwrap_or_default()
}

fn matches(pattern: &str, name: &str) -> bool {
    if let Some(prefix) = pattern.strip_suffix("/**") {
        // The slash keeps `host/team/**` from matching `host/team-of-others/plugin`.
        return name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    }
    if let Some(prefix) = pattern.strip_suffix("/*") {
        let rest = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/'));
        return rest.is_some_and(|rest| !rest.contains('/'));
    }
    pattern == name
}
