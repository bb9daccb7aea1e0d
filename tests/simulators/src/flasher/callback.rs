//! The way from the request to call back to a device that has called.
//!
//! A device may be asked before the network leads it here: it is refused then, ends its update, and
//! does not try again. So it is asked again while nobody has called. A device that has called is
//! never asked again, and no second caller is served: one asked twice that calls twice gets one
//! transfer.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use futures::future::{FusedFuture, FutureExt};
use futures::stream::FuturesUnordered;
use reqwest::StatusCode;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A device certificate has at least this many bytes.
const CERTIFICATE_BYTES: usize = 700;
/// Longest time from a connection to its certificate; a slow device takes seconds for the
/// handshake.
const GREETING: Duration = Duration::from_secs(20);
/// Longest time for the device's answer to the request.
const ANSWER: Duration = Duration::from_secs(10);
/// The pauses between two requests grow by half, up to this many times the first one.
const LONGEST_PAUSE: u32 = 3;

/// A device that has called and shown its certificate.
pub(super) struct Caller {
    pub stream: TlsStream<TcpStream>,
    /// In DER.
    pub certificate: Vec<u8>,
}

/// A request to call back.
pub(super) struct Callback<'a> {
    /// `host:port` of the device's HTTP server.
    pub endpoint: &'a str,
    /// Where the device is to call.
    pub address: &'a str,
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
    answer: Option<String>,
    broken: Option<String>,
}

impl Callback<'_> {
    /// Asks the device until it has called. The listener closes with that, so that later callers
    /// are refused.
    ///
    /// # Errors
    /// The device refuses the request, or does not call within the limit.
    pub async fn wait(
        &self,
        listener: TcpListener,
        acceptor: &TlsAcceptor,
    ) -> anyhow::Result<Caller> {
        let end = Instant::now() + self.limit;
        let client = reqwest::Client::builder().timeout(ANSWER).no_proxy().build()?;
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
                accepted = listener.accept(), if Instant::now() < end => {
                    greetings.push(greet(accepted?.0, acceptor));
                }
                answer = &mut request => {
                    record.answered(self.endpoint, answer)?;
                    next = Instant::now() + pause;
                    pause = (pause * 3 / 2).min(self.again * LONGEST_PAUSE);
                }
                () = tokio::time::sleep_until(next), if asks => {
                    record.asked += 1;
                    request.set(self.ask(&client).fuse());
                }
                () = tokio::time::sleep_until(end), if greetings.is_empty() => {
                    bail!(record.failure(self))
                }
            }
        }
    }

    async fn ask(&self, client: &reqwest::Client) -> reqwest::Result<StatusCode> {
        let request = client
            .post(format!("http://{}/update", self.endpoint))
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
        endpoint: &str,
        answer: reqwest::Result<StatusCode>,
    ) -> anyhow::Result<()> {
        let passing = [
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::CONFLICT,
            StatusCode::LOCKED,
            StatusCode::TOO_EARLY,
            StatusCode::TOO_MANY_REQUESTS,
        ];
        let answer = match answer {
            Ok(status) if status.is_client_error() && !passing.contains(&status) => {
                bail!("device {endpoint} answers {status}")
            }
            Ok(status) => format!("it answers {status}"),
            Err(error) => format!("it does not answer: {:#}", anyhow::Error::from(error)),
        };
        tracing::info!(endpoint, asked = self.asked, "the device was asked: {answer}");
        self.answer = Some(answer);
        Ok(())
    }

    fn broken(&mut self, error: &anyhow::Error) {
        tracing::info!("a connection came to nothing: {error:#}");
        self.broken = Some(format!("{error:#}"));
    }

    fn failure(&self, callback: &Callback<'_>) -> String {
        let Callback { endpoint, limit, .. } = callback;
        let mut text = format!("device {endpoint} did not call back within {limit:?}: asked ");
        text += &format!("{} times", self.asked);
        if let Some(answer) = &self.answer {
            text += &format!(", last {answer}");
        }
        if let Some(broken) = &self.broken {
            text += &format!("; a connection broke: {broken}");
        }
        text
    }
}

/// Lets a connection show that it is a device's. One of a load balancer's health check, for
/// instance, does not.
async fn greet(stream: TcpStream, acceptor: &TlsAcceptor) -> anyhow::Result<Caller> {
    let greeted = tokio::time::timeout(GREETING, async {
        let mut stream = acceptor.accept(stream).await.context("the TLS handshake failed")?;
        let certificate = read_certificate(&mut stream).await?;
        Ok(Caller { stream, certificate })
    });
    greeted.await.with_context(|| format!("no certificate came within {GREETING:?}"))?
}

/// A DER certificate says its own length (X.690, section 8.1.3).
async fn read_certificate(stream: &mut (impl AsyncReadExt + Unpin)) -> anyhow::Result<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.context("the device sent no certificate")?;
    ensure!(head[..2] == [0x30, 0x82], "the device sent something that is no certificate");
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    ensure!(
        length + head.len() >= CERTIFICATE_BYTES,
        "the device's certificate has only {} bytes",
        length + head.len()
    );
    let mut certificate = head.to_vec();
    certificate.resize(head.len() + length, 0);
    stream
        .read_exact(&mut certificate[head.len()..])
        .await
        .context("the device's certificate is cut")?;
    Ok(certificate)
}
