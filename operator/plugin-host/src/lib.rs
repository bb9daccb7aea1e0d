//! From an OCI reference to a device plugin's typed answers. Knows nothing of Kubernetes.
//!
//! ```text
//! Reference --resolve--> Digest --fetch--> Unverified --trust::verify--> Verified --compile--> Plugin --call--> answer
//! ```
//!
//! - [`Host`] loads plugins: [`Host::load`] goes the whole way and leaves nothing half done.
//!   Authors look closer with [`Host::open`], [`Host::verify`] and [`Host::published`], and publish
//!   with [`Host::push`].
//! - [`Plugin`] answers: a fresh instance for each call, under limits of time, memory and size.
//! - [`types`] are the host's own types; [`engine`] converts them from and to each version of the
//!   WIT package.
#![deny(missing_docs)]

mod cache;
pub mod config;
mod credentials;
mod device_type;
mod digest;
mod engine;
#[cfg(test)]
mod fake_registry;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod plugin;
mod reference;
mod registry;
mod source;
mod trust;
pub mod types;

pub use credentials::{
    Credentials, CredentialsError, IDENTITY_TOKEN, Logins, parse_docker_config_json,
};
pub use device_type::{DeviceType, ServedTypes};
pub use digest::Digest;
pub use engine::{COMPILE_PLUGIN, CallError, Cost, EngineError, Interface, compile_plugin};
pub use host::{Host, HostSettings, LoadError, PluginSource, Published, Stage};
pub use plugin::{Measured, Plugin};
pub use reference::Reference;
pub use registry::{Artifact, RegistryError};
pub use source::places;
pub use trust::{Attached, Signature, TrustError, Unverified, Verified, entry as trust_entry};
