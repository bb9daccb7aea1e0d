//! Reports the name of another plugin as its own.

use flashjob_plugin_sdk::{FlashPod, Plugin, PluginError, PluginInfo, Request};

struct Hostile;

impl Plugin for Hostile {
    fn describe() -> PluginInfo {
        flashjob_hostile_plugins::describe("another")
    }

    fn build(request: Request) -> Result<FlashPod, PluginError> {
        drop(request);
        Ok(FlashPod::new("image"))
    }
}

flashjob_plugin_sdk::export!(Hostile);
