//! Firmware as the body of a request or a response, with observable progress.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::Stream;

use crate::firmware::Firmware;

/// Size of a chunk, in bytes.
const CHUNK: usize = 16 << 10;

/// Number of bytes that were handed to the network.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<AtomicU64>);

impl Progress {
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Returns the firmware as a stream of chunks, and counts them when they are taken.
pub(super) fn stream(
    firmware: &Firmware,
    progress: Progress,
) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    let bytes = firmware.bytes.clone();
    let chunks = (0..bytes.len()).step_by(CHUNK).map(move |at| {
        let chunk = bytes.slice(at..bytes.len().min(at + CHUNK));
        // Taken by the network stack, which is not the same as received by the device.
        progress.0.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        Ok(chunk)
    });
    futures::stream::iter(chunks)
}
