//! A token service like a registry's own (distribution's token authentication specification;
//! Harbor's is at `/service/token`).

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, SigningKey};
use serde_json::{Value, json};

/// Path at which the service answers.
pub const PATH: &str = "/service/token";
const ISSUER: &str = "testbed";
const SERVICE: &str = "testbed-registry";

/// Signs tokens that a registry accepts.
pub struct TokenService {
    key: KeyPair,
    certificate: String,
    bundle: PathBuf,
}

impl TokenService {
    /// Creates a key, and writes its certificate into the folder.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        let (key, bundle) = (KeyPair::generate_for(&PKCS_ED25519)?, folder.join("tokens.crt"));
        let certificate = CertificateParams::new(Vec::new())?.self_signed(&key)?;
        std::fs::write(&bundle, certificate.pem())?;
        Ok(Self { key, certificate: STANDARD.encode(certificate.der()), bundle })
    }

    /// Returns the settings that make a registry trust this service; the realm is on the host of
    /// the request.
    #[must_use]
    pub fn auth(&self) -> Value {
        json!({"token": {
            "realm": "unused", "autoredirect": true, "autoredirectpath": PATH,
            "service": SERVICE, "issuer": ISSUER, "rootcertbundle": self.bundle,
        }})
    }

    /// Returns a token for pulls from a repository, valid for an hour; if `ended`, it expired an
    /// hour ago.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn token(&self, repository: &str, ended: bool) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let hour = Duration::from_secs(3600);
        let (from, to) = if ended { (now - 2 * hour, now - hour) } else { (now, now + hour) };
        let header = json!({"typ": "JWT", "alg": "EdDSA", "x5c": [self.certificate]});
        let claims = json!({
            "iss": ISSUER, "sub": "robot", "aud": SERVICE, "iat": from.as_secs(),
            "nbf": from.as_secs(), "exp": to.as_secs(),
            "access": [{"type": "repository", "name": repository, "actions": ["pull"]}],
        });
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes())?);
        Ok(format!("{signed}.{signature}"))
    }
}

/// Returns the repository in the scope that a client requests:
/// `…scope=repository%3A<name>%3Apull`.
#[must_use]
pub fn asked_repository(path: &str) -> Option<String> {
    let query = path.split_once("scope=repository%3A")?.1;
    Some(query.split("%3A").next()?.replace("%2F", "/"))
}
