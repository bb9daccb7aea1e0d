//! Devices of an order that are still to be flashed: reads the FlashJob of that name, leaves out
//! those with a result of the same firmware, and words the question to confirm.

use std::collections::HashSet;

use flashjob_api::FlashJob;
use flashjob_rules::count::counted;

use super::apply::{self, busy};
use super::merge::{Merged, is_same_run, merge, without_result};
use super::order::Order;
use crate::cluster::Place;
use crate::failure::Failure;
use crate::fleet::workload::{Workload, resuming};

/// Devices of an order that are still to be flashed.
pub struct Left {
    /// FlashJob of that name, if there is one.
    pub existing: Option<FlashJob>,
    /// Uids of the devices.
    pub uids: Vec<String>,
    /// Number of devices of the order that already have a result.
    pub done: usize,
    /// Message about those devices, if there are any.
    pub note: Option<String>,
}

/// Reads the FlashJob, and leaves out the devices that already have a result of this firmware.
///
/// # Errors
/// The FlashJob cannot be read, or cannot be changed now.
pub async fn read(place: &Place, order: &Order) -> Result<Left, Failure> {
    let existing = apply::read(place, &order.name).await?;
    let uids: Vec<String> =
        without_result(existing.as_ref(), order).into_iter().cloned().collect();
    // Refused before the user is asked, not after the answer. `apply` decides again, because the
    // FlashJob may change until then.
    if let Some(Merged::Refused(cause)) =
        existing.as_ref().map(|existing| merge(existing, order, &uids))
    {
        return Err(busy(order, &cause));
    }
    let (namespace, name) = (&place.namespace, &order.name);
    let done = order.targets.len() - uids.len();
    let ordered_uids: Vec<String> =
        order.targets.iter().map(|target| target.uid.clone()).collect();
    // `failedUUIDs` may still be those of an earlier run; `done` is 0 then.
    let failed = match done {
        0 => 0,
        _ => existing.as_ref().map_or(0, |existing| failed(existing, &ordered_uids)),
    };
    let retry = match failed {
        0 => String::new(),
        failed => format!(
            " ({} failed: kubectl flashjob retry {name} -n {namespace} flashes only those)",
            counted(failed, "device")
        ),
    };
    let note = match (done, uids.is_empty()) {
        (0, _) => None,
        (_, true) => Some(format!(
            "FlashJob {namespace}/{name} is unchanged: {} requested, all with a result of this \
             firmware already{retry}. --again flashes them again",
            counted(done, "device")
        )),
        (_, false) => Some(format!(
            "Left out: {} with a result of this firmware already{retry}; --again flashes them \
             again",
            counted(done, "device")
        )),
    };
    Ok(Left { existing, uids, done, note })
}

impl Left {
    /// Returns the question to confirm before devices are flashed, with the effect on an existing
    /// FlashJob of that name.
    pub fn question(&self, order: &Order, batch_size: usize) -> String {
        format!("Flash {}?{}", self.intent(order, batch_size), self.consequences(order))
    }

    /// Returns the same as a statement, for a dry run.
    pub fn announcement(&self, order: &Order, batch_size: usize) -> String {
        format!("It would flash {}.{}", self.intent(order, batch_size), self.consequences(order))
    }

    fn intent(&self, order: &Order, batch_size: usize) -> String {
        let batches = match self.uids.len() > batch_size {
            true => format!(" in batches of {batch_size}"),
            false => String::new(),
        };
        format!(
            "{}{batches} with {} version {}, as FlashJob {}/{}",
            counted(self.uids.len(), "device"),
            order.firmware.reference,
            order.firmware.version,
            order.namespace,
            order.name,
        )
    }

    /// Returns the other consequences, each as a sentence.
    fn consequences(&self, order: &Order) -> String {
        let mut sentences = String::new();
        if self.done > 0 {
            let done = counted(self.done, "device");
            sentences.push_str(&format!(" Left out: {done} with a result already."));
        }
        if let Some(existing) = &self.existing {
            // The status has results of one run only: a new run replaces results that somebody may
            // still need.
            if !is_same_run(existing, order) {
                sentences.push_str(&format!(
                    " Its results of {} version {} are replaced.",
                    existing.spec.firmware, existing.spec.version
                ));
            }
            if existing.is_suspended() {
                sentences.push_str(&format!(" It {}.", paused_words(existing)));
            }
        }
        sentences
    }
}

/// Returns the effect of a pause on added devices, as the end of a sentence about the FlashJob.
pub fn paused_words(existing: &FlashJob) -> String {
    format!("is paused and stays paused: nothing starts until {}", resuming(existing))
}

/// Returns the number of these devices that are listed as failed.
pub fn failed(job: &FlashJob, uids: &[String]) -> usize {
    let failed: HashSet<&String> =
        job.status.iter().flat_map(|status| &status.failed_uuids).collect();
    uids.iter().filter(|uid| failed.contains(uid)).count()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{order, paused};
    use super::*;

    fn question(existing: FlashJob, done: usize) -> String {
        let uids = ["b", "c"].map(str::to_owned).to_vec();
        let remaining_devices = Left { existing: Some(existing), uids, done, note: None };
        remaining_devices.question(&order(), 2)
    }

    #[test]
    fn the_question_counts_what_is_flashed_and_says_what_becomes_of_the_job() {
        let text = question(paused("1"), 1);
        assert!(text.starts_with("Flash 2 devices with a:1 version 1, as FlashJob fleet/hall-3?"));
        assert!(text.contains("Left out: 1 device"), "{text}");
        assert!(text.contains("kubectl flashjob resume hall-3 -n fleet"), "{text}");
        assert!(!text.contains("are replaced"), "{text}");
        assert!(question(paused("2"), 0).contains("Its results of a:1 version 2"));
    }
}
