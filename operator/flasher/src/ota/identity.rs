//! TLS identity that this program presents to devices.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::outcome::{AttemptFailure, Code};

/// Name in a generated certificate.
const NAME: &str = "flashjob-flasher";

/// Returns a TLS acceptor with the certificate in the folder. Without one, a certificate is
/// generated, which only devices accept that do not verify it.
pub(super) fn acceptor(folder: &Path) -> Result<TlsAcceptor, AttemptFailure> {
    let (certificate, key) = (folder.join("server.crt"), folder.join("server.key"));
    let (chain, key) = match (certificate.exists(), key.exists()) {
        (true, true) => read(&certificate, &key)?,
        (false, false) => {
            tracing::warn!(
                folder = %folder.display(),
                "no server certificate found; using a self-signed one, which devices that verify \
                 it reject"
            );
            create_certificate()?
        }
        // A silent self-signed certificate would only show as a failed handshake on the device.
        (_, has_key) => {
            let missing = if has_key { &certificate } else { &key };
            let message = format!(
                "{} is missing; both server.crt and server.key are required",
                missing.display()
            );
            return Err(AttemptFailure::new(Code::BadConfiguration, message));
        }
    };
    // Devices send their certificate as data after the handshake, and not in it.
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let config = config.map_err(|error| {
        let message = format!("server.crt and server.key in {} do not match", folder.display());
        AttemptFailure::new(Code::BadConfiguration, message).because(error)
    })?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

type ServerCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read(certificate: &Path, key: &Path) -> Result<ServerCertificate, AttemptFailure> {
    let unusable = |file: &Path, error| {
        let message = format!("{} is not a usable PEM file", file.display());
        AttemptFailure::new(Code::BadConfiguration, message).because(error)
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(certificate, error.to_string()))?;
    let key =
        PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error.to_string()))?;
    Ok((chain, key))
}

fn create_certificate() -> Result<ServerCertificate, AttemptFailure> {
    let failed = |error: rcgen::Error| {
        AttemptFailure::new(Code::BadConfiguration, "cannot create a certificate").because(error)
    };
    let certificate = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).map_err(failed)?;
    let key =
        PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).map_err(|words| {
            AttemptFailure::new(Code::BadConfiguration, "cannot create a certificate")
                .because(words)
        })?;
    Ok((vec![certificate.cert.der().clone()], key))
}
