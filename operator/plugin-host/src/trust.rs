//! Which components are run. Only a [`Verified`] artifact can be compiled, and there is one way to make one.

use crate::config::TrustEntry;
use crate::{Digest, Reference};

/// A component that was fetched, and whose bytes have the digest they should have.
#[derive(Clone, Debug)]
pub struct Unverified {
    /// Where it came from.
    pub reference: Reference,
    /// Digest of its manifest; of the file itself for `file://`.
    pub digest: Digest,
    /// The component.
    pub component: Vec<u8>,
}

/// A component that may be run. Never stored: it is made anew at every load.
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

    /// The component.
    #[must_use]
    pub fn component(&self) -> &[u8] {
        &self.artifact.component
    }

    /// Whether a signature was demanded and found.
    #[must_use]
    pub fn signed(&self) -> bool {
        self.signed
    }
}

/// Why a component is not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Nothing in the configuration speaks of it.
    #[error("no entry under trust in the operator's configuration matches {0}; add one")]
    NothingMatches(String),
    /// A file without a digest beside its name.
    #[error("{0} has no digest beside it; append @sha256:… or set allowUnsigned: true for this plugin")]
    FileWithoutDigest(String),
}

/// Decides whether a component may be run.
///
/// # Errors
/// Nothing in the configuration allows it.
pub fn verify(artifact: Unverified, trust: &[TrustEntry], allow_unsigned_file: bool) -> Result<Verified, TrustError> {
    let allowed = match &artifact.reference {
        Reference::File { digest, .. } => {
            if digest.is_none() && !allow_unsigned_file {
                return Err(TrustError::FileWithoutDigest(artifact.reference.to_string()));
            }
            true
        }
        Reference::Registry { host, repository, .. } => {
            let name = format!("{host}/{repository}");
            let matching = trust.iter().filter(|entry| matches(&entry.pattern, &name));
            let longest = matching.max_by_key(|entry| literal_prefix(&entry.pattern).len());
            longest.is_some_and(|entry| entry.allow_unsigned)
        }
    };
    if allowed { Ok(Verified { artifact, signed: false }) } else { Err(TrustError::NothingMatches(artifact.reference.to_string())) }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(reference: &str) -> Unverified {
        Unverified { reference: reference.parse().expect("a reference"), digest: Digest::of(b""), component: Vec::new() }
    }

    fn entry(pattern: &str) -> TrustEntry {
        TrustEntry { pattern: pattern.into(), allow_unsigned: true, cosign: None }
    }

    #[test]
    fn nothing_matching_means_refused() {
        let reference = "harbor.example/flashjob/esp32:1";
        assert!(verify(artifact(reference), &[], true).is_err());
        assert!(verify(artifact(reference), &[entry("harbor.example.evil/**"), entry("harbor.example/flash/**")], true).is_err());
        for pattern in ["harbor.example/**", "harbor.example/flashjob/*", "harbor.example/flashjob/esp32"] {
            assert!(verify(artifact(reference), &[entry(pattern)], false).is_ok(), "{pattern}");
        }
    }

    #[test]
    fn a_file_needs_its_digest_or_a_permission() {
        assert!(verify(artifact("file:///a.wasm"), &[], false).is_err());
        assert!(verify(artifact("file:///a.wasm"), &[], true).is_ok());
        assert!(verify(artifact(&format!("file:///a.wasm@{}", Digest::of(b""))), &[], false).is_ok());
    }
}
