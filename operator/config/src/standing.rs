//! Types that each plugin serves beside the others. Types that are written in the configuration
//! beat those that a plugin describes; among equals the first plugin keeps the type. Pure.

use std::sync::Arc;

use flashjob_plugin_host::{Digest, Plugin, ServedTypes};
use flashjob_rules::flashjob::observed::{PluginView, ReadyPlugin};

use crate::PluginConfig;

/// A configured plugin, and what came of loading it.
pub struct ConfiguredPlugin {
    /// Its entry in the configuration.
    pub config: PluginConfig,
    /// Types that it describes.
    pub described: Vec<ServedTypes>,
    /// True if nothing came of loading it yet.
    pub is_loading: bool,
    /// The plugin that serves, or the reason why none does.
    pub ready: Result<ReadyPlugin, String>,
}

impl ConfiguredPlugin {
    /// A plugin of which nothing is known yet but its entry in the configuration.
    #[must_use]
    pub fn loading(config: PluginConfig) -> Self {
        let ready = Err("it is being loaded".to_owned());
        Self { config, described: Vec::new(), is_loading: true, ready }
    }

    /// The plugin serves from now on.
    pub fn serve(&mut self, plugin: &Plugin) {
        self.described.clone_from(&plugin.info().device_types);
        self.is_loading = false;
        self.ready = Ok(ReadyPlugin {
            digest: plugin.digest().clone(),
            version: plugin.info().version.to_string(),
        });
    }

    /// No digest of the plugin serves, for this cause.
    pub fn withhold(&mut self, cause: &str) {
        self.is_loading = false;
        self.ready = Err(cause.to_owned());
    }
}

/// Types that one plugin serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its types.
    pub device_types: Vec<ServedTypes>,
    /// True if it serves any type that no other plugin serves.
    pub any_type: bool,
    /// Types that it would serve, and the plugins that keep them.
    pub kept: Vec<(ServedTypes, String)>,
}

/// The plugin at `index` as the rules look at it. `digests` are those of it that are loaded.
#[must_use]
pub fn view(known: &[ConfiguredPlugin], index: usize, digests: Vec<Digest>) -> PluginView {
    let ConfiguredPlugin { config, ready, is_loading, .. } = &known[index];
    let Standing { device_types, any_type, .. } = standing(known, index);
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

/// Types that the plugin at `index` serves.
#[must_use]
pub fn standing(known: &[ConfiguredPlugin], index: usize) -> Standing {
    let own = &known[index];
    let any_type = own.config.device_types.iter().flatten().any(|text| text == "*");
    let (own_types, described) = match configured(own) {
        Some(types) => (types, false),
        None => (own.described.clone(), true),
    };
    let keeper = |kind: &ServedTypes| {
        let mut others = known.iter().enumerate();
        others.find(|(other, of)| match configured(of) {
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

fn configured(known: &ConfiguredPlugin) -> Option<Vec<ServedTypes>> {
    let types = known.config.device_types.as_ref()?;
    Some(types.iter().filter_map(|text| text.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str, configured: &[&str], described: &[&str]) -> ConfiguredPlugin {
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

    fn served(known: &[ConfiguredPlugin]) -> Vec<String> {
        let types = |index| {
            standing(known, index)
                .device_types
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        (0..known.len()).map(types).collect()
    }

    #[test]
    fn a_configured_type_beats_a_described_one_and_the_first_beats_the_second() {
        let all = [
            known("a", &[], &["x", "y"]),
            known("b", &["x"], &["z"]),
            known("c", &[], &["y", "z"]),
            known("d", &["x"], &[]),
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
