//! Device plugin for Espressif chips on a node's USB or serial port, found by Akri's udev handler:
//! a Pod on that node flashes them, with the device attached. The device does not call back, so no
//! Service is needed.
//!
//! The Pod runs this project's flash program, which compares the MD5 of the flash memory, or
//! esptool (version 5), as the entry point of a user's image that carries the firmware. The README
//! in this crate explains the choice. Input: the request. Output: the Pod's specification and the
//! verdict. No I/O.

mod settings;

use flashjob_esp_image::Image;
use flashjob_flash_program::{REGISTRY, image, is_message};
use flashjob_plugin_sdk::{
    Device, EnvValue, FirmwareFile, FlashPod, Inspection, Outcome, Plugin, PluginError,
    PluginInfo, Proof, Request, User, Verdict, literal,
};
use settings::{Program, Settings};

/// User of the flash container. Its image may name no user, and root would be refused.
const USER: u32 = 65532;
/// Device type. Akri's udev handler reports none, so the FlashJob's `device` names it.
const DEVICE_TYPE: &str = "espserial";
/// Device file on the node, such as `/dev/ttyUSB0`.
const DEVNODE: &str = "UDEV_DEVNODE";
/// Flash program in this project's flash image, with its subcommand.
const COMMAND: [&str; 2] = ["/usr/local/bin/flashjob-flasher", "serial"];
/// Value of the setting `chip` that stands for any chip.
const ANY_CHIP: &str = "auto";
/// First bytes of an ELF file, which cannot be written to flash memory.
const ELF: [u8; 4] = *b"\x7fELF";
/// Exit code of esptool if it fails, and also if its arguments are invalid.
const FAILED: i32 = 2;
/// Beginning of esptool's last message if flashing failed.
const FATAL: &str = "A fatal error occurred";
/// Number of characters of a failed container's output that are reported if esptool gave no
/// reason.
const LAST_WORDS: usize = 300;

/// The plugin.
pub struct EspSerial;

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
        let settings = Settings::read(&request.settings)?;
        let port = port(&request.device)?.to_owned();
        // An image that is the firmware itself, or that the settings name, contains esptool unless
        // the settings say otherwise.
        let is_asked = request.image.is_some();
        let usual = if is_asked { Program::Flasher } else { Program::Esptool };
        let flash = match settings.program.unwrap_or(usual) {
            Program::Flasher => flasher(request, &settings, port)?,
            Program::Esptool => esptool(request, &settings, &port),
        };
        Ok(FlashPod {
            // Akri's extended resource gives a restricted Pod the device file, and places it on
            // the node of the port.
            attach_device: true,
            // Device files of serial ports belong to a group, and the container does not run as
            // root.
            groups: vec![settings.group],
            user: if settings.run_as_root { User::Root } else { User::Uid(USER) },
            ..flash
        })
    }

    fn judge(_: Request, outcome: Outcome) -> Result<Verdict, PluginError> {
        if is_message(&outcome) {
            return Ok(flashjob_flash_program::judge(outcome));
        }
        Ok(match outcome.exit_code {
            // esptool compares the hash of the flash memory with that of the sent data, and fails
            // if they differ.
            Some(0) => Verdict::Flashed(Proof::Pod),
            // esptool uses the same exit code for a device that does not answer, which may succeed
            // on a retry, and for unknown arguments.
            Some(FAILED) if !outcome.termination_message.contains(FATAL) => {
                Verdict::GiveUp(last_words(outcome))
            }
            _ => Verdict::Retry(last_words(outcome)),
        })
    }

    /// Flash memory may hold any bytes: files that do not begin with an image header are not
    /// judged, such as a merged image that begins with empty memory.
    fn inspect_firmware(file: FirmwareFile) -> Result<Option<Inspection>, PluginError> {
        let settings = Settings::read(&file.settings)?;
        let is_other = settings.path.trim_start_matches('/') != file.name;
        // esptool flashes only the file that `path` names.
        if settings.program == Some(Program::Esptool) && is_other {
            return Ok(None);
        }
        if file.beginning.starts_with(&ELF) {
            let refusal = format!(
                "{} is an ELF file, which cannot be written to flash memory; convert it to an \
                 image with boot loader and partition table: idf.py merge-bin, or espflash \
                 save-image --merge",
                file.name
            );
            return Ok(Some(Inspection { refusal: Some(refusal), ..Inspection::new() }));
        }
        let chip = if settings.chip == ANY_CHIP { &file.device_type } else { &settings.chip };
        let image = Image::read(&file.beginning);
        Ok(image.map(|image| image.inspect(&file, chip, settings.compare_version)))
    }
}

/// Builds the Pod that runs this project's flash program.
fn flasher(request: Request, settings: &Settings, port: String) -> Result<FlashPod, PluginError> {
    // The flash program compares the chip with the device type.
    let device = match settings.chip.as_str() {
        ANY_CHIP => request.device.device_type,
        chip => chip.to_owned(),
    };
    let env = [("FIRMWARE", request.firmware), ("DEVICE", device), (DEVNODE, port)];
    let options = [format!("--baud={}", settings.baud), format!("--offset={}", settings.offset)];
    let secrets = if settings.registry_access { vec![REGISTRY] } else { Vec::new() };
    Ok(FlashPod {
        command: COMMAND.map(literal).into(),
        args: options.iter().chain(&settings.args).map(literal).collect(),
        env: env.map(|(name, value)| (name.to_owned(), EnvValue::Literal(value))).into(),
        secrets: secrets.into_iter().map(|(slot, at)| (slot.to_owned(), at.to_owned())).collect(),
        ..FlashPod::new(image(request.image, settings.image.clone())?)
    })
}

/// Builds the Pod that runs a user's image with esptool and the firmware.
fn esptool(request: Request, settings: &Settings, port: &str) -> FlashPod {
    let image = request.image.or_else(|| settings.image.clone()).unwrap_or(request.firmware);
    let args = command_line(port, settings).into_iter().map(literal).collect();
    FlashPod { args, ..FlashPod::new(image) }
}

/// Returns the device file. Anything but a path below /dev could be parsed as an option.
fn port(device: &Device) -> Result<&str, PluginError> {
    let device_file = device
        .properties
        .iter()
        .find(|(name, _)| name == DEVNODE)
        .map(|(_, value)| value.as_str());
    device_file.filter(|path| path.starts_with("/dev/")).ok_or_else(|| {
        PluginError::InvalidRequest(format!(
            "Instance {} has no {DEVNODE} below /dev: is it from Akri's udev handler?",
            device.name
        ))
    })
}

/// Returns the arguments for esptool, version 5.
fn command_line(port: &str, settings: &Settings) -> Vec<String> {
    let baud = settings.baud.to_string();
    let words = [
        "--chip",
        &settings.chip,
        "--port",
        port,
        "--baud",
        &baud,
        // The lines DTR and RTS of the USB bridge put the chip into its boot loader, so nobody has
        // to press a button.
        "--before",
        "default-reset",
        "--after",
        "hard-reset",
    ];
    let write = [
        "write-flash",
        // Other values than `keep` make esptool rewrite the header of the image, so the flash
        // memory would not have the bytes that were built.
        "--flash-mode",
        "keep",
        "--flash-size",
        "keep",
        &settings.offset,
        &settings.path,
    ];
    words.into_iter().chain(write).map(str::to_owned).collect()
}

/// Returns esptool's fatal error, or else the end of its output.
fn last_words(outcome: Outcome) -> String {
    let text = outcome.explanation();
    // Characters, not bytes: a cut within a character would panic.
    let end = || text.char_indices().rev().nth(LAST_WORDS).map_or(0, |(at, _)| at);
    let start = text.rfind(FATAL).unwrap_or_else(end);
    text[start..].trim().to_owned()
}

flashjob_plugin_sdk::export!(EspSerial);

#[cfg(test)]
mod tests;
