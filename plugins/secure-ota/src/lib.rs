//! Secure over-the-air update over the network, as the ESP32 family does it: the flash container
//! asks the device to call back on TCP port 4433; the device proves its identity, and receives the
//! firmware over TLS.

use flashjob_esp_image::Image;
use flashjob_flash_program::REGISTRY;
use flashjob_plugin_sdk::{
    EnvValue, FieldError, FirmwareFile, FlashPod, Inspection, Outcome, PluginError, PluginInfo,
    Port, Protocol, Request, User, Verdict, literal,
};
use serde_json::Value;

/// Maximum length of the version in the application descriptor on the device, in bytes
/// (`esp_app_desc_t.version` of ESP-IDF, 32 with its NUL).
const VERSION_BYTES: usize = 31;
/// First four bytes of firmware that is encrypted for the device (Espressif's component
/// `esp_encrypted_img`).
const ENCRYPTED: [u8; 4] = 0x0788_b6cf_u32.to_le_bytes();
// Fixed in the firmware of the devices, so two devices cannot use one external address at the same
// time.
/// Port to which the device calls back.
const PORT: u16 = 4433;
/// Folder in which the flash container looks for its TLS certificate and key.
const CERTIFICATES: &str = "/ota/certs";
/// Slot of the Secret with the certificate and key.
const CERTIFICATE_SLOT: &str = "ota-tls";
/// User of the flash container, without privileges. Its image names no user, and root would be
/// refused.
const USER: u32 = 65532;
/// Image of the flash container if neither the job nor the settings name one.
const IMAGE: &str = "harbor.nbfc.io/nubificus/iot/esp32-sota:latest";

/// Plugin for device types that are updated this way.
pub struct SecureOta {
    /// Name of the plugin.
    pub name: &'static str,
    /// Version of the plugin.
    pub version: &'static str,
    /// Device types that the plugin serves if the operator's configuration names none.
    pub device_types: &'static str,
}

impl SecureOta {
    /// Returns the plugin's description.
    #[must_use]
    pub fn describe(&self) -> PluginInfo {
        PluginInfo {
            name: self.name.into(),
            version: self.version.into(),
            device_types: vec![self.device_types.into()],
            settings_schema: include_str!("settings.schema.json").into(),
        }
    }

    /// Validates settings.
    ///
    /// # Errors
    /// Names every setting that is unknown or has the wrong type.
    pub fn validate_settings(&self, settings: &str) -> Result<(), PluginError> {
        Settings::read(settings).map(|_| ())
    }

    /// Returns the specification of the flash Pod. The operator only sends requests for device
    /// types that the plugin serves; the container receives the type, because it is the
    /// architecture of the firmware image.
    ///
    /// # Errors
    /// The request lacks a value that the flash container needs.
    pub fn build(&self, request: Request) -> Result<FlashPod, PluginError> {
        let device = &request.device;
        let settings = Settings::read(&request.settings)?;
        if request.version.len() > VERSION_BYTES {
            return Err(PluginError::InvalidRequest(format!(
                "version {:?} has {} bytes, but an ESP32 reports only the first {VERSION_BYTES}, \
                 so it could never be verified; use a shorter version",
                request.version,
                request.version.len()
            )));
        }
        let endpoint = device.endpoint.clone().unwrap_or_default();
        let application = device.application_type.clone().unwrap_or_default();
        let variables = [
            ("FIRMWARE", request.firmware),
            ("UUID", device.uid.clone()),
            ("HOST_ENDPOINT", endpoint),
            ("DEVICE", device.device_type.clone()),
            ("APPLICATION_TYPE", application),
            ("VERSION", request.version),
        ];
        // The flash image ends at once if a variable is empty, after the device has already waited
        // for a Service and its address.
        if let Some((name, _)) = variables.iter().find(|(_, value)| value.is_empty()) {
            return Err(PluginError::InvalidRequest(format!(
                "{name} of device {} is empty, but the flash container requires it",
                device.name
            )));
        }
        let literals = variables.map(|(name, value)| (name.to_owned(), EnvValue::Literal(value)));
        let address = ("EXTERNAL_IP".to_owned(), EnvValue::ExternalAddress);
        let secrets = settings.secrets();
        let image = request.image.or(settings.image).unwrap_or_else(|| IMAGE.to_owned());
        Ok(FlashPod {
            env: literals.into_iter().chain([address]).collect(),
            ports: vec![Port { name: "ota".into(), number: PORT, protocol: Protocol::Tcp }],
            // The container tells the device which address to call back, and the device does not
            // resolve host names.
            needs_ip: true,
            user: if settings.run_as_root { User::Root } else { User::Uid(USER) },
            secrets,
            args: settings.args.into_iter().map(literal).collect(),
            ..FlashPod::new(image)
        })
    }

    /// Returns the verdict on an ended container: unless the container has better proof, the
    /// version that the device reports is the proof.
    ///
    /// # Errors
    /// None.
    pub fn judge(&self, outcome: Outcome) -> Result<Verdict, PluginError> {
        Ok(flashjob_flash_program::judge(outcome))
    }

    /// Inspects the header of the image, which all these devices require; firmware that is
    /// encrypted for the device cannot be inspected.
    ///
    /// # Errors
    /// The settings are invalid.
    pub fn inspect_firmware(
        &self,
        file: &FirmwareFile,
    ) -> Result<Option<Inspection>, PluginError> {
        let settings = Settings::read(&file.settings)?;
        if file.beginning.starts_with(&ENCRYPTED) {
            return Ok(None);
        }
        let inspection = match Image::read(&file.beginning) {
            Some(image) => image.inspect(file, &file.device_type, settings.compare_version),
            None => Inspection {
                refusal: Some(format!(
                    "{} is not an image for an ESP32, which begins with 0xe9, so it cannot be \
                     flashed to device type {}; publish the .bin of the application, as idf.py \
                     build creates it",
                    file.name, file.device_type
                )),
                ..Inspection::new()
            },
        };
        Ok(Some(inspection))
    }
}

struct Settings {
    run_as_root: bool,
    certificates: bool,
    registry: bool,
    image: Option<String>,
    args: Vec<String>,
    compare_version: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            run_as_root: false,
            certificates: false,
            registry: false,
            image: None,
            args: Vec::new(),
            compare_version: true,
        }
    }
}

impl Settings {
    fn read(text: &str) -> Result<Self, PluginError> {
        let fault = |path: String, message: &str| FieldError { path, message: message.to_owned() };
        let Ok(Value::Object(object)) = serde_json::from_str(text) else {
            return Err(PluginError::InvalidSettings(vec![fault(
                String::new(),
                "expected one JSON object",
            )]));
        };
        let mut settings = Self::default();
        let mut faults = Vec::new();
        for (name, value) in object {
            // A JSON pointer (RFC 6901, section 3): `~` is escaped before `/`.
            let path = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            match (name.as_str(), value) {
                ("runAsRoot", Value::Bool(value)) => settings.run_as_root = value,
                ("certificates", Value::Bool(value)) => settings.certificates = value,
                ("registryAccess", Value::Bool(value)) => settings.registry = value,
                ("compareVersion", Value::Bool(value)) => settings.compare_version = value,
                ("runAsRoot" | "certificates" | "registryAccess" | "compareVersion", _) => {
                    faults.push(fault(path, "expected true or false"))
                }
                ("image", Value::String(value)) if !value.is_empty() => {
                    settings.image = Some(value)
                }
                ("image", _) => {
                    faults.push(fault(path, "expected the reference of a container image"))
                }
                ("args", Value::Array(words)) if words.iter().all(Value::is_string) => {
                    settings.args =
                        words.iter().filter_map(Value::as_str).map(str::to_owned).collect();
                }
                ("args", _) => faults.push(fault(path, "expected a list of strings")),
                _ => faults.push(fault(
                    path,
                    "unknown setting; supported are runAsRoot, certificates, registryAccess, \
                     image, args, compareVersion",
                )),
            }
        }
        if faults.is_empty() { Ok(settings) } else { Err(PluginError::InvalidSettings(faults)) }
    }

    /// Returns the slots of Secrets, each with its mount path.
    fn secrets(&self) -> Vec<(String, String)> {
        let slots = [
            (self.certificates, CERTIFICATE_SLOT, CERTIFICATES),
            (self.registry, REGISTRY.0, REGISTRY.1),
        ];
        let needed_slots = slots.into_iter().filter(|(is_asked, ..)| *is_asked);
        needed_slots.map(|(_, slot, path)| (slot.to_owned(), path.to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use flashjob_plugin_sdk::Device;

    use super::*;

    const ESP32: SecureOta = SecureOta { name: "esp32", version: "0.1.0", device_types: "esp32*" };

    fn request() -> Request {
        Request {
            namespace: "fleet".into(),
            job: "job".into(),
            device: Device {
                uid: "uid".into(),
                name: "akri-esp32-1".into(),
                endpoint: Some("10.0.0.7".into()),
                device_type: "esp32".into(),
                application_type: Some("thermo".into()),
                reported_version: None,
                nodes: vec!["node".into()],
                properties: Vec::new(),
            },
            firmware: "registry/firmware:2".into(),
            version: "2".into(),
            image: None,
            settings: "{}".into(),
            attempt: 1,
        }
    }

    #[test]
    fn the_environment_is_what_the_flash_container_expects_and_no_more() {
        let flash = ESP32.build(request()).expect("built");
        let names: Vec<&str> = flash.env.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "FIRMWARE",
                "UUID",
                "HOST_ENDPOINT",
                "DEVICE",
                "APPLICATION_TYPE",
                "VERSION",
                "EXTERNAL_IP"
            ]
        );
        assert_eq!(flash.env[6].1, EnvValue::ExternalAddress);
        assert_eq!((flash.ports[0].number, flash.needs_ip), (4433, true));
        assert_eq!((flash.image.as_str(), flash.user), (IMAGE, User::Uid(65532)));
    }

    #[test]
    fn what_the_container_cannot_do_without_is_named() {
        let without =
            Request { device: Device { application_type: None, ..request().device }, ..request() };
        let error = ESP32.build(without).expect_err("refused");
        assert!(
            matches!(error, PluginError::InvalidRequest(text) if text.contains("APPLICATION_TYPE"))
        );
    }

    #[test]
    fn a_version_that_no_device_could_report_is_refused_before_it_is_flashed() {
        let with = |version: &str| ESP32.build(Request { version: version.into(), ..request() });
        assert!(with(&"7".repeat(VERSION_BYTES)).is_ok());
        // The limit counts bytes, not characters.
        for version in ["7".repeat(VERSION_BYTES + 1), "ä".repeat(16)] {
            let refused = with(&version);
            assert!(
                matches!(refused, Err(PluginError::InvalidRequest(text)) if text.contains("31"))
            );
        }
    }

    #[test]
    fn a_type_that_the_operator_was_configured_for_is_handed_on() {
        let device = Device { device_type: "esp32p4x".into(), ..request().device };
        let flash = ESP32.build(Request { device, ..request() }).expect("built");
        let value = EnvValue::Literal("esp32p4x".into());
        assert!(flash.env.contains(&("DEVICE".to_owned(), value)));
    }

    #[test]
    fn settings_choose_root_certificates_and_image_and_the_job_beats_them() {
        let settings = r#"{
            "runAsRoot":true,"certificates":true,"registryAccess":true,"image":"registry/a:1"
        }"#;
        let flash =
            ESP32.build(Request { settings: settings.into(), ..request() }).expect("built");
        assert_eq!((flash.user, flash.image.as_str()), (User::Root, "registry/a:1"));
        let slots: Vec<_> = flash.secrets.iter().map(|(slot, path)| (&**slot, &**path)).collect();
        let registry = ("firmware-registry", "/etc/flashjob/registry");
        assert_eq!(slots, [("ota-tls", "/ota/certs"), registry]);
        let flash = ESP32
            .build(Request {
                settings: settings.into(),
                image: Some("registry/b:1".into()),
                ..request()
            })
            .expect("built");
        assert_eq!(flash.image, "registry/b:1");
    }

    #[test]
    fn firmware_that_is_no_image_is_refused_and_an_encrypted_one_cannot_be_read() {
        let inspected = |beginning: &[u8]| {
            let inspected = ESP32.inspect_firmware(&FirmwareFile {
                device_type: "esp32".into(),
                firmware: "registry/firmware:2".into(),
                version: "2".into(),
                settings: "{}".into(),
                name: "firmware/thermo.bin".into(),
                size: 4096,
                beginning: beginning.to_vec(),
            });
            inspected.expect("valid settings")
        };
        let refusal = inspected(b"\x7fELF").and_then(|inspection| inspection.refusal);
        assert!(
            refusal.is_some_and(|text| text.contains("cannot be flashed to device type esp32"))
        );
        assert_eq!(inspected(&[0xcf, 0xb6, 0x88, 0x07, 0]), None);
        let mut image = [0; 64];
        image[..2].copy_from_slice(&[0xe9, 1]);
        let chip = inspected(&image).and_then(|inspection| inspection.chip);
        assert_eq!(chip.as_deref(), Some("ESP32"));
    }

    #[test]
    fn every_fault_in_the_settings_is_named_with_its_path() {
        let Err(PluginError::InvalidSettings(faults)) =
            ESP32.validate_settings(r#"{"runAsRoot":1,"a/b":2}"#)
        else {
            panic!("accepted")
        };
        let paths: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["/a~1b", "/runAsRoot"]);
    }
}
