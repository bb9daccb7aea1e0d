//! Results of checking one signature. Pure.

use super::error::TrustError;
use crate::Digest;

/// Result of checking one signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// These keys or identities, by their index, signed this digest.
    Signed(Vec<usize>),
    /// A trusted key or identity signed another digest.
    OtherDigest(String),
    /// No key matches.
    WrongKey,
    /// Another identity signed it, with a valid proof.
    OtherIdentity(String),
    /// There is no proof of who signed it, or when.
    Unproven(String),
    /// The signature was altered, or is malformed.
    Tampered(String),
    /// The statement is about something other than signing the artifact, for example an
    /// attestation.
    Unrelated,
}

impl Finding {
    /// Returns the finding's rank: of several findings, the lowest explains best what went wrong.
    pub fn rank(&self) -> u8 {
        match self {
            // A trusted signature for other content was copied here, by mistake or as an attack; a
            // wrong key may just be an additional signer.
            Self::OtherDigest(_) => 0,
            Self::Tampered(_) => 1,
            Self::WrongKey | Self::OtherIdentity(_) => 2,
            Self::Unproven(_) => 3,
            Self::Unrelated | Self::Signed(_) => 4,
        }
    }

    /// Returns the error for this finding if no signature counts; None if the finding equals an
    /// absent signature.
    pub fn refusal(self, digest: &Digest, entry: &str) -> Option<TrustError> {
        let (digest, entry) = (digest.clone(), entry.to_owned());
        match self {
            Self::OtherDigest(signed) => Some(TrustError::OtherDigest { digest, signed }),
            Self::Tampered(message) => Some(TrustError::Tampered { digest, message }),
            Self::WrongKey => Some(TrustError::WrongKey { digest, entry }),
            Self::OtherIdentity(signer) => {
                Some(TrustError::WrongIdentity { digest, signer, entry })
            }
            Self::Unproven(message) => Some(TrustError::Unproven { digest, message, entry }),
            // Attestations are attached in the same way as signatures, so an artifact that has
            // only those is unsigned.
            Self::Unrelated | Self::Signed(_) => None,
        }
    }
}
