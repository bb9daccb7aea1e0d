//! Writes the status of a rollout. A change of its phase, and a spec that has become invalid, are
//! reported in an event and the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flashjob_api::{
    FlashRollout, FlashRolloutSpec, FlashRolloutStatus, RolloutPhase, rollout_reason,
};
use flashjob_rules::rollout::Rollout;
use flashjob_rules::text::shortened;
use flashjob_rules::world::change::{Change, EndedWrite, RolloutOutcome};
use flashjob_rules::world::rollouts::CachedRollout;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource};
use serde_json::json;

use crate::cluster::NOTE_BYTES;
use crate::cluster::answer::{by_name, in_one_line};
use crate::cluster::read::Guarded;
use crate::cluster::watch;
use crate::flashjob::report::{WriteOutcome, difference};
use crate::operator::Operator;

/// Pause after a failed write.
const FAILURE_PAUSE: Duration = Duration::from_millis(500);

/// Stores a status that was planned from `cached`.
pub async fn write(
    operator: Arc<Operator>,
    cached: Arc<CachedRollout>,
    status: FlashRolloutStatus,
) {
    let key = cached.key();
    let begin = Instant::now();
    let written = send(&operator, &cached, &status).await;
    let took = begin.elapsed();
    operator.metrics.wrote(WriteOutcome::counted(&written));
    if let Err(error) = &written {
        let error = in_one_line(error);
        tracing::warn!(rollout = %key, error, "status could not be stored; retrying");
        tokio::time::sleep(FAILURE_PAUSE).await;
        // The object shows whether the status was stored nevertheless.
        let _ = refresh(&operator, &cached).await;
    }
    let is_dropped = matches!(written, Ok(WriteOutcome::Dropped));
    let dropped = is_dropped.then(|| Box::new((cached.resource_version.clone(), status.clone())));
    let ended = EndedWrite { at: Instant::now(), took, dropped };
    operator.tell(Change::Rollout(key.clone(), RolloutOutcome::Written(ended)));
    if matches!(written, Ok(WriteOutcome::Stored)) {
        tell(&operator, &cached, &status).await;
    }
}

async fn send(
    operator: &Operator,
    cached: &CachedRollout,
    status: &FlashRolloutStatus,
) -> kube::Result<WriteOutcome> {
    let Rollout { namespace, name, uid, .. } = &cached.rollout;
    let rollouts: Api<Guarded<FlashRollout>> = Api::namespaced(operator.client.clone(), namespace);
    let patch = json!({
        "metadata": {"resourceVersion": cached.resource_version, "uid": uid},
        "status": difference(&cached.rollout.status, status),
    });
    match rollouts.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(stored) => {
            let version = stored.meta().resource_version.clone();
            watch::tell(operator, stored);
            Ok(WriteOutcome::over(&cached.resource_version, version.as_deref()))
        }
        Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => {
            refresh(operator, cached).await?;
            Ok(WriteOutcome::Conflict)
        }
        Err(error) => Err(error),
    }
}

async fn refresh(operator: &Operator, cached: &CachedRollout) -> kube::Result<()> {
    let (key, uid) = (cached.key(), cached.rollout.uid.clone());
    let rollouts: Api<Guarded<FlashRollout>> =
        Api::namespaced(operator.client.clone(), &key.namespace);
    match by_name(&rollouts, &key.name).await? {
        Some(rollout) => watch::tell(operator, rollout),
        None => operator.tell(Change::NotFound { subject: key.into(), uid }),
    }
    Ok(())
}

/// Returns the reason of a change that people are notified of, and true if somebody may have to
/// act.
fn news(before: &FlashRolloutStatus, after: &FlashRolloutStatus) -> Option<(String, bool)> {
    let invalid = rollout_reason::INVALID_SPEC.name;
    let is_invalid = |status: &FlashRolloutStatus| status.reason.as_deref() == Some(invalid);
    // An invalid spec leaves the phase unchanged.
    if is_invalid(after) {
        return (!is_invalid(before)).then(|| (invalid.to_owned(), true));
    }
    let phase = after.phase.filter(|phase| before.phase != Some(*phase))?;
    let bad = matches!(phase, RolloutPhase::Failed | RolloutPhase::Paused | RolloutPhase::Aborted);
    Some((format!("{phase:?}"), bad))
}

async fn tell(operator: &Operator, cached: &CachedRollout, status: &FlashRolloutStatus) {
    let Some((reason, bad)) = news(&cached.rollout.status, status) else { return };
    let (key, message) = (cached.key(), status.message.as_deref().unwrap_or_default());
    match bad {
        true => tracing::warn!(rollout = %key, "{reason}: {message}"),
        false => tracing::info!(rollout = %key, "{reason}: {message}"),
    }
    let event = Event {
        type_: if bad { EventType::Warning } else { EventType::Normal },
        reason,
        note: Some(shortened(message, NOTE_BYTES)),
        action: "Roll".to_owned(),
        // The recorder aggregates similar events and keeps only the first note, so each phase has
        // its own resourceVersion.
        secondary: Some(ObjectReference {
            resource_version: Some(cached.resource_version.clone()),
            ..about(cached)
        }),
    };
    if let Err(error) = operator.recorder.publish(&event, &about(cached)).await {
        let error = in_one_line(&error);
        tracing::debug!(rollout = %key, error, "an event could not be written");
    }
}

fn about(cached: &CachedRollout) -> ObjectReference {
    let reference = FlashRollout::new("", FlashRolloutSpec::default()).object_ref(&());
    let Rollout { namespace, name, uid, .. } = &cached.rollout;
    ObjectReference {
        name: Some(name.clone()),
        namespace: Some(namespace.clone()),
        uid: Some(uid.clone()),
        ..reference
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_phase_and_a_spec_that_becomes_invalid_are_told_once() {
        let status = |phase, reason: &str| FlashRolloutStatus {
            phase,
            reason: Some(reason.to_owned()),
            ..FlashRolloutStatus::default()
        };
        let (progressing, paused) = (Some(RolloutPhase::Progressing), Some(RolloutPhase::Paused));
        let news_text = |before: &FlashRolloutStatus, after: &FlashRolloutStatus| {
            let (reason, bad) = news(before, after).unwrap_or_default();
            format!("{reason} {bad}")
        };
        let (runs, invalid) = (status(progressing, ""), status(progressing, "InvalidSpec"));
        assert_eq!(news_text(&runs, &status(paused, "TooManyFailed")), "Paused true");
        assert_eq!(news_text(&runs, &invalid), "InvalidSpec true");
        assert_eq!(news_text(&status(None, ""), &status(None, "InvalidSpec")), "InvalidSpec true");
        for (before, after) in [(&invalid, &invalid), (&invalid, &runs), (&runs, &runs)] {
            assert_eq!(news(before, after), None);
        }
    }
}
