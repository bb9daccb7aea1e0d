//! Receivers of a blob's bytes, which store the bytes or forward them while they arrive.

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::Digest;

/// Receiver of the bytes of a blob while they arrive.
pub(crate) trait Receive: Send {
    /// Returns the offset of the next byte.
    fn at(&self) -> usize;

    /// Prepares for the blob to arrive again from its first byte.
    fn restart(&mut self);

    /// Takes the next bytes.
    fn take(&mut self, bytes: &[u8]) -> impl Future<Output = ()> + Send;

    /// Returns the digest of all bytes received.
    fn digest(&self) -> Digest;
}

/// Stores the bytes.
impl Receive for Vec<u8> {
    fn at(&self) -> usize {
        self.len()
    }

    fn restart(&mut self) {
        self.clear();
    }

    async fn take(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn digest(&self) -> Digest {
        Digest::of(self)
    }
}

/// Hashes the bytes of a blob and forwards each of them once, even if it arrives again. The reader
/// of the channel cannot trust the bytes until the whole download has succeeded.
pub(crate) struct Forward {
    at: usize,
    forwarded: usize,
    hash: Sha256,
    to: mpsc::Sender<Vec<u8>>,
}

impl Forward {
    pub fn new(to: mpsc::Sender<Vec<u8>>) -> Self {
        Self { at: 0, forwarded: 0, hash: Sha256::new(), to }
    }
}

impl Receive for Forward {
    fn at(&self) -> usize {
        self.at
    }

    fn restart(&mut self) {
        // Hash and `forwarded` stay, because the reader already has those bytes.
        self.at = 0;
    }

    async fn take(&mut self, bytes: &[u8]) {
        // The hash must cover the bytes that were forwarded: a restarted download may bring other
        // ones.
        let again = self.forwarded.saturating_sub(self.at).min(bytes.len());
        self.at += bytes.len();
        let new = &bytes[again..];
        self.hash.update(new);
        self.forwarded += new.len();
        // A reader that needs no more bytes drops the channel; the rest is hashed all the same.
        if !new.is_empty() {
            let _ = self.to.send(new.to_vec()).await;
        }
    }

    fn digest(&self) -> Digest {
        Digest::of_hashed(self.hash.clone())
    }
}
