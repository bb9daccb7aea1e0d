//! Secure update over the network, as the ESP32 family does it: the device is asked over HTTP,
//! calls back over TLS, shows its certificate, and receives the firmware.
//!
//! ```text
//! fetch firmware --> listen --> Callback::wait --> attestation --> transfer --> Sent
//! ```

mod attestation;
mod callback;
mod identity;
mod transfer;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::arguments::{Caller, Ota};
use crate::firmware::{self, Firmware};
use crate::outcome::{Code, Failure, Sent};
use attestation::Attestation;
use callback::Callback;

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing has changed the device.
    Preparing,
    /// The device receives firmware.
    Sending,
}

/// Makes one attempt.
///
/// # Errors
/// Says what failed, and what is known of the device.
pub async fn flash(options: &Ota, stage: &watch::Sender<Stage>) -> Result<Sent, Failure> {
    let Ota { host_endpoint, external_ip, .. } = options;
    tracing::info!(
        firmware = options.pull.firmware,
        device = options.pull.device,
        uuid = options.uuid,
        application = options.application_type,
        version = options.device_version,
        endpoint = host_endpoint,
        "one device is to be flashed"
    );
    let endpoint = callback::Endpoint::read(host_endpoint)?;
    let attestation = Attestation::of(options)?;
    let acceptor = identity::acceptor(&options.certificates)?;
    let firmware = firmware::fetch(&options.pull).await?;
    let Firmware { digest, name, size, signed, .. } = &firmware;
    tracing::info!(%digest, file = name, bytes = size, signed, "the firmware is here");
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
            "dry run: {name} of {digest} would be sent to {host_endpoint}, which answers; nothing was sent"
        );
        return Ok(Sent { bytes: 0, message });
    }
    let listener = listen(options.listen, options.port).await?;
    tokio::time::sleep(options.wait).await;
    let caller = callback.wait(listener, &acceptor).await?;
    attestation.check(&caller.certificate).await?;
    // From here on the device may be changed.
    stage.send_replace(Stage::Sending);
    let from = caller.from;
    transfer::send(caller, &firmware, options.stall_timeout).await?;
    Ok(Sent {
        bytes: *size,
        message: format!(
            "{name} of {digest} was sent to {host_endpoint}, which called from {from}"
        ),
    })
}

/// Listens on all addresses unless one is named; on those of IPv4 alone where the node has no IPv6.
async fn listen(address: Option<IpAddr>, port: u16) -> Result<TcpListener, Failure> {
    let listener = match address {
        Some(address) => TcpListener::bind((address, port)).await,
        None => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            Err(error) if error.kind() != ErrorKind::AddrInUse => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
            }
            bound => bound,
        },
    };
    listener.map_err(|error| {
        Failure::new(Code::BadConfiguration, format!("cannot listen on port {port}")).because(error)
    })
}
