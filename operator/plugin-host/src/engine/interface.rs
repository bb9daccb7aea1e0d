//! Imports and exports of a component, by name.

use serde::Serialize;
use wasmtime::component::Component;

/// Names of a component's imports and exports, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Interfaces that the component imports.
    pub imports: Vec<String>,
    /// Interfaces that the component exports.
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
