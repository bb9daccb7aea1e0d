//! Public key from a file, and signature verification with it. Reads the file; the verification
//! does no I/O.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use sha2::{Digest as _, Sha256};
use spki::der::{DecodePem, Encode};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoOwned};

use super::error::TrustError;
use crate::pem::without_byte_order_mark;

/// RFC 5480, section 2.1.1.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// RFC 8410, section 3.
const ED25519_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// RFC 8017, appendix A.1.
const RSA_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// Public key that verifies signatures.
pub(super) struct PublicKey {
    /// File that the key was read from.
    pub file: PathBuf,
    /// Hint by which a bundle refers to the key: base64 of the SHA-256 of its DER form.
    pub hint: String,
    algorithm: &'static dyn VerificationAlgorithm,
    bytes: Vec<u8>,
}

impl PublicKey {
    pub fn read(file: &Path) -> Result<Self, TrustError> {
        let failed = |message: String| TrustError::Key { file: file.to_owned(), message };
        let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
        Self::parse(file, &text).map_err(failed)
    }

    fn parse(file: &Path, text: &str) -> Result<Self, String> {
        let text = without_byte_order_mark(text.as_bytes()).trim_ascii();
        let info = SubjectPublicKeyInfoOwned::from_pem(text)
            .map_err(|error| format!("not a public key in PEM: {error}"))?;
        let parameter = info
            .algorithm
            .parameters
            .as_ref()
            .and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        // Only the curve is a parameter of interest: Ed25519 keys have none (RFC 8410, section 3),
        // RSA keys have NULL (RFC 8017, appendix A.1).
        let algorithm: &'static dyn VerificationAlgorithm = match (info.algorithm.oid, parameter) {
            (EC_PUBLIC_KEY, Some(P256)) => &ECDSA_P256_SHA256_ASN1,
            (ED25519_KEY, _) => &ED25519,
            (RSA_KEY, _) => &RSA_PKCS1_2048_8192_SHA256,
            (oid, _) => {
                return Err(format!(
                    "a key of type {oid}, expected ECDSA on P-256, Ed25519, or RSA with at least \
                     2048 bits"
                ));
            }
        };
        let encoded = info.to_der().map_err(|error| error.to_string())?;
        let hint = STANDARD.encode(Sha256::digest(&encoded));
        Ok(Self {
            file: file.to_owned(),
            hint,
            algorithm,
            bytes: info.subject_public_key.raw_bytes().to_vec(),
        })
    }

    /// Returns true if this key made this signature over this message.
    pub fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm, &self.bytes).verify(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_and_blank_lines_around_a_key_do_not_matter() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("cosign.pub");
        let pem = rcgen::KeyPair::generate().expect("a key").public_key_pem();
        std::fs::write(&file, &pem).expect("written");
        let hint = PublicKey::read(&file).map(|key| key.hint).expect("a key");
        for text in
            [format!("\u{feff}{pem}"), format!("\u{feff}\r\n{pem}\r\n"), format!("\n{pem}")]
        {
            std::fs::write(&file, &text).expect("written");
            assert_eq!(PublicKey::read(&file).map(|key| key.hint), Ok(hint.clone()), "{text:?}");
        }
    }
}
