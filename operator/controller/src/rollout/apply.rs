//! Carries out the steps of rollouts. Each is idempotent: that a FlashJob already exists, or is
//! already gone, is an outcome and not an error.

use std::sync::Arc;

use flashjob_api::{FlashJob, FlashRollout};
use flashjob_rules::flashjob::observed::JobKey;
use flashjob_rules::rollout::{RolloutKey, Step};
use flashjob_rules::world::change::{Change, RolloutOutcome};
use flashjob_rules::world::rollouts::{CachedRollout, StepOutcome};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};

use crate::cluster::answer::in_one_line;
use crate::cluster::read::Guarded;
use crate::cluster::watch;
use crate::flashjob::apply::{
    Deleted, LONGEST_PAUSE, create, delete, pause_after, refresh_by_name,
};
use crate::operator::Operator;

/// Carries out one step, and sends its outcome to the loop. `failures` is the number of
/// consecutive failures of this step so far.
pub async fn apply(
    operator: Arc<Operator>,
    cached: Arc<CachedRollout>,
    step: Step,
    failures: u32,
) {
    let (rollout, key) = (cached.key(), step.key());
    let outcome = carry_out(&operator, &cached, &rollout, &step).await;
    // Told before the pause: a refusal has to show in the status while the step still waits.
    let noted = RolloutOutcome::Step(key.clone(), outcome_of(&outcome));
    operator.tell(Change::Rollout(rollout.clone(), noted));
    if let Err(error) = outcome {
        let error = in_one_line(&error);
        tracing::warn!(%rollout, step = key, error, "request failed; retrying");
        tokio::time::sleep(pause_after(failures + 1, LONGEST_PAUSE, &key)).await;
        operator.tell(Change::Rollout(rollout, RolloutOutcome::StepReleased(key)));
    }
}

/// Returns the meaning of the API server's response for the rollout.
fn outcome_of(answer: &kube::Result<()>) -> StepOutcome {
    match answer {
        Ok(()) => StepOutcome::Done,
        // Missing rights, an admission policy or validation: usually a person has to act. Any
        // other failure may pass by itself.
        Err(error @ kube::Error::Api(status)) if matches!(status.code, 403 | 422) => {
            StepOutcome::Refused(in_one_line(error))
        }
        Err(_) => StepOutcome::Failed,
    }
}

#[tracing::instrument(
    name = "rollout step",
    level = "debug",
    skip_all,
    err(level = "debug"),
    fields(rollout = %key, step = step.key())
)]
async fn carry_out(
    operator: &Operator,
    cached: &CachedRollout,
    key: &RolloutKey,
    step: &Step,
) -> kube::Result<()> {
    let namespace = &key.namespace;
    match step {
        Step::CreateChild(job) => match create(&operator.client, namespace, &**job).await {
            // The next plan divides the parallelism by the status of the FlashJobs in the caches.
            Ok(job) => watch::tell(operator, Guarded(Ok(job))),
            // An earlier request whose response was lost created it, or another FlashJob has the
            // name.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let name = job.metadata.name.clone().unwrap_or_default();
                refresh_by_name(operator, &child_key(namespace, name), None).await?;
            }
            Err(error) => return Err(error),
        },
        Step::PatchChild { name, uid, spec, resource_version } => {
            patch(operator, namespace, name, uid, spec, resource_version.as_deref()).await?;
        }
        Step::DeleteChild { name, uid } => {
            let client = operator.client.clone();
            match delete::<FlashJob>(client, namespace, name, uid).await? {
                Deleted::Going(Some(job)) => watch::tell(operator, Guarded(Ok(job))),
                Deleted::Going(None) => {}
                Deleted::Gone => {
                    let subject = child_key(namespace, name.clone()).into();
                    operator.tell(Change::NotFound { subject, uid: uid.clone() });
                }
            }
        }
        Step::DeleteRollout => {
            let client = operator.client.clone();
            let uid = &cached.rollout.uid;
            let deleted = delete::<FlashRollout>(client, namespace, &key.name, uid).await?;
            if matches!(deleted, Deleted::Gone) {
                operator.tell(Change::NotFound { subject: key.clone().into(), uid: uid.clone() });
            }
        }
    }
    Ok(())
}

fn child_key(namespace: &str, name: String) -> JobKey {
    JobKey { namespace: namespace.to_owned(), name }
}

async fn patch(
    operator: &Operator,
    namespace: &str,
    name: &str,
    uid: &str,
    spec: &Map<String, Value>,
    resource_version: Option<&str>,
) -> kube::Result<()> {
    let jobs: Api<Guarded<FlashJob>> = Api::namespaced(operator.client.clone(), namespace);
    let mut metadata = json!({"uid": uid});
    if let Some(version) = resource_version {
        metadata["resourceVersion"] = json!(version);
    }
    let patch = Patch::Merge(json!({"metadata": metadata, "spec": spec}));
    match jobs.patch(name, &PatchParams::default(), &patch).await {
        Ok(job) => {
            watch::tell(operator, job);
            Ok(())
        }
        // Another client wrote, or the FlashJob was deleted or replaced: the next plan uses its
        // current state.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
            let child = child_key(namespace, name.to_owned());
            refresh_by_name(operator, &child, Some(uid)).await.map(|_| ())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use flashjob_rules::world::rollouts::Memory;
    use kube::core::Status;

    use super::*;

    #[test]
    fn only_what_the_api_server_refuses_is_told_and_until_it_accepts_the_step() {
        let failed = |code| {
            let status = Status::failure("denied by policy", "Forbidden").with_code(code);
            outcome_of(&Err(kube::Error::Api(Box::new(status))))
        };
        let mut memory = Memory::default();
        memory.note("a", failed(500));
        assert_eq!(memory.refused(), None);
        memory.note("a", failed(403));
        assert_eq!(memory.refused(), Some("denied by policy"));
        memory.note("a", outcome_of(&Ok(())));
        assert_eq!(memory.refused(), None);
    }
}
