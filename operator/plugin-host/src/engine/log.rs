//! Messages of a plugin in the operator's log: through the contract's `log`, and through WASI's
//! standard output and error. They share one limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime_wasi_io::bytes::Bytes;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{OutputStream, StreamError, StreamResult};

use super::limits::{LOG_BYTES, LOG_LINES, Stopped};

/// Maximum number of bytes that one write to an output accepts.
const AT_ONCE: usize = 4096;

/// The log of one call.
pub(super) struct Log {
    plugin: Arc<str>,
    lines: AtomicUsize,
    bytes: AtomicUsize,
}

impl Log {
    pub fn new(plugin: Arc<str>) -> Self {
        Self { plugin, lines: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }
    }

    fn take(&self, lines: usize, bytes: usize) -> Result<(), Stopped> {
        let lines = self.lines.fetch_add(lines, Ordering::Relaxed) + lines;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // A flood in the log would hide the lines of all other plugins, so it ends the call.
        if lines > LOG_LINES || bytes > LOG_BYTES { Err(Stopped::Log) } else { Ok(()) }
    }

    /// Writes one line, unless the limit is reached.
    pub fn line(&self, level: tracing::Level, message: &str) -> Result<(), Stopped> {
        self.take(1, message.len())?;
        self.write(level, message);
        Ok(())
    }

    fn write(&self, level: tracing::Level, message: &str) {
        let plugin = &*self.plugin;
        let line: String =
            // A line break in a message could forge a line of the log, and escapes reach a
            // terminal.
            message.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        match level {
            tracing::Level::ERROR => tracing::error!(plugin, "{line}"),
            tracing::Level::WARN => tracing::warn!(plugin, "{line}"),
            tracing::Level::INFO => tracing::info!(plugin, "{line}"),
            _ => tracing::debug!(plugin, "{line}"),
        }
    }
}

/// Standard output or error. It logs whole lines, and at the end the remaining text.
pub(super) struct Output {
    log: Arc<Log>,
    level: tracing::Level,
    line: Vec<u8>,
}

impl Output {
    pub fn new(log: Arc<Log>, level: tracing::Level) -> Self {
        Self { log, level, line: Vec::new() }
    }
}

#[wasmtime_wasi_io::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let ended = bytes.iter().filter(|byte| **byte == b'\n').count();
        // Bytes count even without a line break: the line that is being collected is memory, too.
        self.log.take(ended, bytes.len()).map_err(|stopped| StreamError::Trap(stopped.into()))?;
        for byte in bytes {
            if byte == b'\n' {
                self.log.write(self.level, &String::from_utf8_lossy(&self.line));
                self.line.clear();
            } else {
                self.line.push(byte);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(AT_ONCE)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.log.write(self.level, &String::from_utf8_lossy(&self.line));
        }
    }
}
