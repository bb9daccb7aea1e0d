//! Device plugin for Espressif chips on a node's USB or serial port, found by Akri's udev handler:
//! esptool runs in a Pod on that node, with the device attached. Nothing calls back, so no Service
//! is made.
//!
//! The Pod's image has esptool (version 5) as its entry point and carries the firmware; which image
//! that is, and where in it the firmware lies, is in the README beside this crate. In: the request.
//! Out: the Pod's description and the verdict. No I/O.

mod settings;

use flashjob_plugin_sdk::{
    Device, FlashPod, Outcome, Plugin, PluginError, PluginInfo, Proof, Request, User, Verdict,
    literal,
};
use settings::Settings;

/// Runs the flash container, whose image may name no user: as root it would be refused.
const USER: u32 = 65532;
/// The device type. Akri's udev handler reports none, so the FlashJob's `device` says it.
const DEVICE_TYPE: &str = "espserial";
/// The device's file on its node, as `/dev/ttyUSB0`.
const DEVNODE: &str = "UDEV_DEVNODE";
/// The group that serial ports belong to: dialout, on Debian and its kin.
const DIALOUT: u32 = 20;
/// Exit code of esptool when it fails, and also when it is called wrongly.
const FAILED: i32 = 2;
/// Beginning of esptool's last sentence when flashing failed.
const FATAL: &str = "A fatal error occurred";
/// As much of a failed container's output as tells why, where esptool did not say it.
const LAST_WORDS: usize = 300;

struct EspSerial;

impl Plugin for EspSerial {
    fn describe() -> PluginInfo {
        PluginInfo {
            name: "esp-serial".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            device_types: vec![DEVICE_TYPE.into()],
            settings_schema: include_str!("settings.schema.json").into(),
        }
    }

    fn validate_settings(settings: &str) -> Result<(), PluginError> {
        Settings::read(settings).map(|_| ())
    }

    fn build(request: Request) -> Result<FlashPod, PluginError> {
        let device = &request.device;
        let settings = Settings::read(&request.settings)?;
        let args = command_line(port(device)?, &settings);
        let image = request.image.or(settings.image).unwrap_or(request.firmware);
        Ok(FlashPod {
            args: args.into_iter().map(literal).collect(),
            attach_device: true,
            groups: vec![DIALOUT],
            user: if settings.run_as_root { User::Root } else { User::Uid(USER) },
            ..FlashPod::new(image)
        })
    }

    fn judge(_: Request, outcome: Outcome) -> Result<Verdict, PluginError> {
        Ok(match outcome.exit_code {
            // esptool compares the hash of what the flash holds with what it sent, and fails where
            // they differ.
            Some(0) => Verdict::Flashed(Proof::Pod),
            // The same code for a device that does not answer, which may next time, and for words
            // that esptool does not know.
            Some(FAILED) if !outcome.termination_message.contains(FATAL) => {
                Verdict::GiveUp(last_words(outcome))
            }
            _ => Verdict::Retry(last_words(outcome)),
        })
    }
}

/// The device's file. Anything but a path below /dev could be read as an option.
fn port(device: &Device) -> Result<&str, PluginError> {
    let given =
        device.properties.iter().find(|(name, _)| name == DEVNODE).map(|(_, value)| value.as_str());
    given.filter(|path| path.starts_with("/dev/")).ok_or_else(|| {
        PluginError::InvalidRequest(format!(
            "Instance {} has no {DEVNODE} below /dev: is it from Akri's udev handler?",
            device.name
        ))
    })
}

/// The words for esptool, version 5.
fn command_line(port: &str, settings: &Settings) -> Vec<String> {
    let baud = settings.baud.to_string();
    let words = [
        "--chip",
        &settings.chip,
        "--port",
        port,
        "--baud",
        &baud,
        "--before",
        "default-reset",
        "--after",
        "hard-reset",
    ];
    let write = [
        "write-flash",
        "--flash-mode",
        "keep",
        "--flash-size",
        "keep",
        &settings.offset,
        &settings.path,
    ];
    words.into_iter().chain(write).map(str::to_owned).collect()
}

/// Returns the last words of esptool: its fatal error, else the end of its output.
fn last_words(outcome: Outcome) -> String {
    let text = outcome.explanation();
    let end = || text.char_indices().rev().nth(LAST_WORDS).map_or(0, |(at, _)| at);
    let start = text.rfind(FATAL).unwrap_or_else(end);
    text[start..].trim().to_owned()
}

flashjob_plugin_sdk::export!(EspSerial);

#[cfg(test)]
mod tests;
