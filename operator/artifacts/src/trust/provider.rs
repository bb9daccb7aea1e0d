//! Cryptography of keyless signatures: ring, as in the rest of the program. Does no I/O.

use std::cell::RefCell;

use ring::digest::{self, Context};
use ring::signature as of;
use ring::signature::{UnparsedPublicKey, VerificationAlgorithm};
use sigstore_verify::crypto::{
    CryptoProvider, Error, HashContext, Result, SigningScheme, install_default_provider,
};
use sigstore_verify::types::HashAlgorithm;

thread_local! {
    /// Message that is being verified: ring verifies messages, whereas the verifier passes
    /// digests.
    static MESSAGE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Registers ring with the verifying crates. Must be called before any of them is used.
pub(super) fn install() {
    // A second call returns an error, and then this provider is already installed.
    let _ = install_default_provider(&Ring);
}

/// Runs `work`, which verifies signatures over this message; some of them are checked over its
/// digest alone.
pub(super) fn verifying<T>(message: &[u8], work: impl FnOnce() -> T) -> T {
    MESSAGE.set(message.to_vec());
    let done = work();
    // A message that stays would be compared with digests of later verifications on this thread.
    MESSAGE.take();
    done
}

/// Checks that signatures of this scheme are supported.
pub(super) fn check_scheme(scheme: SigningScheme) -> Result<()> {
    signature_of(scheme).map(|_| ())
}

#[derive(Debug)]
struct Ring;

struct Hash(Context);

impl HashContext for Hash {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finish().as_ref().to_vec()
    }
}

impl CryptoProvider for Ring {
    fn hash(&self, algorithm: HashAlgorithm) -> Result<Box<dyn HashContext>> {
        Ok(Box::new(Hash(Context::new(hash_of(Some(algorithm))?))))
    }

    fn verify_raw(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<()> {
        let key = UnparsedPublicKey::new(signature_of(scheme)?, key);
        key.verify(message, signature).map_err(|_| {
            Error::Verification(format!("it was not made with this key ({})", scheme.name()))
        })
    }

    fn verify_prehashed(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        expected: &[u8],
        signature: &[u8],
    ) -> Result<()> {
        let hash = hash_of(scheme.hash_algorithm())?;
        MESSAGE.with_borrow(|message| {
            // Without a message this compares with the digest of no bytes, so a forgotten
            // `verifying` rejects the signature.
            if digest::digest(hash, message).as_ref() != expected {
                return Err(Error::Verification("it is for another message".to_owned()));
            }
            self.verify_raw(scheme, key, message, signature)
        })
    }
}

fn hash_of(algorithm: Option<HashAlgorithm>) -> Result<&'static digest::Algorithm> {
    match algorithm {
        Some(HashAlgorithm::Sha2256) => Ok(&digest::SHA256),
        Some(HashAlgorithm::Sha2384) => Ok(&digest::SHA384),
        Some(HashAlgorithm::Sha2512) => Ok(&digest::SHA512),
        other => Err(Error::UnsupportedAlgorithm(format!(
            "digest algorithm {other:?} is not supported"
        ))),
    }
}

fn signature_of(scheme: SigningScheme) -> Result<&'static dyn VerificationAlgorithm> {
    Ok(match scheme {
        SigningScheme::EcdsaP256Sha256 => &of::ECDSA_P256_SHA256_ASN1,
        SigningScheme::EcdsaP256Sha384 => &of::ECDSA_P256_SHA384_ASN1,
        SigningScheme::EcdsaP384Sha256 => &of::ECDSA_P384_SHA256_ASN1,
        SigningScheme::EcdsaP384Sha384 => &of::ECDSA_P384_SHA384_ASN1,
        SigningScheme::Ed25519 => &of::ED25519,
        SigningScheme::RsaPssSha256 => &of::RSA_PSS_2048_8192_SHA256,
        SigningScheme::RsaPssSha384 => &of::RSA_PSS_2048_8192_SHA384,
        SigningScheme::RsaPssSha512 => &of::RSA_PSS_2048_8192_SHA512,
        SigningScheme::RsaPkcs1Sha256 => &of::RSA_PKCS1_2048_8192_SHA256,
        SigningScheme::RsaPkcs1Sha384 => &of::RSA_PKCS1_2048_8192_SHA384,
        SigningScheme::RsaPkcs1Sha512 => &of::RSA_PKCS1_2048_8192_SHA512,
        other => {
            return Err(Error::UnsupportedAlgorithm(format!(
                "signature scheme {} is not supported",
                other.name()
            )));
        }
    })
}
