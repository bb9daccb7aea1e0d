//! Secure update over the network, as the ESP32 family does it: the device receives a request over
//! HTTP, calls back over TLS, presents its certificate, and receives the firmware.
//!
//! ```text
//! fetch firmware --> listen --> Callback::wait --> attestation --> transfer --> Sent
//! ```

mod attestation;
mod callback;
mod identity;
mod transfer;

use tokio::sync::watch;

use crate::Stage;
use crate::arguments::{Caller, Ota};
use crate::endpoint::Endpoint;
use crate::firmware::{self, Firmware};
use crate::listen::listen;
use crate::outcome::{AttemptFailure, Sent};
use attestation::Attestation;
use callback::Callback;

/// Makes one attempt.
///
/// # Errors
/// Names what failed, and what is known about the device.
pub async fn flash(options: &Ota, stage: &watch::Sender<Stage>) -> Result<Sent, AttemptFailure> {
    let Ota { host_endpoint, external_ip, .. } = options;
    tracing::info!(
        firmware = options.pull.firmware,
        device = options.pull.device,
        uuid = options.uuid,
        application = options.application_type,
        version = options.device_version,
        endpoint = host_endpoint,
        "flashing one device"
    );
    // A wrong variable or file is reported before megabytes are fetched for nothing.
    let endpoint = Endpoint::read(host_endpoint)?;
    let attestation = Attestation::of(options)?;
    let acceptor = identity::acceptor(&options.certificates)?;
    // The firmware is complete before the device is asked: with unpacking during the transfer, a
    // device received at 0.4 of the speed of TLS.
    let firmware = firmware::fetch(&options.pull).await?;
    let (Firmware { digest, name, signed, .. }, size) = (&firmware, firmware.size());
    tracing::info!(%digest, file = name, bytes = size, signed, "firmware fetched");
    let callback = Callback {
        endpoint,
        address: *external_ip,
        only_from_endpoint: options.caller == Caller::Address,
        limit: options.callback_timeout,
        again: options.ask_again,
    };
    if options.dry_run {
        callback.look().await?;
        let message = format!(
            "dry run: {name} of {digest} would be sent to {host_endpoint}, which answers; nothing \
             was sent"
        );
        return Ok(Sent { bytes: 0, proven: false, message });
    }
    let listener = listen(options.listen, options.port).await?;
    // A node may forward to a new Pod only after a second or two, and a refused device may not
    // retry.
    tokio::time::sleep(options.wait).await;
    let caller = callback.wait(listener, &acceptor).await?;
    // An untrusted device must not receive a single byte, so this precedes the transfer.
    attestation.check(&caller.certificate).await?;
    // From here on the device may be changed.
    stage.send_replace(Stage::Sending);
    let from = caller.from;
    transfer::send(caller, &firmware, options.stall_timeout).await?;
    Ok(Sent {
        bytes: size,
        proven: false,
        message: format!(
            "{name} of {digest} was sent to {host_endpoint}, which called from {from}"
        ),
    })
}
