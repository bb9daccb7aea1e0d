//! Decides how an existing FlashJob changes when devices are to be flashed.

use std::collections::HashSet;

use flashjob_api::FlashJob;
use flashjob_plugin_host::DeviceType;
use flashjob_rules::count::counted;
use kube::ResourceExt;

use super::order::{MOST, Order, Target};
use crate::fleet::run::results_of_run;
use crate::fleet::workload::Workload;

/// Decision on an existing FlashJob.
#[derive(Clone, Debug, PartialEq)]
pub enum Merged {
    /// The devices are added to those of the FlashJob; all else stays.
    Added(Vec<String>),
    /// The FlashJob is over, and starts anew with these devices.
    Replaced,
    /// The FlashJob has too many devices to add these.
    Full,
    /// The FlashJob cannot be changed now; with the cause, as the end of a sentence about it.
    Refused(String),
}

/// Returns true if the FlashJob flashes what the order asks for, so that its results count. Its
/// guards are not compared with the devices: results must not be lost for that.
pub fn is_same_run(existing: &FlashJob, order: &Order) -> bool {
    let run = |spec: &flashjob_api::FlashJobSpec| spec.effective().ok().map(|spec| spec.run);
    // The order is laid over the stored spec: fields for which `flash` has no option, such as
    // `settings`, are part of the run too.
    let ordered_run = run(&order.over(existing.spec.clone()));
    ordered_run.is_some() && ordered_run == run(&existing.spec)
}

/// Returns the uids of the order that have no result in the same run yet.
pub fn without_result<'a>(existing: Option<&FlashJob>, order: &'a Order) -> Vec<&'a String> {
    let same = existing.filter(|existing| is_same_run(existing, order));
    let lists = same
        .and_then(results_of_run)
        .into_iter()
        .flat_map(|status| [&status.completed_uuids, &status.failed_uuids, &status.skipped_uuids]);
    let done: HashSet<&String> = lists.flatten().collect();
    order.targets.iter().map(|target| &target.uid).filter(|uid| !done.contains(uid)).collect()
}

/// Decides how the FlashJob changes when this batch is to be flashed.
pub fn merge(existing: &FlashJob, order: &Order, batch: &[String]) -> Merged {
    if existing.metadata.deletion_timestamp.is_some() {
        return Merged::Refused("is being deleted; wait until it is gone".to_owned());
    }
    if is_same_run(existing, order) {
        // A uid that `spec.uuid` names twice makes the whole spec invalid, and the operator would
        // start no device at all.
        let existing_uids: HashSet<&String> = existing.spec.uuid.iter().collect();
        let new: Vec<&String> = batch.iter().filter(|uid| !existing_uids.contains(uid)).collect();
        let uids_to_add: HashSet<&String> = new.iter().copied().collect();
        let added = order.targets.iter().filter(|target| uids_to_add.contains(&target.uid));
        // Only devices that are new: those of the FlashJob were added under its guards, and must
        // not prevent that others are added.
        if let Some(cause) = unfit(existing, &added.collect::<Vec<_>>()) {
            return Merged::Refused(cause);
        }
        let all: Vec<String> = existing.spec.uuid.iter().chain(new).cloned().collect();
        return match all.len() > MOST {
            true => Merged::Full,
            false => Merged::Added(all),
        };
    }
    // An object without a uid exists only in a dry run, so no operator is at work on it.
    match existing.is_over() || existing.uid().is_none() {
        true => Merged::Replaced,
        false => {
            let (namespace, name) = (&order.namespace, &order.name);
            Merged::Refused(format!(
                "is not over and flashes something else; wait for it (kubectl flashjob status \
                 {name} -n {namespace} -w), end it (kubectl flashjob cancel {name} -n \
                 {namespace}), or give another --name"
            ))
        }
    }
}

/// A field that restricts a FlashJob to some devices, its value, and a check of one device.
type Bound = (&'static str, Option<String>, fn(&Target, &str) -> bool);

/// Returns the reason why these devices cannot be added to a FlashJob. Fields that restrict it are
/// part of its run: a change of them would flash finished devices again.
fn unfit(existing: &FlashJob, added: &[&Target]) -> Option<String> {
    let spec = existing.spec.effective().ok()?;
    let bounds: [Bound; 3] = [
        // An endpoint in the spec is valid with exactly one uid, so no device can be added.
        ("spec.hostEndpoint", spec.host_endpoint, |_, _| false),
        ("spec.device", spec.device, |target, value| is_kind(target.kind.as_deref(), value)),
        ("spec.applicationType", spec.application_type, |target, value| {
            target.application.as_ref().is_some_and(|is| is.eq_ignore_ascii_case(value))
        }),
    ];
    bounds.into_iter().find_map(|(field, value, fits)| {
        let value = value?;
        let unfit_targets: Vec<_> = added.iter().filter(|target| !fits(target, &value)).collect();
        let first = unfit_targets.first()?;
        let or_unknown =
            |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        Some(format!(
            "already flashes this firmware, and {field} is {value}, which does not match {} to \
             add, such as {} (type {}, application {}); choose only those and give them another \
             --name. --again flashes all again, including finished devices",
            counted(unfit_targets.len(), "device"),
            first.uid,
            or_unknown(&first.kind),
            or_unknown(&first.application)
        ))
    })
}

/// Returns true for a device of this type, in any spelling.
fn is_kind(is: Option<&str>, device_type: &str) -> bool {
    // The operator's own type compares without case and dashes; a guard that it cannot parse is
    // compared as text.
    let kind = |text: &str| text.parse::<DeviceType>().ok();
    is.is_some_and(|is| {
        is.eq_ignore_ascii_case(device_type)
            || kind(is).is_some_and(|is| kind(device_type) == Some(is))
    })
}

#[cfg(test)]
mod tests {
    use flashjob_api::{FlashJobStatus, Phase};

    use super::super::order::Firmware;
    use super::*;

    fn target(uid: &str, kind: &str) -> Target {
        Target { uid: uid.to_owned(), kind: Some(kind.to_owned()), application: None }
    }

    fn order(uids: &[&str], version: &str) -> Order {
        Order {
            name: "flashjob".to_owned(),
            namespace: "fleet".to_owned(),
            targets: uids.iter().map(|uid| target(uid, "esp32")).collect(),
            device: Some("esp32".to_owned()),
            application: None,
            firmware: Firmware {
                reference: "a:1".to_owned(),
                version: version.to_owned(),
                pod_image: None,
            },
            parallelism: None,
            run: None,
        }
    }

    fn job(order: &Order, phase: Phase) -> FlashJob {
        let all: Vec<String> = order.targets.iter().map(|target| target.uid.clone()).collect();
        let mut job = order.job(&all);
        job.metadata.uid = Some("uid".to_owned());
        job.metadata.generation = Some(1);
        let run = job.spec.effective().ok().map(|spec| spec.run);
        job.status = Some(FlashJobStatus {
            phase: Some(phase),
            observed_generation: Some(1),
            completed_uuids: vec!["a".to_owned()],
            run,
            ..FlashJobStatus::default()
        });
        job
    }

    fn uids(uids: &[&str]) -> Vec<String> {
        uids.iter().map(|uid| (*uid).to_owned()).collect()
    }

    #[test]
    fn devices_are_added_to_a_job_that_flashes_the_same_whether_or_not_it_is_over() {
        let existing = order(&["a", "b"], "1");
        for phase in [Phase::InProgress, Phase::Completed, Phase::Failed] {
            let merged =
                merge(&job(&existing, phase), &order(&["b", "c"], "1"), &uids(&["b", "c"]));
            assert_eq!(merged, Merged::Added(uids(&["a", "b", "c"])));
        }
    }

    #[test]
    fn a_job_that_flashes_something_else_is_replaced_only_when_it_is_over() {
        let existing = order(&["a", "b"], "1");
        let other = order(&["a"], "2");
        let of = |phase| merge(&job(&existing, phase), &other, &uids(&["a"]));
        assert_eq!(of(Phase::Completed), Merged::Replaced);
        assert!(matches!(of(Phase::InProgress), Merged::Refused(_)));
        let mut unseen = job(&existing, Phase::Completed);
        unseen.metadata.generation = Some(2);
        assert!(matches!(merge(&unseen, &other, &uids(&["a"])), Merged::Refused(_)));
    }

    #[test]
    fn another_mix_of_devices_keeps_the_results_and_is_refused_where_a_guard_does_not_fit() {
        let existing = job(&order(&["a", "b"], "1"), Phase::Completed);
        let mixed = |kind: &str| {
            let targets = vec![target("a", "esp32"), target("c", kind)];
            Order { targets, device: None, ..order(&[], "1") }
        };
        let merged = |order: &Order| merge(&existing, order, &uids(&["a", "c"]));
        assert_eq!(merged(&mixed("ESP-32")), Merged::Added(uids(&["a", "b", "c"])));
        let mixed_order = mixed("esp32s2");
        assert_eq!(without_result(Some(&existing), &mixed_order), ["c"]);
        let Merged::Refused(cause) = merged(&mixed_order) else { panic!("not refused") };
        assert!(cause.contains("spec.device is esp32") && cause.contains("c (type esp32s2"));
        // The device that is already in the FlashJob was added with this guard.
        assert!(matches!(merge(&existing, &mixed_order, &uids(&["a"])), Merged::Added(_)));
        let again = Order { run: Some("again".to_owned()), ..mixed_order };
        assert_eq!(merged(&again), Merged::Replaced);
        // A guard of the new order is not added to a FlashJob that has none.
        let free = job(&Order { device: None, ..order(&["a"], "1") }, Phase::Completed);
        assert!(matches!(merge(&free, &mixed("esp32"), &uids(&["c"])), Merged::Added(_)));
        let mut bound = existing.clone();
        bound.spec.host_endpoint = Some("10.0.0.7".to_owned());
        bound.spec.uuid = uids(&["a"]);
        let new_order = order(&["a", "b"], "1");
        assert!(matches!(merge(&bound, &new_order, &uids(&["a"])), Merged::Added(_)));
        assert!(matches!(merge(&bound, &new_order, &uids(&["b"])), Merged::Refused(_)));
    }

    #[test]
    fn a_full_job_takes_no_more_devices() {
        let many = (0..MOST).map(|number| target(&format!("d{number}"), "esp32")).collect();
        let existing = Order { targets: many, ..order(&[], "1") };
        let merged = merge(&job(&existing, Phase::Completed), &existing, &uids(&["new"]));
        assert_eq!(merged, Merged::Full);
    }

    #[test]
    fn results_of_the_same_run_need_no_second_flash_and_those_of_another_do() {
        let existing = job(&order(&["a", "b"], "1"), Phase::Failed);
        let new_order = order(&["a", "b"], "1");
        assert_eq!(without_result(Some(&existing), &new_order), ["b"]);
        let again = Order { run: Some("again".to_owned()), ..new_order.clone() };
        assert_eq!(without_result(Some(&existing), &again), ["a", "b"]);
        assert_eq!(without_result(None, &new_order), ["a", "b"]);
    }
}
