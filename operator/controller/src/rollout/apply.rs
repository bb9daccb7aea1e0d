//! Carries out the steps of rollouts. Each is idempotent; that a FlashJob is there already, or
//! gone already, is an outcome and no error.

use std::sync::Arc;

use flashjob_api::{FlashJob, FlashRollout};
use flashjob_rules::flashjob::observed::Job;
use flashjob_rules::rollout::{RolloutKey, Step};
use flashjob_rules::world::rollouts::{Known, StepOutcome};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};

use crate::answer::{by_name, in_one_line};
use crate::apply::{Deleted, create, delete, pause_after};
use crate::operator::Operator;

/// Carries out one step, and has the rollout looked at again.
pub async fn apply(operator: Arc<Operator>, known: Arc<Known>, step: Step) {
    let (rollout, key) = (known.key(), step.key());
    let outcome = carry_out(&operator, &known, &rollout, &step).await;
    let error = outcome.as_ref().err().map(in_one_line);
    let failures = {
        let mut world = operator.world();
        let memory = world.rollouts.memory.get_mut(&rollout);
        memory.map_or(0, |memory| memory.note(&key, outcome_of(&outcome)))
    };
    if let Some(error) = error {
        tracing::warn!(%rollout, step = key, error, "request failed; retrying");
        operator.look_at([rollout.clone()]);
        tokio::time::sleep(pause_after(failures, &key)).await;
    }
    if let Some(memory) = operator.world().rollouts.memory.get_mut(&rollout) {
        memory.release(&key);
    }
    operator.look_at([rollout]);
}

/// Meaning of the API server's answer for the rollout.
fn outcome_of(answer: &kube::Result<()>) -> StepOutcome {
    match answer {
        Ok(()) => StepOutcome::Done,
        Err(error @ kube::Error::Api(status)) if matches!(status.code, 403 | 422) => {
            StepOutcome::Refused(in_one_line(error))
        }
        Err(_) => StepOutcome::Failed,
    }
}

#[tracing::instrument(name = "rollout step", level = "debug", skip_all, err(level = "debug"), fields(rollout = %key, step = step.key()))]
async fn carry_out(
    operator: &Operator,
    known: &Known,
    key: &RolloutKey,
    step: &Step,
) -> kube::Result<()> {
    let namespace = &key.namespace;
    match step {
        Step::CreateChild(job) => match create(&operator.client, namespace, &**job).await {
            Ok(job) => see(operator, job),
            // An earlier request whose answer was lost made it, or somebody else has the name.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let name = job.metadata.name.as_deref().unwrap_or_default();
                refresh(operator, namespace, name).await?;
            }
            Err(error) => return Err(error),
        },
        Step::PatchChild { name, uid, spec, resource_version } => {
            patch(operator, namespace, name, uid, spec, resource_version.as_deref()).await?;
        }
        Step::DeleteChild { name, uid } => {
            let client = operator.client.clone();
            match delete::<FlashJob>(client, namespace, name, uid).await? {
                Deleted::Going(Some(job)) => see(operator, job),
                Deleted::Going(None) | Deleted::Gone => {}
            }
        }
        Step::DeleteRollout => {
            let client = operator.client.clone();
            delete::<FlashRollout>(client, namespace, &key.name, &known.rollout.uid).await?;
        }
    }
    Ok(())
}

async fn patch(
    operator: &Operator,
    namespace: &str,
    name: &str,
    uid: &str,
    spec: &Map<String, Value>,
    resource_version: Option<&str>,
) -> kube::Result<()> {
    let jobs: Api<FlashJob> = Api::namespaced(operator.client.clone(), namespace);
    let mut metadata = json!({"uid": uid});
    if let Some(version) = resource_version {
        metadata["resourceVersion"] = json!(version);
    }
    let patch = Patch::Merge(json!({"metadata": metadata, "spec": spec}));
    match jobs.patch(name, &PatchParams::default(), &patch).await {
        Ok(job) => {
            see(operator, job);
            Ok(())
        }
        // Somebody else wrote, or it is gone or another: their state is planned with.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
            refresh(operator, namespace, name).await
        }
        Err(error) => Err(error),
    }
}

/// Lets the next plan see what was done: parallelism is shared by what the FlashJobs show.
fn see(operator: &Operator, job: FlashJob) {
    let job = Job::of(job);
    let key = job.key.clone();
    if operator.world().see_job(job) {
        operator.look_at([key]);
    }
}

async fn refresh(operator: &Operator, namespace: &str, name: &str) -> kube::Result<()> {
    let jobs: Api<FlashJob> = Api::namespaced(operator.client.clone(), namespace);
    if let Some(job) = by_name(&jobs, name).await? {
        see(operator, job);
    }
    Ok(())
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
        assert_eq!((memory.note("a", failed(500)), memory.refused()), (1, None));
        assert_eq!(memory.note("a", failed(403)), 2);
        assert_eq!(memory.refused(), Some("denied by policy"));
        assert_eq!((memory.note("a", outcome_of(&Ok(()))), memory.refused()), (0, None));
    }
}
