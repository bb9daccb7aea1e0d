//! Everything about the API server that is the same for all kinds: the connection, what is read
//! from it, who leads, and which objects are this installation's.

pub mod answer;
pub mod connection;
pub mod definitions;
pub mod installation;
pub mod leadership;
pub(crate) mod passwords;
pub mod proxy;
pub mod read;
pub mod watch;
