//! Panics.

use flashjob_plugin_sdk::{FlashPod, Plugin, PluginError, PluginInfo, Request};

struct Hostile;

impl Plugin for Hostile {
    fn describe() -> PluginInfo {
        flashjob_hostile_plugins::describe("traps")
    }

    fn build(request: Request) -> Result<FlashPod, PluginError> {
        assert!(request.attempt == 0, "this plugin always panics");
        Ok(FlashPod::new("image"))
    }
}

flashjob_plugin_sdk::export!(Hostile);
