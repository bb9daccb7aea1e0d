//! Writes to the operator's log, or, outside WebAssembly (for example in tests), to standard
//! error. The operator limits the number of calls and of bytes.

/// Logs details for debugging.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// Logs a normal event.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Logs an unexpected condition that does not stop the plugin.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Logs a failure.
pub fn error(message: &str) {
    write(Level::Error, message);
}

use crate::bindings::flashjob::plugin::log::Level;

#[cfg(target_family = "wasm")]
fn write(level: Level, message: &str) {
    crate::bindings::flashjob::plugin::log::write(level, message);
}

#[cfg(not(target_family = "wasm"))]
fn write(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
}
