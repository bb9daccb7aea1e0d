//! Device plugin for devices with MCUboot (Zephyr on nRF, STM32 and others), over MCUmgr's
//! protocol SMP: on UDP, or on a serial port found by Akri's udev handler. The flash program
//! confirms the new image once the device reports its hash, which is the proof.

mod image_header;
mod settings;

use flashjob_flash_program::{REGISTRY, image};
use flashjob_plugin_sdk::{
    EnvValue, FirmwareFile, FlashPod, Inspection, Outcome, Plugin, PluginError, PluginInfo,
    Request, User, Verdict, literal,
};
use settings::Settings;

/// Device types that are served if the operator's configuration names none.
const DEVICE_TYPES: [&str; 4] = ["mcuboot*", "zephyr*", "nrf*", "stm32*"];
/// User of the flash container, without privileges.
const USER: u32 = 65532;
/// Flash program in the flash image, with its subcommand.
const COMMAND: [&str; 2] = ["/usr/local/bin/flashjob-flasher", "smp"];
/// Device file on the node, such as `/dev/ttyACM0`.
const DEVNODE: &str = "UDEV_DEVNODE";
/// Group that owns serial ports: dialout, on Debian and its derivatives.
const DIALOUT: u32 = 20;

/// The plugin.
pub struct Mcumgr;

impl Plugin for Mcumgr {
    fn describe() -> PluginInfo {
        PluginInfo {
            name: "mcumgr".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            device_types: DEVICE_TYPES.map(str::to_owned).into(),
            settings_schema: include_str!("settings.schema.json").into(),
        }
    }

    fn validate_settings(settings: &str) -> Result<(), PluginError> {
        Settings::read(settings).map(|_| ())
    }

    fn build(request: Request) -> Result<FlashPod, PluginError> {
        let device = &request.device;
        let settings = Settings::read(&request.settings)?;
        let invalid = |words: String| Err(PluginError::InvalidRequest(words));
        let port = device.properties.iter().find(|(name, _)| name == DEVNODE);
        let way = match (port, &device.endpoint) {
            (Some((_, path)), _) if path.starts_with("/dev/") => (DEVNODE, path.clone()),
            (Some(_), _) => {
                return invalid(format!("{DEVNODE} of device {} is not below /dev", device.name));
            }
            (None, Some(endpoint)) => ("HOST_ENDPOINT", endpoint.clone()),
            (None, None) => {
                return invalid(format!(
                    "device {} has neither HOST_ENDPOINT nor {DEVNODE}",
                    device.name
                ));
            }
        };
        let image = image(request.image, settings.image.clone())?;
        let is_serial = way.0 == DEVNODE;
        let env = [
            ("FIRMWARE", request.firmware),
            ("DEVICE", device.device_type.clone()),
            ("VERSION", request.version),
            way,
        ];
        Ok(FlashPod {
            command: COMMAND.map(literal).into(),
            args: settings.arguments().into_iter().map(literal).collect(),
            env: env.map(|(name, value)| (name.to_owned(), EnvValue::Literal(value))).into(),
            // Only Akri's extended resource gives a restricted Pod the device file, and the node
            // that has it.
            attach_device: is_serial,
            groups: if is_serial { vec![DIALOUT] } else { Vec::new() },
            user: User::Uid(USER),
            secrets: match settings.registry_access {
                true => vec![(REGISTRY.0.to_owned(), REGISTRY.1.to_owned())],
                false => Vec::new(),
            },
            ..FlashPod::new(image)
        })
    }

    fn judge(_: Request, outcome: Outcome) -> Result<Verdict, PluginError> {
        Ok(flashjob_flash_program::judge(outcome))
    }

    fn inspect_firmware(file: FirmwareFile) -> Result<Option<Inspection>, PluginError> {
        Ok(Some(image_header::inspect(&file)))
    }
}

flashjob_plugin_sdk::export!(Mcumgr);

#[cfg(test)]
mod tests;
