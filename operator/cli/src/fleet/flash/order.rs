//! What was asked for: which devices, and what they are flashed with.

use flashjob_api::{FlashJob, FlashJobSpec};

use crate::fleet::inventory::Device;

/// Most uids of one FlashJob.
pub const MOST: usize = 4096;

/// What devices are flashed with.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// The firmware, usually an OCI reference.
    pub reference: String,
    /// The version that devices report afterwards.
    pub version: String,
    /// Image of the flash Pods; none for the plugin's.
    pub pod_image: Option<String>,
}

/// Devices to flash, and with what.
#[derive(Clone, Debug)]
pub struct Order {
    /// Name of the FlashJob.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Uids of the devices.
    pub uids: Vec<String>,
    /// The type of all devices, where they have one in common; guards against others.
    pub device: Option<String>,
    /// The same for the application.
    pub application: Option<String>,
    /// What they are flashed with.
    pub firmware: Firmware,
    /// Devices in flight at once; none for the operator's default.
    pub parallelism: Option<i32>,
    /// Value of `runID` that has devices flashed again.
    pub run: Option<String>,
}

impl Order {
    /// The FlashJob of these devices.
    pub fn job(&self, uids: &[String]) -> FlashJob {
        let mut job = FlashJob::new(&self.name, self.over(FlashJobSpec::default()));
        job.spec.uuid = uids.to_vec();
        job.metadata.namespace = Some(self.namespace.clone());
        job
    }

    /// A spec with all of this but the uids, and the rest as it is.
    pub fn over(&self, spec: FlashJobSpec) -> FlashJobSpec {
        FlashJobSpec {
            firmware: self.firmware.reference.clone(),
            version: self.firmware.version.clone(),
            flashjob_pod_image: self.firmware.pod_image.clone(),
            device: self.device.clone(),
            application_type: self.application.clone(),
            host_endpoint: None,
            parallelism: self.parallelism.or(spec.parallelism),
            run_id: self.run.clone().or(spec.run_id),
            ..spec
        }
    }
}

/// Warns of devices that report the wanted version already: whether they were flashed cannot be
/// told then.
pub fn warn_of_current(devices: &[Device], version: &str) {
    let reporting =
        devices.iter().filter(|device| device.version.as_deref() == Some(version)).count();
    if reporting > 0 {
        eprintln!(
            "Warning: {reporting} of the devices report version {version} already, so their new \
             firmware cannot be told from the old one."
        );
    }
}

/// What all have in common; none where one has another or none.
pub fn shared<'a>(values: impl Iterator<Item = &'a Option<String>>) -> Option<String> {
    let mut values = values;
    let first = values.next()?.clone()?;
    let same = |value: &Option<String>| {
        value.as_ref().is_some_and(|value| value.eq_ignore_ascii_case(&first))
    };
    values.all(same).then_some(first)
}

/// Reads what a FlashJob takes as firmware, version or image: no white space, no control
/// characters.
pub fn word(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
        return Err(match text {
            "" => "This must not be empty.".to_owned(),
            _ => format!("{text:?} has white space in it."),
        });
    }
    Ok(text.to_owned())
}

/// Reads the number of devices of a batch.
pub fn batch_size(text: &str) -> Result<usize, String> {
    let number = text.trim().parse().ok().filter(|number| (1..=MOST).contains(number));
    number.ok_or_else(|| format!("{text:?} is not a number from 1 to {MOST}"))
}

#[cfg(test)]
mod tests {
    use super::shared;

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
