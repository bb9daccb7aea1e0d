//! Puts a question to a plugin, and remembers the answer.

use std::sync::Arc;
use std::time::Duration;

use flashjob_plugin_host::types::{FlashPod, Request};
use flashjob_plugin_host::{CallError, Digest, Plugin};
use jiff::Timestamp;

use crate::observed::{Built, JobKey, Question, whole_seconds};
use crate::operator::Operator;

/// Asks, remembers, and has the job looked at again.
pub async fn consult(operator: Arc<Operator>, job: JobKey, question: Question) {
    let key = question.key().to_owned();
    let again = match question {
        Question::Build { attempt, plugin, digest, request } => {
            let answer = match operator.plugins.get(&plugin, &digest) {
                Some(loaded) => match build(&loaded, &request).await {
                    Err(error) if is_broken(&error) => build(&loaded, &request).await,
                    answer => answer,
                },
                None => Err(CallError::Unavailable { left: Duration::from_secs(1) }),
            };
            remember_built(&operator, &job, &request.device.uid, attempt, plugin, digest, answer)
        }
        Question::Judge { pod_uid, plugin, digest, request, outcome } => {
            let answer = match operator.plugins.get(&plugin, &digest) {
                Some(loaded) => match loaded.judge(&request, &outcome).await {
                    Err(error) if is_broken(&error) => loaded.judge(&request, &outcome).await,
                    answer => answer,
                },
                None => Err(CallError::Unavailable { left: Duration::from_secs(1) }),
            };
            match answer {
                Err(CallError::Unavailable { left }) => pause(&operator, &job, &plugin, left),
                answer => {
                    let mut world = operator.world();
                    world.memory.entry(job.clone()).or_default().answers_mut().judged.insert(pod_uid, Arc::new(answer));
                    Duration::ZERO
                }
            }
        }
    };
    if !again.is_zero() {
        tokio::time::sleep(again).await;
    }
    if let Some(memory) = operator.world().memory.get_mut(&job) {
        memory.asked.remove(&key);
    }
    operator.look_at([job]);
}

async fn build(plugin: &Plugin, request: &Request) -> Result<FlashPod, CallError> {
    plugin.validate_settings(&request.settings).await?;
    plugin.build(request).await
}

/// A plugin that is out of service is asked again after its pause; every other answer stands for this attempt.
fn remember_built(
    operator: &Operator,
    job: &JobKey,
    device: &str,
    attempt: String,
    plugin: String,
    digest: Digest,
    answer: Result<FlashPod, CallError>,
) -> Duration {
    if let Err(CallError::Unavailable { left }) = &answer {
        return pause(operator, job, &plugin, *left);
    }
    let mut world = operator.world();
    let memory = world.memory.entry(job.clone()).or_default();
    let built = Built { attempt, plugin, digest, pod: answer };
    memory.answers_mut().built.insert(device.to_owned(), Arc::new(built));
    Duration::ZERO
}

/// A crash or a time-out may pass: the plugin is asked once more before it counts.
fn is_broken(error: &CallError) -> bool {
    matches!(error, CallError::Trapped(_) | CallError::TimedOut { .. })
}

/// The plugin is out of service for a while; until then its devices wait, and the job says so.
fn pause(operator: &Operator, job: &JobKey, plugin: &str, left: Duration) -> Duration {
    tracing::warn!(%job, plugin, seconds = left.as_secs(), "the plugin broke several times in a row and is not asked for a while");
    let until = whole_seconds(Timestamp::now()).checked_add(left).unwrap_or(Timestamp::MAX);
    let mut world = operator.world();
    world.memory.entry(job.clone()).or_default().answers_mut().out_of_service.insert(plugin.to_owned(), until);
    drop(world);
    operator.look_at([job.clone()]);
    left + Duration::from_millis(10)
}
