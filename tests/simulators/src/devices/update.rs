//! One update of a device: after a request over HTTP it connects back, presents its certificate,
//! receives firmware and boots it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use axum::extract::State;
use axum::http::StatusCode;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::device::{Behaviour, Device, Update, lock};
use crate::firmware::Firmware;

/// Interval at which a device that holds a transfer checks its behaviour.
const HELD: Duration = Duration::from_millis(50);

/// Handles `POST /update` with the text `ip: <address>`. One update at a time: a request during an
/// update gets 409 and has no other effect.
pub(super) async fn update(
    State(device): State<Arc<Device>>,
    body: String,
) -> (StatusCode, String) {
    let Some(address) = body.trim().strip_prefix("ip:").map(|address| address.trim().to_owned())
    else {
        return (StatusCode::BAD_REQUEST, "expected the text ip: <address>".to_owned());
    };
    let behaviour = match device.begin(&address) {
        Ok(behaviour) => behaviour,
        Err(answer) => return answer,
    };
    tokio::spawn(async move {
        let received = device.receive(&address, &behaviour).await;
        let mut inner = lock(&device.report);
        let connected = inner.update.take().is_some_and(|update| update.connected);
        if let Err(error) = received {
            tracing::info!(device = inner.report.id, "update failed: {error:#}");
            match connected {
                true => inner.report.refused += 1,
                false => inner.report.unreached += 1,
            }
        }
    });
    (StatusCode::OK, "updating".to_owned())
}

impl Device {
    /// Enters the update state and returns the behaviour for the update, or returns the response
    /// that says why not. A test that sees the request counted can change the behaviour for the
    /// next one.
    fn begin(&self, address: &str) -> Result<Behaviour, (StatusCode, String)> {
        let mut inner = lock(&self.report);
        if inner.down {
            return Err((StatusCode::SERVICE_UNAVAILABLE, String::new()));
        }
        if let Some(update) = &inner.update
            && !inner.behaviour.heedless
        {
            let repeated = update.address == address && !update.connected;
            match repeated {
                true => inner.report.repeats += 1,
                false => inner.report.conflicts += 1,
            }
            return Err((StatusCode::CONFLICT, "an update is under way".to_owned()));
        }
        inner.report.updates += 1;
        inner.update = Some(Update { address: address.to_owned(), connected: false });
        inner.first_asked.get_or_insert_with(Instant::now);
        Ok(inner.take_behaviour())
    }

    async fn receive(&self, address: &str, behaviour: &Behaviour) -> anyhow::Result<()> {
        if behaviour.no_callback {
            return Ok(());
        }
        self.held.clone().wait_for(|held| !held).await.context("the fleet has gone")?;
        tokio::time::sleep(Duration::from_millis(behaviour.callback_delay_ms)).await;
        let mut stream = self.connect(address, behaviour).await?;
        if behaviour.cut_transfer {
            let mut half = [0; 64];
            self.in_time(stream.read_exact(&mut half)).await?;
            anyhow::bail!("the device cut the transfer");
        }
        tokio::time::sleep(Duration::from_millis(behaviour.transfer_ms)).await;
        while behaviour.holds_transfer && lock(&self.report).behaviour.holds_transfer {
            tokio::time::sleep(HELD).await;
        }
        let image = self.read_to_end(&mut stream).await?;
        stream.shutdown().await?;
        let firmware = Firmware::decode(&image)?;
        ensure!(!behaviour.refuse_image, "the device refuses the image");
        self.reboot_into(firmware, behaviour).await
    }

    /// Connects to the flasher and presents the device's certificate.
    async fn connect(
        &self,
        address: &str,
        behaviour: &Behaviour,
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        let since_request =
            lock(&self.report).first_asked.map_or(Duration::ZERO, |at| at.elapsed());
        ensure!(
            since_request >= Duration::from_millis(behaviour.refused_ms),
            "cannot call back to {address}: connection refused"
        );
        let stream = self
            .in_time(TcpStream::connect((address, self.settings.callback_port)))
            .await
            .with_context(|| format!("cannot call back to {address}"))?;
        {
            let mut inner = lock(&self.report);
            inner.report.callbacks += 1;
            inner.update.iter_mut().for_each(|update| update.connected = true);
        }
        let config = rustls::ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("flasher")?;
        let mut stream = self.in_time(connector.connect(name, stream)).await?;
        stream.write_all(&self.certificate).await?;
        stream.flush().await?;
        Ok(stream)
    }

    async fn read_to_end(&self, stream: &mut TlsStream<TcpStream>) -> anyhow::Result<Vec<u8>> {
        let (mut image, mut chunk) = (Vec::new(), vec![0; 16 * 1024]);
        loop {
            match self.in_time(stream.read(&mut chunk)).await? {
                0 => return Ok(image),
                count => image.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// Limits one step on the network to the receive timeout. Without it a device whose flasher
    /// vanished would update forever.
    async fn in_time<T>(
        &self,
        step: impl Future<Output = std::io::Result<T>>,
    ) -> anyhow::Result<T> {
        let limit = Duration::from_millis(self.settings.receive_timeout_ms);
        let done = tokio::time::timeout(limit, step).await;
        Ok(done.with_context(|| format!("nothing came within {limit:?}"))??)
    }
}

/// Accepts any certificate: the devices do not know the flash container's.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
