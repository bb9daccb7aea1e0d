//! Dry run of `flash`: the FlashJobs as they would be with all batches. The API server validates
//! them and stores nothing.

use std::path::Path;

use flashjob_api::FlashJob;
use serde_json::{Value, json};

use super::apply::{addition, busy, change, create, read, replacement};
use super::batches::Pacing;
use super::file;
use super::merge::{Merged, is_same_run, merge};
use super::order::{MOST, Order};
use super::remaining::{self, Left};
use crate::cluster::{Place, refused};
use crate::failure::Failure;
use crate::fleet::manifest::applicable;
use crate::fleet::parameters::Change;
use crate::fleet::workload::resource;
use crate::output::Output;
use crate::report::{Report, yaml};

/// A FlashJob before and after all batches.
struct Planned {
    order: Order,
    before: Option<FlashJob>,
    after: Option<FlashJob>,
}

/// Shows the FlashJobs that an order would make, and writes them to the file.
///
/// # Errors
/// The API server rejects a FlashJob, or the file cannot be written.
pub async fn show(
    place: &Place,
    order: Order,
    pacing: &Pacing,
    path: Option<&Path>,
) -> Result<Report, Failure> {
    let remaining_devices = remaining::read(place, &order).await?;
    let announcement = remaining_devices.announcement(&order, pacing.batch_size);
    let Left { existing, uids, note, .. } = remaining_devices;
    // Standard output has only the FlashJobs, so that they can be applied.
    if let Some(note) = note {
        tell!("Note: {note}");
    }
    if let (Some(existing), true) = (&existing, uids.is_empty()) {
        tell!("Dry run, nothing is applied. It would change nothing.");
        return write_and_report(vec![applicable(existing.clone())], path);
    }
    tell!("Dry run, nothing is applied. {announcement}");
    let mut jobs = Vec::new();
    for planned in plan(place, order, existing, &uids, pacing).await? {
        jobs.push(applicable(planned.checked(place).await?));
    }
    write_and_report(jobs, path)
}

fn write_and_report(jobs: Vec<FlashJob>, path: Option<&Path>) -> Result<Report, Failure> {
    if let Some(path) = path {
        for job in &jobs {
            file::write(path, job)?;
        }
    }
    let documents: Vec<String> = jobs.iter().map(yaml).collect::<Result<_, _>>()?;
    let names: Vec<String> = jobs.iter().map(resource).collect();
    let json = match jobs.as_slice() {
        [job] => json!(job),
        jobs => json!({"apiVersion": "v1", "kind": "List", "items": jobs}),
    };
    Ok(Report::new(documents.join("---\n"), json).with(Output::Name, names.join("\n")))
}

/// Adds all batches to FlashJobs, one after the other.
async fn plan(
    place: &Place,
    mut order: Order,
    existing: Option<FlashJob>,
    uids: &[String],
    pacing: &Pacing,
) -> Result<Vec<Planned>, Failure> {
    let (stem, mut done) = (order.name.clone(), Vec::new());
    let (mut before, mut after) = (existing.clone(), existing);
    // Batch by batch, as they would be applied: a FlashJob that becomes full is then continued
    // under the same name as without the dry run.
    for batch in uids.chunks(pacing.batch_size.clamp(1, MOST)) {
        after = loop {
            let Some(job) = &after else { break Some(order.job(batch)) };
            let mut spec = job.spec.clone();
            match merge(job, &order, batch) {
                Merged::Added(uids) => spec.uuid = uids,
                Merged::Replaced => spec = order.anew(spec, batch),
                Merged::Refused(cause) => return Err(busy(&order, &cause)),
                Merged::Full => {
                    done.push(Planned { order: order.clone(), before, after });
                    order.name = format!("{stem}-{}", done.len() + 1);
                    before = read(place, &order.name).await?;
                    after = before.clone();
                    continue;
                }
            }
            break Some(FlashJob { spec, ..job.clone() });
        };
    }
    done.push(Planned { order, before, after });
    Ok(done)
}

impl Planned {
    /// Returns the FlashJob that the API server would store.
    async fn checked(&self, place: &Place) -> Result<FlashJob, Failure> {
        let order = &self.order;
        let uids = self.after.as_ref().map_or(&[][..], |job| &job.spec.uuid);
        let checked = match &self.before {
            None => create(place, order, uids, Change::DryRun).await,
            Some(before) => {
                // The patches that would be applied, so that the API server validates the same
                // change.
                let spec: Value = match is_same_run(before, order) {
                    true => addition(order, uids),
                    false => replacement(order, uids),
                };
                change(place, before, spec, Change::DryRun).await
            }
        };
        let what = format!("apply FlashJob {}/{}", place.namespace, order.name);
        checked.map_err(|error| refused(&what, &error))
    }
}
