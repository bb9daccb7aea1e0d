//! Writes DevicePlugin objects: what is loaded, and what keeps it from being loaded.

use flashjob_api::{DevicePlugin, DevicePluginSpec, DevicePluginStatus, condition};
use flashjob_plugin_host::{Plugin, Stage};
use jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::keep::Failure;
use crate::config::PluginConfig;
use crate::observed::whole_seconds;

/// Writes the object of one plugin, where it differs.
pub(super) async fn show(client: &Client, plugin: &PluginConfig, serving: Option<&Plugin>, failure: Option<&Failure>) -> kube::Result<()> {
    let plugins: Api<DevicePlugin> = Api::all(client.clone());
    let object = DevicePlugin::new(&plugin.name, DevicePluginSpec { image: plugin.image.to_string() });
    let manager = PatchParams::apply("flashjob-operator").force();
    let stored = plugins.patch(&plugin.name, &manager, &Patch::Apply(&object)).await?.status.unwrap_or_default();
    let status = status(stored.clone(), plugin, serving, failure);
    if status != stored {
        plugins.patch_status(&plugin.name, &PatchParams::default(), &Patch::Merge(json!({"status": with_nulls(&status)}))).await?;
    }
    Ok(())
}

/// A merge patch removes only what it names.
fn with_nulls(status: &DevicePluginStatus) -> Value {
    let mut value = json!({"digest": null, "version": null, "witVersion": null, "lastError": null});
    if let (Some(target), Value::Object(fields)) = (value.as_object_mut(), json!(status)) {
        target.extend(fields);
    }
    value
}

fn status(
    mut status: DevicePluginStatus,
    plugin: &PluginConfig,
    serving: Option<&Plugin>,
    failure: Option<&Failure>,
) -> DevicePluginStatus {
    let described = |serving: &Plugin| serving.info().device_types.iter().map(ToString::to_string).collect();
    status.digest = serving.map(|serving| serving.digest().to_string());
    status.version = serving.map(|serving| serving.info().version.to_string());
    status.wit_version = serving.map(|serving| serving.wit_version().to_owned());
    status.device_types = plugin.device_types.clone().or(serving.map(described)).unwrap_or_default();
    status.last_error = failure.map(|failure| failure.message.clone());
    if status.digest.is_some() {
        status.last_good_digest.clone_from(&status.digest);
    }
    let now = whole_seconds(Timestamp::now());
    let mut set = |kind: &str, holds: bool, reason: &str, message: &str| {
        condition::set(&mut status.conditions, kind, holds, reason, message, None, now)
    };
    let message = failure.map_or("", |failure| &failure.message);
    match failure {
        Some(failure) if failure.stage == Stage::Resolve => set("Resolved", false, failure.reason, message),
        _ => set("Resolved", true, "Resolved", ""),
    }
    match (failure, serving) {
        (Some(failure), _) if failure.stage == Stage::Verify => set("Verified", false, failure.reason, message),
        (_, Some(serving)) => {
            set("Verified", serving.signed(), if serving.signed() { "SignatureFound" } else { "UnsignedAllowed" }, "");
        }
        _ => {}
    }
    match (serving, failure) {
        (Some(_), None) => set("Ready", true, "Serving", ""),
        (Some(_), Some(_)) => set("Ready", true, "ServingLastGood", message),
        (None, Some(failure)) => set("Ready", false, failure.reason, message),
        (None, None) => set("Ready", false, "Loading", "it is being loaded"),
    }
    status
}

/// DevicePlugins that the configuration no longer names are removed: nobody else writes them.
pub(super) async fn remove_stale(client: &Client, names: Vec<String>) {
    let plugins: Api<DevicePlugin> = Api::all(client.clone());
    let Ok(listed) = plugins.list(&ListParams::default()).await else { return };
    for plugin in listed.items.into_iter().map(|plugin| plugin.name_any()).filter(|name| !names.contains(name)) {
        if let Err(error) = plugins.delete(&plugin, &DeleteParams::default()).await {
            tracing::warn!(plugin, %error, "a DevicePlugin that is no longer configured cannot be removed");
        }
    }
}
