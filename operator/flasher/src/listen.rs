//! Socket that devices connect to.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::net::TcpListener;

use crate::outcome::{AttemptFailure, Code};

/// Listens on the given address. The default is all addresses, or all IPv4 addresses if the node
/// has no IPv6.
///
/// # Errors
/// The port is in use.
pub(crate) async fn listen(
    address: Option<IpAddr>,
    port: u16,
) -> Result<TcpListener, AttemptFailure> {
    let listener = match address {
        Some(address) => TcpListener::bind((address, port)).await,
        // On Linux an IPv6 socket for all addresses also accepts IPv4, so one socket serves both.
        None => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            // A port in use must not be hidden by a socket that only some of the devices reach.
            Err(error) if error.kind() != ErrorKind::AddrInUse => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
            }
            bound => bound,
        },
    };
    listener.map_err(|error| {
        AttemptFailure::new(Code::BadConfiguration, format!("cannot listen on port {port}"))
            .because(error)
    })
}
