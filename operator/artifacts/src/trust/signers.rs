//! Signers that the configuration requires for an artifact. Reads the key and trusted root files.

use super::error::TrustError;
use super::key::PublicKey;
use super::keyless::Keyless;
use crate::config::CosignTrust;

/// Keys or identities that must have signed.
pub(super) enum Signers {
    Keys(Vec<PublicKey>),
    Keyless(Box<Keyless>),
}

impl Signers {
    pub fn read(cosign: &CosignTrust) -> Result<Self, TrustError> {
        match &cosign.keyless {
            // The configuration check rejects both together; if it happens all the same, the
            // stricter one applies.
            Some(keyless) => {
                Keyless::read(keyless).map(|keyless| Self::Keyless(Box::new(keyless)))
            }
            None => cosign
                .public_key_files
                .iter()
                .map(|file| PublicKey::read(file))
                .collect::<Result<_, _>>()
                .map(Self::Keys),
        }
    }

    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Keys(keys) => keys.iter().map(|key| key.file.display().to_string()).collect(),
            Self::Keyless(keyless) => keyless.identities.iter().map(ToString::to_string).collect(),
        }
    }
}
