//! The one conversion from what a FlashJob says to what it means: absent, null and empty are the
//! same, and defaults are supplied.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    Disruption, Exposure, FirmwarePolicy, FlashJobSpec, GroupBudget, PodOverrides, VerifyMode,
    visible,
};

/// A FlashJob's spec with its defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct EffectiveSpec {
    /// The devices' uids, in the order of the spec.
    pub uuid: Vec<String>,
    /// The firmware to flash.
    pub firmware: String,
    /// The version that a flashed device reports.
    pub version: String,
    /// Resolution and signature of the firmware; None: neither is asked for.
    pub firmware_policy: Option<FirmwarePolicy>,
    /// Guard on the device type.
    pub device: Option<String>,
    /// Guard on the application type.
    pub application_type: Option<String>,
    /// Override of the device's endpoint.
    pub host_endpoint: Option<String>,
    /// The address to ask the load balancer for.
    pub external_ip: Option<String>,
    /// Image of the flash Pod.
    pub flashjob_pod_image: Option<String>,
    /// Settings by plugin name.
    pub settings: BTreeMap<String, Map<String, Value>>,
    /// Devices in flight, 1 to 500.
    pub parallelism: usize,
    /// Start no more devices.
    pub suspend: bool,
    /// Retries of one device.
    pub backoff_limit_per_device: u32,
    /// Number of failures that stops the job.
    pub max_failed_devices: Option<FailureBudget>,
    /// Limit of the devices in flight in one group.
    pub group_limit: Option<GroupLimit>,
    /// Seconds for one attempt.
    pub device_timeout_seconds: i64,
    /// Seconds for an external address.
    pub address_timeout_seconds: i64,
    /// Seconds for the whole job.
    pub active_deadline_seconds: Option<i64>,
    /// Proof that is asked of a flashed device.
    pub verify: Verification,
    /// Skip what is current.
    pub skip_if_current: bool,
    /// Services for each device, or pooled.
    pub exposure: Exposure,
    /// Effect of a drain of a node.
    pub disruption: Disruption,
    /// Seconds from the end to the deletion of the FlashJob.
    pub ttl_seconds_after_finished: Option<i64>,
    /// Additions to the Pods.
    pub pod_overrides: PodOverrides,
    /// Hash of the fields that make a run, 16 hexadecimal digits.
    pub run: String,
}

/// Proof that is asked of a flashed device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verification {
    /// None: the plugin's verdict says, else BestEffort.
    pub mode: Option<VerifyMode>,
    /// Seconds to wait for the new version.
    pub timeout_seconds: i64,
    /// Seconds for which the new version must stay.
    pub stable_seconds: i64,
}

/// Limit of the devices in flight in one group, over all jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLimit {
    /// Criterion that devices of one group have in common.
    pub key: GroupKey,
    /// Devices in flight in one group, from 1.
    pub most: usize,
}

/// Criterion by which devices are grouped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupKey {
    /// The node that sees them.
    Node,
    /// The value of this property of Akri's.
    Property(String),
}

/// Number of devices that may fail before the job stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureBudget {
    /// This many.
    Devices(usize),
    /// This share of all devices, 0 to 100, rounded down.
    Percent(usize),
}

impl FailureBudget {
    /// The number of devices that may fail out of `total`.
    #[must_use]
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Devices(count) => count,
            Self::Percent(percent) => total * percent / 100,
        }
    }
}

/// A spec that the API server should have refused, as one stored before the rules were.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidSpec {
    /// Path of the field.
    pub field: &'static str,
    /// The fault, and what is expected.
    pub message: String,
}

impl FlashJobSpec {
    /// Supplies the defaults, and checks what a stored object may still have wrong.
    ///
    /// # Errors
    /// Names the first field that breaks its rule.
    pub fn effective(&self) -> Result<EffectiveSpec, InvalidSpec> {
        let host_endpoint = non_empty(self.host_endpoint.as_deref());
        self.check(host_endpoint.as_deref())?;
        let settings = self.settings.clone().unwrap_or_default();
        let verify = self.verify.clone().unwrap_or_default();
        Ok(EffectiveSpec {
            uuid: self.uuid.clone(),
            firmware: self.firmware.clone(),
            version: self.version.clone(),
            firmware_policy: self.firmware_policy.clone(),
            device: non_empty(self.device.as_deref()),
            application_type: non_empty(self.application_type.as_deref()),
            external_ip: non_empty(self.external_ip.as_deref()),
            flashjob_pod_image: non_empty(self.flashjob_pod_image.as_deref()),
            parallelism: usize::try_from(self.parallelism.unwrap_or(10))
                .unwrap_or(1)
                .clamp(1, 500),
            suspend: self.suspend.unwrap_or(false),
            backoff_limit_per_device: u32::try_from(self.backoff_limit_per_device.unwrap_or(2))
                .unwrap_or(0),
            max_failed_devices: self
                .max_failed_devices
                .as_ref()
                .map(failure_budget)
                .transpose()?,
            group_limit: self.group_budget.as_ref().map(group_limit),
            device_timeout_seconds: self.device_timeout_seconds.unwrap_or(900).max(1),
            address_timeout_seconds: self.address_timeout_seconds.unwrap_or(300).max(1),
            active_deadline_seconds: self.active_deadline_seconds,
            verify: Verification {
                mode: verify.mode,
                timeout_seconds: verify.timeout_seconds.unwrap_or(300).max(1),
                stable_seconds: verify.stable_seconds.unwrap_or(0).max(0),
            },
            skip_if_current: self.skip_if_current.unwrap_or(false),
            exposure: self.exposure.unwrap_or_default(),
            disruption: self.disruption.unwrap_or_default(),
            ttl_seconds_after_finished: self.ttl_seconds_after_finished,
            pod_overrides: self.pod_overrides.clone().unwrap_or_default(),
            run: self.run_hash(&settings, host_endpoint.as_deref()),
            settings,
            host_endpoint,
        })
    }

    /// Checks the rule of the definition for `externalIP`, for a program that has no API server.
    /// [`Self::effective`] leaves it out, so that the operator reads FlashJobs that were stored
    /// before the rule.
    ///
    /// # Errors
    /// The text is neither empty nor an IP address.
    pub fn check_external_ip(&self) -> Result<(), InvalidSpec> {
        match self.external_ip.as_deref().unwrap_or_default() {
            text if text.is_empty() || is_ip(text) => Ok(()),
            text => Err(InvalidSpec {
                field: "spec.externalIP",
                message: format!(
                    "{text:?} is not an IP address; give one such as 192.0.2.7 or 2001:db8::7"
                ),
            }),
        }
    }

    fn check(&self, host_endpoint: Option<&str>) -> Result<(), InvalidSpec> {
        let invalid =
            |field, message: &str| Err(InvalidSpec { field, message: message.to_owned() });
        if self.uuid.is_empty() || self.uuid.len() > 4096 {
            return invalid("spec.uuid", "give 1 to 4096 uids");
        }
        // A list of type set would have the API server refuse this, and costs it most of each
        // status write of a large job: it keeps one managed field for each entry.
        let mut uids = HashSet::new();
        if let Some(uid) = self.uuid.iter().find(|uid| !uids.insert(uid.as_str())) {
            return invalid(
                "spec.uuid",
                &format!("names {uid} more than once; name each uid once"),
            );
        }
        for (field, text) in [("spec.firmware", &self.firmware), ("spec.version", &self.version)] {
            if let Some(fault) = visible::fault(text) {
                return invalid(field, &fault);
            }
        }
        if host_endpoint.is_some() && self.uuid.len() != 1 {
            return invalid("spec.hostEndpoint", "may only be set with exactly one uuid");
        }
        Ok(())
    }

    /// JSON writes the fields in one fixed order and escapes what could run together, so equal
    /// runs hash alike and others do not.
    fn run_hash(
        &self,
        settings: &BTreeMap<String, Map<String, Value>>,
        host_endpoint: Option<&str>,
    ) -> String {
        let fields = serde_json::json!([
            self.firmware,
            self.version,
            non_empty(self.flashjob_pod_image.as_deref()),
            non_empty(self.device.as_deref()),
            non_empty(self.application_type.as_deref()),
            host_endpoint,
            settings,
            non_empty(self.run_id.as_deref()),
        ]);
        let digest = Sha256::digest(fields.to_string().as_bytes());
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Returns true for an address as `isIP` of Kubernetes' CEL library accepts it: without a zone, as
/// in Rust, and not IPv4-mapped.
fn is_ip(text: &str) -> bool {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => true,
        Ok(IpAddr::V6(address)) => address.to_ipv4_mapped().is_none(),
        Err(_) => false,
    }
}

pub(crate) fn non_empty(text: Option<&str>) -> Option<String> {
    text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
}

pub(crate) fn group_limit(budget: &GroupBudget) -> GroupLimit {
    let key = match budget.by.as_str() {
        "Node" => GroupKey::Node,
        property => GroupKey::Property(property.to_owned()),
    };
    GroupLimit { key, most: usize::try_from(budget.max_in_flight).unwrap_or(1).max(1) }
}

pub(crate) fn failure_budget(value: &IntOrString) -> Result<FailureBudget, InvalidSpec> {
    let budget = match value {
        IntOrString::Int(count) => usize::try_from(*count).ok().map(FailureBudget::Devices),
        IntOrString::String(text) => text
            .strip_suffix('%')
            .and_then(|percent| percent.parse().ok())
            .filter(|percent| *percent <= 100)
            .map(FailureBudget::Percent),
    };
    budget.ok_or_else(|| InvalidSpec {
        field: "spec.maxFailedDevices",
        message: "give a number from 0, or a percentage from 0% to 100%".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> FlashJobSpec {
        FlashJobSpec {
            uuid: vec!["a".into(), "b".into(), "c".into()],
            firmware: "registry/firmware:1".into(),
            version: "1".into(),
            ..FlashJobSpec::default()
        }
    }

    #[test]
    fn a_spec_with_the_required_fields_alone_gets_the_documented_defaults() {
        let effective = spec().effective().expect("valid");
        assert_eq!(effective.parallelism, 10);
        assert_eq!(effective.backoff_limit_per_device, 2);
        assert_eq!(effective.device_timeout_seconds, 900);
        assert_eq!(effective.address_timeout_seconds, 300);
        assert_eq!(
            effective.verify,
            Verification { mode: None, timeout_seconds: 300, stable_seconds: 0 }
        );
        assert_eq!(effective.exposure, Exposure::PerDevice);
        assert_eq!(effective.max_failed_devices, None);
    }

    #[test]
    fn null_and_empty_mean_absent_and_make_the_same_run() {
        let nulls: FlashJobSpec = serde_json::from_value(serde_json::json!({
            "uuid": ["a", "b", "c"], "firmware": "registry/firmware:1", "version": "1",
            "device": null, "hostEndpoint": null, "externalIP": null, "applicationType": "",
            "settings": null, "verify": null
        }))
        .expect("decodes");
        assert_eq!(nulls.effective(), spec().effective());
    }

    #[test]
    fn an_external_address_is_an_ip_address_as_in_the_definition() {
        let check = |text: &str| {
            let spec = FlashJobSpec { external_ip: Some(text.to_owned()), ..spec() };
            spec.check_external_ip().map_err(|error| error.to_string())
        };
        for text in ["", "192.0.2.7", "2001:db8::7", "::1"] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for text in [
            "lb.example.com",
            "192.0.2.300",
            "192.0.02.7",
            "fe80::1%eth0",
            "::ffff:192.0.2.7",
            " ",
        ] {
            let expected = format!("spec.externalIP: {text:?} is not an IP address; give one");
            assert!(check(text).is_err_and(|error| error.starts_with(&expected)), "{text}");
        }
        assert_eq!(spec().check_external_ip(), Ok(()));
    }

    #[test]
    fn a_uid_that_is_named_twice_is_refused_by_its_name() {
        let uuid = vec!["a".into(), "b".into(), "c".into(), "b".into()];
        let refused = FlashJobSpec { uuid, ..spec() }.effective().expect_err("refused");
        assert_eq!(refused.field, "spec.uuid");
        assert!(refused.message.starts_with("names b more than once"), "{}", refused.message);
    }

    #[test]
    fn what_was_stored_before_the_pattern_was_is_refused_by_its_field() {
        let refused = |spec: FlashJobSpec| spec.effective().expect_err("refused").field;
        for text in ["", "a b", "a\u{1b}[2J", "a\n", "a\u{a0}b", "1.2\u{200b}", "\u{feff}a"] {
            let (firmware, version) = (text.to_owned(), text.to_owned());
            assert_eq!(refused(FlashJobSpec { firmware, ..spec() }), "spec.firmware");
            assert_eq!(refused(FlashJobSpec { version, ..spec() }), "spec.version");
        }
    }

    #[test]
    fn only_the_fields_of_a_run_change_its_hash() {
        let run = |spec: FlashJobSpec| spec.effective().expect("valid").run;
        let base = run(spec());
        assert_eq!(
            base,
            run(FlashJobSpec { parallelism: Some(3), suspend: Some(true), ..spec() })
        );
        assert_eq!(base, run(FlashJobSpec { uuid: vec!["z".into()], ..spec() }));
        let firmware_policy = Some(FirmwarePolicy::default());
        assert_eq!(base, run(FlashJobSpec { firmware_policy, ..spec() }));
        for changed in [
            FlashJobSpec { firmware: "other".into(), ..spec() },
            FlashJobSpec { version: "2".into(), ..spec() },
            FlashJobSpec { run_id: Some("again".into()), ..spec() },
            FlashJobSpec { device: Some("esp32".into()), ..spec() },
            FlashJobSpec { application_type: Some("esp32".into()), ..spec() },
        ] {
            assert_ne!(base, run(changed));
        }
    }

    #[test]
    fn a_percentage_of_failures_is_rounded_down() {
        let budget = |text: &str| failure_budget(&IntOrString::String(text.into()));
        assert_eq!(budget("33%").map(|budget| budget.of(10)), Ok(3));
        assert_eq!(failure_budget(&IntOrString::Int(0)).map(|budget| budget.of(10)), Ok(0));
        assert!(budget("101%").is_err());
        assert!(budget("3").is_err());
        assert!(failure_budget(&IntOrString::Int(-1)).is_err());
    }
}
