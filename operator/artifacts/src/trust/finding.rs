//! Results of the check of one signature. Pure.

use super::error::TrustError;
use crate::Digest;

/// Result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// These keys or identities, by their index, signed this digest.
    Signed(Vec<usize>),
    /// A trusted key or identity signed another digest.
    OtherDigest(String),
    /// No key fits.
    WrongKey,
    /// Somebody else signed it, and proves that.
    OtherIdentity(String),
    /// It is not proven who signed it, or when.
    Unproven(String),
    /// It is not what a signer made.
    Tampered(String),
    /// It says something else than that the artifact is signed, as an attestation does.
    Unrelated,
}

impl Finding {
    /// Of several, the lowest says most about what went wrong.
    pub fn rank(&self) -> u8 {
        match self {
            Self::OtherDigest(_) => 0,
            Self::Tampered(_) => 1,
            Self::WrongKey | Self::OtherIdentity(_) => 2,
            Self::Unproven(_) => 3,
            Self::Unrelated | Self::Signed(_) => 4,
        }
    }

    /// Returns the error for this finding where no signature counts; none where it is as if there
    /// were no signature.
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
            Self::Unrelated | Self::Signed(_) => None,
        }
    }
}
