//! Access to the API server that is the same for all kinds: connection, decoding, watches,
//! leadership, and ownership of objects by this installation.

pub mod answer;
pub mod configuration;
pub mod connection;
pub mod definitions;
pub mod installation;
pub mod leadership;
pub(crate) mod passwords;
pub mod proxy;
pub mod read;
pub mod watch;

/// Longest note of an event that the API server accepts, in bytes.
pub const NOTE_BYTES: usize = 1024;
