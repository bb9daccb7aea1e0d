//! Parts that the tests of the plugin host share: registries, a front before them that records
//! requests, a token service, hosts with an empty cache, and malicious components.

pub mod components;
pub mod front;
pub mod hosts;
pub mod push;
pub mod registry;
pub mod tokens;
