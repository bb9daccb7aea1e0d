//! `flashjob:plugin@0.3.0`: like 0.2.0, and a component may export `firmware-inspector`, too.

/// Builds this version's flash Pod from the fields that all versions have and those added later.
#[cfg(feature = "fuzzing")]
macro_rules! flash_pod_record {
    ($($field:ident: $value:expr),*; working_directory: $directory:expr) => {
        types::FlashPod { $($field: $value,)* working_directory: $directory }
    };
}

#[expect(
    clippy::duplicate_mod,
    reason = "the same words convert the types of each version of the contract"
)]
#[path = "conversions.rs"]
mod conversions;
mod inspection;

#[cfg(feature = "fuzzing")]
pub(super) use conversions::fuzzing;
pub(super) use conversions::{add_to_linker, ask};
pub(super) use generated::PluginPre;
use generated::flashjob::plugin::types;
pub(super) use inspecting::InspectorPre;
pub(super) use inspection::inspect;

/// Version of the WIT package.
pub(super) const VERSION: &str = "0.3.0";

/// Generated from `wit/0.3.0`.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used)]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit/0.3.0",
        world: "plugin",
        imports: { default: trappable },
        exports: { default: async },
    });
}

/// Optional interface of a component, exported in addition to `device-plugin`.
pub(super) const INSPECTOR: &str = "flashjob:plugin/firmware-inspector@0.3.0";

/// Bindings of the optional export, with the types of the other bindings.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used)]
mod inspecting {
    wasmtime::component::bindgen!({
        inline: "
            package flashjob:host;

            world inspector {
                export flashjob:plugin/firmware-inspector@0.3.0;
            }
        ",
        path: "../../wit/0.3.0",
        world: "flashjob:host/inspector",
        with: { "flashjob:plugin/types@0.3.0": super::generated::flashjob::plugin::types },
        imports: { default: trappable },
        exports: { default: async },
    });
}

/// Returns the container's working directory, if the plugin sets one.
fn working_directory(of: &types::FlashPod) -> Option<String> {
    of.working_directory.clone()
}
