//! Writes the status when it differs, and tells what changed in events and in the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flashjob_api::{DeviceState, FlashJob, FlashJobStatus, Phase};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource};
use serde_json::{Map, Value, json};

use crate::apply::refresh;
use crate::observed::Job;
use crate::operator::Operator;

/// Failures that are told in one write; more are only counted.
const EVENTS: usize = 10;

/// Stores a status that was planned from `job`.
pub async fn write(operator: Arc<Operator>, job: Arc<Job>, status: FlashJobStatus) {
    let written = send(&operator, &job, &status).await;
    let mut pause = Duration::ZERO;
    if let Err(error) = &written {
        tracing::warn!(job = %job.key, %error, "the status could not be stored, and is planned again");
        pause = Duration::from_millis(500);
    }
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    if let Some(memory) = operator.world().memory.get_mut(&job.key) {
        memory.writing = false;
        memory.written = Some(Instant::now());
    }
    operator.look_at([job.key.clone()]);
    if written.is_ok_and(|stored| stored) {
        tell(&operator, &job, &status).await;
    }
}

/// False: somebody else wrote first; the plan is made again from their state.
async fn send(operator: &Operator, job: &Job, status: &FlashJobStatus) -> kube::Result<bool> {
    let jobs: Api<FlashJob> = Api::namespaced(operator.client.clone(), &job.key.namespace);
    let patch = json!({
        "metadata": {"resourceVersion": job.resource_version, "uid": job.uid},
        "status": difference(&job.status, status),
    });
    match jobs.patch_status(&job.key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(stored) => {
            operator.world().see_job(Job::of(stored));
            Ok(true)
        }
        Err(kube::Error::Api(error)) if error.code == 409 || error.code == 404 => {
            refresh(operator, job).await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// A merge patch (RFC 7396) from one status to another: only what differs, null for what goes.
fn difference(before: &FlashJobStatus, after: &FlashJobStatus) -> Value {
    let object = |status: &FlashJobStatus| match serde_json::to_value(status) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    };
    let (before, after) = (object(before), object(after));
    let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| (name.clone(), Value::Null));
    let changed = after.iter().filter(|(name, value)| before.get(*name) != Some(*value)).map(|(name, value)| (name.clone(), value.clone()));
    gone.chain(changed).collect::<Map<_, _>>().into()
}

/// Events on transitions of the job and on failures; a device that succeeds makes none.
async fn tell(operator: &Operator, job: &Job, status: &FlashJobStatus) {
    let reference = FlashJob::new("", flashjob_api::FlashJobSpec::default()).object_ref(&());
    let reference = ObjectReference {
        name: Some(job.key.name.clone()),
        namespace: Some(job.key.namespace.clone()),
        uid: Some(job.uid.clone()),
        ..reference
    };
    for event in events(&job.status, status) {
        tracing::info!(job = %job.key, reason = event.reason, "{}", event.note.as_deref().unwrap_or_default());
        if let Err(error) = operator.recorder.publish(&event, &reference).await {
            tracing::debug!(job = %job.key, %error, "an event could not be written");
        }
    }
}

fn events(before: &FlashJobStatus, after: &FlashJobStatus) -> Vec<Event> {
    let event = |kind, reason: &str, note: String| Event {
        type_: kind,
        reason: reason.to_owned(),
        note: Some(note.chars().take(1000).collect()),
        action: "Flash".to_owned(),
        secondary: None,
    };
    let mut events = Vec::new();
    let message = after.message.clone().unwrap_or_default();
    if before.run != after.run {
        events.push(event(EventType::Normal, "Started", message.clone()));
    }
    for device in &after.devices {
        let Some(reason) = &device.reason else { continue };
        let known = before.devices.iter().find(|known| known.uid == device.uid);
        let retried = device.state == DeviceState::Pending && known.is_some_and(|known| known.attempt < device.attempt);
        let failed = device.state == DeviceState::Failed && known.is_none_or(|known| known.state != DeviceState::Failed);
        if retried || failed {
            let then = if failed { "the device failed" } else { "it is tried again" };
            let text = device.message.as_deref().unwrap_or_default();
            let name = device.name.as_deref().unwrap_or("unknown Instance");
            events.push(event(EventType::Warning, reason, format!("device {} ({name}): {text}; {then}", device.uid)));
        }
    }
    events.truncate(EVENTS);
    if before.phase != after.phase || before.run != after.run {
        match after.phase {
            Some(Phase::Completed) => events.push(event(EventType::Normal, "Completed", message)),
            Some(Phase::Failed) => events.push(event(EventType::Warning, "Failed", message)),
            _ => {}
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_holds_what_differs_and_nulls_what_goes() {
        let before = FlashJobStatus { message: Some("a".into()), progress: Some("1/2".into()), ..FlashJobStatus::default() };
        let after = FlashJobStatus { message: Some("b".into()), ..FlashJobStatus::default() };
        assert_eq!(difference(&before, &after), json!({"message": "b", "progress": null}));
        assert_eq!(difference(&before, &before), json!({}));
    }
}
