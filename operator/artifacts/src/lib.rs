//! From an OCI reference and a trust policy to verified bytes: device plugins for the operator,
//! firmware for the flash image. Knows neither WebAssembly nor Kubernetes.
//!
//! ```text
//! Reference --Source::manifest_bytes--> Digest --Source::blob--> Unverified
//!     --trust::verify--> Verified
//! ```
//!
//! - [`Source`] is where an artifact is: a registry with its mirrors, or an image layout on disk.
//!   [`Repository`] is one place in a registry, and also takes what is pushed.
//! - [`trust`] decides by the signatures that a [`Source`] has whether an artifact may be used.
//! - [`firmware`] reads which device types firmware is for, and has its signatures checked.
//! - [`config`] has the parts of configuration files that registries and trust need.
#![deny(missing_docs)]

pub mod config;
mod credentials;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod fake_registry;
pub mod firmware;
mod reference;
mod registry;
mod source;
pub mod trust;

pub use credentials::{
    Credentials, CredentialsError, IDENTITY_TOKEN, Logins, parse_docker_config_json,
};
pub use flashjob_types::{Digest, InvalidDigest};
pub use reference::Reference;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use registry::challenge_is_read;
pub use registry::{Layer, MANIFEST_BYTES, RegistryError, Repository, image_manifest, layer_of};
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use source::fuzzing;
pub use source::{Source, places};
pub use trust::{Attached, Signature, TrustError, Unverified, Verified};
