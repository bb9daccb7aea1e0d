//! Answers with a list of fifty megabytes.

use flashjob_plugin_sdk::{EnvValue, FlashPod, Plugin, PluginError, PluginInfo, Request};

struct Hostile;

impl Plugin for Hostile {
    fn describe() -> PluginInfo {
        flashjob_hostile_plugins::describe("huge-list")
    }

    fn build(request: Request) -> Result<FlashPod, PluginError> {
        let env = (0..50_000).map(|index| {
            (format!("A{index}"), EnvValue::Literal("x".repeat(if index == 0 { 1 } else { 1000 })))
        });
        drop(request);
        Ok(FlashPod { env: env.collect(), ..FlashPod::new("image") })
    }
}

flashjob_plugin_sdk::export!(Hostile);
