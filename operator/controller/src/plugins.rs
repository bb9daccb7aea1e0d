//! The plugins: which are configured, which are loaded, and who keeps them so. Each is kept by a task of its own.

mod keep;
mod show;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use flashjob_plugin_host::{DeviceType, Digest, EngineError, Host, HostSettings, Plugin};
use tokio::task::JoinHandle;

use crate::arguments::Arguments;
use crate::config::{OperatorConfig, PluginConfig};
use crate::observed::{PluginView, ReadyPlugin};
use crate::operator::Operator;
use crate::world::Rules;

/// Digests of one plugin that are kept: Pods that an older one began with are judged by it.
const DIGESTS: usize = 8;

/// The loaded plugins.
#[derive(Clone, Default)]
pub struct Plugins(Arc<RwLock<Inner>>);

#[derive(Default)]
struct Inner {
    /// By name, the newest last. The newest serves.
    loaded: HashMap<String, Vec<Plugin>>,
    known: Vec<Known>,
}

/// A configured plugin, and what came of loading it.
struct Known {
    config: PluginConfig,
    described: Vec<DeviceType>,
    ready: Result<ReadyPlugin, String>,
}

impl Plugins {
    /// The plugin of that name and digest, also one that no longer serves.
    #[must_use]
    pub fn get(&self, name: &str, digest: &Digest) -> Option<Plugin> {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        inner.loaded.get(name)?.iter().find(|plugin| plugin.digest() == digest).cloned()
    }

    /// Takes the configured plugins; what serves goes on serving.
    fn configure(&self, plugins: &[PluginConfig]) {
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut before: HashMap<String, Known> = inner.known.drain(..).map(|known| (known.config.name.clone(), known)).collect();
        let known = plugins.iter().map(|config| match before.remove(&config.name) {
            Some(known) => Known { config: config.clone(), ..known },
            None => Known { config: config.clone(), described: Vec::new(), ready: Err("it is being loaded".to_owned()) },
        });
        inner.known = known.collect();
    }

    /// Has a plugin serve from now on.
    fn serve(&self, plugin: &Plugin) {
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let name = &plugin.info().name;
        let digests = inner.loaded.entry(name.clone()).or_default();
        digests.retain(|known| known.digest() != plugin.digest());
        digests.push(plugin.clone());
        let surplus = digests.len().saturating_sub(DIGESTS);
        digests.drain(..surplus);
        if let Some(known) = inner.known.iter_mut().find(|known| known.config.name == *name) {
            known.described.clone_from(&plugin.info().device_types);
            known.ready = Ok(ReadyPlugin { digest: plugin.digest().clone(), version: plugin.info().version.to_string() });
        }
    }

    /// No digest of that plugin serves, and why.
    fn withhold(&self, name: &str, why: &str) {
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = inner.known.iter_mut().find(|known| known.config.name == name) {
            known.ready = Err(why.to_owned());
        }
    }

    /// The plugin of that name that serves.
    fn serving(&self, name: &str) -> Option<Plugin> {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let ready = inner.known.iter().find(|known| known.config.name == name)?.ready.as_ref().ok()?;
        inner.loaded.get(name)?.iter().find(|plugin| *plugin.digest() == ready.digest).cloned()
    }

    /// What plans know of the plugins.
    #[must_use]
    pub fn views(&self) -> Vec<PluginView> {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let digests = |name: &str| inner.loaded.get(name).into_iter().flatten().map(|plugin| plugin.digest().clone()).collect();
        let views = inner.known.iter().enumerate();
        views.map(|(index, known)| view(&inner.known, index, digests(&known.config.name))).collect()
    }
}

fn view(known: &[Known], index: usize, digests: Vec<Digest>) -> PluginView {
    let Known { config, ready, .. } = &known[index];
    PluginView {
        name: config.name.clone(),
        reference: config.image.to_string(),
        device_types: types(known, index),
        any_type: config.device_types.iter().flatten().any(|text| text == "*"),
        ready: ready.clone(),
        digests,
        settings: config.settings.clone(),
        locked_settings: config.locked_settings.clone(),
        grants: Arc::new(config.grants.clone()),
    }
}

/// Types that are written in the configuration beat those that a plugin describes; among equals the first plugin keeps the type.
fn types(known: &[Known], index: usize) -> Vec<DeviceType> {
    let own = &known[index];
    let (mut own_types, described) = match configured(own) {
        Some(types) => (types, false),
        None => (own.described.clone(), true),
    };
    own_types.retain(|kind| {
        !known.iter().enumerate().any(|(other, of)| match configured(of) {
            Some(types) => types.contains(kind) && (described || other < index),
            None => described && other < index && of.described.contains(kind),
        })
    });
    own_types
}

fn configured(known: &Known) -> Option<Vec<DeviceType>> {
    let types = known.config.device_types.as_ref()?;
    Some(types.iter().filter_map(|text| text.parse().ok()).collect())
}

/// Keeps the configured plugins loaded, through every change of the configuration.
pub struct Loader {
    operator: Arc<Operator>,
    arguments: Arguments,
    namespace: String,
    config: OperatorConfig,
    host: Host,
    tasks: HashMap<String, JoinHandle<()>>,
    removing: JoinHandle<()>,
}

impl Loader {
    /// Begins to load what is configured.
    ///
    /// # Errors
    /// The plugin host does not start.
    pub fn start(operator: &Arc<Operator>, arguments: &Arguments, namespace: &str, config: OperatorConfig) -> Result<Self, EngineError> {
        let host = host(arguments, &config)?;
        let mut loader = Self {
            operator: operator.clone(),
            arguments: arguments.clone(),
            namespace: namespace.to_owned(),
            config: OperatorConfig::default(),
            host,
            tasks: HashMap::new(),
            removing: tokio::spawn(std::future::ready(())),
        };
        loader.take(config, true);
        Ok(loader)
    }

    /// Takes a changed configuration: all of it, or nothing.
    ///
    /// # Errors
    /// The plugin host does not start with it.
    pub fn change(&mut self, config: OperatorConfig) -> Result<(), EngineError> {
        let same = config.limits == self.config.limits && config.registries == self.config.registries && config.trust == self.config.trust;
        if !same {
            self.host = host(&self.arguments, &config)?;
        }
        self.take(config, !same);
        Ok(())
    }

    fn take(&mut self, config: OperatorConfig, all: bool) {
        self.operator.plugins.configure(&config.plugins);
        self.operator.world().rules = Rules::of(&config);
        let before = std::mem::replace(&mut self.config, config);
        self.tasks.retain(|name, task| {
            let stays = self.config.plugins.iter().find(|plugin| plugin.name == *name);
            let same = !all && stays.is_some_and(|plugin| before.plugins.contains(plugin));
            if !same {
                task.abort();
            }
            same
        });
        for plugin in &self.config.plugins {
            if !self.tasks.contains_key(&plugin.name) {
                self.tasks.insert(plugin.name.clone(), self.keep(plugin));
            }
        }
        publish(&self.operator);
        let (operator, names) = (self.operator.clone(), self.config.plugins.iter().map(|plugin| plugin.name.clone()).collect());
        self.removing.abort();
        self.removing = tokio::spawn(async move {
            operator.leadership.leads().await;
            show::remove_stale(&operator.client, names).await;
        });
    }

    fn keep(&self, plugin: &PluginConfig) -> JoinHandle<()> {
        let keeper = keep::Keeper::new(&self.operator, &self.host, &self.namespace, plugin, &self.config.registries);
        tokio::spawn(keeper.run())
    }
}

fn host(arguments: &Arguments, config: &OperatorConfig) -> Result<Host, EngineError> {
    Host::new(HostSettings {
        cache: arguments.cache.clone(),
        compiler: std::env::current_exe().map_err(|error| EngineError::Start(format!("this program's own file: {error}")))?,
        limits: config.limits,
        registries: config.registries.clone(),
        trust: config.trust.clone(),
    })
}

/// Lets the plans know, and looks at every job: its devices may have waited for this.
fn publish(operator: &Operator) {
    let views = operator.plugins.views();
    let mut world = operator.world();
    world.plugins = Arc::new(views);
    let jobs: Vec<_> = world.jobs.keys().cloned().collect();
    drop(world);
    operator.look_at(jobs);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str, configured: &[&str], described: &[&str]) -> Known {
        let mut config = serde_json::json!({"name": name, "image": "registry.example/a:1"});
        if !configured.is_empty() {
            config["deviceTypes"] = serde_json::json!(configured);
        }
        let described = described.iter().filter_map(|text| text.parse().ok()).collect();
        Known { config: serde_json::from_value(config).expect("a plugin"), described, ready: Err(String::new()) }
    }

    fn served(known: &[Known]) -> Vec<String> {
        let types = |index| types(known, index).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        (0..known.len()).map(types).collect()
    }

    #[test]
    fn a_configured_type_beats_a_described_one_and_the_first_beats_the_second() {
        let all = [known("a", &[], &["x", "y"]), known("b", &["x"], &["z"]), known("c", &[], &["y", "z"]), known("d", &["x"], &[])];
        assert_eq!(served(&all), ["y", "x", "z", ""]);
    }

    #[test]
    fn what_serves_goes_on_serving_when_its_entry_changes_and_ends_with_its_entry() {
        let plugins = Plugins::default();
        let (a, b) = (known("a", &[], &[]).config, known("b", &[], &[]).config);
        plugins.configure(&[a.clone(), b]);
        let ready = ReadyPlugin { digest: Digest::of(b"a"), version: "1.0.0".into() };
        plugins.0.write().expect("not poisoned").known[0].ready = Ok(ready.clone());
        let changed = PluginConfig { allow_downgrade: true, ..a };
        plugins.configure(std::slice::from_ref(&changed));
        assert_eq!(plugins.views().iter().map(|view| view.ready.clone()).collect::<Vec<_>>(), [Ok(ready)]);
        plugins.configure(&[]);
        plugins.configure(&[changed]);
        assert!(plugins.views()[0].ready.is_err());
    }
}
