//! Update over HTTP, as many programs of microcontrollers have it: the firmware is uploaded, or
//! the device is told where to fetch it. Where the device says its version in JSON, that is read
//! back.
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

/// Between two looks at the version.
const LOOK: Duration = Duration::from_secs(1);
/// Largest answer with a version that is read, in bytes.
const ANSWER_BYTES: usize = 256 << 10;

/// Makes one attempt.
///
/// # Errors
/// Says what failed, and what is known of the device.
pub async fn flash(options: &Http, stage: &watch::Sender<Stage>) -> Result<Sent, AttemptFailure> {
    let Http { host_endpoint, device_version: wanted, .. } = options;
    let endpoint = Endpoint::read(host_endpoint)?;
    let login = Login::read(&options.login_directory)?;
    // What cannot be is said before anything is fetched.
    let version = Version::of(options, &endpoint, &login)?;
    if options.body == Body::Url {
        serve::address(options)?;
    }
    endpoint.at(&options.path)?;
    let firmware = Arc::new(firmware::fetch(&options.pull).await?);
    let (Firmware { digest, name, signed, .. }, size) = (&*firmware, firmware.size());
    tracing::info!(%digest, file = name, bytes = size, signed, "the firmware is here");
    let before = match &version {
        Some(version) => Some(version.read().await?),
        None => None,
    };
    // A device that reports it already proves nothing when it reports it again.
    let is_new = before.as_ref().is_some_and(|before| before != wanted);
    if before.is_some() && !is_new {
        tracing::warn!(version = wanted, "the device reports this version already");
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
            if has_answered {
                stage.send_replace(Stage::Delivered(size));
            }
            let limit = options.restart_timeout;
            let waited = version.wait(wanted, limit).await;
            waited.map_err(|found| not_reported(wanted, limit, &found, has_answered, size))?;
            true
        }
        None => false,
    };
    let message = match proven {
        true => format!("{host_endpoint} has {name} of {digest}, and reports version {wanted}"),
        false => format!("{host_endpoint} has {name} of {digest}"),
    };
    Ok(Sent { bytes: size, proven, message })
}

/// A device that did not report the version in time.
fn not_reported(
    wanted: &str,
    limit: Duration,
    found: &str,
    has_answered: bool,
    bytes: u64,
) -> AttemptFailure {
    let (code, words) = match has_answered {
        true => (Code::VerifyFailed, "the device has the firmware"),
        false => (Code::TransferBroken, "all was sent, the device did not answer"),
    };
    let message =
        format!("{words}, and did not report version {wanted} within {limit:?}: {found}");
    AttemptFailure { bytes: Some(bytes), ..AttemptFailure::new(code, message) }
}

/// Sends the firmware along with the request, and returns true if the device has answered. One
/// that has not may have all of it or not, as what was handed to the network may not have reached
/// it: that is an error unless the version tells (`version_tells`).
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
        // Small servers take no body whose length they are not told.
        _ => request.header(CONTENT_LENGTH, firmware.size()).body(body),
    };
    stage.send_replace(Stage::Sending);
    match request.send().await {
        Ok(answer) => {
            accepted(options, endpoint, answer.status(), progress.bytes()).map(|()| true)
        }
        // Some restart before they have answered.
        Err(error)
            if version_tells && progress.bytes() >= firmware.size() && !error.is_timeout() =>
        {
            tracing::info!(%error, "all was sent, and the device did not answer");
            Ok(false)
        }
        Err(error) if progress.bytes() > 0 => Err(AttemptFailure {
            bytes: Some(progress.bytes()),
            ..AttemptFailure::new(Code::TransferBroken, "the transfer broke").because(error)
        }),
        Err(error) => {
            let message = format!("device {endpoint} does not answer");
            Err(AttemptFailure::new(Code::DeviceUnreachable, message).because(error))
        }
    }
}

/// The address at which the device says its version.
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
            let message = "VERSION is empty, and --version-path asks for it";
            return Err(AttemptFailure::new(Code::BadConfiguration, message));
        }
        let pointer = options.version_pointer.as_str();
        Ok(Some(Self { url: endpoint.at(path)?, pointer, login }))
    }

    /// The version that the device reports.
    ///
    /// # Errors
    /// It does not answer, or answers something else.
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
            let code =
                if status.is_client_error() { Code::DeviceRefused } else { Code::DeviceBusy };
            return Err(AttemptFailure::new(code, message));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES {
                break;
            }
        }
        self.found(&bytes).ok_or_else(|| {
            let message = format!(
                "the answer of {} has no version at {:?}: see --version-pointer",
                self.url, self.pointer
            );
            AttemptFailure::new(Code::BadConfiguration, message)
        })
    }

    fn found(&self, answer: &[u8]) -> Option<String> {
        if self.pointer.is_empty() {
            let text = std::str::from_utf8(answer).ok()?.trim();
            return (!text.is_empty()).then(|| text.to_owned());
        }
        let answer: Value = serde_json::from_slice(answer).ok()?;
        match answer.pointer(self.pointer)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// Waits until the device reports the version: it restarts meanwhile, and does not answer.
    ///
    /// # Errors
    /// Says what was found in its place until the limit.
    async fn wait(&self, wanted: &str, limit: Duration) -> Result<(), String> {
        let end = Instant::now() + limit;
        loop {
            sleep(LOOK.min(limit)).await;
            let found = match self.read().await {
                Ok(found) if found == wanted => return Ok(()),
                Ok(found) => format!("it reports {found:?}"),
                Err(failure) => failure.to_string(),
            };
            if Instant::now() >= end {
                return Err(found);
            }
            tracing::info!(version = wanted, "the version is waited for: {found}");
        }
    }
}
