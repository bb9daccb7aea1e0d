//! Loads the configured plugins, keeps them, and shows them as DevicePlugin objects.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use flashjob_api::{DevicePlugin, DevicePluginSpec, DevicePluginStatus, condition};
use flashjob_plugin_host::{Credentials, Digest, Host, LoadError, Plugin, PluginSource, Reference, parse_docker_config_json};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::config::{OperatorConfig, PluginConfig};
use crate::observed::{PluginView, ReadyPlugin, whole_seconds};
use crate::operator::Operator;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The loaded plugins, by name and digest.
#[derive(Clone, Default)]
pub struct Plugins(Arc<RwLock<HashMap<(String, Digest), Plugin>>>);

impl Plugins {
    /// The plugin of that name and digest.
    #[must_use]
    pub fn get(&self, name: &str, digest: &Digest) -> Option<Plugin> {
        let loaded = self.0.read().unwrap_or_else(PoisonError::into_inner);
        loaded.get(&(name.to_owned(), digest.clone())).cloned()
    }

    fn put(&self, name: &str, plugin: Plugin) {
        let key = (name.to_owned(), plugin.digest().clone());
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key, plugin);
    }
}

/// What is known of the plugins before any is loaded.
#[must_use]
pub fn views(config: &OperatorConfig) -> Vec<PluginView> {
    let view = |plugin: &PluginConfig| {
        let types = plugin.device_types.iter().flatten();
        PluginView {
            name: plugin.name.clone(),
            reference: plugin.image.to_string(),
            device_types: types.clone().filter_map(|text| text.parse().ok()).collect(),
            any_type: types.clone().any(|text| text == "*"),
            ready: Err("it is being loaded".to_owned()),
            settings: plugin.settings.clone(),
            locked_settings: plugin.locked_settings.clone(),
            grants: Arc::new(plugin.grants.clone()),
        }
    };
    config.plugins.iter().map(view).collect()
}

/// Loads every plugin, and tries again what may work later.
pub fn start(operator: &Arc<Operator>, config: &OperatorConfig, host: &Host, namespace: &str) {
    for plugin in config.plugins.clone() {
        let secret = match &plugin.image {
            Reference::Registry { host, .. } => {
                let registry = config.registries.iter().find(|registry| registry.host.eq_ignore_ascii_case(host));
                registry
                    .and_then(|registry| registry.credentials.as_ref())
                    .map(|credentials| (credentials.secret_name.clone(), host.clone()))
            }
            Reference::File { .. } => None,
        };
        let (operator, host, namespace) = (operator.clone(), host.clone(), namespace.to_owned());
        tokio::spawn(async move { keep_loading(&operator, &host, &plugin, secret, &namespace).await });
    }
    let (operator, names) = (operator.clone(), config.plugins.iter().map(|plugin| plugin.name.clone()).collect());
    tokio::spawn(async move {
        operator.leadership.leads().await;
        remove_stale(&operator.client, names).await;
    });
}

async fn keep_loading(operator: &Arc<Operator>, host: &Host, plugin: &PluginConfig, secret: Option<(String, String)>, namespace: &str) {
    let source = PluginSource {
        name: plugin.name.clone(),
        reference: plugin.image.clone(),
        pull_policy: plugin.pull_policy,
        allow_unsigned: plugin.allow_unsigned,
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let loaded = load(operator, host, &source, secret.as_ref(), namespace).await;
        let ready = loaded.is_ok();
        match &loaded {
            Ok(plugin) => {
                tracing::info!(plugin = source.name, digest = %plugin.digest(), version = %plugin.info().version, "the plugin is ready");
                operator.plugins.put(&source.name, plugin.clone());
            }
            Err(error) => tracing::warn!(plugin = source.name, error, "the plugin cannot be loaded"),
        }
        publish(operator, plugin, &loaded);
        if !operator.leadership.is_leading() {
            // A standby has its plugins at hand, and leaves it to the leader to write. What failed is tried again there too.
            let shown_later = tokio::time::timeout(if ready { Duration::MAX } else { pause }, operator.leadership.leads());
            if shown_later.await.is_err() {
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
        }
        if let Err(error) = show(&operator.client, plugin, &loaded).await {
            tracing::warn!(plugin = source.name, %error, "the DevicePlugin object cannot be written");
        } else if ready {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn load(
    operator: &Operator,
    host: &Host,
    source: &PluginSource,
    secret: Option<&(String, String)>,
    namespace: &str,
) -> Result<Plugin, String> {
    let credentials = match secret {
        Some((secret, registry)) => Some(credentials(&operator.client, namespace, secret, registry).await?),
        None => None,
    };
    let loaded = host.load(source, credentials.as_ref()).await;
    operator.metrics.plugin_loaded(&source.name, loaded.as_ref().err());
    loaded.map_err(|error: LoadError| error.to_string())
}

async fn credentials(client: &Client, namespace: &str, name: &str, registry: &str) -> Result<Credentials, String> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = secrets
        .get(name)
        .await
        .map_err(|error| format!("cannot read Secret {namespace}/{name} with the credentials of registry {registry}: {error}"))?;
    let text = secret.data.as_ref().and_then(|data| data.get(".dockerconfigjson"));
    let text = text.ok_or_else(|| {
        format!("Secret {namespace}/{name} has no key .dockerconfigjson; make it with kubectl create secret docker-registry")
    })?;
    parse_docker_config_json(&text.0, registry).map_err(|error| format!("Secret {namespace}/{name}: {error}"))
}

/// Lets the plans know, and looks at every job: its devices may have waited for this.
fn publish(operator: &Operator, plugin: &PluginConfig, loaded: &Result<Plugin, String>) {
    let mut world = operator.world();
    let mut views = Vec::clone(&world.plugins);
    if let Some(view) = views.iter_mut().find(|view| view.name == plugin.name) {
        match loaded {
            Ok(loaded) => {
                if plugin.device_types.is_none() {
                    view.device_types.clone_from(&loaded.info().device_types);
                }
                view.ready = Ok(ReadyPlugin { digest: loaded.digest().clone(), version: loaded.info().version.to_string() });
            }
            Err(error) => view.ready = Err(error.clone()),
        }
    }
    world.plugins = Arc::new(views);
    let jobs: Vec<_> = world.jobs.keys().cloned().collect();
    drop(world);
    operator.look_at(jobs);
}

/// Writes the DevicePlugin object.
async fn show(client: &Client, plugin: &PluginConfig, loaded: &Result<Plugin, String>) -> kube::Result<()> {
    let plugins: Api<DevicePlugin> = Api::all(client.clone());
    let object = DevicePlugin::new(&plugin.name, DevicePluginSpec { image: plugin.image.to_string() });
    let manager = PatchParams::apply("flashjob-operator").force();
    let stored = plugins.patch(&plugin.name, &manager, &Patch::Apply(&object)).await?;
    let status = status(stored.status.unwrap_or_default(), plugin, loaded);
    plugins.patch_status(&plugin.name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await?;
    Ok(())
}

fn status(mut status: DevicePluginStatus, plugin: &PluginConfig, loaded: &Result<Plugin, String>) -> DevicePluginStatus {
    let now = whole_seconds(Timestamp::now());
    let mut set = |kind: &str, holds: bool, reason: &str, message: &str| {
        condition::set(&mut status.conditions, kind, holds, reason, message, None, now)
    };
    match loaded {
        Ok(loaded) => {
            set("Resolved", true, "Resolved", "");
            set("Verified", loaded.signed(), if loaded.signed() { "SignatureFound" } else { "UnsignedAllowed" }, "");
            set("Ready", true, "Serving", "");
            let described = || loaded.info().device_types.iter().map(ToString::to_string).collect();
            status.digest = Some(loaded.digest().to_string());
            status.last_good_digest.clone_from(&status.digest);
            status.version = Some(loaded.info().version.to_string());
            status.device_types = plugin.device_types.clone().unwrap_or_else(described);
            status.wit_version = Some(loaded.wit_version().to_owned());
            status.last_error = None;
        }
        Err(error) => {
            set("Ready", false, "LoadFailed", error);
            status.last_error = Some(error.clone());
        }
    }
    status
}

/// DevicePlugins that the configuration no longer names are removed: nobody else writes them.
async fn remove_stale(client: &Client, names: Vec<String>) {
    let plugins: Api<DevicePlugin> = Api::all(client.clone());
    let Ok(listed) = plugins.list(&kube::api::ListParams::default()).await else { return };
    for plugin in listed.items.into_iter().map(|plugin| plugin.name_any()).filter(|name| !names.contains(name)) {
        if let Err(error) = plugins.delete(&plugin, &DeleteParams::default()).await {
            tracing::warn!(plugin, %error, "a DevicePlugin that is no longer configured cannot be removed");
        }
    }
}
