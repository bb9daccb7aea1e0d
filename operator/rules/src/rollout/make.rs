//! Desired FlashJobs: name, owner, labels and spec.

use std::collections::BTreeMap;

use flashjob_api::{
    FlashJob, FlashJobSpec, GROUP, ROLLOUT_BATCH, ROLLOUT_NAME, ROLLOUT_RUN, ROLLOUT_SHARD,
    ROLLOUT_UID, ShardStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::draft::Draft;
use super::member_states::places;

/// Longest part of the rollout's name in a FlashJob's name, which in turn is part of a Pod's name.
// With run, batch and shard a name then has at most 52 characters. It becomes the label `app` of
// the Pods, and a label value has at most 63.
const NAME: usize = 38;

/// Name of a FlashJob: `<rollout, at most 38>-<run>-<batch, 2 digits>[-<shard>]`. `batch` is its
/// index, from 0; shards count from 1, and the first is omitted.
#[must_use]
pub(super) fn child_name(rollout: &str, run: &str, batch: usize, shard: u32) -> String {
    let rollout = beginning(rollout);
    let batch = batch + 1;
    match shard {
        0 | 1 => format!("{rollout}-{run}-{batch:02}"),
        shard => format!("{rollout}-{run}-{batch:02}-{shard}"),
    }
}

/// Run for which a FlashJob was created, according to its name: labels can be removed.
pub(super) fn run_of<'a>(rollout: &str, child: &'a str) -> Option<&'a str> {
    child.strip_prefix(beginning(rollout))?.strip_prefix('-')?.split('-').next()
}

fn beginning(rollout: &str) -> &str {
    let end = rollout.char_indices().nth(NAME).map_or(rollout.len(), |(end, _)| end);
    // A name must not have a dot next to a dash.
    rollout[..end].trim_end_matches(['-', '.'])
}

/// Fields of a FlashJob that change while its devices stay the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    pub parallelism: usize,
    pub suspend: bool,
    pub max_failed: usize,
}

impl Draft<'_> {
    /// Name of a shard's FlashJob.
    pub fn child_name(&self, batch: usize, shard: &ShardStatus) -> String {
        child_name(&self.snapshot.rollout.name, self.run, batch, shard.number)
    }

    /// Spec of a FlashJob of this run.
    pub(super) fn child_spec(&self, uuid: Vec<String>, allowance: Allowance) -> FlashJobSpec {
        let template = &self.spec.template;
        let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let firmware = self.stored.firmware.as_ref().map(|firmware| firmware.reference.clone());
        FlashJobSpec {
            uuid,
            firmware: firmware.unwrap_or_else(|| self.spec.firmware.clone()),
            version: self.version.to_owned(),
            external_ip: template.external_ip.clone(),
            flashjob_pod_image: template.flashjob_pod_image.clone(),
            settings: template.settings.clone(),
            parallelism: Some(count(allowance.parallelism.clamp(1, 500))),
            suspend: Some(allowance.suspend),
            backoff_limit_per_device: template.backoff_limit_per_device,
            max_failed_devices: Some(IntOrString::Int(count(allowance.max_failed))),
            group_budget: self.spec.group_budget.clone(),
            device_timeout_seconds: template.device_timeout_seconds,
            address_timeout_seconds: template.address_timeout_seconds,
            verify: template.verify.clone(),
            skip_if_current: Some(self.spec.skip_if_current),
            exposure: template.exposure,
            disruption: template.disruption,
            pod_overrides: template.pod_overrides.clone(),
            ..FlashJobSpec::default()
        }
    }

    /// Returns the FlashJob of a shard, with the current uids of its devices. A device that has
    /// just disappeared keeps its place, under a uid that no Instance has.
    pub(super) fn new_child(
        &self,
        batch: usize,
        shard: &ShardStatus,
        allowance: Allowance,
    ) -> FlashJob {
        let names = &self.lists[batch].names[places(shard)];
        let uuid = names.iter().enumerate().map(|(place, name)| {
            self.device(name).map_or_else(|| format!("absent-{place}"), |device| device.uid.into())
        });
        let spec = self.child_spec(uuid.collect(), allowance);
        let mut job = FlashJob::new(&self.child_name(batch, shard), spec);
        job.metadata = self.metadata(batch, shard);
        job
    }

    fn metadata(&self, batch: usize, shard: &ShardStatus) -> ObjectMeta {
        let rollout = self.snapshot.rollout;
        let labels = [
            (ROLLOUT_UID, rollout.uid.as_str()),
            (ROLLOUT_NAME, rollout.name.as_str()),
            (ROLLOUT_RUN, self.run),
            (ROLLOUT_BATCH, self.batches[batch].name.as_str()),
        ];
        let text = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let place = format!("{}/{}", batch + 1, shard.number);
        ObjectMeta {
            name: Some(self.child_name(batch, shard)),
            namespace: Some(rollout.namespace.clone()),
            labels: Some(labels.map(text).into()),
            annotations: Some(BTreeMap::from([(ROLLOUT_SHARD.to_owned(), place)])),
            owner_references: Some(vec![OwnerReference {
                api_version: format!("{GROUP}/v1alpha1"),
                kind: "FlashRollout".to_owned(),
                name: rollout.name.clone(),
                uid: rollout.uid.clone(),
                controller: Some(true),
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_rollout_run_batch_and_every_shard_but_the_first() {
        assert_eq!(child_name("fleet", "0a1b2c", 0, 1), "fleet-0a1b2c-01");
        assert_eq!(child_name("fleet", "0a1b2c", 11, 3), "fleet-0a1b2c-12-3");
        let long = "a".repeat(37) + "-bcd";
        assert_eq!(child_name(&long, "0a1b2c", 0, 1), format!("{}-0a1b2c-01", "a".repeat(37)));
        for (rollout, shard) in [("fleet", 1), ("fleet-0a", 7), (long.as_str(), 2)] {
            let name = child_name(rollout, "0a1b2c", 0, shard);
            assert!(name.len() <= 52);
            assert_eq!(run_of(rollout, &name), Some("0a1b2c"));
        }
        assert_eq!(run_of("fleet", "other-0a1b2c-01"), None);
    }
}
