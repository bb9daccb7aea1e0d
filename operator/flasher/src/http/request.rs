//! Request that delivers the firmware to a device, and the device's response.

use std::path::Path;

use reqwest::{RequestBuilder, StatusCode};

use crate::arguments::Http;
use crate::endpoint::{Endpoint, client};
use crate::outcome::{AttemptFailure, Code};

/// User name and password of the device.
pub(super) struct Login(Option<(String, String)>);

impl Login {
    pub fn read(folder: &Path) -> Result<Self, AttemptFailure> {
        let text = |name: &str| {
            let file = folder.join(name);
            match std::fs::read_to_string(&file) {
                // Files made with `echo` end with a line break that is not part of the password.
                Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => {
                    let message = format!("{} cannot be read", file.display());
                    Err(AttemptFailure::new(Code::BadConfiguration, message).because(error))
                }
            }
        };
        match (text("username")?, text("password")?) {
            (Some(name), Some(password)) => Ok(Self(Some((name, password)))),
            // The Secret is optional, and an absent optional Secret mounts as an empty folder.
            (None, None) => Ok(Self(None)),
            _ => {
                let message = format!(
                    "{} has only one of username and password; both are required",
                    folder.display()
                );
                Err(AttemptFailure::new(Code::BadConfiguration, message))
            }
        }
    }

    pub fn over(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.0 {
            Some((name, password)) => request.basic_auth(name, Some(password)),
            None => request,
        }
    }
}

/// Builds the request that uploads the firmware or tells the device its URL.
pub(super) fn request(
    options: &Http,
    endpoint: &Endpoint,
    path: &str,
    login: &Login,
) -> Result<RequestBuilder, AttemptFailure> {
    let request = client()?.request(options.method.clone(), endpoint.at(path)?);
    // The client's timeout of 10 s is for small answers; this request carries the firmware.
    let request = login.over(request).timeout(options.transfer_timeout);
    Ok(options
        .header
        .iter()
        .fold(request, |request, (name, value)| request.header(name.clone(), value.clone())))
}

/// Checks that a response means success.
///
/// # Errors
/// The response means a failure.
pub(super) fn accepted(
    options: &Http,
    endpoint: &Endpoint,
    status: StatusCode,
    bytes: u64,
) -> Result<(), AttemptFailure> {
    if options.success.contains(&status.as_u16()) {
        return Ok(());
    }
    let code = match status {
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::CONFLICT
        | StatusCode::LOCKED
        | StatusCode::TOO_EARLY
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::SERVICE_UNAVAILABLE => Code::DeviceBusy,
        // The state of a device whose server failed midway is unknown.
        status if status.is_server_error() => Code::TransferBroken,
        _ => Code::DeviceRefused,
    };
    let path = &options.path;
    let message = format!("device {endpoint} answers {status} to {} {path}", options.method);
    let bytes = (code == Code::TransferBroken).then_some(bytes);
    Err(AttemptFailure { bytes, ..AttemptFailure::new(code, message) })
}
