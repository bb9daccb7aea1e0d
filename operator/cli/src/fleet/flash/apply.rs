//! Changes to the FlashJob of an order: creating it, adding devices to it, or starting it anew.

use flashjob_api::FlashJob;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::{Value, json};

use super::merge::{Merged, is_same_run, merge};
use super::order::Order;
use crate::cluster::{Place, refused};
use crate::failure::{Code, Failure};
use crate::fleet::parameters::Change;
use crate::fleet::watch::deleted;
use crate::fleet::workload::DELETED;

/// Number of times that a change is tried while others change the FlashJob.
const TRIES: usize = 20;

/// Reason of a failure: somebody changed the FlashJob, which now flashes something else.
pub const CHANGED: &str = "Changed";

/// Reads the FlashJob of that name; none if it does not exist.
///
/// # Errors
/// The FlashJob cannot be read.
pub async fn read(place: &Place, name: &str) -> Result<Option<FlashJob>, Failure> {
    let read = place.api::<FlashJob>().get_opt(name).await;
    read.map_err(|error| refused(&format!("read FlashJob {}/{name}", place.namespace), &error))
}

/// Adds a batch to the FlashJob, or creates it; none if the FlashJob is full. After a conflict the
/// change is made again from the new state, so no change by somebody else is overwritten. `ours`
/// is the uid of the FlashJob that has the earlier batches; if it was deleted, it is not created
/// again.
///
/// # Errors
/// The FlashJob cannot be changed, or is no longer the one that has the earlier batches.
pub async fn apply(
    place: &Place,
    order: &Order,
    batch: &[String],
    ours: Option<&str>,
) -> Result<Option<FlashJob>, Failure> {
    let what = format!("apply FlashJob {}/{}", place.namespace, order.name);
    // Each try reads again: a list of uids that was merged into an older state would drop the
    // devices that somebody else has added since.
    for _ in 0..TRIES {
        let existing = read(place, &order.name).await?;
        if let Some(ours) = ours {
            still_ours(existing.as_ref(), order, ours)?;
        }
        let was_there = existing.is_some();
        let applied = match existing {
            // POST, not server-side apply: if somebody else creates this name first, the answer is
            // 409, and the next try adds the devices to theirs.
            None => create(place, order, batch, Change::Stored).await,
            Some(existing) => match merge(&existing, order, batch) {
                Merged::Full => return Ok(None),
                Merged::Refused(cause) => return Err(busy(order, &cause)),
                Merged::Added(uids) => {
                    change(place, &existing, addition(order, &uids), Change::Stored).await
                }
                Merged::Replaced => {
                    change(place, &existing, replacement(order, batch), Change::Stored).await
                }
            },
        };
        match applied {
            Ok(job) => return Ok(Some(job)),
            // A resourceVersion that is no longer the latest one, or a name that exists since the
            // read.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            // Deleted after it was read: the next try starts from the new state.
            Err(kube::Error::Api(status)) if status.code == 404 && was_there => {}
            Err(error) => return Err(refused(&what, &error)),
        }
    }
    let message = format!("cannot {what}: others keep changing it at the same time; try again");
    Err(Failure::new(Code::Other, "Busy", message))
}

/// Checks that a FlashJob can take more devices of an order: it is [`ours`], and not being
/// deleted.
///
/// # Errors
/// It cannot take more devices.
pub fn still_ours(existing: Option<&FlashJob>, order: &Order, uid: &str) -> Result<(), Failure> {
    ours(existing, order, uid)?;
    // The finalizer keeps a deleted FlashJob readable until its Pods are gone; the operator would
    // never start devices that are added in that time.
    match existing.and_then(|existing| existing.metadata.deletion_timestamp.as_ref()) {
        None => Ok(()),
        Some(_) => {
            let message = format!("FlashJob {}/{} is being deleted", order.namespace, order.name);
            Err(Failure::new(Code::Unavailable, DELETED, message))
        }
    }
}

/// Checks that a FlashJob has this uid and flashes what the order asks for: somebody may have
/// deleted, replaced or changed it.
///
/// # Errors
/// The FlashJob was deleted, replaced or changed.
pub fn ours(existing: Option<&FlashJob>, order: &Order, uid: &str) -> Result<(), Failure> {
    let Some(existing) = existing.filter(|existing| existing.uid().as_deref() == Some(uid)) else {
        return Err(deleted::<FlashJob>(&order.namespace, &order.name));
    };
    if is_same_run(existing, order) {
        return Ok(());
    }
    let message = format!(
        "FlashJob {}/{} was changed in the meantime: it now flashes {} version {}, in another run",
        order.namespace, order.name, existing.spec.firmware, existing.spec.version
    );
    Err(Failure::new(Code::Other, CHANGED, message))
}

/// Returns the failure for a FlashJob that cannot be changed now.
pub fn busy(order: &Order, cause: &str) -> Failure {
    let message = format!("FlashJob {}/{} {cause}", order.namespace, order.name);
    Failure::new(Code::Other, "Busy", message)
}

/// Creates the FlashJob of an order.
///
/// # Errors
/// The API server rejects it.
pub async fn create(
    place: &Place,
    order: &Order,
    batch: &[String],
    change: Change,
) -> kube::Result<FlashJob> {
    place.api::<FlashJob>().create(&change.posting(), &order.job(batch)).await
}

/// Returns the patch of the spec that adds devices to a FlashJob; `uids` are all devices that it
/// then has.
pub fn addition(order: &Order, uids: &[String]) -> Value {
    with_parallelism(order, json!({"uuid": uids}))
}

/// Adds the parallelism of an order to a patch; if the order has none, the field stays unchanged.
fn with_parallelism(order: &Order, mut spec: Value) -> Value {
    if let Some(parallelism) = order.parallelism {
        spec["parallelism"] = json!(parallelism);
    }
    spec
}

/// Returns the patch of the spec that starts a FlashJob anew after its end: null removes fields
/// that only the previous run had. A pause was set by a person, and stays.
pub fn replacement(order: &Order, batch: &[String]) -> Value {
    // A merge patch (RFC 7396) leaves fields that it does not name as they are, so each field of
    // the previous run is named, with null to remove it.
    let spec = json!({
        "uuid": batch, "firmware": order.firmware.reference, "version": order.firmware.version,
        "flashjobPodImage": order.firmware.pod_image, "device": order.device,
        "applicationType": order.application, "hostEndpoint": null, "externalIP": null,
    });
    let mut spec = with_parallelism(order, spec);
    // Otherwise `runID` stays: another firmware, version or image makes a new run by itself.
    if let Some(run) = &order.run {
        spec["runID"] = json!(run);
    }
    spec
}

/// Patches the spec of a FlashJob that was read.
///
/// # Errors
/// The API server rejects the change, or somebody else changed the FlashJob meanwhile.
pub async fn change(
    place: &Place,
    existing: &FlashJob,
    spec: Value,
    change: Change,
) -> kube::Result<FlashJob> {
    // With the version that was read, so that a change by somebody else in between is a conflict.
    let metadata = json!({"resourceVersion": existing.resource_version(), "uid": existing.uid()});
    let patch = Patch::Merge(json!({"metadata": metadata, "spec": spec}));
    place.api::<FlashJob>().patch(&existing.name_any(), &change.patching(), &patch).await
}
