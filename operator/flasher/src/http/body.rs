//! Firmware as the body of a request or an answer: unpacked while it is sent.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::Stream;
use tokio::sync::mpsc;

use crate::firmware::Firmware;

/// Bytes handed over at once.
const CHUNK: usize = 16 << 10;
/// Chunks that wait for the network.
const WAITING: usize = 2;

/// Bytes that were handed to the network.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<AtomicU64>);

impl Progress {
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The bytes of a firmware, as they are taken.
pub(super) fn stream(
    firmware: Arc<Firmware>,
    progress: Progress,
) -> impl Stream<Item = std::io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    // Unpacking is work for the processor, and has a thread of its own.
    tokio::task::spawn_blocking(move || {
        let read = || -> std::io::Result<()> {
            let mut bytes = firmware.open()?;
            loop {
                let mut chunk = vec![0; CHUNK];
                let count = bytes.read(&mut chunk)?;
                chunk.truncate(count);
                // Who takes no more has closed the connection.
                if count == 0 || sender.blocking_send(Ok(chunk)).is_err() {
                    return Ok(());
                }
            }
        };
        if let Err(error) = read() {
            let _ = sender.blocking_send(Err(error));
        }
    });
    futures::stream::unfold((receiver, progress), |(mut receiver, progress)| async move {
        let chunk = receiver.recv().await?;
        if let Ok(chunk) = &chunk {
            progress.0.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        Some((chunk, (receiver, progress)))
    })
}
