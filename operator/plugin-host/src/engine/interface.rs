//! Imports and exports of a component, by name.

use serde::Serialize;
use wasmtime::component::Component;

/// Names of what a component imports and exports, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Interfaces that the component is given.
    pub imports: Vec<String>,
    /// Interfaces that it gives.
    pub exports: Vec<String>,
}

impl Interface {
    pub(super) fn of(component: &Component, engine: &wasmtime::Engine) -> Self {
        let kind = component.component_type();
        let mut imports: Vec<String> =
            kind.imports(engine).map(|(name, _)| name.to_owned()).collect();
        let mut exports: Vec<String> =
            kind.exports(engine).map(|(name, _)| name.to_owned()).collect();
        imports.sort();
        exports.sort();
        Self { imports, exports }
    }
}
