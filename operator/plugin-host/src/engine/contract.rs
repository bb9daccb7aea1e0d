//! Supported versions of the contract, and the selection of the version with which a component is
//! called. Pure, except for the calls.

use flashjob_types::CallError;
use wasmtime::Store;
use wasmtime::component::{InstancePre, Linker};

use super::call::{Answer, Call};
use super::error::EngineError;
use super::interface::Interface;
use super::state::State;
use super::{v0_1_0, v0_2_0, v0_3_0};

/// Prefix of the interface that a plugin exports, followed by the version.
const EXPORT: &str = "flashjob:plugin/device-plugin@";
/// Interfaces of the contract that a plugin may import.
const IMPORTS: [&str; 2] = ["flashjob:plugin/log@", "flashjob:plugin/types@"];
/// Maximum number of characters that are quoted from a component's names.
const QUOTED: usize = 100;

/// Supported version.
pub(super) struct Version {
    number: &'static str,
    /// Checks that a component exports what this version calls.
    pub fit: fn(InstancePre<State>, &Interface) -> wasmtime::Result<Contract>,
}

/// All supported versions, oldest first.
const SERVED: [Version; 3] = [
    Version {
        number: v0_1_0::VERSION,
        fit: |instance, _| v0_1_0::PluginPre::new(instance).map(Contract::V0_1_0),
    },
    Version {
        number: v0_2_0::VERSION,
        fit: |instance, _| v0_2_0::PluginPre::new(instance).map(Contract::V0_2_0),
    },
    Version {
        number: v0_3_0::VERSION,
        fit: |instance, interface| {
            // The interface is optional within 0.3.0, so its absence must not fail the typed
            // lookup.
            let inspects = interface.exports.iter().any(|export| export == v0_3_0::INSPECTOR);
            let inspector = inspects.then(|| v0_3_0::InspectorPre::new(instance.clone()));
            Ok(Contract::V0_3_0(v0_3_0::PluginPre::new(instance)?, inspector.transpose()?))
        },
    },
];

/// Component, prepared for the version of the contract with which it is called.
#[derive(Clone)]
pub(super) enum Contract {
    V0_1_0(v0_1_0::PluginPre<State>),
    V0_2_0(v0_2_0::PluginPre<State>),
    /// The second field is present only if the component exports it.
    V0_3_0(v0_3_0::PluginPre<State>, Option<v0_3_0::InspectorPre<State>>),
}

impl Contract {
    /// Returns the version of the WIT package.
    pub fn version(&self) -> &'static str {
        match self {
            Self::V0_1_0(_) => v0_1_0::VERSION,
            Self::V0_2_0(_) => v0_2_0::VERSION,
            Self::V0_3_0(..) => v0_3_0::VERSION,
        }
    }

    /// Returns true if the component can inspect firmware.
    pub fn inspects(&self) -> bool {
        matches!(self, Self::V0_3_0(_, Some(_)))
    }

    /// Instantiates the component and calls it. The outer error is the engine's, the inner one the
    /// plugin's.
    pub async fn ask(
        &self,
        store: &mut Store<State>,
        call: Call<'_>,
        answer_limit: usize,
    ) -> wasmtime::Result<Result<Answer, CallError>> {
        match self {
            Self::V0_1_0(plugin) => v0_1_0::ask(store, plugin, call, answer_limit).await,
            Self::V0_2_0(plugin) => v0_2_0::ask(store, plugin, call, answer_limit).await,
            Self::V0_3_0(plugin, inspector) => match (call, inspector) {
                (Call::Inspect(of), Some(inspector)) => {
                    v0_3_0::inspect(store, inspector, of, answer_limit).await
                }
                _ => v0_3_0::ask(store, plugin, call, answer_limit).await,
            },
        }
    }
}

/// Links the imports that a plugin of each version may have.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    v0_1_0::add_to_linker(linker)?;
    v0_2_0::add_to_linker(linker)?;
    v0_3_0::add_to_linker(linker)
}

/// Returns true for the contract's own imports, of any version.
pub(super) fn is_own_import(import: &str) -> bool {
    IMPORTS.iter().any(|prefix| import.starts_with(prefix))
}

/// Returns the version with which a component is called: the latest supported one that it exports.
/// A component that imports the contract in a version that it does not export is rejected.
pub(super) fn version_of(
    interface: &Interface,
    name: &str,
) -> Result<&'static Version, EngineError> {
    let exported: Vec<&str> =
        interface.exports.iter().filter_map(|export| export.strip_prefix(EXPORT)).collect();
    let world = |message| EngineError::World(name.to_owned(), message);
    if exported.is_empty() {
        return Err(world(format!("it exports no {EXPORT}VERSION; {} are supported", served())));
    }
    let built_for = || exported.join(" and ").chars().take(QUOTED).collect::<String>();
    let foreign = |import: &&String| {
        is_own_import(import)
            && !import.split_once('@').is_some_and(|(_, of)| exported.contains(&of))
    };
    if let Some(import) = interface.imports.iter().find(foreign) {
        let import: String = import.chars().take(QUOTED).collect();
        return Err(world(format!(
            "it exports device-plugin version {}, but imports {import}; build it against one \
             version",
            built_for()
        )));
    }
    let unserved = || EngineError::NotServed {
        name: name.to_owned(),
        built_for: built_for(),
        served: served(),
    };
    // A component may export several versions, so that it also runs in earlier operators.
    SERVED.iter().rev().find(|version| exported.contains(&version.number)).ok_or_else(unserved)
}

/// Returns the supported versions as text for people.
fn served() -> String {
    let numbers = SERVED.map(|version| version.number);
    let (last, rest) = numbers.split_last().unwrap_or((&"", &[]));
    format!("{} and {last}", rest.join(", "))
}
