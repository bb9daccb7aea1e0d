//! Asks a plugin, and sends its answer to the loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flashjob_plugin_host::types::{FlashPod, Request};
use flashjob_plugin_host::{CallError, Digest, Plugin};
use flashjob_rules::flashjob::observed::{Built, JobKey, Judged, Question, whole_seconds};
use flashjob_rules::world::change::{Change, JobOutcome};
use jiff::Timestamp;

use crate::operator::Operator;
use crate::plugins::LoadFailure;

/// Pause before a plugin is asked again of which the digest was dropped.
const DROPPED_DIGEST_PAUSE: Duration = Duration::from_secs(1);
/// Pause between two tries to load the plugin digest that an attempt began with.
const RECALL_PAUSE: Duration = Duration::from_secs(1);

/// Asks a plugin a question, and sends the answer to the loop. Waits up to `recall_seconds` for a
/// plugin that has to be loaded first.
pub async fn consult(
    operator: Arc<Operator>,
    job: JobKey,
    question: Question,
    recall_seconds: i64,
) {
    let key = question.key().to_owned();
    let again = match question {
        Question::Build { attempt, plugin, digest, instance, configuration, request } => {
            match operator.plugins.get(&plugin, &digest) {
                Some(loaded) => {
                    let answer = build(&operator, &job, &plugin, &loaded, &request).await;
                    let Request { device, firmware, .. } = *request;
                    let built = Built {
                        attempt,
                        plugin,
                        digest,
                        firmware,
                        instance,
                        configuration,
                        pod: answer,
                    };
                    send_built(&operator, &job, device.uid, built)
                }
                // The digest was dropped after the plan was made, as by a change of trust. The
                // next plan asks the one that serves then.
                None => DROPPED_DIGEST_PAUSE,
            }
        }
        Question::Judge { pod_uid, plugin, digest, request, outcome } => {
            // The version that built the Pod also judges it: only that one knows what its Pod
            // reports.
            let judged = match recall(&operator, &plugin, &digest, recall_seconds).await {
                Ok(loaded) => Judged::Asked(
                    ask(&operator, &job, &plugin, "judge", loaded.judge(&request, &outcome)).await,
                ),
                Err(failure) => {
                    tracing::warn!(
                        %job, plugin, %digest, error = failure.message,
                        "the plugin digest that the attempt began with is no longer available to \
                         judge it"
                    );
                    Judged::Gone(failure.message)
                }
            };
            match judged {
                Judged::Asked(Err(CallError::Unavailable { left: delay })) => {
                    pause(&operator, &job, &plugin, delay)
                }
                judged => {
                    let outcome = JobOutcome::Judged(pod_uid, Box::new(judged));
                    operator.tell(Change::Job(job.clone(), outcome));
                    Duration::ZERO
                }
            }
        }
    };
    // The question stays taken during the pause, or every plan would ask it again.
    if !again.is_zero() {
        tokio::time::sleep(again).await;
    }
    // After the answer: a plan between the two would ask again.
    operator.tell(Change::Job(job, JobOutcome::QuestionReleased(key)));
}

/// Returns the plugin with the digest that the attempt began with. Temporary failures, such as a
/// registry that does not respond, are retried for `seconds`.
async fn recall(
    operator: &Operator,
    plugin: &str,
    digest: &Digest,
    seconds: i64,
) -> Result<Plugin, LoadFailure> {
    let (begin, limit) =
        (Instant::now(), Duration::from_secs(seconds.try_into().unwrap_or_default()));
    loop {
        match operator.plugins.recall(plugin, digest).await {
            Err(failure) if failure.transient && begin.elapsed() < limit => {
                tokio::time::sleep(RECALL_PAUSE).await
            }
            answer => return answer,
        }
    }
}

async fn build(
    operator: &Operator,
    job: &JobKey,
    name: &str,
    plugin: &Plugin,
    request: &Request,
) -> Result<FlashPod, CallError> {
    ask(operator, job, name, "validate-settings", plugin.validate_settings(&request.settings))
        .await?;
    ask(operator, job, name, "build", plugin.build(request)).await
}

/// Waits for an answer, and counts it.
#[tracing::instrument(name = "ask plugin", level = "debug", skip_all, fields(%job, plugin, call))]
async fn ask<T>(
    operator: &Operator,
    job: &JobKey,
    plugin: &str,
    call: &'static str,
    answer: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    let since = Instant::now();
    let answer = answer.await;
    operator.metrics.plugin_asked(plugin, call, since.elapsed(), &answer);
    answer
}

/// Sends the answer of a build to the loop. Returns the pause before a plugin that is out of
/// service may be asked again, else zero.
fn send_built(operator: &Operator, job: &JobKey, uid: String, built: Built) -> Duration {
    if let Err(CallError::Unavailable { left: delay }) = &built.pod {
        return pause(operator, job, &built.plugin, *delay);
    }
    let outcome = JobOutcome::Built(uid, Box::new(built));
    operator.tell(Change::Job(job.clone(), outcome));
    Duration::ZERO
}

/// Reports that the plugin is out of service: its devices wait, and the job's status says so.
/// Returns the pause before the plugin may be asked again.
fn pause(operator: &Operator, job: &JobKey, plugin: &str, delay: Duration) -> Duration {
    tracing::warn!(
        %job, plugin, seconds = delay.as_secs(),
        "the plugin failed several times in a row and is not called for a while"
    );
    let until = whole_seconds(Timestamp::now()).checked_add(delay).unwrap_or(Timestamp::MAX);
    let outcome = JobOutcome::OutOfService(plugin.to_owned(), until);
    operator.tell(Change::Job(job.clone(), outcome));
    // A little longer than the pause of the plugin, which would still refuse a call at its very
    // end.
    delay + Duration::from_millis(10)
}
