//! Verification of a server's certificate by the certificates in `caFile`: they are authorities,
//! or the certificate of the server itself. Pure.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Returns the TLS configuration of a client that trusts only these certificates.
///
/// # Errors
/// A certificate cannot be used.
pub(super) fn trusting(trusted: Vec<CertificateDer<'static>>) -> Result<ClientConfig, String> {
    let provider = CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(ring::default_provider()));
    let mut authorities = RootCertStore::empty();
    for certificate in &trusted {
        authorities.add(certificate.clone()).map_err(|error| error.to_string())?;
    }
    let by_authority =
        WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(&provider))
            .build()
            .map_err(|error| error.to_string())?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { trusted, by_authority }))
        .with_no_client_auth();
    // As in the HTTP client's own configuration: without this, HTTP/2 is never negotiated.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Verifier that also accepts a trusted certificate as the server's own, although it says that it
/// is an authority's.
///
/// `openssl req -x509` makes such certificates (CA:TRUE) by default, and clients in Go, such as
/// docker and containerd, accept them. webpki does not: it demands a separate certificate below
/// the authority.
#[derive(Debug)]
struct Verifier {
    trusted: Vec<CertificateDer<'static>>,
    by_authority: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.by_authority.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // webpki checks the validity period before it looks whether the certificate is an
            // authority's, so only the name is left to check.
            Err(error) if is_authority_as_server(&error) && self.trusts(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    // The signatures of the handshake prove that the server has the certificate's key. They are
    // verified with the key in the certificate, whoever issued it.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

impl Verifier {
    /// Returns true if a certificate is byte for byte one of the trusted ones.
    fn trusts(&self, certificate: &CertificateDer<'_>) -> bool {
        self.trusted.iter().any(|trusted| **trusted == **certificate)
    }
}

fn is_authority_as_server(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) = error else {
        return false;
    };
    matches!(cause.downcast_ref::<webpki::Error>(), Some(webpki::Error::CaUsedAsEndEntity))
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd,
    };
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls::{ClientConnection, ServerConfig, ServerConnection};
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::*;

    const HOST: &str = "registry.example";

    /// Parameters of a certificate that is its own authority.
    fn parameters() -> CertificateParams {
        let mut parameters = CertificateParams::new(vec![HOST.to_owned()]).expect("a name");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters
    }

    fn key() -> KeyPair {
        KeyPair::generate().expect("a key")
    }

    fn self_signed(parameters: &CertificateParams, key: &KeyPair) -> Certificate {
        parameters.self_signed(key).expect("signed")
    }

    /// Connects a client that trusts `trusted` to a server with this certificate and key.
    fn connect(
        trusted: &CertificateDer<'static>,
        certificate: &CertificateDer<'static>,
        key: &KeyPair,
        name: &'static str,
    ) -> Result<(), Error> {
        let provider = Arc::new(ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = ring::sign::any_supported_type(&key).expect("a key");
        // A configuration for one certificate would not accept another key.
        let key = SingleCertAndKey::from(CertifiedKey::new(vec![certificate.clone()], key));
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(key));
        let mut server = ServerConnection::new(Arc::new(server)).expect("a server");
        let client = Arc::new(trusting(vec![trusted.clone()]).expect("a client"));
        let name = ServerName::try_from(name).expect("a name");
        let mut client = ClientConnection::new(client, name).expect("a client");
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).expect("written");
            }
            let mut sent = bytes.as_slice();
            while !sent.is_empty() {
                server.read_tls(&mut sent).expect("read");
            }
            // The client's own error tells more than the alert that the server receives.
            let received = server.process_new_packets();
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).expect("written");
            }
            let mut sent = bytes.as_slice();
            while !sent.is_empty() {
                client.read_tls(&mut sent).expect("read");
            }
            client.process_new_packets()?;
            received?;
        }
        Ok(())
    }

    #[test]
    fn a_server_whose_certificate_is_trusted_itself_may_call_it_an_authority() {
        let key = key();
        let certificate = self_signed(&parameters(), &key);
        assert_eq!(connect(certificate.der(), certificate.der(), &key, HOST), Ok(()));
    }

    #[test]
    fn a_certificate_below_a_trusted_authority_is_trusted() {
        let (authority_key, own) = (key(), key());
        let authority = self_signed(&parameters(), &authority_key);
        let below = CertificateParams::new(vec![HOST.to_owned()]).expect("a name");
        let issuer = Issuer::new(parameters(), authority_key);
        let below = below.signed_by(&own, &issuer).expect("signed");
        assert_eq!(connect(authority.der(), below.der(), &own, HOST), Ok(()));
    }

    #[test]
    fn a_trusted_certificate_that_is_an_authority_is_still_checked_by_name_time_and_key() {
        let key = key();
        let certificate = self_signed(&parameters(), &key);
        let error = connect(certificate.der(), certificate.der(), &key, "other.example");
        assert!(
            matches!(
                error,
                Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }))
            ),
            "{error:?}"
        );
        let other = KeyPair::generate().expect("a key");
        let error = connect(certificate.der(), certificate.der(), &other, HOST);
        assert!(error.is_err(), "the server does not have the certificate's key");
        let mut expired = parameters();
        expired.not_after = date_time_ymd(2021, 3, 4);
        let expired = self_signed(&expired, &key);
        let error = connect(expired.der(), expired.der(), &key, HOST);
        assert!(
            matches!(
                error,
                Err(Error::InvalidCertificate(CertificateError::ExpiredContext { .. }))
            ),
            "{error:?}"
        );
        let mut future = parameters();
        future.not_before = date_time_ymd(4000, 1, 1);
        let future = self_signed(&future, &key);
        let error = connect(future.der(), future.der(), &key, HOST);
        assert!(
            matches!(
                error,
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { .. }))
            ),
            "{error:?}"
        );
    }

    #[test]
    fn an_authority_that_is_not_the_trusted_certificate_itself_is_no_server() {
        let (trusted_key, key) = (key(), key());
        let trusted = self_signed(&parameters(), &trusted_key);
        let server = self_signed(&parameters(), &key);
        let error = connect(trusted.der(), server.der(), &key, HOST).expect_err("refused");
        assert!(is_authority_as_server(&error), "{error:?}");
    }
}
