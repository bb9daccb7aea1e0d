//! Device plugin for devices that are updated over HTTP: the firmware is uploaded, or the device
//! is told the URL to fetch it from. The settings describe the kind of device; there are presets
//! for common open firmwares. docs/hardware.md shows how to choose.

mod settings;

use flashjob_flash_program::{REGISTRY, image};
use flashjob_plugin_sdk::{
    EnvValue, FlashPod, Outcome, Plugin, PluginError, PluginInfo, Port, Protocol, Request, User,
    Verdict, literal,
};
pub use settings::PRESETS;
use settings::Settings;

/// Device types that are served if the operator's configuration names none: those of the presets,
/// and all that begin with `http`.
const DEVICE_TYPES: [&str; 5] = ["http*", "wled*", "tasmota*", "esphome*", "shelly*"];
/// User of the flash container, without privileges.
const USER: u32 = 65532;
/// Flash program in the flash image, with its subcommand.
const COMMAND: [&str; 2] = ["/usr/local/bin/flashjob-flasher", "http"];
/// Port from which a device fetches firmware.
const PORT: u16 = 8080;
/// Slot of the Secret with the device's login, and its mount path.
const LOGIN: (&str, &str) = ("device-login", "/etc/flashjob/device");

/// The plugin.
pub struct HttpPush;

impl Plugin for HttpPush {
    fn describe() -> PluginInfo {
        PluginInfo {
            name: "http-push".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            device_types: DEVICE_TYPES.map(str::to_owned).into(),
            settings_schema: include_str!("settings.schema.json").into(),
        }
    }

    fn validate_settings(settings: &str) -> Result<(), PluginError> {
        Settings::read(settings, "").map(|_| ())
    }

    fn build(request: Request) -> Result<FlashPod, PluginError> {
        let device = &request.device;
        let settings = Settings::read(&request.settings, &device.device_type)?;
        let missing = |what: &str| {
            PluginError::InvalidRequest(format!("device {} has no {what}", device.name))
        };
        let endpoint = device.endpoint.clone().ok_or_else(|| missing("HOST_ENDPOINT"))?;
        let image = image(request.image, settings.image.clone())?;
        let fetches = settings.fetches();
        let literals = [
            ("FIRMWARE", request.firmware),
            ("UUID", device.uid.clone()),
            ("HOST_ENDPOINT", endpoint),
            ("DEVICE", device.device_type.clone()),
            ("VERSION", request.version),
        ];
        let mut env: Vec<_> =
            literals.map(|(name, value)| (name.to_owned(), EnvValue::Literal(value))).into();
        // Only a device that connects to the Pod needs a Service with an external address, and
        // load balancers have few of them.
        if fetches {
            env.push(("EXTERNAL_IP".to_owned(), EnvValue::ExternalAddress));
        }
        let slots = [(settings.login, LOGIN), (settings.registry_access, REGISTRY)];
        let needed_slots = slots.into_iter().filter(|(is_asked, _)| *is_asked);
        Ok(FlashPod {
            command: COMMAND.map(literal).into(),
            args: settings.arguments().into_iter().map(literal).collect(),
            env,
            ports: match fetches {
                true => {
                    vec![Port { name: "http".into(), number: PORT, protocol: Protocol::Tcp }]
                }
                false => Vec::new(),
            },
            needs_ip: fetches,
            user: User::Uid(USER),
            secrets: needed_slots
                .map(|(_, (slot, path))| (slot.to_owned(), path.to_owned()))
                .collect(),
            ..FlashPod::new(image)
        })
    }

    fn judge(_: Request, outcome: Outcome) -> Result<Verdict, PluginError> {
        Ok(flashjob_flash_program::judge(outcome))
    }
}

flashjob_plugin_sdk::export!(HttpPush);

#[cfg(test)]
mod tests;
