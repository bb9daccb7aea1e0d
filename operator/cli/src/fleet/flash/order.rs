//! Flash order: the devices, and the firmware to flash them with.

use std::collections::HashSet;

use flashjob_api::{FlashJob, FlashJobSpec, is_visible};
use flashjob_rules::flashjob::grants::is_image;

use crate::fleet::inventory::Device;
use crate::number::number;

// Both limits are those of the CustomResourceDefinition.
/// Largest number of uids in one FlashJob.
pub const MOST: usize = 4096;

/// Largest number of devices of one FlashJob in flight at once.
const MOST_AT_ONCE: i32 = 500;

/// Firmware that devices are flashed with.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// The firmware, usually an OCI reference.
    pub reference: String,
    /// The version that devices report afterwards.
    pub version: String,
    /// Image of the flash Pods; none for the plugin's.
    pub pod_image: Option<String>,
}

/// Selected devices, and the options that selected them.
pub struct Chosen {
    /// The devices, at least one.
    pub devices: Vec<Device>,
    /// True if a type was given.
    pub by_type: bool,
    /// True if an application was given.
    pub by_application: bool,
}

/// A device to flash, with the values that a guard is compared with.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// Uid of its Instance.
    pub uid: String,
    /// Its type, as Akri spells it.
    pub kind: Option<String>,
    /// The application that runs on it.
    pub application: Option<String>,
}

/// Devices to flash, and the firmware to flash them with.
#[derive(Clone, Debug)]
pub struct Order {
    /// Name of the FlashJob.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The devices.
    pub targets: Vec<Target>,
    /// Guard against devices of another type; set if a type was given. The guard is part of the
    /// run, so one derived from the devices alone would start a new run with each new mix of
    /// devices.
    pub device: Option<String>,
    /// Guard against devices with another application; set if an application was given.
    pub application: Option<String>,
    /// Firmware that they are flashed with.
    pub firmware: Firmware,
    /// Devices in flight at once; none for the operator's default.
    pub parallelism: Option<i32>,
    /// Value of `runID` that causes devices to be flashed again.
    pub run: Option<String>,
}

impl Order {
    /// Returns the FlashJob for these devices.
    pub fn job(&self, uids: &[String]) -> FlashJob {
        let spec = self.anew(FlashJobSpec::default(), uids);
        let mut job = FlashJob::new(&self.name, spec);
        job.metadata.namespace = Some(self.namespace.clone());
        job
    }

    /// Returns the spec of a FlashJob that starts anew with these devices.
    pub fn anew(&self, spec: FlashJobSpec, uids: &[String]) -> FlashJobSpec {
        FlashJobSpec {
            uuid: uids.to_vec(),
            device: self.device.clone(),
            application_type: self.application.clone(),
            // An endpoint and an address of the previous run were meant for its devices.
            host_endpoint: None,
            external_ip: None,
            ..self.over(spec)
        }
    }

    /// Returns a spec with the firmware of this order; its devices and guards stay.
    pub fn over(&self, spec: FlashJobSpec) -> FlashJobSpec {
        FlashJobSpec {
            firmware: self.firmware.reference.clone(),
            version: self.firmware.version.clone(),
            flashjob_pod_image: self.firmware.pod_image.clone(),
            // Not part of the run, and somebody may have changed it in the FlashJob meanwhile.
            parallelism: self.parallelism.or(spec.parallelism),
            // A `runID` that disappears is another run too, and would flash finished devices
            // again.
            run_id: self.run.clone().or(spec.run_id),
            ..spec
        }
    }
}

impl Chosen {
    /// Returns the type and the application that the operator is to compare each device with.
    pub fn guards(&self) -> (Option<String>, Option<String>) {
        let of = |is_guarded: bool, value: fn(&Device) -> &Option<String>| {
            if is_guarded { shared(self.devices.iter().map(value)) } else { None }
        };
        (of(self.by_type, |one| &one.kind), of(self.by_application, |one| &one.application))
    }

    /// Returns the devices as targets of an order.
    pub fn targets(&self) -> Vec<Target> {
        let target = |device: &Device| Target {
            uid: device.uid.clone(),
            kind: device.kind.clone(),
            application: device.application.clone(),
        };
        self.devices.iter().map(target).collect()
    }

    /// Warns of devices to flash that already report the wanted version: their new firmware cannot
    /// be distinguished from the old one.
    pub fn warn_of_current(&self, uids: &[String], version: &str) {
        let uids: HashSet<&String> = uids.iter().collect();
        let devices_to_flash = self.devices.iter().filter(|device| uids.contains(&device.uid));
        match devices_to_flash.filter(|device| device.version.as_deref() == Some(version)).count()
        {
            0 => {}
            1 => tell!(
                "Warning: 1 of the devices already reports version {version}, so its new firmware \
                 cannot be distinguished from the old one."
            ),
            several => tell!(
                "Warning: {several} of the devices already report version {version}, so their new \
                 firmware cannot be distinguished from the old one."
            ),
        }
    }
}

/// Returns the value that all have in common; none if one differs or is missing.
fn shared<'a>(values: impl Iterator<Item = &'a Option<String>>) -> Option<String> {
    let mut values = values;
    // A guard that one of these devices does not match would fail it as DeviceTypeMismatch.
    let first = values.next()?.clone()?;
    let same = |value: &Option<String>| {
        value.as_ref().is_some_and(|value| value.eq_ignore_ascii_case(&first))
    };
    values.all(same).then_some(first)
}

/// Parses a firmware reference, version or image: no white space or invisible characters.
pub fn word(text: &str) -> Result<String, String> {
    let text = text.trim();
    // The patterns in the CustomResourceDefinition refuse the same characters, but an API server
    // quotes the pattern instead of saying what is wrong.
    if text.is_empty() {
        return Err("This must not be empty.".to_owned());
    }
    match text.chars().find(|letter| !is_visible(*letter)) {
        None => Ok(text.to_owned()),
        Some(hidden) => Err(format!(
            "{text:?} contains white space or an invisible character, U+{:04X}.",
            u32::from(hidden)
        )),
    }
}

/// Parses an image reference.
pub fn image(text: &str) -> Result<String, String> {
    let image = word(text)?;
    match is_image(&image) {
        true => Ok(image),
        false => Err(format!(
            "{image:?} is not a valid image; expected a reference such as {:?}.",
            "registry.example.com/flasher:1.2"
        )),
    }
}

/// Parses the number of devices in a batch.
pub fn batch_size(text: &str) -> Result<usize, String> {
    number(text, 1..=MOST)
}

/// Parses the number of devices in flight at once.
pub fn parallelism(text: &str) -> Result<i32, String> {
    number(text, 1..=MOST_AT_ONCE)
}

#[cfg(test)]
mod tests {
    use super::{batch_size, image, parallelism, shared, word};

    #[test]
    fn a_version_with_a_character_that_nobody_sees_is_refused_and_the_character_is_shown() {
        assert_eq!(word(" 0.2.0\n"), Ok("0.2.0".to_owned()));
        assert!(word("").is_err());
        for (text, shown, number) in [
            ("0.2 0", "0.2 0", "U+0020"),
            ("0.2.0\u{200b}", r"0.2.0\u{200b}", "U+200B"),
            // The Hangul filler is a letter, which `{:?}` does not escape.
            ("0.2.0\u{3164}", "0.2.0\u{3164}", "U+3164"),
        ] {
            let refusal = word(text).err().unwrap_or_default();
            assert!(refusal.starts_with(&format!("\"{shown}\" contains")), "{refusal}");
            assert!(refusal.ends_with(&format!(", {number}.")), "{refusal}");
        }
    }

    #[test]
    fn an_image_is_a_reference_and_a_number_is_within_its_bounds() {
        assert_eq!(image(" registry.example/a:1 "), Ok("registry.example/a:1".to_owned()));
        for bad in ["!!", "", "a b", "docker.io/UPPER", "a@sha256:1"] {
            assert!(image(bad).is_err(), "{bad}");
        }
        assert_eq!((parallelism("500"), batch_size("4096")), (Ok(500), Ok(4096)));
        for bad in ["0", "501", "-1", "two", ""] {
            let expected = Err(format!("{bad:?} is not a number from 1 to 500"));
            assert_eq!(parallelism(bad), expected);
        }
    }

    #[test]
    fn only_what_all_devices_have_is_a_guard() {
        let of = |values: &[Option<&str>]| {
            let values: Vec<_> = values.iter().map(|value| value.map(str::to_owned)).collect();
            shared(values.iter())
        };
        assert_eq!(of(&[Some("esp32"), Some("ESP32")]), Some("esp32".to_owned()));
        assert_eq!(of(&[Some("esp32"), Some("esp32s2")]), None);
        assert_eq!(of(&[Some("esp32"), None]), None);
        assert_eq!(of(&[]), None);
    }
}
