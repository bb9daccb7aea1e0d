//! Device plugin for ESP32-S3: secure over-the-air update over the network.
//!
//! The flash image supports firmware for the platforms `custom/esp32`, `custom/esp32s2` and
//! `custom/esp32s3`, so there are plugins for these three. Other members of the family (ESP32-C3,
//! C6, H2 and so on) have none: that image would find no firmware for them. They can be flashed
//! over their serial port; see the plugin esp-serial.

use flashjob_plugin_sdk::{
    FirmwareFile, FlashPod, Inspection, Outcome, Plugin, PluginError, PluginInfo, Request, Verdict,
};
use flashjob_secure_ota::SecureOta;

const DEVICE: SecureOta =
    SecureOta { name: "esp32s3", version: env!("CARGO_PKG_VERSION"), device_types: "esp32s3*" };

struct Esp32;

impl Plugin for Esp32 {
    fn describe() -> PluginInfo {
        DEVICE.describe()
    }

    fn validate_settings(settings: &str) -> Result<(), PluginError> {
        DEVICE.validate_settings(settings)
    }

    fn build(request: Request) -> Result<FlashPod, PluginError> {
        DEVICE.build(request)
    }

    fn judge(_: Request, outcome: Outcome) -> Result<Verdict, PluginError> {
        DEVICE.judge(outcome)
    }

    fn inspect_firmware(file: FirmwareFile) -> Result<Option<Inspection>, PluginError> {
        DEVICE.inspect_firmware(&file)
    }
}

flashjob_plugin_sdk::export!(Esp32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_serves_its_device_type_and_takes_empty_settings() {
        assert_eq!(Esp32::describe().device_types, ["esp32s3*"]);
        assert_eq!(Esp32::validate_settings("{}"), Ok(()));
    }
}
