//! Reasons why an artifact may not be used.

use std::path::PathBuf;

use crate::Digest;
use crate::config::SignatureForm;

/// Reason why an artifact may not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// No entry of the trust policy matches.
    #[error("no entry under trust in the operator's configuration matches {0}; add one")]
    NothingMatches(String),
    /// A file reference without a digest.
    #[error("{0} has no digest; append @sha256:… or set allowUnsigned: true for this plugin")]
    FileWithoutDigest(String),
    /// A key cannot be used.
    #[error(
        "public key {file}: {message}; use cosign's public key in PEM, as cosign \
         generate-key-pair writes it",
        file = .file.display()
    )]
    Key {
        /// The file.
        file: PathBuf,
        /// Description of the fault.
        message: String,
    },
    /// The trusted root cannot be used.
    #[error(
        "keyless.trustedRootFile {file}: {message}; use a Sigstore trusted root in JSON, as \
         cosign trusted-root create writes it",
        file = .file.display()
    )]
    TrustedRoot {
        /// The file.
        file: PathBuf,
        /// Description of the fault.
        message: String,
    },
    /// The artifact has no signature.
    #[error(
        "{digest} is not signed, but trust entry {entry} requires a signature; sign it with \
         cosign sign"
    )]
    Unsigned {
        /// Digest that should be signed.
        digest: Digest,
        /// The entry's pattern.
        entry: String,
    },
    /// The artifact is only signed in a form that is not allowed.
    #[error(
        "{digest} is signed only in form {form:?}, which trust entry {entry} does not list under \
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
    /// The signature is by another key.
    #[error("{digest} is signed, but with none of the keys of trust entry {entry}")]
    WrongKey {
        /// Digest that is signed.
        digest: Digest,
        /// The entry's pattern.
        entry: String,
    },
    /// The keyless signature is by another identity.
    #[error(
        "{digest} is signed by {signer}, which is not one of the identities of trust entry {entry}"
    )]
    WrongIdentity {
        /// Digest that is signed.
        digest: Digest,
        /// Subject and issuer.
        signer: String,
        /// The entry's pattern.
        entry: String,
    },
    /// There is no proof of who signed the artifact, or when.
    #[error(
        "{digest} is signed, but trust entry {entry} requires proof of who signed it: {message}"
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
    /// The attached signature was altered, or is malformed.
    #[error("the signature attached to {digest} was altered or is malformed: {message}")]
    Tampered {
        /// Digest that should be signed.
        digest: Digest,
        /// Description of the fault.
        message: String,
    },
    /// Only some of the keys signed, and all are required.
    #[error("{digest} is not signed with {missing}, but trust entry {entry} requires all keys")]
    KeysMissing {
        /// Digest that is signed.
        digest: Digest,
        /// Files of the keys that did not sign.
        missing: String,
        /// The entry's pattern.
        entry: String,
    },
    /// Only some of the identities signed, and all are required.
    #[error(
        "{digest} is not signed by {missing}, but trust entry {entry} requires all identities"
    )]
    IdentitiesMissing {
        /// Digest that is signed.
        digest: Digest,
        /// Subject and issuer of the identities that did not sign.
        missing: String,
        /// The entry's pattern.
        entry: String,
    },
}

impl TrustError {
    /// Returns the reason for the refusal as one CamelCase word, as in a condition.
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
