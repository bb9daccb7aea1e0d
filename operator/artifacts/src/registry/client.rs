//! HTTP client for one registry, and advice on errors about the registry's certificate.

use std::time::{Duration, SystemTime};

use reqwest::{Client, ClientBuilder, redirect};
use rustls::CertificateError;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::proxies::proxies;
use super::server_certificate::trusting;
use crate::config::RegistryConfig;
use crate::pem::without_byte_order_mark;

/// Client name that registries and their token services see.
pub(super) const CLIENT: &str = "flashjob-operator";

pub(super) fn client(config: Option<&RegistryConfig>) -> Result<Client, String> {
    let mut builder = Client::builder()
        // Each redirect is judged in `redirects`, and most are followed without the credentials.
        .redirect(redirect::Policy::none())
        // Linux retries a connection to a host that drops packets for about two minutes.
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(30))
        .timeout(Duration::from_secs(300))
        .user_agent(CLIENT);
    let proxies = proxies(|name| std::env::var(name).ok())?;
    builder = proxies.into_iter().fold(builder, ClientBuilder::proxy);
    if let Some(file) = config.and_then(|config| config.ca_file.as_ref()) {
        let failed = |error: String| format!("caFile {}: {error}", file.display());
        let pem = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
        let certificates = CertificateDer::pem_slice_iter(without_byte_order_mark(&pem))
            .collect::<Result<Vec<CertificateDer<'static>>, _>>()
            .map_err(|error| failed(error.to_string()))?;
        if certificates.is_empty() {
            return Err(format!("caFile {} contains no certificate", file.display()));
        }
        // The file replaces the system's authorities: none of those can certify an impostor of
        // this registry.
        builder = builder.tls_backend_preconfigured(trusting(certificates).map_err(failed)?);
    }
    builder.build().map_err(|error| error.to_string())
}

/// Returns advice on a certificate error, which the TLS library does not give.
pub(super) fn advice_on_certificate(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut inner = cause;
    // One I/O error may wrap another.
    while let Some(within) = inner.downcast_ref::<std::io::Error>().and_then(|of| of.get_ref()) {
        inner = within;
    }
    let Some(rustls::Error::InvalidCertificate(refused)) = inner.downcast_ref::<rustls::Error>()
    else {
        return None;
    };
    // The library gives these times in seconds since 1970.
    match refused {
        CertificateError::ExpiredContext { not_after, .. } => {
            return Some(format!(
                "the server's certificate was valid until {}; renew it on the registry, or \
                 correct the clock of this machine if it is fast",
                date(*not_after)
            ));
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            return Some(format!(
                "the server's certificate is valid only from {}; correct the clock of this \
                 machine if it is slow, or else install a certificate on the registry that is \
                 valid now",
                date(*not_before)
            ));
        }
        _ => {}
    }
    let refused = format!("{refused:?}");
    let advices = [
        (
            "UnknownIssuer",
            "the server's certificate is signed by an unknown authority; set the authority's \
             certificate as caFile of this registry",
        ),
        (
            "NotValidForName",
            "the server's certificate is for another host name; use a name that the certificate \
             contains, or install another certificate on the server",
        ),
        (
            "CaUsedAsEndEntity",
            "the server uses the certificate of an authority (CA:TRUE) as its own, and caFile of \
             this registry does not contain exactly that certificate; add it there, or create one \
             with basicConstraints=CA:FALSE, for example with openssl req -x509 -addext \
             basicConstraints=CA:FALSE, and set it as caFile too",
        ),
        (
            "UnsupportedCertVersion",
            "the server's certificate is an X.509 version 1 certificate, which has no \
             subjectAltName; create a version 3 certificate with subjectAltName",
        ),
    ];
    // Variants with context, such as NotValidForNameContext, begin with the plain variant's name.
    let advice = advices.into_iter().find(|(name, _)| refused.contains(name));
    advice.map(|(_, advice)| advice.to_owned())
}

fn date(time: UnixTime) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs()))
}
