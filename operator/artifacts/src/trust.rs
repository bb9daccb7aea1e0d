//! Decides which artifacts are used. There is one way to make a [`Verified`] one, and only that
//! can be run. Reads the files with keys and trusted roots, and does no other I/O: what a registry
//! has of signatures is brought along.

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
pub use signature::{BUNDLE, Signature};
use signers::Signers;

/// An artifact that was fetched, and whose bytes have the digest they should have.
#[derive(Clone, Debug)]
pub struct Unverified {
    /// Reference that it came from.
    pub reference: Reference,
    /// Digest of its manifest; of the file itself for `file://`.
    pub digest: Digest,
    /// The bytes that count of it, as a component.
    pub content: Vec<u8>,
}

/// An artifact that may be used. Never stored: it is made anew at every load.
#[derive(Debug)]
pub struct Verified {
    artifact: Unverified,
    signed: bool,
}

impl Verified {
    /// Digest of its manifest.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.artifact.digest
    }

    /// The bytes that count of it, as a component.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.artifact.content
    }

    /// Returns true if a signature was demanded and found.
    #[must_use]
    pub fn signed(&self) -> bool {
        self.signed
    }
}

/// Decides whether an artifact may be used: the one place where a [`Verified`] is made.
///
/// # Errors
/// Nothing in the configuration allows it.
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

/// The forms of signatures to look for; none where no signature is demanded.
#[must_use]
pub fn forms<'a>(reference: &Reference, trust: &'a [TrustEntry]) -> &'a [SignatureForm] {
    entry(reference, trust)
        .and_then(|entry| entry.cosign.as_ref())
        .map_or(&[], |cosign| &cosign.forms)
}

/// Checks that what is known allows an artifact to be used; returns true if a signature allows it.
///
/// # Errors
/// Nothing allows it.
pub fn check(
    reference: &Reference,
    digest: &Digest,
    trust: &[TrustEntry],
    allow_unsigned_file: bool,
    signatures: &[Signature],
) -> Result<bool, TrustError> {
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
        _ => Err(TrustError::NothingMatches(reference.to_string())),
    }
}

fn check_signatures(
    digest: &Digest,
    entry: &str,
    cosign: &CosignTrust,
    signatures: &[Signature],
) -> Result<(), TrustError> {
    let signers = Signers::read(cosign)?;
    let counts = |signature: &&Signature| cosign.forms.contains(&signature.form());
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
    // The finding that says most about what went wrong.
    if let Some(finding) = findings.into_iter().min_by_key(Finding::rank)
        && let Some(error) = finding.refusal(&digest, &entry)
    {
        return Err(error);
    }
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

/// The entry that decides on an artifact: the one with the longest literal prefix among those that
/// match.
#[must_use]
pub fn entry<'a>(reference: &Reference, trust: &'a [TrustEntry]) -> Option<&'a TrustEntry> {
    let name = reference.name()?;
    let matching = trust.iter().filter(|entry| matches(&entry.pattern, &name));
    matching.max_by_key(|entry| literal_prefix(&entry.pattern).len())
}

/// Digest of everything that an entry decides by: what is written in it, and its keys or trusted
/// root as the files have them now. Two equal ones accept the same signatures.
#[must_use]
pub fn fingerprint(entry: &TrustEntry) -> Digest {
    // Paths were read from a text, so that they can be written as one.
    let mut decisive = serde_json::to_vec(entry).unwrap_or_default();
    for file in entry.cosign.iter().flat_map(CosignTrust::files) {
        let content = std::fs::read(file).map(|bytes| Digest::of(&bytes));
        // A file that cannot be read accepts nothing, and counts as another one.
        decisive.extend(content.map_or_else(|_| "none".to_owned(), |of| of.to_string()).bytes());
    }
    Digest::of(&decisive)
}

/// The part of a pattern before its first wildcard.
pub(crate) fn literal_prefix(pattern: &str) -> &str {
    pattern.split('*').next().unwrap_or_default()
}

fn matches(pattern: &str, name: &str) -> bool {
    if let Some(prefix) = pattern.strip_suffix("/**") {
        return name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    }
    if let Some(prefix) = pattern.strip_suffix("/*") {
        let rest = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/'));
        return rest.is_some_and(|rest| !rest.contains('/'));
    }
    pattern == name
}
