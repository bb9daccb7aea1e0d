//! `flashjob:plugin@0.1.0`.

/// A flash Pod as this version has it, of the fields that all versions have and of those that came
/// later.
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

/// There is no word for it in this version: the container starts where its image says.
fn working_directory(_: &types::FlashPod) -> Option<String> {
    None
}
