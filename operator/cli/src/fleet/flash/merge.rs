//! What becomes of a FlashJob that is there already when devices are to be flashed.

use std::collections::HashSet;

use flashjob_api::FlashJob;
use kube::ResourceExt;

use super::order::{MOST, Order};

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Merged {
    /// The devices are added to those that the FlashJob has; all else stays.
    Added(Vec<String>),
    /// The FlashJob is over, and begins anew with this.
    Replaced,
    /// It has too many devices for these to be added.
    Full,
    /// It may not be changed; the cause, as the end of a sentence about it.
    Refused(&'static str),
}

/// Whether the FlashJob flashes what is asked for, so that its results count.
pub fn is_same_run(existing: &FlashJob, order: &Order) -> bool {
    let run = |spec: &flashjob_api::FlashJobSpec| spec.effective().ok().map(|spec| spec.run);
    let asked = run(&order.over(existing.spec.clone()));
    asked.is_some() && asked == run(&existing.spec)
}

/// The asked uids that have no result in the same run yet.
pub fn without_result<'a>(existing: Option<&FlashJob>, order: &'a Order) -> Vec<&'a String> {
    let same = existing.filter(|existing| is_same_run(existing, order));
    let status = same.and_then(|existing| existing.status.as_ref());
    let of_run = status.filter(|status| {
        same.and_then(|existing| existing.spec.effective().ok())
            .is_some_and(|spec| status.run.as_ref() == Some(&spec.run))
    });
    let lists = of_run
        .into_iter()
        .flat_map(|status| [&status.completed_uuids, &status.failed_uuids, &status.skipped_uuids]);
    let done: HashSet<&String> = lists.flatten().collect();
    order.uids.iter().filter(|uid| !done.contains(uid)).collect()
}

/// Decides what becomes of the FlashJob when this batch is to be flashed.
pub fn merge(existing: &FlashJob, order: &Order, batch: &[String]) -> Merged {
    if existing.metadata.deletion_timestamp.is_some() {
        return Merged::Refused("is being deleted; wait until it is gone");
    }
    if is_same_run(existing, order) {
        let known: HashSet<&String> = existing.spec.uuid.iter().collect();
        let new = batch.iter().filter(|uid| !known.contains(uid));
        let all: Vec<String> = existing.spec.uuid.iter().chain(new).cloned().collect();
        return match all.len() > MOST {
            true => Merged::Full,
            false => Merged::Added(all),
        };
    }
    match super::super::ended(existing).is_some() || existing.uid().is_none() {
        true => Merged::Replaced,
        false => Merged::Refused(
            "is not over and flashes something else; wait for it (kubectl flashjob status -w), end \
             it (kubectl flashjob cancel), or give another --name",
        ),
    }
}

#[cfg(test)]
mod tests {
    use flashjob_api::{FlashJobStatus, Phase};

    use super::super::order::Firmware;
    use super::*;

    fn order(uids: &[&str], version: &str) -> Order {
        Order {
            name: "flashjob".to_owned(),
            namespace: "fleet".to_owned(),
            uids: uids.iter().map(|uid| (*uid).to_owned()).collect(),
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
        let mut job = order.job(&order.uids);
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
        let of = |phase| merge(&job(&existing, phase), &other, &other.uids);
        assert_eq!(of(Phase::Completed), Merged::Replaced);
        assert!(matches!(of(Phase::InProgress), Merged::Refused(_)));
        let mut unseen = job(&existing, Phase::Completed);
        unseen.metadata.generation = Some(2);
        assert!(matches!(merge(&unseen, &other, &other.uids), Merged::Refused(_)));
    }

    #[test]
    fn a_full_job_takes_no_more_devices() {
        let many: Vec<String> = (0..MOST).map(|number| format!("d{number}")).collect();
        let mut existing = order(&[], "1");
        existing.uids = many;
        let merged = merge(&job(&existing, Phase::Completed), &existing, &uids(&["new"]));
        assert_eq!(merged, Merged::Full);
    }

    #[test]
    fn results_of_the_same_run_need_no_second_flash_and_those_of_another_do() {
        let existing = job(&order(&["a", "b"], "1"), Phase::Failed);
        let asked = order(&["a", "b"], "1");
        assert_eq!(without_result(Some(&existing), &asked), ["b"]);
        let again = Order { run: Some("again".to_owned()), ..asked.clone() };
        assert_eq!(without_result(Some(&existing), &again), ["a", "b"]);
        assert_eq!(without_result(None, &asked), ["a", "b"]);
    }
}
