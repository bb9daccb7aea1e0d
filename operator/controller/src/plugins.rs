//! The plugins: which are configured, which are loaded, and who keeps them so. Each is kept by a task of its own.

mod events;
mod keep;
mod load;
mod recorded;
mod show;
mod standing;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use flashjob_plugin_host::{DeviceType, Digest, EngineError, Host, HostSettings, Plugin, Stage};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::arguments::Arguments;
use crate::config::{OperatorConfig, PluginConfig};
use crate::observed::{PluginView, ReadyPlugin};
use crate::operator::Operator;
use crate::world::Rules;
pub(crate) use load::Failure;
use load::Loads;
use recorded::Records;
use standing::Standing;

/// Digests of one plugin that are kept: Pods that an older one began with are judged by it.
const DIGESTS: usize = 8;

/// The loaded plugins.
#[derive(Clone)]
pub struct Plugins {
    inner: Arc<RwLock<Inner>>,
    changes: watch::Sender<()>,
}

impl Default for Plugins {
    fn default() -> Self {
        Self { inner: Arc::default(), changes: watch::Sender::new(()) }
    }
}

#[derive(Default)]
struct Inner {
    /// By name. Of those that no longer serve the one used last stands last.
    loaded: HashMap<String, Vec<Plugin>>,
    known: Vec<Known>,
    /// How each configured plugin is loaded.
    loads: HashMap<String, Loads>,
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
        self.read().loaded.get(name)?.iter().find(|plugin| plugin.digest() == digest).cloned()
    }

    /// The same; one that is not loaded, as after a restart, is loaded from the cache or from where it comes from, and verified again.
    ///
    /// # Errors
    /// It cannot be had, or may no longer be run.
    pub(crate) async fn recall(&self, name: &str, digest: &Digest) -> Result<Plugin, Failure> {
        if let Some(plugin) = self.get(name, digest) {
            return Ok(plugin);
        }
        let loads = self.read().loads.get(name).cloned();
        let unknown = || Failure::new(Stage::Resolve, "NotConfigured", format!("the configuration has no plugin {name}"));
        let plugin = loads.ok_or_else(unknown)?.recall(digest).await?;
        tracing::info!(plugin = name, %digest, "an earlier digest of the plugin is loaded, to judge what it began");
        self.keep(&plugin);
        Ok(plugin)
    }

    /// Takes the configured plugins; what serves goes on serving. Where trust may have changed, whatever else is loaded is forgotten: who
    /// asks for it has it verified again.
    fn configure(&self, plugins: &[PluginConfig], trust_changed: bool) {
        let mut inner = self.write();
        let mut before: HashMap<String, Known> = inner.known.drain(..).map(|known| (known.config.name.clone(), known)).collect();
        let known = plugins.iter().map(|config| match before.remove(&config.name) {
            Some(known) => Known { config: config.clone(), ..known },
            None => Known { config: config.clone(), described: Vec::new(), ready: Err("it is being loaded".to_owned()) },
        });
        inner.known = known.collect();
        let Inner { loaded, known, .. } = &mut *inner;
        for (name, digests) in loaded {
            let serving = known.iter().find(|known| known.config.name == *name).and_then(|known| known.ready.as_ref().ok());
            digests.retain(|plugin| !trust_changed || serving.is_some_and(|ready| ready.digest == *plugin.digest()));
        }
        drop(inner);
        self.changes.send_replace(());
    }

    /// Has a plugin serve from now on.
    fn serve(&self, plugin: &Plugin) {
        let name = &plugin.info().name;
        let mut inner = self.write();
        if let Some(known) = inner.known.iter_mut().find(|known| known.config.name == *name) {
            known.described.clone_from(&plugin.info().device_types);
            known.ready = Ok(ReadyPlugin { digest: plugin.digest().clone(), version: plugin.info().version.to_string() });
        }
        drop(inner);
        self.keep(plugin);
        self.changes.send_replace(());
    }

    /// Keeps a plugin at hand, and forgets the one that was not used for longest.
    fn keep(&self, plugin: &Plugin) {
        let mut inner = self.write();
        let Inner { loaded, known, .. } = &mut *inner;
        let name = &plugin.info().name;
        let serving = known.iter().find(|known| known.config.name == *name).and_then(|known| known.ready.as_ref().ok());
        let serves = |plugin: &Plugin| serving.is_some_and(|ready| ready.digest == *plugin.digest());
        let digests = loaded.entry(name.clone()).or_default();
        digests.retain(|other| other.digest() != plugin.digest());
        digests.push(plugin.clone());
        if digests.len() > DIGESTS
            && let Some(longest) = digests.iter().position(|plugin| !serves(plugin))
        {
            digests.remove(longest);
        }
    }

    /// No digest of that plugin serves, and why.
    fn withhold(&self, name: &str, why: &str) {
        if let Some(known) = self.write().known.iter_mut().find(|known| known.config.name == name) {
            known.ready = Err(why.to_owned());
        }
        self.changes.send_replace(());
    }

    /// The plugin of that name that serves.
    fn serving(&self, name: &str) -> Option<Plugin> {
        let inner = self.read();
        let ready = inner.known.iter().find(|known| known.config.name == name)?.ready.as_ref().ok()?;
        inner.loaded.get(name)?.iter().find(|plugin| *plugin.digest() == ready.digest).cloned()
    }

    /// What a plugin serves beside the others.
    fn standing(&self, name: &str) -> Standing {
        let inner = self.read();
        let index = inner.known.iter().position(|known| known.config.name == name);
        index.map(|index| standing::standing(&inner.known, index)).unwrap_or_default()
    }

    /// Tells when any plugin begins or ceases to serve.
    fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What plans know of the plugins.
    #[must_use]
    pub fn views(&self) -> Vec<PluginView> {
        let inner = self.read();
        let digests = |name: &str| inner.loaded.get(name).into_iter().flatten().map(|plugin| plugin.digest().clone()).collect();
        let views = inner.known.iter().enumerate();
        views.map(|(index, known)| view(&inner.known, index, digests(&known.config.name))).collect()
    }
}

fn view(known: &[Known], index: usize, digests: Vec<Digest>) -> PluginView {
    let Known { config, ready, .. } = &known[index];
    let Standing { device_types, any_type, .. } = standing::standing(known, index);
    PluginView {
        name: config.name.clone(),
        reference: config.image.to_string(),
        device_types,
        any_type,
        ready: ready.clone(),
        digests,
        settings: config.settings.clone(),
        locked_settings: config.locked_settings.clone(),
        grants: Arc::new(config.grants.clone()),
    }
}

/// Keeps the configured plugins loaded, through every change of the configuration.
pub struct Loader {
    operator: Arc<Operator>,
    arguments: Arguments,
    namespace: String,
    config: OperatorConfig,
    host: Host,
    records: Records,
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
            records: Records::follow(&operator.client),
            tasks: HashMap::new(),
            removing: tokio::spawn(std::future::ready(())),
        };
        loader.take(config, true);
        Ok(loader)
    }

    /// Takes a changed configuration: all of it, or nothing. Keys and authorities may have changed with the text the same.
    ///
    /// # Errors
    /// The plugin host does not start with it.
    pub fn change(&mut self, config: OperatorConfig, files_changed: bool) -> Result<(), EngineError> {
        let same = !files_changed
            && config.limits == self.config.limits
            && config.registries == self.config.registries
            && config.trust == self.config.trust;
        if !same {
            self.host = host(&self.arguments, &config)?;
        }
        self.take(config, !same);
        Ok(())
    }

    /// Takes the same configuration again, with the keys and authorities as they are now.
    ///
    /// # Errors
    /// As [`Loader::change`].
    pub fn again(&mut self) -> Result<(), EngineError> {
        self.change(self.config.clone(), true)
    }

    /// Keys and authorities that the configuration names.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let keys = self.config.trust.iter().filter_map(|entry| entry.cosign.as_ref()).flat_map(|cosign| &cosign.public_key_files);
        keys.chain(self.config.registries.iter().filter_map(|registry| registry.ca_file.as_ref())).cloned().collect()
    }

    fn take(&mut self, config: OperatorConfig, all: bool) {
        self.operator.plugins.configure(&config.plugins, all);
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
        let (client, metrics, registries) = (&self.operator.client, &self.operator.metrics, &self.config.registries);
        let loads = |plugin| Loads::new(client, metrics, &self.host, &self.namespace, plugin, registries);
        let loads: HashMap<_, _> = self.config.plugins.iter().map(|plugin| (plugin.name.clone(), loads(plugin))).collect();
        for (name, loads) in &loads {
            if !self.tasks.contains_key(name) {
                let keeper = keep::Keeper::new(&self.operator, loads.clone(), self.records.clone());
                self.tasks.insert(name.clone(), tokio::spawn(keeper.run()));
            }
        }
        self.operator.plugins.write().loads = loads;
        publish(&self.operator);
        let (operator, names) = (self.operator.clone(), self.config.plugins.iter().map(|plugin| plugin.name.clone()).collect());
        self.removing.abort();
        self.removing = tokio::spawn(async move {
            operator.leadership.leads().await;
            show::remove_stale(&operator.client, names).await;
        });
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

    #[test]
    fn what_serves_goes_on_serving_when_its_entry_changes_and_ends_with_its_entry() {
        let plugins = Plugins::default();
        let config = |name: &str| -> PluginConfig {
            serde_json::from_value(serde_json::json!({"name": name, "image": "registry.example/a:1"})).expect("a plugin")
        };
        let a = config("a");
        plugins.configure(&[a.clone(), config("b")], true);
        let ready = ReadyPlugin { digest: Digest::of(b"a"), version: "1.0.0".into() };
        plugins.write().known[0].ready = Ok(ready.clone());
        let changed = PluginConfig { allow_downgrade: true, ..a };
        plugins.configure(std::slice::from_ref(&changed), false);
        assert_eq!(plugins.views().iter().map(|view| view.ready.clone()).collect::<Vec<_>>(), [Ok(ready)]);
        plugins.configure(&[], false);
        plugins.configure(&[changed], false);
        assert!(plugins.views()[0].ready.is_err());
    }
}
