//! Update over HTTP, as many microcontroller firmwares support it: the firmware is uploaded, or
//! the device is told the URL to fetch it from. If the device reports its version as JSON, the
//! version is read back.
//!
//! ```text
//! fetch firmware --> upload, or serve and tell --> wait for the version --> Sent
//! ```

mod body;
mod request;
mod serve;

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::CONTENT_LENGTH;
use reqwest::multipart::{Form, Part};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::Stage;
use crate::arguments::{Body, Http};
use crate::endpoint::{Endpoint, client};
use crate::firmware::{self, Firmware};
use crate::outcome::{AttemptFailure, Code, Sent};
use body::Progress;
use request::{Login, accepted, request};

/// Interval between reads of the version.
const LOOK: Duration = Duration::from_secs(1);
/// Largest response with a version that is read, in bytes.
const ANSWER_BYTES: usize = 256 << 10;

/// Makes one attempt.
///
/// # Errors
/// Names what failed, and what is known about the device.
pub async fn flash(options: &Http, stage: &watch::Sender<Stage>) -> Result<Sent, AttemptFailure> {
    let Http { host_endpoint, device_version, .. } = options;
    let endpoint = Endpoint::read(host_endpoint)?;
    let login = Login::read(&options.login_directory)?;
    // Report invalid options before anything is fetched.
    let version = Version::of(options, &endpoint, &login)?;
    if options.body == Body::Url {
        serve::address(options)?;
    }
    endpoint.at(&options.path)?;
    let firmware = Arc::new(firmware::fetch(&options.pull).await?);
    let (Firmware { digest, name, signed, .. }, size) = (&*firmware, firmware.size());
    tracing::info!(%digest, file = name, bytes = size, signed, "firmware fetched");
    // The baseline is read after the fetch, which may take minutes: it must be that of the
    // transfer.
    let before = match &version {
        Some(version) => Some(version.read().await?),
        None => None,
    };
    // A device that already reports the version proves nothing by reporting it again.
    let is_new = before.as_ref().is_some_and(|before| before != device_version);
    if before.is_some() && !is_new {
        tracing::warn!(version = device_version, "the device already reports this version");
    }
    if options.dry_run {
        let message = format!(
            "dry run: {name} of {digest} would be sent to {host_endpoint}; nothing was sent"
        );
        return Ok(Sent { bytes: 0, proven: false, message });
    }
    let progress = Progress::default();
    let has_answered = match options.body {
        Body::Url => {
            serve::fetched(options, &endpoint, &login, &firmware, stage).await?;
            true
        }
        Body::Raw | Body::Multipart => {
            upload(options, &endpoint, &login, &firmware, stage, &progress, is_new).await?
        }
    };
    let proven = match version.filter(|_| is_new) {
        Some(version) => {
            // Without an answer it is unknown whether the device has all of it, so a signal must
            // not end the wait with that claim.
            if has_answered {
                stage.send_replace(Stage::Delivered(size));
            }
            let limit = options.restart_timeout;
            let waited = version.wait(device_version, limit).await;
            waited.map_err(|last_response| {
                not_reported(device_version, limit, &last_response, has_answered, size)
            })?;
            true
        }
        None => false,
    };
    let message = match proven {
        true => {
            format!("{host_endpoint} has {name} of {digest}, and reports version {device_version}")
        }
        false => format!("{host_endpoint} has {name} of {digest}"),
    };
    Ok(Sent { bytes: size, proven, message })
}

/// Returns the failure for a device that did not report the version in time.
fn not_reported(
    device_version: &str,
    limit: Duration,
    last_response: &str,
    has_answered: bool,
    bytes: u64,
) -> AttemptFailure {
    let (code, words) = match has_answered {
        true => (Code::VerifyFailed, "the device has the firmware, but"),
        false => {
            (Code::TransferBroken, "the firmware was sent, but the device did not answer and")
        }
    };
    let message = format!(
        "{words} did not report version {device_version} within {limit:?}: {last_response}"
    );
    AttemptFailure { bytes: Some(bytes), ..AttemptFailure::new(code, message) }
}

/// Uploads the firmware with the request, and returns true if the device has answered. If it has
/// not, the device may or may not have all of it, because bytes handed to the network may not have
/// arrived: that is an error unless the version proves the update (`version_tells`).
async fn upload(
    options: &Http,
    endpoint: &Endpoint,
    login: &Login,
    firmware: &Arc<Firmware>,
    stage: &watch::Sender<Stage>,
    progress: &Progress,
    version_tells: bool,
) -> Result<bool, AttemptFailure> {
    let request = request(options, endpoint, &options.path, login)?;
    let body = reqwest::Body::wrap_stream(body::stream(firmware, progress.clone()));
    let request = match options.body {
        Body::Multipart => {
            let name = firmware.name.rsplit('/').next().unwrap_or("firmware.bin").to_owned();
            let part = Part::stream_with_length(body, firmware.size()).file_name(name);
            request.multipart(Form::new().part(options.field.clone(), part))
        }
        // Small servers reject a body whose length is not announced.
        _ => request.header(CONTENT_LENGTH, firmware.size()).body(body),
    };
    stage.send_replace(Stage::Sending);
    match request.send().await {
        Ok(answer) => {
            accepted(options, endpoint, answer.status(), progress.bytes()).map(|()| true)
        }
        // Some devices restart before they answer.
        Err(error)
            if version_tells && progress.bytes() >= firmware.size() && !error.is_timeout() =>
        {
            tracing::info!(%error, "the firmware was sent, but the device did not answer");
            Ok(false)
        }
        // Once bytes were sent, the state of the device is unknown, whatever the error.
        Err(error) if progress.bytes() > 0 => Err(AttemptFailure {
            bytes: Some(progress.bytes()),
            ..AttemptFailure::new(Code::TransferBroken, "the transfer failed").because(error)
        }),
        Err(error) => {
            let message = format!("device {endpoint} does not answer");
            Err(AttemptFailure::new(Code::DeviceUnreachable, message).because(error))
        }
    }
}

/// URL at which the device reports its version.
struct Version<'a> {
    url: reqwest::Url,
    pointer: &'a str,
    login: &'a Login,
}

impl<'a> Version<'a> {
    fn of(
        options: &'a Http,
        endpoint: &Endpoint,
        login: &'a Login,
    ) -> Result<Option<Self>, AttemptFailure> {
        let Some(path) = &options.version_path else { return Ok(None) };
        if options.device_version.is_empty() {
            let message = "VERSION is empty, but --version-path requires it";
            return Err(AttemptFailure::new(Code::BadConfiguration, message));
        }
        let pointer = options.version_pointer.as_str();
        Ok(Some(Self { url: endpoint.at(path)?, pointer, login }))
    }

    /// Reads the version that the device reports.
    ///
    /// # Errors
    /// The device does not answer, or does not report a version.
    async fn read(&self) -> Result<String, AttemptFailure> {
        let unreachable = |error: reqwest::Error| {
            let message = format!("device does not answer at {}", self.url);
            AttemptFailure::new(Code::DeviceUnreachable, message).because(error)
        };
        let request = self.login.over(client()?.get(self.url.clone()));
        let mut answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        if !status.is_success() {
            let message = format!("device answers {status} at {}", self.url);
            // A 4xx repeats itself, for example a wrong path or password; a 5xx may be a device
            // that is starting.
            let code =
                if status.is_client_error() { Code::DeviceRefused } else { Code::DeviceBusy };
            return Err(AttemptFailure::new(code, message));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            bytes.extend_from_slice(&chunk);
            // A wrong path may answer with an endless stream, for which the timeout alone allows
            // megabytes.
            if bytes.len() > ANSWER_BYTES {
                break;
            }
        }
        self.version_in(&bytes).ok_or_else(|| {
            let message = format!(
                "the response of {} has no version at {:?}; check --version-pointer",
                self.url, self.pointer
            );
            AttemptFailure::new(Code::BadConfiguration, message)
        })
    }

    fn version_in(&self, answer: &[u8]) -> Option<String> {
        if self.pointer.is_empty() {
            let text = std::str::from_utf8(answer).ok()?.trim();
            return (!text.is_empty()).then(|| text.to_owned());
        }
        let answer: Value = serde_json::from_slice(answer).ok()?;
        match answer.pointer(self.pointer)? {
            Value::String(text) => Some(text.clone()),
            // Some devices report a build number instead of text.
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// Waits until the device reports the version. Meanwhile it restarts, and does not answer.
    ///
    /// # Errors
    /// Describes the last response before the timeout.
    async fn wait(&self, device_version: &str, limit: Duration) -> Result<(), String> {
        let end = Instant::now() + limit;
        loop {
            sleep(LOOK.min(limit)).await;
            let last_response = match self.read().await {
                Ok(version) if version == device_version => return Ok(()),
                Ok(version) => format!("it reports {version:?}"),
                Err(failure) => failure.to_string(),
            };
            if Instant::now() >= end {
                return Err(last_response);
            }
            tracing::info!(version = device_version, "waiting for the version: {last_response}");
        }
    }
}
