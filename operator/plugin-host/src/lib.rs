//! Host of device plugins: from an OCI reference to typed answers. Does not depend on Kubernetes.
//!
//! ```text
//! Reference --resolve--> Digest --fetch--> Unverified --trust::verify--> Verified
//!     --compile--> Plugin --call--> answer
//! ```
//!
//! - [`Host`] loads plugins: [`Host::load`] runs all steps or fails. Plugin authors run single
//!   steps with [`Host::open`], [`Host::verify`] and [`Host::published`], and publish with
//!   [`Host::push`].
//! - [`Plugin`] answers calls: a fresh instance for each call, under limits of time, memory and
//!   size.
//! - [`types`] are the host's own types; [`engine`] converts them from and to each version of the
//!   WIT package.
#![deny(missing_docs)]

mod cache;
mod component;
pub mod config;
mod engine;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod plugin;

pub use component::Artifact;
pub use engine::{COMPILE_PLUGIN, Cost, EngineError, Interface, compile_plugin};
pub use flashjob_artifacts::trust::entry as trust_entry;
pub use flashjob_artifacts::{
    Attached, Credentials, CredentialsError, Digest, IDENTITY_TOKEN, Logins, Reference,
    RegistryError, Signature, TrustError, Unverified, Verified, docker_key, docker_servers,
    parse_docker_config_json, places,
};
pub use flashjob_types::{CallError, DeviceType, ServedTypes, plugin as types};
pub use host::{Host, HostSettings, LoadError, PluginSource, Published, Stage};
pub use plugin::{Measured, Plugin};
