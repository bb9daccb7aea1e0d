//! Device plugins that misbehave; each is an example, built as a separate component.

/// Returns the description that they all share, except for the name, which is also the device
/// type.
#[must_use]
pub fn describe(name: &str) -> flashjob_plugin_sdk::PluginInfo {
    flashjob_plugin_sdk::PluginInfo {
        name: name.into(),
        version: "0.1.0".into(),
        device_types: vec![name.into()],
        settings_schema: "{}".into(),
    }
}
