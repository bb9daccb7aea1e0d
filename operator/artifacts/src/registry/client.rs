//! HTTP client for one registry, and advice on errors about the registry's certificate.

use std::time::Duration;

use reqwest::{Certificate, Client, redirect};

use crate::config::RegistryConfig;

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
    if let Some(file) = config.and_then(|config| config.ca_file.as_ref()) {
        let pem =
            std::fs::read(file).map_err(|error| format!("caFile {}: {error}", file.display()))?;
        // Editors may write a byte order mark, which the PEM parser does not skip.
        let pem = pem.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&pem);
        let certificates = Certificate::from_pem_bundle(pem)
            .map_err(|error| format!("caFile {}: {error}", file.display()))?;
        if certificates.is_empty() {
            return Err(format!("caFile {} contains no certificate", file.display()));
        }
        // The file replaces the system's authorities: none of those can certify an impostor of
        // this registry.
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|error| error.to_string())
}

/// Returns advice on a certificate error, for which the TLS library gives only the name of an enum
/// variant.
pub(super) fn advice_on_certificate(
    cause: &(dyn std::error::Error + 'static),
) -> Option<&'static str> {
    let mut inner = cause;
    // One I/O error may wrap another.
    while let Some(within) = inner.downcast_ref::<std::io::Error>().and_then(|of| of.get_ref()) {
        inner = within;
    }
    let refused = match inner.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidCertificate(refused)) => format!("{refused:?}"),
        _ => return None,
    };
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
            "the server uses the certificate of an authority (CA:TRUE) as its own; create one \
             with basicConstraints=CA:FALSE, for example with openssl req -x509 -addext \
             basicConstraints=CA:FALSE, and set it as caFile too, or sign one with the authority",
        ),
        (
            "UnsupportedCertVersion",
            "the server's certificate is an X.509 version 1 certificate, which has no \
             subjectAltName; create a version 3 certificate with subjectAltName",
        ),
    ];
    // Variants with context, such as NotValidForNameContext, begin with the plain variant's name.
    advices.into_iter().find(|(name, _)| refused.contains(name)).map(|(_, advice)| advice)
}
