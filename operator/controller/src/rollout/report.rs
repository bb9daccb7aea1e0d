//! Writes the status of a rollout, and tells a change of its phase in an event and the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flashjob_api::{FlashRollout, FlashRolloutSpec, FlashRolloutStatus, RolloutPhase};
use flashjob_rules::rollout::Rollout;
use flashjob_rules::world::change::{Change, EndedWrite, Object, RolloutOutcome};
use flashjob_rules::world::rollouts::Known;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource};
use serde_json::json;

use crate::answer::{by_name, in_one_line};
use crate::operator::Operator;
use crate::report::{Written, difference};

/// Between a write that failed and the next.
const FAILURE_PAUSE: Duration = Duration::from_millis(500);
/// The API server takes no longer note, in bytes.
const NOTE_BYTES: usize = 1024;

/// Stores a status that was planned from `known`.
pub async fn write(operator: Arc<Operator>, known: Arc<Known>, status: FlashRolloutStatus) {
    let key = known.key();
    let begin = Instant::now();
    let written = send(&operator, &known, &status).await;
    let took = begin.elapsed();
    operator.metrics.wrote(Written::counted(&written));
    if let Err(error) = &written {
        let error = in_one_line(error);
        tracing::warn!(rollout = %key, error, "status could not be stored; retrying");
        tokio::time::sleep(FAILURE_PAUSE).await;
        // Whether it was stored all the same is in the object.
        let _ = refresh(&operator, &known).await;
    }
    let is_dropped = matches!(written, Ok(Written::Dropped));
    let dropped = is_dropped.then(|| Box::new((known.resource_version.clone(), status.clone())));
    let ended = EndedWrite { at: Instant::now(), took, dropped };
    operator.tell(Change::Rollout(key.clone(), RolloutOutcome::Written(ended)));
    if matches!(written, Ok(Written::Stored)) {
        tell(&operator, &known, &status).await;
    }
}

async fn send(
    operator: &Operator,
    known: &Known,
    status: &FlashRolloutStatus,
) -> kube::Result<Written> {
    let Rollout { namespace, name, uid, .. } = &known.rollout;
    let rollouts: Api<FlashRollout> = Api::namespaced(operator.client.clone(), namespace);
    let patch = json!({
        "metadata": {"resourceVersion": known.resource_version, "uid": uid},
        "status": difference(&known.rollout.status, status),
    });
    match rollouts.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(stored) => {
            let version = stored.metadata.resource_version.clone();
            operator.tell(Change::Seen(Object::Rollout(Box::new(Known::of(stored)))));
            Ok(Written::over(&known.resource_version, version.as_deref()))
        }
        Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => {
            refresh(operator, known).await?;
            Ok(Written::Conflict)
        }
        Err(error) => Err(error),
    }
}

async fn refresh(operator: &Operator, known: &Known) -> kube::Result<()> {
    let (key, uid) = (known.key(), known.rollout.uid.clone());
    let rollouts: Api<FlashRollout> = Api::namespaced(operator.client.clone(), &key.namespace);
    operator.tell(match by_name(&rollouts, &key.name).await? {
        Some(rollout) => Change::Seen(Object::Rollout(Box::new(Known::of(rollout)))),
        None => Change::Missing { subject: key.into(), uid },
    });
    Ok(())
}

async fn tell(operator: &Operator, known: &Known, status: &FlashRolloutStatus) {
    let before = &known.rollout.status;
    let Some(phase) = status.phase.filter(|phase| before.phase != Some(*phase)) else { return };
    let (key, message) = (known.key(), status.message.as_deref().unwrap_or_default());
    let bad = matches!(phase, RolloutPhase::Failed | RolloutPhase::Paused | RolloutPhase::Aborted);
    match bad {
        true => tracing::warn!(rollout = %key, "{phase:?}: {message}"),
        false => tracing::info!(rollout = %key, "{phase:?}: {message}"),
    }
    let event = Event {
        type_: if bad { EventType::Warning } else { EventType::Normal },
        reason: format!("{phase:?}"),
        note: Some(message.chars().take(NOTE_BYTES / 4).collect()),
        action: "Roll".to_owned(),
        // Of what is alike the recorder keeps the first words only; each phase has its own.
        secondary: Some(ObjectReference {
            resource_version: Some(known.resource_version.clone()),
            ..about(known)
        }),
    };
    if let Err(error) = operator.recorder.publish(&event, &about(known)).await {
        let error = in_one_line(&error);
        tracing::debug!(rollout = %key, error, "an event could not be written");
    }
}

fn about(known: &Known) -> ObjectReference {
    let reference = FlashRollout::new("", FlashRolloutSpec::default()).object_ref(&());
    let Rollout { namespace, name, uid, .. } = &known.rollout;
    ObjectReference {
        name: Some(name.clone()),
        namespace: Some(namespace.clone()),
        uid: Some(uid.clone()),
        ..reference
    }
}
