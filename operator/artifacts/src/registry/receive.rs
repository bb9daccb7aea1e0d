//! Receivers of the bytes of a blob, which are kept, or handed on while they come.

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::Digest;

/// Place to which the bytes of a blob go while they come.
pub(crate) trait Receive: Send {
    /// Number of the byte that comes next.
    fn at(&self) -> usize;

    /// All of it comes again, from its first byte.
    fn restart(&mut self);

    /// Takes the next bytes.
    fn take(&mut self, bytes: &[u8]) -> impl Future<Output = ()> + Send;

    /// Digest of all that came.
    fn digest(&self) -> Digest;
}

/// Keeps them.
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

/// Hashes the bytes of a blob and hands them on, each once however often it comes. Whoever has
/// them knows only by the answer to the whole that they are the right ones.
pub(crate) struct HandOn {
    at: usize,
    handed_on: usize,
    hash: Sha256,
    to: mpsc::Sender<Vec<u8>>,
}

impl HandOn {
    pub fn new(to: mpsc::Sender<Vec<u8>>) -> Self {
        Self { at: 0, handed_on: 0, hash: Sha256::new(), to }
    }
}

impl Receive for HandOn {
    fn at(&self) -> usize {
        self.at
    }

    fn restart(&mut self) {
        self.at = 0;
    }

    async fn take(&mut self, bytes: &[u8]) {
        let again = self.handed_on.saturating_sub(self.at).min(bytes.len());
        self.at += bytes.len();
        let new = &bytes[again..];
        self.hash.update(new);
        self.handed_on += new.len();
        // Whoever has seen enough takes no more, and the rest is hashed all the same.
        if !new.is_empty() {
            let _ = self.to.send(new.to_vec()).await;
        }
    }

    fn digest(&self) -> Digest {
        Digest::of_hashed(self.hash.clone())
    }
}
