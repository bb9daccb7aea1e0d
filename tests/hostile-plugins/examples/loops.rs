//! Never answers.

use flashjob_plugin_sdk::{FlashPod, Plugin, PluginError, PluginInfo, Request};

struct Hostile;

impl Plugin for Hostile {
    fn describe() -> PluginInfo {
        flashjob_hostile_plugins::describe("loops")
    }

    fn build(request: Request) -> Result<FlashPod, PluginError> {
        let mut turns = request.attempt;
        while std::hint::black_box(turns) > 0 {
            turns = turns.wrapping_add(2) | 1;
        }
        Ok(FlashPod::new("image"))
    }
}

flashjob_plugin_sdk::export!(Hostile);
