//! From the request to call back to a device that has called.
//!
//! A device may be asked before the network routes its connection here: its connection is then
//! refused, and it ends its update and does not retry. So the request is repeated until the device
//! has called. A device that has called is never asked again, and no second caller is served: a
//! device that is asked twice and calls twice gets one transfer.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{FusedFuture, FutureExt};
use futures::stream::FuturesUnordered;
use reqwest::{StatusCode, Url};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::endpoint::{Endpoint, client};
use crate::outcome::{AttemptFailure, Code};

/// Minimum size of a device certificate, in bytes.
const CERTIFICATE_BYTES: usize = 700;
/// Timeout from a connection to its certificate; a slow device takes seconds for the handshake.
const GREETING: Duration = Duration::from_secs(20);
/// The pause between two requests grows by half, up to this multiple of the first pause.
const LONGEST_PAUSE: u32 = 3;
/// Maximum number of concurrent connections that have not shown a device certificate; others wait.
const GREETINGS: usize = 16;

/// Device that has called and presented its certificate.
pub(super) struct Caller {
    pub stream: TlsStream<TcpStream>,
    /// Certificate in DER.
    pub certificate: Vec<u8>,
    /// Address from which the device called.
    pub from: IpAddr,
}

/// Request to call back.
pub(super) struct Callback {
    /// The device's HTTP server.
    pub endpoint: Endpoint,
    /// Address that the device must call.
    pub address: IpAddr,
    /// Reject callers from any address other than the endpoint's.
    pub only_from_endpoint: bool,
    /// Timeout until the device has called.
    pub limit: Duration,
    /// Pause before the second request. It is longer than the 4 s after which some devices retry a
    /// refused connection by themselves, so that those are not asked again.
    pub again: Duration,
}

/// Requests so far, for the message of a failure.
#[derive(Default)]
struct Record {
    requests: u32,
    /// True once the device has answered.
    answered: bool,
    answer: Option<String>,
    broken: Option<String>,
}

/// Connection without a device certificate. It does not end the wait.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("no certificate arrived within {GREETING:?}")]
    Silent,
    #[error("{0}")]
    Connection(&'static str, #[source] std::io::Error),
    #[error("the device sent something other than a certificate")]
    NoCertificate,
    #[error("the device's certificate has only {0} bytes")]
    Short(usize),
    #[error("the connection came from {0}, which is not the device's address")]
    Stranger(IpAddr),
}

impl Callback {
    /// Requests the device's information, which changes nothing on the device.
    ///
    /// # Errors
    /// The device does not answer.
    pub async fn look(&self) -> Result<(), AttemptFailure> {
        let answer = client()?.get(self.endpoint.at("/info")?).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        answer.map(|_| ()).map_err(|error| {
            let message = format!("device {} does not answer", self.endpoint);
            AttemptFailure::new(Code::DeviceUnreachable, message).because(error)
        })
    }

    /// Repeats the request until the device has called. The listener is closed on return, so that
    /// later callers are refused.
    ///
    /// # Errors
    /// The device rejects the request, or does not call before the timeout.
    pub async fn wait(
        &self,
        listener: TcpListener,
        acceptor: &TlsAcceptor,
    ) -> Result<Caller, AttemptFailure> {
        // The limit covers all requests, so that a device that never calls cannot extend it.
        let end = Instant::now() + self.limit;
        let (client, update) = (client()?, self.endpoint.at("/update")?);
        let device_addresses = match self.only_from_endpoint {
            true => Some(self.endpoint.addresses().await),
            false => None,
        };
        let (mut record, mut pause) = (Record::default(), self.again);
        let mut greetings = FuturesUnordered::new();
        let mut request = std::pin::pin!(futures::future::Fuse::terminated());
        let mut next = Instant::now();
        loop {
            // Do not ask so late that no time is left to call, nor while an open connection may be
            // the device's.
            let asks = request.is_terminated()
                && greetings.is_empty()
                && (record.requests == 0 || next + self.again <= end);
            tokio::select! {
                // A certificate that has arrived counts before the end of the wait that expired
                // meanwhile.
                biased;
                Some(greeted) = greetings.next() => match greeted {
                    Ok(caller) => return Ok(caller),
                    Err(error) => {
                        record.broken(&error);
                        // The connection may have been the device's, which then needs time before
                        // it can be asked again.
                        next = next.max(Instant::now() + pause);
                    }
                },
                accepted = listener.accept(),
                    if Instant::now() < end && greetings.len() < GREETINGS =>
                {
                    // Ignore a connection that ended before it was accepted.
                    if let Ok((stream, from)) = accepted {
                        greetings.push(greet(stream, from, device_addresses.as_deref(), acceptor));
                    }
                }
                answer = &mut request => {
                    // A device may call before it answers the request, so the answer is not
                    // awaited on its own.
                    record.answered(&self.endpoint, answer)?;
                    next = Instant::now() + pause;
                    pause = (pause * 3 / 2).min(self.again * LONGEST_PAUSE);
                }
                () = tokio::time::sleep_until(next), if asks => {
                    record.requests += 1;
                    request.set(self.ask(&client, update.clone()).fuse());
                }
                // A device that called in time may finish its handshake, which has a timeout of
                // its own.
                () = tokio::time::sleep_until(end), if greetings.is_empty() => {
                    return Err(record.failure(self));
                }
            }
        }
    }

    async fn ask(&self, client: &reqwest::Client, update: Url) -> reqwest::Result<StatusCode> {
        let request = client
            .post(update)
            .header("content-type", "text/plain")
            .body(format!("ip: {}", self.address));
        Ok(request.send().await?.status())
    }
}

impl Record {
    /// Returns an error if the device would give the same answer again. A device that is busy with
    /// an update (409), restarts or is unreachable may answer differently later; a device that
    /// does not answer in time may still call.
    fn answered(
        &mut self,
        endpoint: &Endpoint,
        answer: reqwest::Result<StatusCode>,
    ) -> Result<(), AttemptFailure> {
        let passing = [
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::CONFLICT,
            StatusCode::LOCKED,
            StatusCode::TOO_EARLY,
            StatusCode::TOO_MANY_REQUESTS,
        ];
        let answer = match answer {
            Ok(status) if status.is_client_error() && !passing.contains(&status) => {
                let message =
                    format!("device {endpoint} answers {status} to the request to update");
                return Err(AttemptFailure::new(Code::DeviceRefused, message));
            }
            Ok(status) => {
                self.answered = true;
                format!("it answered {status}")
            }
            Err(error) => {
                // reqwest's own text only repeats the URL; the innermost source says what
                // happened.
                let mut cause: &dyn std::error::Error = &error;
                while let Some(inner) = cause.source() {
                    cause = inner;
                }
                format!("it did not answer: {cause}")
            }
        };
        tracing::info!(%endpoint, asked = self.requests, "requested the update: {answer}");
        self.answer = Some(answer);
        Ok(())
    }

    fn broken(&mut self, error: &Broken) {
        let mut words = error.to_string();
        if let Some(cause) = std::error::Error::source(error) {
            words = format!("{words}: {cause}");
        }
        tracing::info!("a connection failed: {words}");
        self.broken = Some(words);
    }

    fn failure(&self, callback: &Callback) -> AttemptFailure {
        let Callback { endpoint, limit, address, .. } = callback;
        let mut text = format!(
            "device {endpoint} did not call {address} within {limit:?}: asked {} times",
            self.requests
        );
        if let Some(answer) = &self.answer {
            text += &format!("; the last time {answer}");
        }
        if let Some(broken) = &self.broken {
            text += &format!("; a connection failed: {broken}");
        }
        // A connection without a certificate may be the device's: then it got the request, and
        // only its answer was lost.
        let reached = self.answered || self.broken.is_some();
        let code = if reached { Code::NoCallback } else { Code::DeviceUnreachable };
        AttemptFailure::new(code, text)
    }
}

/// Reads the device certificate of a connection. Other connections, such as a load balancer's
/// health check, do not send one.
async fn greet(
    stream: TcpStream,
    from: SocketAddr,
    device_addresses: Option<&[IpAddr]>,
    acceptor: &TlsAcceptor,
) -> Result<Caller, Broken> {
    // On a socket for both families, IPv4 callers have IPv4-mapped IPv6 addresses.
    let from = from.ip().to_canonical();
    if device_addresses.is_some_and(|addresses| !addresses.contains(&from)) {
        return Err(Broken::Stranger(from));
    }
    let greeted = tokio::time::timeout(GREETING, async {
        let accepted = acceptor.accept(stream).await;
        let mut stream =
            accepted.map_err(|error| Broken::Connection("the TLS handshake failed", error))?;
        let certificate = read_certificate(&mut stream).await?;
        Ok(Caller { stream, certificate, from })
    });
    greeted.await.unwrap_or(Err(Broken::Silent))
}

/// Reads a DER certificate, which states its own length (X.690, section 8.1.3).
async fn read_certificate(stream: &mut (impl AsyncReadExt + Unpin)) -> Result<Vec<u8>, Broken> {
    let mut head = [0; 4];
    let read = stream.read_exact(&mut head).await;
    read.map_err(|error| Broken::Connection("the device sent no certificate", error))?;
    // A SEQUENCE with a length of two bytes: shorter certificates are rejected below anyway.
    if head[..2] != [0x30, 0x82] {
        return Err(Broken::NoCertificate);
    }
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if length + head.len() < CERTIFICATE_BYTES {
        return Err(Broken::Short(length + head.len()));
    }
    let mut certificate = head.to_vec();
    // Two length bytes limit this to 64 KiB, so a stranger cannot make the program allocate more.
    certificate.resize(head.len() + length, 0);
    let read = stream.read_exact(&mut certificate[head.len()..]).await;
    read.map_err(|error| Broken::Connection("the device's certificate is truncated", error))?;
    Ok(certificate)
}
