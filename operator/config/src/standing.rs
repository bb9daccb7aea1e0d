//! Assignment of device types to plugins. Types in the configuration take precedence over those
//! that a plugin describes; otherwise the first plugin keeps the type. Pure.

use std::sync::Arc;

use flashjob_plugin_host::{Digest, Plugin, ServedTypes};
use flashjob_rules::flashjob::observed::{PluginView, ReadyPlugin};

use crate::PluginConfig;

/// Configured plugin, and the result of loading it.
pub struct ConfiguredPlugin {
    /// Its entry in the configuration.
    pub config: PluginConfig,
    /// Types that the plugin describes.
    pub described: Vec<ServedTypes>,
    /// True until loading has had a result.
    pub is_loading: bool,
    /// The plugin in service, or the reason why there is none.
    pub ready: Result<ReadyPlugin, String>,
}

impl ConfiguredPlugin {
    /// Creates a plugin whose loading has not had a result.
    #[must_use]
    pub fn loading(config: PluginConfig) -> Self {
        let ready = Err("it is being loaded".to_owned());
        Self { config, described: Vec::new(), is_loading: true, ready }
    }

    /// Puts the plugin into service.
    pub fn serve(&mut self, plugin: &Plugin) {
        self.described.clone_from(&plugin.info().device_types);
        self.is_loading = false;
        self.ready = Ok(ReadyPlugin {
            digest: plugin.digest().clone(),
            version: plugin.info().version.to_string(),
        });
    }

    /// Takes the plugin out of service for this cause.
    pub fn withhold(&mut self, cause: &str) {
        self.is_loading = false;
        self.ready = Err(cause.to_owned());
    }
}

/// Types that one plugin serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Types that the plugin serves.
    pub device_types: Vec<ServedTypes>,
    /// True if the plugin serves any type that no other plugin serves.
    pub any_type: bool,
    /// Types that the plugin would serve, and the plugins that serve them instead.
    pub kept: Vec<(ServedTypes, String)>,
}

/// Returns the rules' view of the plugin at `index`. `digests` are those of its loaded versions.
#[must_use]
pub fn view(plugins: &[ConfiguredPlugin], index: usize, digests: Vec<Digest>) -> PluginView {
    let ConfiguredPlugin { config, ready, is_loading, .. } = &plugins[index];
    let Standing { device_types, any_type, .. } = standing(plugins, index);
    PluginView {
        name: config.name.clone(),
        reference: config.image.to_string(),
        device_types,
        any_type,
        is_loading: *is_loading,
        ready: ready.clone(),
        digests,
        flash_image: config.flash_image.clone(),
        settings: config.settings.clone(),
        locked_settings: config.locked_settings.clone(),
        grants: Arc::new(config.grants.clone()),
    }
}

/// Returns the types that the plugin at `index` serves.
#[must_use]
pub fn standing(plugins: &[ConfiguredPlugin], index: usize) -> Standing {
    let plugin = &plugins[index];
    let any_type = plugin.config.device_types.iter().flatten().any(|text| text == "*");
    let (own_types, described) = match configured(plugin) {
        Some(types) => (types, false),
        None => (plugin.described.clone(), true),
    };
    let keeper = |kind: &ServedTypes| {
        let mut candidates = plugins.iter().enumerate();
        candidates.find(|(other, of)| match configured(of) {
            Some(types) => types.contains(kind) && (described || *other < index),
            None => described && *other < index && of.described.contains(kind),
        })
    };
    let mut standing = Standing { any_type, ..Standing::default() };
    for kind in own_types {
        match keeper(&kind) {
            Some((_, other)) => standing.kept.push((kind, other.config.name.clone())),
            None => standing.device_types.push(kind),
        }
    }
    standing
}

fn configured(plugin: &ConfiguredPlugin) -> Option<Vec<ServedTypes>> {
    let types = plugin.config.device_types.as_ref()?;
    // `*` is no type of its own, and is left out here: it stands for what no other plugin serves.
    Some(types.iter().filter_map(|text| text.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured_plugin(name: &str, configured: &[&str], described: &[&str]) -> ConfiguredPlugin {
        let mut config = serde_json::json!({"name": name, "image": "registry.example/a:1"});
        if !configured.is_empty() {
            config["deviceTypes"] = serde_json::json!(configured);
        }
        let described = described.iter().filter_map(|text| text.parse().ok()).collect();
        ConfiguredPlugin {
            config: serde_json::from_value(config).expect("a plugin"),
            described,
            is_loading: false,
            ready: Err(String::new()),
        }
    }

    fn served(plugins: &[ConfiguredPlugin]) -> Vec<String> {
        let types = |index| {
            standing(plugins, index)
                .device_types
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        (0..plugins.len()).map(types).collect()
    }

    #[test]
    fn a_configured_type_beats_a_described_one_and_the_first_beats_the_second() {
        let all = [
            configured_plugin("a", &[], &["x", "y"]),
            configured_plugin("b", &["x"], &["z"]),
            configured_plugin("c", &[], &["y", "z"]),
            configured_plugin("d", &["x"], &[]),
        ];
        assert_eq!(served(&all), ["y", "x", "z", ""]);
        let kept = |index| {
            standing(&all, index)
                .kept
                .iter()
                .map(|(kind, by)| format!("{kind} {by}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (0..4).map(kept).collect::<Vec<_>>(),
            [vec!["x b"], vec![], vec!["y a"], vec!["x b"]]
        );
    }
}
