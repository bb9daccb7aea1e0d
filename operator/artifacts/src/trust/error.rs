//! Reasons why an artifact is not used.

use std::path::PathBuf;

use crate::Digest;
use crate::config::SignatureForm;

/// Reason why an artifact is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Nothing in the configuration speaks of it.
    #[error("no entry under trust in the operator's configuration matches {0}; add one")]
    NothingMatches(String),
    /// A file without a digest beside its name.
    #[error(
        "{0} has no digest beside it; append @sha256:… or set allowUnsigned: true for this \
         plugin"
    )]
    FileWithoutDigest(String),
    /// A key cannot be used.
    #[error(
        "public key {file}: {message}; give cosign's public key in PEM, as cosign \
         generate-key-pair writes it",
        file = .file.display()
    )]
    Key {
        /// The file.
        file: PathBuf,
        /// Description of the fault.
        message: String,
    },
    /// The authorities and logs cannot be used.
    #[error(
        "keyless.trustedRootFile {file}: {message}; give a Sigstore trusted root in JSON, as \
         cosign trusted-root create writes it",
        file = .file.display()
    )]
    TrustedRoot {
        /// The file.
        file: PathBuf,
        /// Description of the fault.
        message: String,
    },
    /// Nobody signed it.
    #[error(
        "{digest} is not signed, and trust entry {entry} demands a signature; sign it with cosign \
         sign"
    )]
    Unsigned {
        /// Digest that should be signed.
        digest: Digest,
        /// The entry's pattern.
        entry: String,
    },
    /// It is signed in a form that does not count.
    #[error(
        "{digest} is signed in form {form:?} alone, which trust entry {entry} does not list under \
         forms"
    )]
    FormNotAllowed {
        /// Digest that is signed.
        digest: Digest,
        /// The form.
        form: SignatureForm,
        /// The entry's pattern.
        entry: String,
    },
    /// Somebody else signed it.
    #[error("{digest} is signed, but with none of the keys of trust entry {entry}")]
    WrongKey {
        /// Digest that is signed.
        digest: Digest,
        /// The entry's pattern.
        entry: String,
    },
    /// Somebody else signed it without a key.
    #[error(
        "{digest} is signed by {signer}, which is none of the identities of trust entry {entry}"
    )]
    WrongIdentity {
        /// Digest that is signed.
        digest: Digest,
        /// Subject and issuer.
        signer: String,
        /// The entry's pattern.
        entry: String,
    },
    /// It is not proven who signed it and when.
    #[error(
        "{digest} is signed, and trust entry {entry} demands a proof of who did it: {message}"
    )]
    Unproven {
        /// Digest that is signed.
        digest: Digest,
        /// Description of what is missing or wrong.
        message: String,
        /// The entry's pattern.
        entry: String,
    },
    /// A signature of another artifact was attached to it.
    #[error("the signature attached to {digest} is for {signed}")]
    OtherDigest {
        /// Digest that should be signed.
        digest: Digest,
        /// Digest that is signed instead.
        signed: String,
    },
    /// The attachment is no signature that a signer made.
    #[error("the signature attached to {digest} was changed or is broken: {message}")]
    Tampered {
        /// Digest that should be signed.
        digest: Digest,
        /// Description of the fault.
        message: String,
    },
    /// Some of the keys signed, and each must.
    #[error("{digest} is not signed with {missing}, and trust entry {entry} requires all keys")]
    KeysMissing {
        /// Digest that is signed.
        digest: Digest,
        /// Files of the keys that did not sign.
        missing: String,
        /// The entry's pattern.
        entry: String,
    },
    /// Some of the identities signed, and each must.
    #[error(
        "{digest} is not signed by {missing}, and trust entry {entry} requires all identities"
    )]
    IdentitiesMissing {
        /// Digest that is signed.
        digest: Digest,
        /// Subject and issuer of those who did not sign.
        missing: String,
        /// The entry's pattern.
        entry: String,
    },
}

impl TrustError {
    /// Returns the reason for the refusal, in one word as conditions have it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NothingMatches(_) => "NotTrusted",
            Self::FileWithoutDigest(_) => "DigestMissing",
            Self::Key { .. } => "KeyUnusable",
            Self::TrustedRoot { .. } => "TrustedRootUnusable",
            Self::Unsigned { .. } => "Unsigned",
            Self::FormNotAllowed { .. } => "FormNotAllowed",
            Self::WrongKey { .. } => "WrongKey",
            Self::WrongIdentity { .. } => "WrongIdentity",
            Self::Unproven { .. } => "SignatureUnproven",
            Self::OtherDigest { .. } => "OtherDigest",
            Self::Tampered { .. } => "SignatureBroken",
            Self::KeysMissing { .. } => "KeysMissing",
            Self::IdentitiesMissing { .. } => "IdentitiesMissing",
        }
    }
}
