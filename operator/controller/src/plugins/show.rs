//! Writes DevicePlugin objects, which show loaded plugins and load failures, and emits events
//! about changes.

use flashjob_api::{DevicePlugin, DevicePluginSpec, DevicePluginStatus, condition};
use flashjob_plugin_host::{Plugin, Stage};
use flashjob_rules::flashjob::observed::whole_seconds;
use jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};

use super::events;
use super::load::LoadFailure;
use crate::cluster::answer::{by_name, in_one_line};
use crate::cluster::installation::Owner;
use crate::operator::Operator;
use crate::telemetry::health::problem::{Cause, Problem};
use flashjob_config::PluginConfig;
use flashjob_config::standing::Standing;

/// State of a plugin that its DevicePlugin shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PluginState {
    /// Plugin that serves.
    pub serving: Option<Serving>,
    /// Device types that it serves, given those of the other plugins.
    pub standing: Standing,
    /// Reason for which the plugin, or its new version, does not serve.
    pub failure: Option<LoadFailure>,
}

/// The shown properties of a plugin that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Serving {
    digest: String,
    version: String,
    wit_version: &'static str,
    signed: bool,
}

impl Serving {
    pub fn of(plugin: &Plugin) -> Self {
        Self {
            digest: plugin.digest().to_string(),
            version: plugin.info().version.to_string(),
            wit_version: plugin.wit_version(),
            signed: plugin.signed(),
        }
    }
}

/// Result of showing a plugin.
pub(super) enum ShowOutcome {
    /// The object is up to date.
    Written,
    /// An object of that name belongs to another installation, and is left unchanged.
    NotOwned(Problem),
}

/// Writes the object of one plugin, if it differs.
pub(super) async fn show(
    operator: &Operator,
    plugin: &PluginConfig,
    state: &PluginState,
) -> kube::Result<ShowOutcome> {
    let plugins: Api<DevicePlugin> = Api::all(operator.keepers_client.clone());
    let name = operator.installation.object_name(&plugin.name);
    let object = match by_name(&plugins, &name).await? {
        None => create(operator, &plugins, &name, plugin).await?,
        Some(object) => match operator.installation.owner(&object) {
            Owner::Own | Owner::Nobody => take(operator, &plugins, object, plugin).await?,
            Owner::Other(owner) => {
                return Ok(ShowOutcome::NotOwned(not_owned(&name, &owner, operator)));
            }
        },
    };
    let (about, uid) = (object.object_ref(&()), object.uid());
    let stored = object.status.unwrap_or_default();
    let status = status(stored.clone(), state, whole_seconds(Timestamp::now()));
    // A restart that finds everything as it was causes no write and no event.
    if status == stored {
        return Ok(ShowOutcome::Written);
    }
    // The uid is a precondition: another installation may have created an object of this name
    // meanwhile.
    let patch = json!({"metadata": {"uid": uid}, "status": with_nulls(&status)});
    plugins.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    let failure = state.failure.as_ref().map(|failure| failure.reason);
    for event in events::between(&stored, &status, &plugin.image, failure) {
        if let Err(error) = operator.keepers_recorder.publish(&event, &about).await {
            let error = in_one_line(&error);
            tracing::debug!(error, "an event could not be written");
        }
    }
    Ok(ShowOutcome::Written)
}

async fn create(
    operator: &Operator,
    plugins: &Api<DevicePlugin>,
    name: &str,
    plugin: &PluginConfig,
) -> kube::Result<DevicePlugin> {
    let mut object = DevicePlugin::new(name, DevicePluginSpec { image: plugin.image.to_string() });
    object.metadata.labels = Some(operator.installation.labels());
    plugins.create(&PostParams::default(), &object).await
}

/// Updates spec and label of an object; one without the label is adopted.
async fn take(
    operator: &Operator,
    plugins: &Api<DevicePlugin>,
    object: DevicePlugin,
    plugin: &PluginConfig,
) -> kube::Result<DevicePlugin> {
    let (image, labels) = (plugin.image.to_string(), operator.installation.labels());
    if operator.installation.owner(&object) == Owner::Own && object.spec.image == image {
        return Ok(object);
    }
    // The resourceVersion is a precondition: another installation may have adopted the object
    // meanwhile.
    let patch = json!({
        "metadata": {"resourceVersion": object.resource_version(), "labels": labels},
        "spec": {"image": image},
    });
    plugins.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await
}

fn not_owned(name: &str, owner: &str, operator: &Operator) -> Problem {
    let namespace = &operator.installation.namespace;
    let rest = format!(
        "it belongs to the installation in namespace {owner} and is not changed: the plugin \
         serves here, but its status is not shown; set --watch-namespace of this installation \
         (namespace {namespace}), or, if the other installation no longer exists, run kubectl \
         delete deviceplugin {name}"
    );
    Problem::new(Cause::DevicePluginNotOwned, format!("DevicePlugin {name}"), &rest)
}

/// Returns a merge patch with explicit nulls: it removes only fields that it names.
fn with_nulls(status: &DevicePluginStatus) -> Value {
    let mut value =
        json!({"digest": null, "version": null, "witVersion": null, "lastError": null});
    if let (Some(target), Value::Object(fields)) = (value.as_object_mut(), json!(status)) {
        target.extend(fields);
    }
    value
}

fn status(
    mut status: DevicePluginStatus,
    state: &PluginState,
    now: Timestamp,
) -> DevicePluginStatus {
    let PluginState { serving, standing, failure } = state;
    status.digest = serving.as_ref().map(|serving| serving.digest.clone());
    status.version = serving.as_ref().map(|serving| serving.version.clone());
    status.wit_version = serving.as_ref().map(|serving| serving.wit_version.to_owned());
    status.device_types = standing
        .device_types
        .iter()
        .map(ToString::to_string)
        .chain(standing.any_type.then(|| "*".to_owned()))
        .collect();
    status.last_error = failure.as_ref().map(|failure| failure.message.clone());
    // Kept while nothing serves: it is what a restarted process can go back to.
    if serving.is_some() {
        status.last_good_digest.clone_from(&status.digest);
        status.last_good_version.clone_from(&status.version);
    }
    for (kind, holds, reason, message) in conditions(state) {
        condition::set(&mut status.conditions, kind, holds, reason, &message, None, now);
    }
    status
}

/// Returns each condition: type, whether it holds, reason and message.
fn conditions(state: &PluginState) -> Vec<(&'static str, bool, &'static str, String)> {
    let PluginState { serving, standing, failure } = state;
    let failed_at = |stage: Stage| failure.as_ref().filter(|failure| failure.stage == stage);
    let mut conditions = vec![match failed_at(Stage::Resolve) {
        Some(failure) => ("Resolved", false, failure.reason, failure.message.clone()),
        None => ("Resolved", true, "Resolved", String::new()),
    }];
    let signed = match (serving, failure) {
        (Some(serving), _) => Some(serving.signed),
        // Verification passed before something else failed.
        (None, failure) => failure.as_ref().and_then(|failure| failure.signed),
    };
    match (failed_at(Stage::Verify), signed) {
        (Some(failure), _) => {
            conditions.push(("Verified", false, failure.reason, failure.message.clone()))
        }
        (None, Some(true)) => conditions.push(("Verified", true, "SignatureFound", String::new())),
        (None, Some(false)) => {
            conditions.push(("Verified", false, "UnsignedAllowed", String::new()))
        }
        (None, None) => {}
    }
    conditions.push(match (serving, failure) {
        (Some(_), None) => ("Ready", true, "Serving", String::new()),
        (Some(_), Some(failure)) => ("Ready", true, "ServingLastGood", failure.message.clone()),
        (None, Some(failure)) => ("Ready", false, failure.reason, failure.message.clone()),
        (None, None) => ("Ready", false, "Loading", "the plugin is being loaded".to_owned()),
    });
    let kept: Vec<String> = standing
        .kept
        .iter()
        .map(|(kind, other)| format!("device type {kind} is already served by plugin {other}"))
        .collect();
    conditions.push(match kept.as_slice() {
        [] => ("TypeConflict", false, "NoConflict", String::new()),
        kept => {
            let advice = "list each type under deviceTypes of the plugin that is to serve it";
            ("TypeConflict", true, "KeptByAnother", format!("{}; {advice}", kept.join(", ")))
        }
    });
    // As in kstatus: a failure that is retried without help is Reconciling, one that needs
    // somebody to act is Stalled.
    let broken = failure.as_ref().filter(|failure| serving.is_none() && !failure.transient);
    conditions.push(match broken {
        Some(failure) => (condition::STALLED, true, failure.reason, failure.message.clone()),
        None => (condition::STALLED, false, "Moving", String::new()),
    });
    conditions.push(match (serving, failure) {
        (None, Some(failure)) if failure.transient => {
            (condition::RECONCILING, true, failure.reason, failure.message.clone())
        }
        (None, None) => (condition::RECONCILING, true, "Loading", String::new()),
        _ => (condition::RECONCILING, false, "Settled", String::new()),
    });
    conditions
}

/// Removes DevicePlugins of this installation that the configuration no longer names; nothing else
/// removes them.
pub(super) async fn remove_stale(operator: &Operator, names: Vec<String>) {
    let installation = &operator.installation;
    let names: Vec<String> = names.iter().map(|name| installation.object_name(name)).collect();
    let plugins: Api<DevicePlugin> = Api::all(operator.client.clone());
    let labels =
        installation.labels().into_iter().map(|(label, value)| format!("{label}={value}"));
    // By label only: an object without it may be anybody's.
    let selection = ListParams::default().labels(&labels.collect::<Vec<_>>().join(","));
    // A stale object does no harm; the next start or change of the configuration removes it.
    let Ok(listed) = plugins.list(&selection).await else { return };
    for plugin in listed.items.into_iter().filter(|plugin| !names.contains(&plugin.name_any())) {
        // Another installation may have created an object of this name since the list.
        let preconditions = Preconditions { uid: plugin.uid(), ..Preconditions::default() };
        let parameters = DeleteParams::default().preconditions(preconditions);
        let plugin = plugin.name_any();
        if let Err(error) = plugins.delete(&plugin, &parameters).await {
            let error = in_one_line(&error);
            tracing::warn!(
                plugin,
                error,
                "cannot delete the DevicePlugin of a plugin that is no longer configured"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin_state(serving: Option<&str>, failure: Option<(Stage, &'static str)>) -> PluginState {
        let serving = serving.map(|version| Serving {
            digest: format!("sha256:{version}"),
            version: version.to_owned(),
            wit_version: "0.1.0",
            signed: false,
        });
        let failure =
            failure.map(|(stage, reason)| LoadFailure::new(stage, reason, "why".to_owned()));
        PluginState { serving, standing: Standing::default(), failure }
    }

    fn condition_texts(status: &DevicePluginStatus) -> Vec<String> {
        let condition = |of: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
            format!("{}={} {}", of.type_, of.status, of.reason)
        };
        status.conditions.iter().map(condition).collect()
    }

    #[test]
    fn each_stage_of_a_plugin_s_life_is_told_by_its_condition_and_the_last_good_one_is_kept() {
        let serves = status(
            DevicePluginStatus::default(),
            &plugin_state(Some("1.0.0"), None),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(
            condition_texts(&serves),
            [
                "Resolved=True Resolved",
                "Verified=False UnsignedAllowed",
                "Ready=True Serving",
                "TypeConflict=False NoConflict",
                "Stalled=False Moving",
                "Reconciling=False Settled"
            ]
        );
        let away = plugin_state(Some("1.0.0"), Some((Stage::Resolve, "RegistryUnreachable")));
        let away = status(serves, &away, Timestamp::UNIX_EPOCH);
        assert_eq!(
            condition_texts(&away)[..3],
            [
                "Resolved=False RegistryUnreachable",
                "Verified=False UnsignedAllowed",
                "Ready=True ServingLastGood"
            ]
        );
        let refused = status(
            away,
            &plugin_state(None, Some((Stage::Verify, "Unsigned"))),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(
            condition_texts(&refused)[..3],
            ["Resolved=True Resolved", "Verified=False Unsigned", "Ready=False Unsigned"]
        );
        assert_eq!(
            condition_texts(&refused)[4..],
            ["Stalled=True Unsigned", "Reconciling=False Settled"]
        );
        assert_eq!(
            (&refused.digest, &refused.version, refused.last_error.as_deref()),
            (&None, &None, Some("why"))
        );
        assert_eq!(
            (refused.last_good_digest.as_deref(), refused.last_good_version.as_deref()),
            (Some("sha256:1.0.0"), Some("1.0.0"))
        );
    }

    #[test]
    fn a_signature_that_holds_is_told_though_a_later_step_fails() {
        let mut state = plugin_state(None, Some((Stage::Start, "CompileFailed")));
        let verified = |state: &PluginState| {
            let status = status(DevicePluginStatus::default(), state, Timestamp::UNIX_EPOCH);
            condition_texts(&status)
                .into_iter()
                .find(|condition| condition.starts_with("Verified"))
        };
        assert_eq!(verified(&state), None);
        for (signed, expected) in
            [(true, "Verified=True SignatureFound"), (false, "Verified=False UnsignedAllowed")]
        {
            state.failure = state.failure.map(|failure| failure.of_verified(signed));
            assert_eq!(verified(&state).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_type_that_another_plugin_keeps_is_named_with_it() {
        let kind = "esp32".parse().expect("a device type");
        let standing = Standing {
            kept: vec![(kind, "first".to_owned())],
            any_type: true,
            ..Standing::default()
        };
        let status = status(
            DevicePluginStatus::default(),
            &PluginState { standing, ..plugin_state(Some("1.0.0"), None) },
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(
            (condition_texts(&status)[3].as_str(), status.device_types),
            ("TypeConflict=True KeptByAnother", vec!["*".to_owned()])
        );
        assert!(
            status.conditions[3]
                .message
                .starts_with("device type esp32 is already served by plugin first; "),
            "{}",
            status.conditions[3].message
        );
    }
}
