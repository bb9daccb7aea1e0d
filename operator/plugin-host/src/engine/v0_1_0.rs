//! `flashjob:plugin@0.1.0`.

/// Builds this version's flash Pod from the fields that all versions have; ignores the later ones.
#[cfg(feature = "fuzzing")]
macro_rules! flash_pod_record {
    ($($field:ident: $value:expr),*; working_directory: $_later:expr) => {
        types::FlashPod { $($field: $value),* }
    };
}

#[expect(
    clippy::duplicate_mod,
    reason = "the same words convert the types of each version of the contract"
)]
#[path = "conversions.rs"]
mod conversions;

#[cfg(feature = "fuzzing")]
pub(super) use conversions::fuzzing;
pub(super) use conversions::{add_to_linker, ask};
pub(super) use generated::PluginPre;
use generated::flashjob::plugin::types;

/// Version of the WIT package.
pub(super) const VERSION: &str = "0.1.0";

/// Generated from `wit/0.1.0`.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used)]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit/0.1.0",
        world: "plugin",
        imports: { default: trappable },
        exports: { default: async },
    });
}

/// Returns None: this version has no working directory, so the container uses the image's.
fn working_directory(_: &types::FlashPod) -> Option<String> {
    None
}
