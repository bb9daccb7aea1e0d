//! Gives the same answer to every call: the cost of a call before a plugin does anything. It is
//! the baseline of the benchmark.
#![cfg(target_family = "wasm")]

wit_bindgen::generate!({ path: "../../wit/0.1.0", world: "plugin" });

use exports::flashjob::plugin::device_plugin::Guest;
use flashjob::plugin::types::{
    FlashPod, Outcome, PluginError, PluginInfo, Proof, Request, User, Verdict,
};

struct Silent;

impl Guest for Silent {
    fn describe() -> PluginInfo {
        PluginInfo {
            name: "silent".into(),
            version: "1.0.0".into(),
            device_types: vec!["silent".into()],
            settings_schema: "{}".into(),
        }
    }

    fn validate_settings(_: String) -> Result<(), PluginError> {
        Ok(())
    }

    fn build(_: Request) -> Result<FlashPod, PluginError> {
        Ok(FlashPod {
            image: "registry.example/silent:1".into(),
            command: vec![],
            args: vec![],
            env: vec![],
            ports: vec![],
            needs_ip: false,
            attach_device: false,
            groups: vec![],
            capabilities: vec![],
            user: User::ImageDefault,
            secrets: vec![],
            scratch: vec![],
            deadline_seconds: None,
        })
    }

    fn judge(_: Request, _: Outcome) -> Result<Verdict, PluginError> {
        Ok(Verdict::Flashed(Proof::Pod))
    }
}

export!(Silent);
