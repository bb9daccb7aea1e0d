//! A simplified FlashJob controller: results by uid, a budget, parallelism, suspend.

use std::collections::BTreeMap;

use flashjob_api::{
    Counts, DeviceState, DeviceStatus, FlashJobSpec, FlashJobStatus, Phase, reason,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::model::Part;

/// Ends up to `ends` devices, and starts the devices that may start.
pub fn run_job(
    status: &mut FlashJobStatus,
    spec: &FlashJobSpec,
    parts: &mut BTreeMap<String, Part>,
    ends: usize,
) {
    let parallelism = usize::try_from(spec.parallelism.unwrap_or(10)).expect("a number");
    let budget = match spec.max_failed_devices {
        Some(IntOrString::Int(count)) => usize::try_from(count).expect("a number"),
        _ => usize::MAX,
    };
    for uid in std::mem::take(&mut status.completed_uuids) {
        if spec.uuid.contains(&uid) {
            status.completed_uuids.push(uid);
        }
    }
    status.failed_uuids.retain(|uid| spec.uuid.contains(uid));
    status.skipped_uuids.retain(|uid| spec.uuid.contains(uid));
    let mut active: Vec<DeviceStatus> = status
        .devices
        .iter()
        .filter(|device| device.state == DeviceState::Flashing)
        .cloned()
        .collect();
    let mut results: Vec<DeviceStatus> = status
        .devices
        .iter()
        .filter(|device| device.state != DeviceState::Flashing)
        .cloned()
        .collect();
    let ended: Vec<DeviceStatus> = active.drain(..ends.min(active.len())).collect();
    let fail =
        |status: &mut FlashJobStatus, results: &mut Vec<DeviceStatus>, uid: &str, why: &str| {
            status.failed_uuids.push(uid.to_owned());
            *status.reasons.entry(why.to_owned()).or_default() += 1;
            results.push(DeviceStatus {
                uid: uid.to_owned(),
                attempt: 1,
                state: DeviceState::Failed,
                reason: Some(why.to_owned()),
                ..DeviceStatus::default()
            });
        };
    for device in ended {
        if !spec.uuid.contains(&device.uid) {
            continue;
        }
        // The FlashJob follows devices that it has begun with by name.
        let part = device.name.as_ref().and_then(|name| parts.get_mut(name));
        match part {
            Some(part) if !part.broken => {
                part.version = Some(spec.version.clone());
                status.completed_uuids.push(device.uid);
            }
            _ => fail(status, &mut results, &device.uid, reason::POD_FAILED.name),
        }
    }
    let has_result = |status: &FlashJobStatus, uid: &String| {
        [&status.completed_uuids, &status.failed_uuids, &status.skipped_uuids]
            .iter()
            .any(|list| list.contains(uid))
    };
    for uid in &spec.uuid {
        if has_result(status, uid) || active.iter().any(|device| device.uid == *uid) {
            continue;
        }
        if status.failed_uuids.len() > budget {
            status.skipped_uuids.push(uid.clone());
            *status.reasons.entry(reason::JOB_STOPPED.name.to_owned()).or_default() += 1;
            continue;
        }
        if spec.suspend == Some(true) || active.len() >= parallelism {
            continue;
        }
        let entry = parts.iter().find(|(_, part)| part.present && part.uid == *uid);
        match entry {
            None => fail(status, &mut results, uid, reason::UNKNOWN_DEVICE.name),
            Some((_, part))
                if spec.skip_if_current == Some(true)
                    && part.version.as_ref() == Some(&spec.version) =>
            {
                status.skipped_uuids.push(uid.clone());
                *status.reasons.entry(reason::ALREADY_CURRENT.name.to_owned()).or_default() += 1;
            }
            Some((name, _)) => active.push(DeviceStatus {
                uid: uid.clone(),
                name: Some(name.clone()),
                attempt: 1,
                state: DeviceState::Flashing,
                ..DeviceStatus::default()
            }),
        }
    }
    let number = |count: usize| u32::try_from(count).expect("few");
    let counts = Counts {
        total: number(spec.uuid.len()),
        active: number(active.len()),
        completed: number(status.completed_uuids.len()),
        failed: number(status.failed_uuids.len()),
        skipped: number(status.skipped_uuids.len()),
        ..Counts::default()
    };
    let done = counts.completed + counts.failed + counts.skipped;
    let stopped = status.reasons.contains_key(reason::JOB_STOPPED.name);
    status.phase = Some(match done >= counts.total && active.is_empty() {
        false => Phase::InProgress,
        true if counts.failed == 0 && !stopped => Phase::Completed,
        true => Phase::Failed,
    });
    status.counts = Some(counts);
    // The status lists only some of the failed devices, as that of the operator does.
    results.truncate(3);
    active.extend(results);
    status.devices = active;
}
