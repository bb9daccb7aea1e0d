//! Which components are run. Only a [`Verified`] artifact can be compiled, and there is one way to make one. Reads key files, and
//! does no other I/O: what a registry has of signatures is brought along.

mod key;
mod signature;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::config::{CosignTrust, RequiredKeys, SignatureForm, TrustEntry};
use crate::{Digest, Reference};
use key::PublicKey;
pub(crate) use signature::BUNDLE;
use signature::Finding;
pub use signature::Signature;

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
    /// A key cannot be used.
    #[error("public key {file}: {message}; give cosign's public key in PEM, as cosign generate-key-pair writes it", file = .file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Nobody signed it.
    #[error("{digest} is not signed, and trust entry {entry} demands a signature; sign it with cosign sign --key")]
    Unsigned {
        /// What should be signed.
        digest: Digest,
        /// The entry's pattern.
        entry: String,
    },
    /// It is signed in a form that does not count.
    #[error("{digest} is signed in form {form:?} alone, which trust entry {entry} does not list under forms")]
    FormNotAllowed {
        /// What is signed.
        digest: Digest,
        /// The form.
        form: SignatureForm,
        /// The entry's pattern.
        entry: String,
    },
    /// Somebody else signed it.
    #[error("{digest} is signed, but with none of the keys of trust entry {entry}")]
    WrongKey {
        /// What is signed.
        digest: Digest,
        /// The entry's pattern.
        entry: String,
    },
    /// A signature of another artifact was attached to it.
    #[error("the signature attached to {digest} is for {signed}")]
    OtherDigest {
        /// What should be signed.
        digest: Digest,
        /// What is.
        signed: String,
    },
    /// What is attached is no signature that a signer made.
    #[error("the signature attached to {digest} was changed or is broken: {message}")]
    Tampered {
        /// What should be signed.
        digest: Digest,
        /// What is wrong.
        message: String,
    },
    /// Some of the keys signed, and each must.
    #[error("{digest} is not signed with {missing}, and trust entry {entry} requires all keys")]
    KeysMissing {
        /// What is signed.
        digest: Digest,
        /// Files of the keys that did not sign.
        missing: String,
        /// The entry's pattern.
        entry: String,
    },
}

impl TrustError {
    /// What is missing, in one word as conditions have it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NothingMatches(_) => "NotTrusted",
            Self::FileWithoutDigest(_) => "DigestMissing",
            Self::Key { .. } => "KeyUnusable",
            Self::Unsigned { .. } => "Unsigned",
            Self::FormNotAllowed { .. } => "FormNotAllowed",
            Self::WrongKey { .. } => "WrongKey",
            Self::OtherDigest { .. } => "OtherDigest",
            Self::Tampered { .. } => "SignatureBroken",
            Self::KeysMissing { .. } => "KeysMissing",
        }
    }
}

/// Decides whether a component may be run: the one place where a [`Verified`] is made.
///
/// # Errors
/// Nothing in the configuration allows it.
pub fn verify(
    artifact: Unverified,
    trust: &[TrustEntry],
    allow_unsigned_file: bool,
    signatures: &[Signature],
) -> Result<Verified, TrustError> {
    let signed = check(&artifact.reference, &artifact.digest, trust, allow_unsigned_file, signatures)?;
    Ok(Verified { artifact, signed })
}

/// The forms of signatures to look for; none where no signature is demanded.
pub(crate) fn forms<'a>(reference: &Reference, trust: &'a [TrustEntry]) -> &'a [SignatureForm] {
    entry(reference, trust).and_then(|entry| entry.cosign.as_ref()).map_or(&[], |cosign| &cosign.forms)
}

/// Whether what is known allows an artifact to be run; true where that is for a signature's sake.
pub(crate) fn check(
    reference: &Reference,
    digest: &Digest,
    trust: &[TrustEntry],
    allow_unsigned_file: bool,
    signatures: &[Signature],
) -> Result<bool, TrustError> {
    if let Reference::File { digest: beside, .. } = reference {
        let named = beside.is_some() || allow_unsigned_file;
        return if named { Ok(false) } else { Err(TrustError::FileWithoutDigest(reference.to_string())) };
    }
    match entry(reference, trust) {
        Some(TrustEntry { cosign: Some(cosign), pattern, .. }) => check_signatures(digest, pattern, cosign, signatures).map(|()| true),
        Some(TrustEntry { allow_unsigned: true, .. }) => Ok(false),
        _ => Err(TrustError::NothingMatches(reference.to_string())),
    }
}

fn check_signatures(digest: &Digest, entry: &str, cosign: &CosignTrust, signatures: &[Signature]) -> Result<(), TrustError> {
    let (digest, entry) = (digest.clone(), entry.to_owned());
    let keys = cosign.public_key_files.iter().map(|file| PublicKey::read(file)).collect::<Result<Vec<_>, _>>()?;
    let counts = |signature: &&Signature| cosign.forms.contains(&signature.form());
    let findings: Vec<Finding> = signatures.iter().filter(counts).map(|signature| signature.check(&digest, &keys)).collect();
    let signed: BTreeSet<usize> = findings.iter().flat_map(signers).copied().collect();
    let missing: Vec<&Path> = keys.iter().enumerate().filter(|(at, _)| !signed.contains(at)).map(|(_, key)| key.file.as_path()).collect();
    match cosign.require {
        RequiredKeys::Any if !signed.is_empty() => return Ok(()),
        RequiredKeys::All if missing.is_empty() && !signed.is_empty() => return Ok(()),
        RequiredKeys::All if !signed.is_empty() => {
            let missing = missing.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
            return Err(TrustError::KeysMissing { digest, missing, entry });
        }
        _ => {}
    }
    // The finding that says most about what went wrong.
    let other = findings.iter().find_map(|finding| if let Finding::OtherDigest(signed) = finding { Some(signed.clone()) } else { None });
    if let Some(signed) = other {
        return Err(TrustError::OtherDigest { digest, signed });
    }
    let broken = findings.iter().find_map(|finding| if let Finding::Tampered(message) = finding { Some(message.clone()) } else { None });
    if let Some(message) = broken {
        return Err(TrustError::Tampered { digest, message });
    }
    if findings.contains(&Finding::WrongKey) {
        return Err(TrustError::WrongKey { digest, entry });
    }
    match signatures.iter().find(|signature| !counts(signature)) {
        Some(signature) => Err(TrustError::FormNotAllowed { digest, form: signature.form(), entry }),
        None => Err(TrustError::Unsigned { digest, entry }),
    }
}

fn signers(finding: &Finding) -> &[usize] {
    if let Finding::Signed(signers) = finding { signers } else { &[] }
}

/// The entry that decides on an artifact: the one with the longest literal prefix among those that match.
#[must_use]
pub fn entry<'a>(reference: &Reference, trust: &'a [TrustEntry]) -> Option<&'a TrustEntry> {
    let name = reference.name()?;
    let matching = trust.iter().filter(|entry| matches(&entry.pattern, &name));
    matching.max_by_key(|entry| literal_prefix(&entry.pattern).len())
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
