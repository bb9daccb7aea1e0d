//! Breaks the limit that its settings name, and answers `build` with the firmware's name as its
//! working directory.
#![cfg(target_family = "wasm")]

wit_bindgen::generate!({ path: "../../wit/0.2.0", world: "plugin" });

use std::hint::black_box;

use exports::flashjob::plugin::device_plugin::Guest;
use flashjob::plugin::log;
use flashjob::plugin::types::{
    FlashPod, Outcome, PluginError, PluginInfo, Request, User, Verdict,
};

struct Overheats;

impl Guest for Overheats {
    fn describe() -> PluginInfo {
        PluginInfo {
            name: "overheats".into(),
            version: "1.0.0".into(),
            device_types: vec!["kiln".into()],
            settings_schema: "{}".into(),
        }
    }

    fn validate_settings(settings: String) -> Result<(), PluginError> {
        match settings.as_str() {
            "loop" => loop {
                black_box(&settings);
            },
            "memory" => {
                let mut eaten = Vec::new();
                loop {
                    eaten.push(vec![1_u8; 1 << 20]);
                    black_box(&eaten);
                }
            }
            "string" => Err(PluginError::Internal("x".repeat(40 << 20))),
            "flood" => {
                for _ in 0..1_000_000 {
                    log::write(log::Level::Info, "hot");
                }
                Ok(())
            }
            "trap" => panic!("it burst"),
            other => {
                log::write(log::Level::Info, other);
                Ok(())
            }
        }
    }

    fn build(request: Request) -> Result<FlashPod, PluginError> {
        Ok(FlashPod {
            image: "registry.example/kiln:1".into(),
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
            working_directory: Some(request.firmware),
        })
    }

    fn judge(_: Request, _: Outcome) -> Result<Verdict, PluginError> {
        Err(PluginError::Internal("nothing is left of it".into()))
    }
}

export!(Overheats);
