//! Locks of a job that follow from its stored status and its Pods.

use std::sync::Arc;

use crate::flashjob::observed::{Identity, Observed, Pod, Sighting};

/// Returns the devices that stay locked regardless of new decisions: those stored as in flight,
/// and those of Pods that may be running.
pub(super) fn holds(observed: &Observed) -> Vec<(Identity, String)> {
    let in_flight = observed.job.status.devices.iter().filter(|device| device.is_locked());
    let stored = in_flight.flat_map(|device| {
        let instance = match observed.sighting(&device.uid) {
            Some(Sighting::Seen(instance)) => Some(instance.as_ref()),
            _ => None,
        };
        let identities = observed.job.identities(device, instance);
        identities.into_iter().map(|identity| (identity, device.uid.clone()))
    });
    // A Pod locks its device whatever the status says: an edited or lost status must not let two
    // Pods flash one device.
    let may_run = |pod: &&Arc<Pod>| pod.may_run() && !observed.is_past_its_end(pod);
    let pods = observed.pods.iter().filter(may_run);
    let of_pods = pods.flat_map(|pod| {
        pod.identities.iter().map(|identity| (identity.clone(), pod.device.clone()))
    });
    stored.chain(of_pods).collect()
}
