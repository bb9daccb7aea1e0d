//! Configured and loaded plugins. A task per plugin keeps it loaded, on threads that only plugins
//! use.

mod events;
mod keep;
mod load;
pub mod loader;
mod recorded;
mod show;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use flashjob_plugin_host::{Digest, Plugin, Stage};
use flashjob_rules::flashjob::observed::PluginView;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use flashjob_config::PluginConfig;
use flashjob_config::standing::{ConfiguredPlugin, Standing, standing, view};
pub(crate) use load::LoadFailure;
use load::Loads;

/// Number of digests of one plugin that are kept: Pods that began with an older digest are judged
/// by it.
const DIGESTS: usize = 8;

/// The loaded plugins.
#[derive(Clone)]
pub struct Plugins {
    inner: Arc<RwLock<Inner>>,
    changes: watch::Sender<()>,
    threads: Handle,
}

#[derive(Default)]
struct Inner {
    /// Loaded digests by plugin name; the one that was loaded last is last.
    loaded: HashMap<String, Vec<Plugin>>,
    entries: Vec<ConfiguredPlugin>,
    /// Everything needed to load each configured plugin, by name.
    loads: HashMap<String, Loads>,
}

impl Plugins {
    /// Returns an empty set. Plugins are loaded and called on these threads, so that a call that
    /// never ends blocks no other work.
    #[must_use]
    pub fn new(threads: Handle) -> Self {
        Self { inner: Arc::default(), changes: watch::Sender::new(()), threads }
    }

    /// Spawns a task on the plugin threads.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.threads.spawn(work)
    }

    /// Returns the loaded plugin of that name and digest, including one that no longer serves.
    #[must_use]
    pub fn get(&self, name: &str, digest: &Digest) -> Option<Plugin> {
        self.read().loaded.get(name)?.iter().find(|plugin| plugin.digest() == digest).cloned()
    }

    /// Returns the plugin of that name and digest. If it is not loaded, as after a restart, loads
    /// it from the cache or its source, and verifies it again.
    ///
    /// # Errors
    /// The plugin is not available, or no longer allowed to run.
    pub(crate) async fn recall(&self, name: &str, digest: &Digest) -> Result<Plugin, LoadFailure> {
        if let Some(plugin) = self.get(name, digest) {
            return Ok(plugin);
        }
        // Copied, so that the lock is not held while the plugin is fetched and compiled.
        let loads = self.read().loads.get(name).cloned();
        let unknown = || {
            LoadFailure::new(
                Stage::Resolve,
                "NotConfigured",
                format!("the configuration has no plugin {name}"),
            )
        };
        let plugin = loads.ok_or_else(unknown)?.recall(digest).await?;
        tracing::info!(
            plugin = name, %digest,
            "loaded an earlier digest of the plugin, to judge the attempts that began with it"
        );
        self.keep(&plugin);
        Ok(plugin)
    }

    /// Sets the configured plugins; those that serve continue to serve. If trust may have changed,
    /// all other loaded digests are dropped, so that they are verified again before their next
    /// use.
    pub fn configure(&self, plugins: &[PluginConfig], trust_changed: bool) {
        let mut inner = self.write();
        let mut before: HashMap<String, ConfiguredPlugin> =
            inner.entries.drain(..).map(|entry| (entry.config.name.clone(), entry)).collect();
        let entries = plugins.iter().map(|config| match before.remove(&config.name) {
            Some(entry) => ConfiguredPlugin { config: config.clone(), ..entry },
            None => ConfiguredPlugin::loading(config.clone()),
        });
        inner.entries = entries.collect();
        let Inner { loaded, entries, .. } = &mut *inner;
        for (name, digests) in loaded {
            let serving = entries
                .iter()
                .find(|entry| entry.config.name == *name)
                .and_then(|entry| entry.ready.as_ref().ok());
            // What serves goes on until its keeper has verified it again: a key that changes for
            // one plugin must not interrupt the others.
            digests.retain(|plugin| {
                !trust_changed || serving.is_some_and(|ready| ready.digest == *plugin.digest())
            });
        }
        drop(inner);
        self.changes.send_replace(());
    }

    /// Puts a plugin into service.
    pub fn serve(&self, plugin: &Plugin) {
        let name = &plugin.info().name;
        let mut inner = self.write();
        // A configuration that changed meanwhile may no longer have the plugin.
        if let Some(entry) = inner.entries.iter_mut().find(|entry| entry.config.name == *name) {
            entry.serve(plugin);
        }
        drop(inner);
        self.keep(plugin);
        self.changes.send_replace(());
    }

    /// Keeps a plugin loaded. Beyond [`DIGESTS`], drops the oldest digest that does not serve.
    fn keep(&self, plugin: &Plugin) {
        let mut inner = self.write();
        let Inner { loaded, entries, .. } = &mut *inner;
        let name = &plugin.info().name;
        let serving = entries
            .iter()
            .find(|entry| entry.config.name == *name)
            .and_then(|entry| entry.ready.as_ref().ok());
        let serves =
            |plugin: &Plugin| serving.is_some_and(|ready| ready.digest == *plugin.digest());
        let digests = loaded.entry(name.clone()).or_default();
        digests.retain(|other| other.digest() != plugin.digest());
        digests.push(plugin.clone());
        // The digest that serves may be the oldest one, after many recalls of earlier digests.
        if digests.len() > DIGESTS
            && let Some(longest) = digests.iter().position(|plugin| !serves(plugin))
        {
            digests.remove(longest);
        }
    }

    /// Takes a plugin out of service, and keeps the reason.
    pub fn withhold(&self, name: &str, why: &str) {
        if let Some(entry) =
            self.write().entries.iter_mut().find(|entry| entry.config.name == name)
        {
            entry.withhold(why);
        }
        self.changes.send_replace(());
    }

    /// Returns the plugin of that name that serves.
    fn serving(&self, name: &str) -> Option<Plugin> {
        let inner = self.read();
        let ready =
            inner.entries.iter().find(|entry| entry.config.name == name)?.ready.as_ref().ok()?;
        inner.loaded.get(name)?.iter().find(|plugin| *plugin.digest() == ready.digest).cloned()
    }

    /// Returns the device types that a plugin serves, given those of the other plugins.
    fn standing(&self, name: &str) -> Standing {
        let inner = self.read();
        let index = inner.entries.iter().position(|entry| entry.config.name == name);
        index.map(|index| standing(&inner.entries, index)).unwrap_or_default()
    }

    /// Returns a receiver that is notified when a plugin begins or ceases to serve.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the view of the plugins that plans use.
    #[must_use]
    pub fn views(&self) -> Vec<PluginView> {
        let inner = self.read();
        let digests = |name: &str| {
            inner
                .loaded
                .get(name)
                .into_iter()
                .flatten()
                .map(|plugin| plugin.digest().clone())
                .collect()
        };
        let views = inner.entries.iter().enumerate();
        views
            .map(|(index, entry)| view(&inner.entries, index, digests(&entry.config.name)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use flashjob_rules::flashjob::observed::ReadyPlugin;

    use super::*;

    #[tokio::test]
    async fn what_serves_goes_on_serving_when_its_entry_changes_and_ends_with_its_entry() {
        let plugins = Plugins::new(Handle::current());
        let config = |name: &str| -> PluginConfig {
            serde_json::from_value(
                serde_json::json!({"name": name, "image": "registry.example/a:1"}),
            )
            .expect("a plugin")
        };
        let a = config("a");
        plugins.configure(&[a.clone(), config("b")], true);
        let ready = ReadyPlugin { digest: Digest::of(b"a"), version: "1.0.0".into() };
        plugins.write().entries[0].ready = Ok(ready.clone());
        let changed = PluginConfig { allow_downgrade: true, ..a };
        plugins.configure(std::slice::from_ref(&changed), false);
        assert_eq!(
            plugins.views().iter().map(|view| view.ready.clone()).collect::<Vec<_>>(),
            [Ok(ready)]
        );
        plugins.configure(&[], false);
        plugins.configure(&[changed], false);
        assert!(plugins.views()[0].ready.is_err());
    }
}
