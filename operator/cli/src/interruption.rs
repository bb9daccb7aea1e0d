//! End of a command by a signal: the message says what has begun, and how to continue.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cause::root;
use crate::failure::{Code, Failure};

/// Message to print when a signal ends the program; commands keep it up to date.
#[derive(Clone, Debug)]
pub struct Interruption(Arc<Mutex<String>>);

impl Default for Interruption {
    fn default() -> Self {
        Self(Arc::new(Mutex::new("nothing was left half written".to_owned())))
    }
}

impl Interruption {
    /// Sets the message, which completes the sentence "interrupted; …".
    pub fn says(&self, text: impl Into<String>) {
        // The message is replaced in one assignment, so it is whole even if another thread has
        // panicked.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text.into();
    }

    /// Returns the message for a signal that arrives now.
    pub fn message(&self) -> String {
        let consequence = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        format!("interrupted; {consequence}")
    }

    /// Listens for signals from now on; the returned future ends at the first.
    ///
    /// # Errors
    /// The signal handlers cannot be installed.
    pub fn listen(&self) -> Result<impl Future<Output = Failure> + use<>, Failure> {
        let (mut interrupt, mut terminate) =
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let interruption = self.clone();
        Ok(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            Failure::new(Code::Interrupted, "Interrupted", interruption.message())
        })
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| {
        Failure::new(
            Code::Other,
            "Signals",
            format!("cannot install signal handlers: {}", root(&error)),
        )
    })
}
