//! Client of the attestation service, which decides whether a device is what its certificate
//! claims. It receives the certificate in PEM, and answers 200 for a trusted device.

use std::time::Duration;

use pem::{EncodeConfig, LineEnding, Pem};

use crate::arguments::Ota;
use crate::outcome::{AttemptFailure, Code};

/// Port of the service.
const PORT: u16 = 8000;
/// Timeout of the request.
const ANSWER: Duration = Duration::from_secs(10);

/// Attestation service, if there is one.
pub(super) struct Attestation {
    url: Option<String>,
}

impl Attestation {
    /// Returns the service of the namespace.
    ///
    /// # Errors
    /// There is no service, and the options require one.
    pub fn of(options: &Ota) -> Result<Self, AttemptFailure> {
        let host = options.attestation_host.as_deref().filter(|host| !host.is_empty());
        if host.is_none() && options.require_attestation {
            return Err(AttemptFailure::new(
                Code::BadConfiguration,
                "attestation is required, but DICE_AUTH_SERVICE_SERVICE_HOST is empty: the \
                 namespace needs a Service dice-auth-service, and the Pod needs \
                 enableServiceLinks",
            ));
        }
        if host.is_none() {
            tracing::warn!(
                "no attestation service is configured; any caller receives the firmware"
            );
        }
        // In a cluster with IPv6 the variable has an address without brackets.
        let bracketed = |host: &str| match host.contains(':') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        Ok(Self { url: host.map(|host| format!("http://{}:{PORT}", bracketed(host))) })
    }

    /// Asks the service whether it trusts a device, by the device's certificate in DER.
    ///
    /// # Errors
    /// The service does not trust the device, or does not answer.
    pub async fn check(&self, certificate: &[u8]) -> Result<(), AttemptFailure> {
        let Some(url) = &self.url else { return Ok(()) };
        let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
        let text = pem::encode_config(&Pem::new("CERTIFICATE", certificate), config);
        let unavailable = |error: reqwest::Error| {
            let message = format!(
                "the attestation service {url} does not answer; nothing was sent to the device"
            );
            AttemptFailure::new(Code::AttestationUnavailable, message).because(error)
        };
        // The address is a Service of the cluster, which a proxy for the outside does not reach.
        let client = reqwest::Client::builder().timeout(ANSWER).no_proxy().build();
        let answer = client.map_err(unavailable)?.post(url).body(text).send().await;
        let status = answer.map_err(unavailable)?.status();
        // Only 200 is the service's contract for a trusted device; no other 2xx means trust.
        if status.as_u16() == 200 {
            tracing::info!(service = url, "the device is trusted");
            return Ok(());
        }
        // An error of the service says nothing about the device.
        let (code, words) = match status.is_server_error() {
            true => (Code::AttestationUnavailable, "the attestation service failed"),
            false => (Code::DeviceNotTrusted, "the device is not trusted"),
        };
        Err(AttemptFailure::new(
            code,
            format!("{words}: {url} answers {status}; nothing was sent to the device"),
        ))
    }
}
