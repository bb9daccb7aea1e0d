//! A device plugin for an invented device, built against `wit/` alone, as a third party would
//! write it without the SDK.
#![cfg(target_family = "wasm")]

wit_bindgen::generate!({ path: "../../wit/0.1.0", world: "plugin" });

use exports::flashjob::plugin::device_plugin::Guest;
use flashjob::plugin::log;
use flashjob::plugin::types::{
    EnvValue, FlashPod, Outcome, PluginError, PluginInfo, Port, Proof, Protocol, Request, User,
    Verdict,
};

struct Toaster;

impl Guest for Toaster {
    fn describe() -> PluginInfo {
        PluginInfo {
            name: "toaster".into(),
            version: "1.0.0".into(),
            device_types: vec!["toaster".into()],
            settings_schema: "{}".into(),
        }
    }

    fn validate_settings(_: String) -> Result<(), PluginError> {
        Ok(())
    }

    fn build(request: Request) -> Result<FlashPod, PluginError> {
        log::write(log::Level::Info, "warming up");
        let literals = [
            ("FIRMWARE", request.firmware),
            ("UUID", request.device.uid),
            ("HOST_ENDPOINT", request.device.endpoint.unwrap_or_default()),
            ("DEVICE", request.device.device_type),
            (
                "APPLICATION_TYPE",
                request.device.application_type.unwrap_or_else(|| "bread".into()),
            ),
            ("VERSION", request.version),
        ];
        let literals =
            literals.into_iter().map(|(name, value)| (name.to_string(), EnvValue::Literal(value)));
        Ok(FlashPod {
            image: request.image.unwrap_or_else(|| "registry.example/toaster:1".into()),
            command: vec![],
            args: vec![],
            env: literals
                .chain([("EXTERNAL_IP".to_string(), EnvValue::ExternalAddress)])
                .collect(),
            ports: vec![Port { name: "crumbs".into(), number: 4433, protocol: Protocol::Tcp }],
            needs_ip: true,
            attach_device: false,
            groups: vec![],
            capabilities: vec![],
            user: User::Uid(1000),
            secrets: vec![],
            scratch: vec![],
            deadline_seconds: None,
        })
    }

    fn judge(_: Request, outcome: Outcome) -> Result<Verdict, PluginError> {
        Ok(match outcome.exit_code {
            Some(0) => Verdict::Flashed(Proof::Pod),
            _ => Verdict::GiveUp("the toaster is cold".into()),
        })
    }
}

export!(Toaster);
