//! The one conversion from what a FlashRollout says to what it means: absent, null and empty are
//! the same, and defaults are supplied.

mod conditions;
mod invalid;

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

pub use self::conditions::{Conditions, comparable_type};
pub use self::invalid::InvalidRollout;
use self::invalid::invalid;
use crate::effective::{FailureBudget, GroupLimit, failure_budget, group_limit, non_empty};
use crate::firmware_policy::{FirmwarePin, FirmwareVerification};
use crate::rollout::{BatchSpec, FlashRolloutSpec, OnFailure, RolloutTemplate, RolloutWindow};
use crate::{GroupBudget, VerifyMode, VerifySpec, visible};

/// Name of the batch that takes the devices that no other batch takes.
pub const REST: &str = "rest";

/// A FlashRollout's spec with its defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct EffectiveRollout {
    /// The firmware to flash.
    pub firmware: String,
    /// The version that a flashed device reports.
    pub version: String,
    /// Form in which FlashJobs get the reference.
    pub pin: FirmwarePin,
    /// Signatures that are asked of the firmware.
    pub verify_firmware: FirmwareVerification,
    /// Devices of the rollout.
    pub selector: Conditions,
    /// Devices that are left out although they are selected.
    pub exclude: Option<Conditions>,
    /// Batches, without the implicit last one.
    pub batches: Vec<EffectiveBatch>,
    /// False if the batches are the default ones: an empty one is then dropped.
    pub explicit_batches: bool,
    /// Effect of a batch that does not pass.
    pub on_failure: OnFailure,
    /// Failed devices of a batch that has no budget of its own.
    pub max_failed: Option<FailureBudget>,
    /// Least percentage that must complete of a batch that has none of its own.
    pub success_threshold: Option<usize>,
    /// Devices in flight, 1 to 500.
    pub parallelism: usize,
    /// Limit of the devices in flight in one group, as it is handed to FlashJobs.
    pub group_budget: Option<GroupBudget>,
    /// The same, as it is compared.
    pub group_limit: Option<GroupLimit>,
    /// Times at which devices may start.
    pub windows: Vec<RolloutWindow>,
    /// Times at which none may.
    pub blackouts: Vec<RolloutWindow>,
    /// Leave out what is current.
    pub skip_if_current: bool,
    /// Plan devices with a higher version.
    pub allow_downgrade: bool,
    /// Leave out devices with a lower version.
    pub min_version: Option<String>,
    /// Settings of the FlashJobs, with `verify.mode` supplied.
    pub template: RolloutTemplate,
    /// Start no more devices.
    pub suspend: bool,
    /// End the run.
    pub abort: bool,
    /// `<batch>@<run>`.
    pub approvals: HashSet<String>,
    /// Value that asks for another try.
    pub retry: Option<String>,
    /// Seconds for the whole run.
    pub active_deadline_seconds: Option<i64>,
    /// Seconds from the end to the deletion of the FlashRollout.
    pub ttl_seconds_after_finished: Option<i64>,
    /// Hash of the fields that make a run, 16 hexadecimal digits.
    pub fingerprint: String,
}

/// One batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EffectiveBatch {
    /// Name.
    pub name: String,
    /// Devices that it takes; empty: any.
    pub selector: Conditions,
    /// Most devices that it takes; None: all that it selects.
    pub size: Option<BatchSize>,
    /// Starts only once it is approved.
    pub approval: bool,
    /// Seconds from its end to the next batch.
    pub soak_seconds: i64,
    /// Failed devices that it may have.
    pub max_failed: Option<FailureBudget>,
    /// Least percentage that must complete.
    pub success_threshold: Option<usize>,
    /// Devices in flight.
    pub parallelism: Option<usize>,
}

/// Size of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// This many.
    Devices(usize),
    /// This share of all planned devices, 1 to 100, rounded down and at least 1.
    Percent(usize),
}

impl BatchSize {
    /// The number of devices out of `planned`.
    #[must_use]
    pub fn of(self, planned: usize) -> usize {
        match self {
            Self::Devices(count) => count,
            Self::Percent(percent) => (planned * percent / 100).max(1),
        }
    }
}

impl FlashRolloutSpec {
    /// Supplies the defaults, and checks what a stored object may still have wrong.
    ///
    /// # Errors
    /// Names the first field that breaks its rule.
    pub fn effective(&self) -> Result<EffectiveRollout, InvalidRollout> {
        self.check_texts()?;
        let selector = Conditions::of_selector(&self.selector)?;
        if selector.is_empty() && self.selector.all != Some(true) {
            return Err(invalid(
                "spec.selector",
                "is empty; give at least one condition, or all: true for every device",
            ));
        }
        let exclude = Conditions::read(self.selector.exclude.as_ref(), "spec.selector.exclude")?;
        let policy = self.firmware_policy.clone().unwrap_or_default();
        let (batches, explicit_batches) = self.effective_batches()?;
        Ok(EffectiveRollout {
            firmware: self.firmware.clone(),
            version: self.version.clone(),
            pin: policy.pin.unwrap_or_default(),
            verify_firmware: policy.verify.unwrap_or_default(),
            // Empty conditions hold for every device: as an exclusion they would leave none.
            exclude: Some(exclude).filter(|exclude| !exclude.is_empty()),
            selector,
            batches,
            explicit_batches,
            on_failure: self.on_failure.unwrap_or_default(),
            max_failed: budget(self.max_failed.as_ref(), "spec.maxFailed")?,
            success_threshold: share(self.success_threshold.as_deref(), "spec.successThreshold")?,
            parallelism: in_flight(self.parallelism).unwrap_or(10),
            group_budget: self.group_budget.clone(),
            group_limit: self.group_budget.as_ref().map(group_limit),
            windows: self.windows.clone().unwrap_or_default(),
            blackouts: self.blackouts.clone().unwrap_or_default(),
            skip_if_current: self.skip_if_current.unwrap_or(true),
            allow_downgrade: self.allow_downgrade.unwrap_or(false),
            min_version: non_empty(self.min_version.as_deref()),
            template: self.effective_template(),
            suspend: self.suspend.unwrap_or(false),
            abort: self.abort.unwrap_or(false),
            approvals: self.approvals.iter().flatten().cloned().collect(),
            retry: non_empty(self.retry.as_deref()),
            active_deadline_seconds: self.active_deadline_seconds,
            ttl_seconds_after_finished: self.ttl_seconds_after_finished,
            fingerprint: self.fingerprint(),
        })
    }

    fn check_texts(&self) -> Result<(), InvalidRollout> {
        for (field, text) in [("spec.firmware", &self.firmware), ("spec.version", &self.version)] {
            if let Some(fault) = visible::fault(text) {
                return Err(invalid(field, fault));
            }
        }
        Ok(())
    }

    fn effective_batches(&self) -> Result<(Vec<EffectiveBatch>, bool), InvalidRollout> {
        let written = self.batches.as_deref().unwrap_or_default();
        if written.is_empty() {
            return Ok((default_batches(), false));
        }
        if written.len() > 20 {
            return Err(invalid("spec.batches", "has more than 20 batches; give at most 20"));
        }
        let mut names = HashSet::new();
        let mut batches = Vec::with_capacity(written.len());
        for (place, batch) in written.iter().enumerate() {
            if !names.insert(batch.name.as_str()) {
                return Err(invalid(
                    format!("spec.batches[{place}].name"),
                    format!("{} is already the name of a batch; give each its own", batch.name),
                ));
            }
            batches.push(effective_batch(batch, place)?);
        }
        Ok((batches, true))
    }

    fn effective_template(&self) -> RolloutTemplate {
        let mut template = self.template.clone().unwrap_or_default();
        let verify: &mut VerifySpec = template.verify.get_or_insert_default();
        verify.mode.get_or_insert(VerifyMode::Required);
        template.flashjob_pod_image = non_empty(template.flashjob_pod_image.as_deref());
        template.external_ip = non_empty(template.external_ip.as_deref());
        template.settings = template.settings.filter(|settings| !settings.is_empty());
        template
    }

    /// JSON writes the fields in one fixed order and escapes what could run together, so equal
    /// runs hash alike and others do not. What is absent is not written, so that fields which a
    /// later version adds leave the runs of today as they are.
    fn fingerprint(&self) -> String {
        let template = self.effective_template();
        let settings: BTreeMap<String, Map<String, Value>> = template.settings.unwrap_or_default();
        let fields = serde_json::json!([
            self.firmware,
            self.version,
            self.selector,
            self.membership.unwrap_or_default(),
            non_empty(self.run_id.as_deref()),
            template.flashjob_pod_image,
            settings,
        ]);
        hexadecimal(fields.to_string().as_bytes(), 8)
    }
}

/// The first `bytes` of the SHA-256 of a text, in hexadecimal.
fn hexadecimal(text: &[u8], bytes: usize) -> String {
    Sha256::digest(text).iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

/// One device, 10 % of all, the rest.
fn default_batches() -> Vec<EffectiveBatch> {
    let of = |name: &str, size| EffectiveBatch {
        name: name.to_owned(),
        size: Some(size),
        ..EffectiveBatch::default()
    };
    vec![of("canary", BatchSize::Devices(1)), of("ten-percent", BatchSize::Percent(10))]
}

fn effective_batch(batch: &BatchSpec, place: usize) -> Result<EffectiveBatch, InvalidRollout> {
    let field = |name: &str| format!("spec.batches[{place}].{name}");
    Ok(EffectiveBatch {
        name: batch.name.clone(),
        selector: Conditions::read(batch.selector.as_ref(), &field("selector"))?,
        size: batch.size.as_ref().map(|size| batch_size(size, &field("size"))).transpose()?,
        approval: batch.approval.unwrap_or(false),
        soak_seconds: batch.soak_seconds.unwrap_or(0).max(0),
        max_failed: budget(batch.max_failed.as_ref(), &field("maxFailed"))?,
        success_threshold: share(batch.success_threshold.as_deref(), &field("successThreshold"))?,
        parallelism: in_flight(batch.parallelism),
    })
}

fn in_flight(written: Option<i32>) -> Option<usize> {
    written.map(|count| usize::try_from(count).unwrap_or(1).clamp(1, 500))
}

fn batch_size(size: &IntOrString, field: &str) -> Result<BatchSize, InvalidRollout> {
    let read = match size {
        IntOrString::Int(count) => usize::try_from(*count).ok().map(BatchSize::Devices),
        IntOrString::String(text) => percent(text).map(BatchSize::Percent),
    };
    let is_some = |size: &_| !matches!(size, BatchSize::Devices(0) | BatchSize::Percent(0));
    read.filter(is_some)
        .ok_or_else(|| invalid(field, "give a number from 1, or a percentage from 1% to 100%"))
}

fn budget(
    written: Option<&IntOrString>,
    field: &str,
) -> Result<Option<FailureBudget>, InvalidRollout> {
    let budget = written.map(failure_budget).transpose();
    budget.map_err(|error| invalid(field, error.message))
}

fn share(written: Option<&str>, field: &str) -> Result<Option<usize>, InvalidRollout> {
    let Some(text) = written.filter(|text| !text.is_empty()) else { return Ok(None) };
    let message = "give a percentage from 0% to 100%, such as 90%";
    percent(text).map(Some).ok_or_else(|| invalid(field, message))
}

fn percent(text: &str) -> Option<usize> {
    text.strip_suffix('%')?.parse().ok().filter(|percent| *percent <= 100)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> FlashRolloutSpec {
        let selector = json!({"deviceTypes": ["esp32"]});
        let mut spec = json!({"firmware": "r.io/f:1", "version": "1", "selector": selector});
        if let (Value::Object(spec), Value::Object(fields)) = (&mut spec, value) {
            spec.extend(fields);
        }
        serde_json::from_value(spec).expect("decodes")
    }

    fn fault(value: Value) -> String {
        read(value).effective().expect_err("refused").field
    }

    #[test]
    fn a_spec_with_the_required_fields_alone_gets_the_documented_defaults() {
        let effective = read(json!({})).effective().expect("valid");
        assert_eq!((effective.pin, effective.on_failure), (FirmwarePin::Digest, OnFailure::Pause));
        assert_eq!(effective.verify_firmware, FirmwareVerification::IfConfigured);
        assert_eq!((effective.parallelism, effective.skip_if_current), (10, true));
        assert!(!effective.allow_downgrade && !effective.explicit_batches);
        let verify = effective.template.verify.expect("verify");
        assert_eq!(verify.mode, Some(VerifyMode::Required));
        let sizes: Vec<_> = effective.batches.iter().map(|batch| batch.size).collect();
        assert_eq!(sizes, [Some(BatchSize::Devices(1)), Some(BatchSize::Percent(10))]);
    }

    #[test]
    fn null_and_empty_mean_absent_and_make_the_same_run() {
        let nulls = read(json!({
            "firmwarePolicy": null, "membership": null, "batches": null, "maxFailed": null,
            "successThreshold": null, "onFailure": null, "parallelism": null, "groupBudget": null,
            "windows": [], "blackouts": null, "skipIfCurrent": null, "minVersion": "",
            "template": {"flashjobPodImage": "", "settings": {}, "verify": null}, "suspend": null,
            "approvals": null, "runID": "", "retry": ""
        }));
        assert_eq!(nulls.effective(), read(json!({})).effective());
    }

    #[test]
    fn an_empty_selector_is_refused_and_all_is_said_by_name() {
        for selector in [
            json!({}),
            json!({"nodes": []}),
            json!({"all": false}),
            json!({"exclude": {"nodes": ["n"]}}),
        ] {
            assert_eq!(fault(json!({"selector": selector})), "spec.selector");
        }
        assert!(read(json!({"selector": {"all": true}})).effective().is_ok());
    }

    #[test]
    fn only_the_fields_of_a_run_change_its_fingerprint() {
        let print = |value: Value| read(value).effective().expect("valid").fingerprint;
        let base = print(json!({}));
        for policy in [
            json!({"parallelism": 3, "suspend": true, "abort": true, "retry": "1"}),
            json!({"batches": [{"name": "a"}], "maxFailed": "5%", "approvals": ["a@0a1b2c"]}),
            json!({"template": {"verify": {"mode": "None"}, "deviceTimeoutSeconds": 1}}),
            json!({"firmwarePolicy": {"pin": "None"}, "skipIfCurrent": false}),
            json!({"membership": "Frozen"}),
        ] {
            assert_eq!(base, print(policy.clone()), "{policy}");
        }
        for run in [
            json!({"firmware": "r.io/f:2"}),
            json!({"version": "2"}),
            json!({"selector": {"all": true}}),
            json!({"runID": "x"}),
            json!({"template": {"flashjobPodImage": "r.io/i:1"}}),
            json!({"template": {"settings": {"esp32": {"x": 1}}}}),
        ] {
            assert_ne!(base, print(run.clone()), "{run}");
        }
    }

    #[test]
    fn what_was_stored_before_the_rules_were_is_refused_by_its_field() {
        let exists = json!([{"key": "a", "operator": "Exists", "values": ["b"]}]);
        for (value, field) in [
            (json!({"firmware": "a b"}), "spec.firmware"),
            (json!({"version": ""}), "spec.version"),
            (json!({"version": "1.2\u{200b}"}), "spec.version"),
            (json!({"maxFailed": "101%"}), "spec.maxFailed"),
            (json!({"successThreshold": "9"}), "spec.successThreshold"),
            (json!({"batches": [{"name": "a"}, {"name": "a"}]}), "spec.batches[1].name"),
            (json!({"batches": [{"name": "a", "size": 0}]}), "spec.batches[0].size"),
            (json!({"batches": [{"name": "a", "maxFailed": -1}]}), "spec.batches[0].maxFailed"),
            (json!({"selector": {"properties": exists}}), "spec.selector.properties"),
        ] {
            assert_eq!(fault(value.clone()), field, "{value}");
        }
    }

    #[test]
    fn a_percentage_of_a_batch_is_rounded_down_and_at_least_one() {
        assert_eq!(BatchSize::Percent(10).of(109), 10);
        assert_eq!(BatchSize::Percent(10).of(3), 1);
        assert_eq!(BatchSize::Devices(7).of(3), 7);
    }
}
