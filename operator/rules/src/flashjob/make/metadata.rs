//! Metadata shared by the objects of a job: labels and owner.

use std::collections::BTreeMap;

use flashjob_api::{FlashJob, GROUP};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube_core::Resource;

use super::attempt::Attempt;
use crate::flashjob::labels::label;
use crate::flashjob::observed::Job;

/// Labels of an attempt's Pod and Service.
pub(super) fn labels(attempt: &Attempt<'_>) -> BTreeMap<String, String> {
    let number = attempt.number.to_string();
    let labels = [
        (label::APP, attempt.job.key.name.as_str()),
        (label::UUID, attempt.uid),
        (label::RUN, attempt.spec.run.as_str()),
        (label::ATTEMPT, number.as_str()),
        (label::SLOT, attempt.slot),
    ];
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Owner reference to the FlashJob.
pub(super) fn owner(job: &Job) -> OwnerReference {
    OwnerReference {
        api_version: format!("{GROUP}/{}", FlashJob::version(&())),
        kind: FlashJob::kind(&()).into_owned(),
        name: job.key.name.clone(),
        uid: job.uid.clone(),
        controller: Some(true),
        // True would require the right to update the finalizers of FlashJobs, where the admission
        // plugin OwnerReferencesPermissionEnforcement is enabled.
        block_owner_deletion: None,
    }
}
