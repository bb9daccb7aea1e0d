//! The PodDisruptionBudget of a job.

use flashjob_api::{Disruption, EffectiveSpec};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube_core::ObjectMeta;

use super::metadata::owner;
use super::name::budget_name;
use crate::flashjob::labels::label;
use crate::flashjob::observed::Job;
use crate::flashjob::policy::Policy;

/// More Pods than a job ever has: no running Pod may be evicted. An absolute number, since a
/// percentage requires a controller with a scale subresource.
const NEVER: i32 = 1_000_000;

/// Returns true if drains and autoscalers must not end the job's Pods. Both the job and the
/// configuration can allow it.
#[must_use]
pub(crate) fn is_protected(spec: &EffectiveSpec, policy: &Policy) -> bool {
    ![spec.disruption, policy.pods.disruption].contains(&Disruption::Allow)
}

/// Composes a budget that denies every eviction of the job's Pods. It is deleted with the job.
#[must_use]
pub fn budget(job: &Job) -> PodDisruptionBudget {
    // `app` is a common label: Pods of other owners with the same value must stay evictable.
    let is_flash = LabelSelectorRequirement {
        key: label::UUID.to_owned(),
        operator: "Exists".to_owned(),
        values: None,
    };
    let labels = [(label::APP.to_owned(), job.key.name.clone())];
    PodDisruptionBudget {
        metadata: ObjectMeta {
            name: Some(budget_name(&job.key.name, &job.uid)),
            namespace: Some(job.key.namespace.clone()),
            labels: Some(labels.clone().into()),
            owner_references: Some(vec![owner(job)]),
            ..ObjectMeta::default()
        },
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(NEVER)),
            selector: Some(LabelSelector {
                match_labels: Some(labels.into()),
                match_expressions: Some(vec![is_flash]),
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
