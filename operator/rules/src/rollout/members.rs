//! Plans a run: selects the devices to flash, and assigns each to a batch and a place in it.

use std::collections::BTreeSet;

use flashjob_api::{EffectiveRollout, LeftOut, REST, comparable_type, rollout_reason};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use semver::Version;
use sha2::{Digest, Sha256};

use super::member_states::member_name;
use super::select::{Device, holds, selects};

/// Maximum number of devices in one run: their names fit into one object of 1.5 MiB, together with
/// one letter each and some devices that are listed a second time.
pub const MOST_DEVICES: usize = 10_000;

/// Devices of a run, in their batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// Batches with their members, in order; batches without members are omitted.
    pub batches: Vec<(String, Vec<String>)>,
    /// Number of selected devices that were left out.
    pub left_out: LeftOut,
    /// Types of the planned devices, as [`comparable_type`] writes them, sorted.
    pub device_types: Vec<String>,
}

impl Planned {
    /// Number of planned devices.
    #[must_use]
    pub fn count(&self) -> usize {
        self.batches.iter().map(|(_, members)| members.len()).sum()
    }
}

/// Reason why a run cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanFault {
    /// No device is selected.
    #[error("the selector matches no device; it is evaluated again when devices appear")]
    NoDevices,
    /// More than [`MOST_DEVICES`].
    #[error(
        "the selector matches {0} devices; a run can have at most 10000: split the fleet into \
         several FlashRollouts"
    )]
    TooManyDevices(usize),
    /// The selector of an explicit batch matches no device.
    #[error(
        "batch {0} of spec.batches selects none of the {1} planned devices; change or remove it"
    )]
    EmptyBatch(String, usize),
}

impl PlanFault {
    /// CamelCase name.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoDevices => rollout_reason::NO_DEVICES.name,
            Self::TooManyDevices(_) => rollout_reason::TOO_MANY_DEVICES.name,
            Self::EmptyBatch(..) => rollout_reason::EMPTY_BATCH.name,
        }
    }
}

/// Plans a run over these devices, regardless of their order.
///
/// # Errors
/// No device is selected, too many are planned, or the selector of an explicit batch matches none.
pub fn plan<'a>(
    spec: &EffectiveRollout,
    run: &str,
    namespace: &str,
    devices: impl Iterator<Item = Device<'a>>,
) -> Result<Planned, PlanFault> {
    let mut left_out = LeftOut::default();
    let unique = unique(devices.filter(|device| selects(spec, device)), &mut left_out);
    if unique.is_empty() {
        return Err(PlanFault::NoDevices);
    }
    let comparison = Comparison::of(spec);
    let mut planned: Vec<Device<'a>> =
        unique.into_values().filter(|device| comparison.plans(device, &mut left_out)).collect();
    if planned.len() > MOST_DEVICES {
        return Err(PlanFault::TooManyDevices(planned.len()));
    }
    planned.sort_by_cached_key(|device| place(run, device));
    let types: BTreeSet<String> =
        planned.iter().filter_map(|device| device.device_type).map(comparable_type).collect();
    let device_types = types.into_iter().collect();
    let batches = divide(spec, namespace, &planned)?;
    Ok(Planned { batches, left_out, device_types })
}

/// Returns one device per identity: reachable ones are preferred, then the first by namespace and
/// name, so that the order of the input does not matter.
fn unique<'a>(
    selected: impl Iterator<Item = Device<'a>>,
    left_out: &mut LeftOut,
) -> HashMap<&'a str, Device<'a>> {
    let mut unique: HashMap<&'a str, Device<'a>> = HashMap::new();
    let rank = |device: &Device<'a>| (!device.reachable, device.namespace, device.name);
    for device in selected {
        match unique.entry(device.identity) {
            Entry::Vacant(entry) => drop(entry.insert(device)),
            Entry::Occupied(mut entry) => {
                left_out.duplicates += 1;
                if rank(&device) < rank(entry.get()) {
                    entry.insert(device);
                }
            }
        }
    }
    unique
}

/// Sort key of a device in the run's order: a hash, so that neither names nor racks decide which
/// devices go first, and the order is the same on every computer.
fn place(run: &str, device: &Device<'_>) -> ([u8; 8], String) {
    let mut hash = Sha256::new();
    hash.update(run.as_bytes());
    hash.update([0]);
    hash.update(device.identity.as_bytes());
    let digest = hash.finalize();
    let mut place = [0; 8];
    place.copy_from_slice(&digest[..8]);
    (place, format!("{}/{}", device.namespace, device.name))
}

/// Versions that devices are compared with.
struct Comparison<'a> {
    spec: &'a EffectiveRollout,
    target: Option<Version>,
    least: Option<Version>,
}

impl<'a> Comparison<'a> {
    fn of(spec: &'a EffectiveRollout) -> Self {
        let least = spec.min_version.as_deref().and_then(semantic);
        Self { spec, target: semantic(&spec.version), least }
    }

    /// Returns true unless the device's version excludes it. Counts devices that are excluded, and
    /// those that cannot be compared.
    fn plans(&self, device: &Device<'_>, left_out: &mut LeftOut) -> bool {
        let spec = self.spec;
        if spec.skip_if_current && device.version == Some(spec.version.as_str()) {
            left_out.current += 1;
            return false;
        }
        let reported = device.version.and_then(semantic);
        let mut unknown = false;
        if !spec.allow_downgrade {
            // `cmp_precedence` ignores build metadata, as SemVer 2.0.0 section 10 demands; `Ord`
            // of the crate semver compares it.
            match (&reported, &self.target) {
                (Some(reported), Some(target)) if reported.cmp_precedence(target).is_gt() => {
                    left_out.newer += 1;
                    return false;
                }
                (Some(_), Some(_)) => {}
                _ => unknown = true,
            }
        }
        if spec.min_version.is_some() {
            match (&reported, &self.least) {
                (Some(reported), Some(least)) if reported.cmp_precedence(least).is_lt() => {
                    left_out.too_old += 1;
                    return false;
                }
                (Some(_), Some(_)) => {}
                _ => unknown = true,
            }
        }
        left_out.unknown_comparison += u32::from(unknown);
        true
    }
}

/// Parses a semantic version, with or without a leading `v`.
fn semantic(text: &str) -> Option<Version> {
    // In SemVer 2.0.0 the `v` is no part of a version, but tags, and versions that devices report,
    // often have it.
    Version::parse(text.strip_prefix('v').unwrap_or(text)).ok()
}

/// Assigns every device to the first batch that takes it, and the remaining ones to an extra
/// batch.
fn divide(
    spec: &EffectiveRollout,
    namespace: &str,
    planned: &[Device<'_>],
) -> Result<Vec<(String, Vec<String>)>, PlanFault> {
    let mut remaining_devices: Vec<&Device<'_>> = planned.iter().collect();
    let mut batches = Vec::new();
    let member_names = |members: &[&Device<'_>]| -> Vec<String> {
        members
            .iter()
            .map(|device| member_name(namespace, device.namespace, device.name))
            .collect()
    };
    for batch in &spec.batches {
        let most = batch.size.map_or(usize::MAX, |size| size.of(planned.len()));
        let (mut batch_devices, mut other_devices) =
            (Vec::new(), Vec::with_capacity(remaining_devices.len()));
        for device in &remaining_devices {
            if batch_devices.len() < most && holds(&batch.selector, device) {
                batch_devices.push(*device);
            } else {
                other_devices.push(*device);
            }
        }
        if !batch_devices.is_empty() {
            batches.push((batch.name.clone(), member_names(&batch_devices)));
        } else if spec.explicit_batches
            && !planned.is_empty()
            && !planned.iter().any(|device| holds(&batch.selector, device))
        {
            // A batch whose devices are in earlier batches, as in a small fleet, is just left out.
            return Err(PlanFault::EmptyBatch(batch.name.clone(), planned.len()));
        }
        remaining_devices = other_devices;
    }
    if !remaining_devices.is_empty() {
        batches.push((rest_name(spec), member_names(&remaining_devices)));
    }
    Ok(batches)
}

/// Returns `rest`, or `rest-2` and so on if a batch of the spec already has that name.
fn rest_name(spec: &EffectiveRollout) -> String {
    let mut name = REST.to_owned();
    let mut number = 2;
    while spec.batches.iter().any(|batch| batch.name == name) {
        name = format!("{REST}-{number}");
        number += 1;
    }
    name
}
