//! Fetches and verifies artifacts, by an OCI reference and a trust policy: device plugins for the
//! operator, firmware for the flash image. Depends on neither WebAssembly nor Kubernetes.
//!
//! ```text
//! Reference --Source::manifest_bytes--> Digest --Source::blob--> Unverified
//!     --trust::verify--> Verified
//! ```
//!
//! - [`Source`] is the place that holds an artifact: a registry with its mirrors, or an image
//!   layout on disk. [`Repository`] is one repository of a registry, and also accepts pushes.
//! - [`trust`] decides by the signatures in a [`Source`] whether an artifact may be used.
//! - [`firmware`] reads which device types firmware is for, and verifies its signatures.
//! - [`config`] has the sections of configuration files that configure registries and trust.
#![deny(missing_docs)]

pub mod config;
mod credentials;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod fake_registry;
pub mod firmware;
mod pem;
mod reference;
mod registry;
mod source;
pub mod trust;

pub use credentials::{
    Credentials, CredentialsError, IDENTITY_TOKEN, Logins, docker_key, docker_servers,
    parse_docker_config_json,
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
pub use source::{Signatures, Source, places};
pub use trust::{Attached, Signature, TrustError, Unverified, Verified};
