//! Allocates memory without end.

use flashjob_plugin_sdk::{FlashPod, Plugin, PluginError, PluginInfo, Request};

struct Hostile;

impl Plugin for Hostile {
    fn describe() -> PluginInfo {
        flashjob_hostile_plugins::describe("eats-memory")
    }

    fn build(request: Request) -> Result<FlashPod, PluginError> {
        let mut eaten = vec![request.firmware.into_bytes()];
        while !std::hint::black_box(&eaten).is_empty() {
            eaten.push(vec![1; 1 << 20]);
        }
        Ok(FlashPod::new("image"))
    }
}

flashjob_plugin_sdk::export!(Hostile);
