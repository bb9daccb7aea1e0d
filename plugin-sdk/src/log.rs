//! Writes into the operator's log; natively, as in tests, to standard error. Calls and bytes are
//! limited by the operator.

/// For whoever looks for a fault.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// For whoever follows what happens.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Something is odd, and goes on.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Something failed.
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
