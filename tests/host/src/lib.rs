//! Parts that the tests of the plugin host share: registries, a front before them that remembers
//! who asked what, a token service, and hosts that start with nothing; components made to do harm.

pub mod components;
pub mod front;
pub mod hosts;
pub mod push;
pub mod registry;
pub mod tokens;
