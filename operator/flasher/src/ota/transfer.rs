//! Transfer of the firmware to a trusted device.

use std::io::ErrorKind;
use std::time::Duration;

use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::callback::Caller;
use crate::firmware::Firmware;
use crate::outcome::{AttemptFailure, Code};

/// Size of a chunk, in bytes.
const CHUNK: usize = 16 << 10;
/// Extra time for the kernel to close the connection to a device that stopped reading.
const MARGIN: Duration = Duration::from_secs(5);
/// Steps in which the progress is logged, in percent.
const STEP: u64 = 10;

/// Sends the firmware, and waits until the device closes the connection.
///
/// # Errors
/// The connection broke or stalled. What the device does with the received part is unknown.
pub(super) async fn send(
    mut caller: Caller,
    firmware: &Firmware,
    stall: Duration,
) -> Result<(), AttemptFailure> {
    let total = firmware.size();
    let (mut sent, mut logged_step) = (0_u64, 0);
    let stream = &mut caller.stream;
    // Without this option (RFC 5482), Linux retransmits to a lost device for about 15 minutes.
    let patience = u32::try_from(stall.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = set_tcp_user_timeout(stream.get_ref().0, patience) {
        tracing::warn!(%error, "cannot set the TCP user timeout; a lost device is detected late");
    }
    for chunk in firmware.bytes.chunks(CHUNK) {
        // The limit is for each chunk: devices erase flash memory between writes, and a slow one
        // is fine as long as it progresses.
        let written = tokio::time::timeout(stall, stream.write_all(chunk)).await;
        moved(written, sent, stall)?;
        sent += chunk.len() as u64;
        let percent = sent * 100 / total.max(1);
        if percent / STEP > logged_step {
            logged_step = percent / STEP;
            tracing::info!(bytes = sent, total, percent, "sending");
        }
    }
    // No length is sent: the device takes the end of the stream for the end of the firmware.
    moved(tokio::time::timeout(stall, stream.shutdown()).await, sent, stall)?;
    // The device closes the connection once it has everything. If it stops reading, the kernel
    // closes the connection after `stall`; if it has everything and restarts without closing,
    // nothing arrives.
    let mut rest = [0; 256];
    loop {
        let read = tokio::time::timeout(stall + MARGIN, stream.read(&mut rest)).await;
        let Ok(read) = read else {
            tracing::info!("the device was sent everything, but did not close the connection");
            return Ok(());
        };
        if let Ok(0) = read {
            return Ok(());
        }
        moved(Ok(read.map(|_| ())), sent, stall)?;
    }
}

/// Checks one step of the transfer: the connection may break, or stall if the device lost its
/// power.
fn moved(
    step: Result<std::io::Result<()>, tokio::time::error::Elapsed>,
    sent: u64,
    stall: Duration,
) -> Result<(), AttemptFailure> {
    let broken = |words: String| AttemptFailure {
        bytes: Some(sent),
        ..AttemptFailure::new(Code::TransferBroken, words)
    };
    match step {
        Ok(Ok(())) => Ok(()),
        // Which of these errors occurs depends on how far the device had read.
        Ok(Err(error))
            if matches!(
                error.kind(),
                ErrorKind::ConnectionReset
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::BrokenPipe
                    | ErrorKind::UnexpectedEof
            ) =>
        {
            Err(broken("the transfer failed: the device closed the connection".to_owned()))
        }
        Ok(Err(error)) => Err(broken("the transfer failed".to_owned()).because(error)),
        Err(_) => Err(broken(format!("the transfer failed: no progress for {stall:?}"))),
    }
}
