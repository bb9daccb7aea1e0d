//! Fetches a blob: follows redirects to the storage behind a registry, and resumes interrupted
//! downloads.

use std::time::Duration;

use reqwest::header::CONTENT_RANGE;
use reqwest::{Method, Response, StatusCode};
use tokio::time::{Instant, sleep};

use super::receive::Receive;
use super::{Layer, Outgoing, REDIRECTS, RegistryError, Repository, html_instead, is_page};

/// Timeout of one blob, over all resumed requests: 1.6 MB at 1 KB/s take 27 minutes. A connection
/// on which the server sends nothing for 30 s counts as interrupted.
const TIME: Duration = Duration::from_secs(3600);
/// Number of consecutive requests without new bytes after which a download fails.
const FRUITLESS_REQUESTS: u32 = 3;
/// Pause between an interruption and the request for the rest.
const PAUSE: Duration = Duration::from_secs(1);

impl Repository<'_> {
    /// Fetches a blob, and checks its digest.
    ///
    /// # Errors
    /// The registry does not return the blob, or returns another one.
    pub async fn blob(&mut self, layer: &Layer) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        self.blob_into(layer, &mut bytes).await?;
        Ok(bytes)
    }

    /// Fetches a blob, and checks its digest once all of it has arrived.
    ///
    /// An interrupted download is resumed where it stopped. It fails after several consecutive
    /// requests without new bytes. A server that does not support ranges sends the whole blob
    /// again.
    ///
    /// # Errors
    /// The registry does not return the blob, or returns another one.
    pub(crate) async fn blob_into(
        &mut self,
        layer: &Layer,
        into: &mut impl Receive,
    ) -> Result<(), RegistryError> {
        let Layer { digest, size } = layer;
        let what = self.what(&digest.to_string());
        let end = Instant::now() + TIME;
        let (mut most, mut fruitless) = (0, 0);
        into.restart();
        while let Err(error) = self.rest(layer, &what, end, into).await {
            // The connection may break after the last byte; then only the digest matters.
            if into.at() == *size {
                break;
            }
            // Compare with the most bytes ever received: a server without ranges starts again at
            // zero each time, and would otherwise seem to make progress forever.
            fruitless = if into.at() > most { 0 } else { fruitless + 1 };
            most = most.max(into.at());
            let pause = error.retry_after().unwrap_or_default().max(PAUSE);
            // If no byte has arrived yet, do not retry here: a mirror may have the blob, or the
            // caller retries later.
            let is_over = most == 0
                || fruitless >= FRUITLESS_REQUESTS
                || !error.is_transient()
                || Instant::now() + pause >= end;
            if is_over {
                return Err(error);
            }
            let received = into.at();
            tracing::debug!(%what, %error, received, "download interrupted; resuming");
            sleep(pause).await;
        }
        let actual = into.digest();
        if actual == *digest { Ok(()) } else { Err(RegistryError::Tampered { what, actual }) }
    }

    /// Fetches the missing rest of the blob, or the whole blob if the server does not support
    /// ranges.
    async fn rest(
        &mut self,
        layer: &Layer,
        what: &str,
        end: Instant,
        into: &mut impl Receive,
    ) -> Result<(), RegistryError> {
        let from = into.at();
        let time = end.saturating_duration_since(Instant::now());
        let response = self.part(layer, what, (from, None), time).await?;
        // A server may ignore Range and answer 200 with the whole blob (RFC 9110, section 14.2).
        if !continues(&response, from) {
            into.restart();
        }
        self.receive(response, what, layer.size, into).await
    }

    /// Fetches the first bytes of a blob, at most `most` of them. They cannot be checked, as the
    /// digest covers the whole blob. If the server does not support ranges, the rest is not read.
    ///
    /// # Errors
    /// The registry does not return the blob.
    pub async fn blob_start(
        &mut self,
        layer: &Layer,
        most: usize,
    ) -> Result<Vec<u8>, RegistryError> {
        let what = self.what(&layer.digest.to_string());
        let most = most.min(layer.size);
        let Some(last) = most.checked_sub(1) else { return Ok(Vec::new()) };
        let mut response = self.part(layer, &what, (0, Some(last)), TIME).await?;
        // Bytes from elsewhere in the blob would be taken for its start, as no digest is checked
        // here.
        if response.status() == StatusCode::PARTIAL_CONTENT && !continues(&response, 0) {
            let message = "the server returned a range other than the requested one".to_owned();
            return Err(RegistryError::Form { what, message });
        }
        let mut bytes = Vec::new();
        // Dropping the response closes the connection, so the rest of a 200 answer is not
        // transferred.
        while bytes.len() < most
            && let Some(chunk) =
                response.chunk().await.map_err(|error| self.unreachable(&error))?
        {
            let length = chunk.len().min(most - bytes.len());
            bytes.extend_from_slice(&chunk[..length]);
        }
        Ok(bytes)
    }

    /// Requests a part of a blob, and follows redirects to the host that stores it.
    async fn part(
        &mut self,
        layer: &Layer,
        what: &str,
        range: (usize, Option<usize>),
        time: Duration,
    ) -> Result<Response, RegistryError> {
        let path = format!("blobs/{}", layer.digest);
        let time = Some(time);
        let get = |url| Outgoing { range, time, ..Outgoing::new(Method::GET, url) };
        // A resumed download also starts at the registry: signed URLs of object stores expire.
        let mut response = self.ask(get(self.url(&path)?), what).await?;
        for _ in 0..REDIRECTS {
            if !response.status().is_redirection() {
                break;
            }
            let target = self.redirect(&response, what)?;
            // The storage behind a registry is another host, so it gets no credentials.
            response = self.send(&get(target), None).await?;
        }
        if response.status().is_redirection() {
            return Err(self.redirect_refused(&response, what));
        }
        self.check(&response, what)?;
        // A page would otherwise fail only after all of it was hashed, as tampering.
        if is_page(&response) {
            return Err(html_instead(what));
        }
        Ok(response)
    }
}

/// Returns true if the response's part begins at this byte of the blob (RFC 9110,
/// "Content-Range").
fn continues(response: &Response, from: usize) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let first = range
        .and_then(|range| range.strip_prefix("bytes "))
        .and_then(|range| range.split_once('-'))
        .and_then(|(first, _)| first.parse().ok());
    response.status() == StatusCode::PARTIAL_CONTENT && first == Some(from)
}
