//! Plugins of the preview, each with its entry in the operator's configuration.

use flashjob_config::{OperatorConfig, PluginConfig};
use flashjob_plugin_host::Plugin;
use serde_json::json;

use super::options::Preview;
use crate::failure::Failure;
use crate::source::{self, ComponentSource, RegistryOptions};

/// A plugin, with its entry in the operator's configuration.
pub struct Served {
    /// Entry of the plugin; a default one if it has none.
    pub config: PluginConfig,
    /// The loaded plugin, or the reason why it cannot be loaded.
    pub plugin: Result<Plugin, String>,
    /// Keeps the folder of the compiled plugin until this value is dropped.
    _source: Option<ComponentSource>,
}

/// Loads the plugins that the options name, else those of the configuration; `notes` gets those of
/// the configuration that cannot be loaded.
///
/// # Errors
/// A plugin that the options name cannot be loaded.
pub async fn plugins(
    command: &Preview,
    registry: &RegistryOptions,
    config: &OperatorConfig,
    notes: &mut Vec<String>,
) -> Result<Vec<Served>, Failure> {
    let mut served = Vec::new();
    for named in &command.plugin {
        let source = ComponentSource::new(named, registry, &command.trust).await?;
        let plugin = source.start(&source.verify().await?).await?;
        let name = plugin.info().name.clone();
        let entry = config.plugins.iter().find(|entry| entry.name == name).cloned();
        let config = match entry {
            Some(entry) => entry,
            None => made_up(&name, named)?,
        };
        served.push(Served { config, plugin: Ok(plugin), _source: Some(source) });
    }
    if !served.is_empty() {
        return Ok(served);
    }
    for entry in &config.plugins {
        let loaded = async {
            let source =
                ComponentSource::of(entry.image.clone(), registry, &command.trust).await?;
            let plugin = source.start(&source.verify().await?).await?;
            Ok::<_, Failure>((source, plugin))
        };
        served.push(match loaded.await {
            Ok((source, plugin)) => {
                Served { config: entry.clone(), plugin: Ok(plugin), _source: Some(source) }
            }
            Err(failure) => {
                notes.push(format!("plugin {} cannot be loaded: {}", entry.name, failure.message));
                Served { config: entry.clone(), plugin: Err(failure.message), _source: None }
            }
        });
    }
    Ok(served)
}

/// Returns an entry for a plugin that the configuration does not have: it has no grants.
fn made_up(name: &str, named: &str) -> Result<PluginConfig, Failure> {
    let image = source::reference(named)?.to_string();
    let entry = json!({"name": name, "image": image, "allowUnsigned": true});
    serde_json::from_value(entry)
        .map_err(|error| Failure::usage(format!("{named} cannot be a plugin: {error}")))
}
