//! The way from the request to call back to a device that has called.
//!
//! A device may be asked before the network leads it here: it is refused then, ends its update,
//! and does not try again. So it is asked again while nobody has called. A device that has called
//! is never asked again, and no second caller is served: one asked twice that calls twice gets one
//! transfer.

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

/// A device certificate has at least this many bytes.
const CERTIFICATE_BYTES: usize = 700;
/// Longest time from a connection to its certificate; a slow device takes seconds for the
/// handshake.
const GREETING: Duration = Duration::from_secs(20);
/// The pauses between two requests grow by half, up to this many times the first one.
const LONGEST_PAUSE: u32 = 3;
/// Connections that may show at once that they are the device's; more wait their turn.
const GREETINGS: usize = 16;

/// A device that has called and shown its certificate.
pub(super) struct Caller {
    pub stream: TlsStream<TcpStream>,
    /// In DER.
    pub certificate: Vec<u8>,
    /// Address that it called from.
    pub from: IpAddr,
}

/// A request to call back.
pub(super) struct Callback {
    /// The device's HTTP server.
    pub endpoint: Endpoint,
    /// Address that the device is to call.
    pub address: IpAddr,
    /// Turn away who does not call from the address of the endpoint.
    pub only_from_endpoint: bool,
    /// Longest time until it has called.
    pub limit: Duration,
    /// Pause before it is asked a second time. Longer than a device that was refused waits before
    /// it tries again by itself, where its program does (4 s): it need not be asked then.
    pub again: Duration,
}

/// Requests so far, for the message of a failure.
#[derive(Default)]
struct Record {
    asked: u32,
    /// Set once the device has answered.
    answered: bool,
    answer: Option<String>,
    broken: Option<String>,
}

/// A connection that came to nothing. It does not end the wait.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("no certificate came within {GREETING:?}")]
    Silent,
    #[error("{0}")]
    Connection(&'static str, #[source] std::io::Error),
    #[error("the device sent something that is no certificate")]
    NoCertificate,
    #[error("the device's certificate has only {0} bytes")]
    Short(usize),
    #[error("{0} called, which is not the device's address")]
    Stranger(IpAddr),
}

impl Callback {
    /// Asks the device what it is: it answers, and nothing changes.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn look(&self) -> Result<(), AttemptFailure> {
        let answer = client()?.get(self.endpoint.at("/info")?).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        answer.map(|_| ()).map_err(|error| {
            let message = format!("device {} does not answer", self.endpoint);
            AttemptFailure::new(Code::DeviceUnreachable, message).because(error)
        })
    }

    /// Asks the device until it has called. The listener closes with that, so that later callers
    /// are refused.
    ///
    /// # Errors
    /// The device refuses the request, or does not call within the limit.
    pub async fn wait(
        &self,
        listener: TcpListener,
        acceptor: &TlsAcceptor,
    ) -> Result<Caller, AttemptFailure> {
        let end = Instant::now() + self.limit;
        let (client, update) = (client()?, self.endpoint.at("/update")?);
        let own = match self.only_from_endpoint {
            true => Some(self.endpoint.addresses().await),
            false => None,
        };
        let (mut record, mut pause) = (Record::default(), self.again);
        let mut greetings = FuturesUnordered::new();
        let mut request = std::pin::pin!(futures::future::Fuse::terminated());
        let mut next = Instant::now();
        loop {
            // Nobody is asked so late that there is no time left to call, nor while a connection
            // may turn out to be the device's.
            let asks = request.is_terminated()
                && greetings.is_empty()
                && (record.asked == 0 || next + self.again <= end);
            tokio::select! {
                biased;
                Some(greeted) = greetings.next() => match greeted {
                    Ok(caller) => return Ok(caller),
                    Err(error) => {
                        record.broken(&error);
                        next = next.max(Instant::now() + pause);
                    }
                },
                accepted = listener.accept(),
                    if Instant::now() < end && greetings.len() < GREETINGS =>
                {
                    // A connection that ended before it was accepted is nobody's.
                    if let Ok((stream, from)) = accepted {
                        greetings.push(greet(stream, from, own.as_deref(), acceptor));
                    }
                }
                answer = &mut request => {
                    record.answered(&self.endpoint, answer)?;
                    next = Instant::now() + pause;
                    pause = (pause * 3 / 2).min(self.again * LONGEST_PAUSE);
                }
                () = tokio::time::sleep_until(next), if asks => {
                    record.asked += 1;
                    request.set(self.ask(&client, update.clone()).fuse());
                }
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
    /// Fails where the device would say the same again. One that is busy with an update (409),
    /// restarts or cannot be reached may answer otherwise later; one that does not answer in time
    /// may still call.
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
                format!("it answers {status}")
            }
            Err(error) => {
                let mut cause: &dyn std::error::Error = &error;
                while let Some(inner) = cause.source() {
                    cause = inner;
                }
                format!("it does not answer: {cause}")
            }
        };
        tracing::info!(%endpoint, asked = self.asked, "the device was asked: {answer}");
        self.answer = Some(answer);
        Ok(())
    }

    fn broken(&mut self, error: &Broken) {
        let mut words = error.to_string();
        if let Some(cause) = std::error::Error::source(error) {
            words = format!("{words}: {cause}");
        }
        tracing::info!("a connection came to nothing: {words}");
        self.broken = Some(words);
    }

    fn failure(&self, callback: &Callback) -> AttemptFailure {
        let Callback { endpoint, limit, address, .. } = callback;
        let mut text = format!(
            "device {endpoint} did not call {address} within {limit:?}: asked {} times",
            self.asked
        );
        if let Some(answer) = &self.answer {
            text += &format!(", last {answer}");
        }
        if let Some(broken) = &self.broken {
            text += &format!("; a connection broke: {broken}");
        }
        let reached = self.answered || self.broken.is_some();
        let code = if reached { Code::NoCallback } else { Code::DeviceUnreachable };
        AttemptFailure::new(code, text)
    }
}

/// Lets a connection show that it is a device's. One of a load balancer's health check, for
/// instance, does not.
async fn greet(
    stream: TcpStream,
    from: SocketAddr,
    own: Option<&[IpAddr]>,
    acceptor: &TlsAcceptor,
) -> Result<Caller, Broken> {
    let from = from.ip().to_canonical();
    if own.is_some_and(|own| !own.contains(&from)) {
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

/// A DER certificate says its own length (X.690, section 8.1.3).
async fn read_certificate(stream: &mut (impl AsyncReadExt + Unpin)) -> Result<Vec<u8>, Broken> {
    let mut head = [0; 4];
    let read = stream.read_exact(&mut head).await;
    read.map_err(|error| Broken::Connection("the device sent no certificate", error))?;
    if head[..2] != [0x30, 0x82] {
        return Err(Broken::NoCertificate);
    }
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if length + head.len() < CERTIFICATE_BYTES {
        return Err(Broken::Short(length + head.len()));
    }
    let mut certificate = head.to_vec();
    certificate.resize(head.len() + length, 0);
    let read = stream.read_exact(&mut certificate[head.len()..]).await;
    read.map_err(|error| Broken::Connection("the device's certificate is cut", error))?;
    Ok(certificate)
}
