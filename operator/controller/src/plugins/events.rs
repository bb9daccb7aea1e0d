//! Kubernetes events about a DevicePlugin: the plugin begins or ceases to serve, its new version
//! fails, another plugin keeps its types. Pure.

use flashjob_api::DevicePluginStatus;
use flashjob_plugin_host::Reference;
use flashjob_rules::text::shortened;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType};

use crate::cluster::NOTE_BYTES;

/// Returns the events of one change of a status. `failure` is the CamelCase reason of the error in
/// `lastError`.
pub(super) fn between(
    before: &DevicePluginStatus,
    after: &DevicePluginStatus,
    image: &Reference,
    failure: Option<&str>,
) -> Vec<Event> {
    let is_new = |kind: &str| {
        let condition = find(after, kind)?;
        let same = |old: &Condition| {
            (&old.status, &old.reason, &old.message)
                == (&condition.status, &condition.reason, &condition.message)
        };
        (!find(before, kind).is_some_and(same)).then_some(condition)
    };
    let mut events = Vec::new();
    match is_new("Ready") {
        Some(ready) if ready.status == "True" && after.last_error.is_none() => {
            events.push(serves(after, image))
        }
        // The previous version continues to serve: the event says why the new one does not.
        Some(ready) if ready.status == "True" => {
            let reason = failure.unwrap_or(&ready.reason);
            let version = after.version.as_deref().unwrap_or_default();
            events.push(event(
                EventType::Warning,
                reason,
                &format!("version {version} continues to serve: {}", ready.message),
            ));
        }
        // Every start passes through Loading, so that is no news.
        Some(ready) if ready.reason != "Loading" => {
            events.push(event(EventType::Warning, &ready.reason, &ready.message))
        }
        Some(_) => {}
        // Another version of a plugin leaves the condition Ready as it was.
        None if before.digest != after.digest && after.digest.is_some() => {
            events.push(serves(after, image))
        }
        None => {}
    }
    if let Some(conflict) = is_new("TypeConflict").filter(|conflict| conflict.status == "True") {
        events.push(event(EventType::Warning, "TypeConflict", &conflict.message));
    }
    events
}

fn find<'a>(status: &'a DevicePluginStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

fn serves(status: &DevicePluginStatus, image: &Reference) -> Event {
    let (version, digest) = (
        status.version.as_deref().unwrap_or_default(),
        status.digest.as_deref().unwrap_or_default(),
    );
    event(
        EventType::Normal,
        "Serving",
        &format!("serving version {version} of {image}, digest {digest}"),
    )
}

fn event(kind: EventType, reason: &str, note: &str) -> Event {
    Event {
        type_: kind,
        reason: reason.to_owned(),
        note: Some(shortened(note, NOTE_BYTES)),
        action: "Load".to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use flashjob_api::condition;
    use jiff::Timestamp;

    use super::*;

    fn status(
        digest: Option<&str>,
        conditions: &[(&str, bool, &str, &str)],
    ) -> DevicePluginStatus {
        let mut status = DevicePluginStatus {
            digest: digest.map(str::to_owned),
            version: Some("1.0.0".into()),
            ..Default::default()
        };
        for (kind, holds, reason, message) in conditions {
            condition::set(
                &mut status.conditions,
                kind,
                *holds,
                reason,
                message,
                None,
                Timestamp::UNIX_EPOCH,
            );
            status.last_error =
                status.last_error.or((!message.is_empty()).then(|| (*message).to_owned()));
        }
        status
    }

    fn event_reasons(before: &DevicePluginStatus, after: &DevicePluginStatus) -> Vec<String> {
        let image = "registry.example/a:1".parse().expect("a reference");
        between(before, after, &image, Some("DowngradeRefused"))
            .into_iter()
            .map(|event| event.reason)
            .collect()
    }

    #[test]
    fn transitions_are_told_once_with_their_reason() {
        let ready = ("Ready", true, "Serving", "");
        let nothing = DevicePluginStatus::default();
        let (first, second) = (status(Some("a"), &[ready]), status(Some("b"), &[ready]));
        assert_eq!(event_reasons(&nothing, &first), ["Serving"]);
        assert_eq!(event_reasons(&first, &first), Vec::<String>::new());
        assert_eq!(event_reasons(&first, &second), ["Serving"]);
        let last_good = status(Some("a"), &[("Ready", true, "ServingLastGood", "why")]);
        assert_eq!(event_reasons(&first, &last_good), ["DowngradeRefused"]);
        assert_eq!(event_reasons(&last_good, &first), ["Serving"]);
        let withdrawn = status(None, &[("Ready", false, "NotTrusted", "why")]);
        assert_eq!(event_reasons(&first, &withdrawn), ["NotTrusted"]);
        let conflict = status(Some("a"), &[ready, ("TypeConflict", true, "KeptByAnother", "")]);
        assert_eq!(event_reasons(&first, &conflict), ["TypeConflict"]);
    }

    #[test]
    fn a_long_message_is_cut_to_what_the_api_server_accepts() {
        let long = event(EventType::Warning, "NotFound", &"ä".repeat(600)).note.expect("a note");
        assert!(long.len() <= NOTE_BYTES && long.ends_with("ä…"), "{long}");
    }
}
