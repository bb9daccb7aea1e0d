//! Keeps the configured plugins loaded across changes of the configuration, by one task for each.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use flashjob_artifacts::config::CosignTrust;
use flashjob_plugin_host::{EngineError, Host, HostSettings};
use tokio::task::JoinHandle;

use super::load::Loads;
use super::recorded::Records;
use super::{keep, show};
use crate::arguments::Arguments;
use crate::cluster::passwords::Passwords;
use crate::operator::Operator;
use crate::telemetry::health::record::Report;
use flashjob_config::{OperatorConfig, PluginConfig};

/// Keeps the configured plugins loaded across changes of the configuration.
pub struct Loader {
    operator: Arc<Operator>,
    arguments: Arguments,
    config: OperatorConfig,
    host: Host,
    records: Records,
    tasks: HashMap<String, JoinHandle<()>>,
    removing: JoinHandle<()>,
}

impl Loader {
    /// Starts to load the configured plugins.
    ///
    /// # Errors
    /// The plugin host cannot start.
    pub fn start(
        operator: &Arc<Operator>,
        arguments: &Arguments,
        config: OperatorConfig,
    ) -> Result<Self, EngineError> {
        let host = host(arguments, &config)?;
        let mut loader = Self {
            operator: operator.clone(),
            arguments: arguments.clone(),
            config: OperatorConfig::default(),
            host,
            records: Records::follow(operator),
            tasks: HashMap::new(),
            removing: tokio::spawn(std::future::ready(())),
        };
        loader.take(config, true);
        Ok(loader)
    }

    /// Applies a changed configuration, entirely or not at all. `files_changed` is true if a key
    /// or certificate authority may have changed, even if the configuration is the same.
    ///
    /// # Errors
    /// The plugin host cannot start with it.
    pub fn change(
        &mut self,
        config: OperatorConfig,
        files_changed: bool,
    ) -> Result<(), EngineError> {
        let same = !files_changed
            && config.limits == self.config.limits
            && config.registries == self.config.registries
            && config.trust == self.config.trust;
        // Before anything is applied: if this fails, the previous configuration stays in force as
        // a whole.
        if !same {
            self.host = host(&self.arguments, &config)?;
        }
        self.take(config, !same);
        Ok(())
    }

    /// Applies the same configuration again, with the current keys and certificate authorities.
    ///
    /// # Errors
    /// As [`Loader::change`].
    pub fn again(&mut self) -> Result<(), EngineError> {
        self.change(self.config.clone(), true)
    }

    /// Returns the configuration in force.
    #[must_use]
    pub fn config(&self) -> &OperatorConfig {
        &self.config
    }

    /// Returns the files of keys, trusted roots and certificate authorities in the configuration.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let entries = self.config.trust.iter().chain(&self.config.firmware_trust);
        let cosign = entries.filter_map(|entry| entry.cosign.as_ref());
        let signers = cosign.flat_map(CosignTrust::files);
        let authorities =
            self.config.registries.iter().filter_map(|registry| registry.ca_file.as_ref());
        signers.chain(authorities).cloned().collect()
    }

    fn take(&mut self, config: OperatorConfig, all: bool) {
        self.operator.plugins.configure(&config.plugins, all);
        self.operator.configure(&config);
        let before = std::mem::replace(&mut self.config, config);
        self.tasks.retain(|name, task| {
            let stays = self.config.plugins.iter().find(|plugin| plugin.name == *name);
            let same = !all && stays.is_some_and(|plugin| before.plugins.contains(plugin));
            if !same {
                // Only the keeper ends: the plugin that it put into service goes on until the new
                // keeper has decided.
                task.abort();
            }
            same
        });
        let registries = &self.config.registries;
        let loads = |plugin: &PluginConfig| {
            let secrets = self.operator.secrets(&self.operator.keepers_client);
            let passwords = Passwords::of(secrets, &plugin.image, registries);
            let metrics = self.operator.metrics.clone();
            Loads::new(metrics, self.host.clone(), plugin.clone(), passwords)
        };
        let loads: HashMap<_, _> = self
            .config
            .plugins
            .iter()
            .map(|plugin| (plugin.name.clone(), loads(plugin)))
            .collect();
        self.operator.reports.send(Report::Configured {
            plugins: loads.keys().cloned().collect(),
            secrets: loads.values().flat_map(Loads::secret_names).collect(),
        });
        for (name, loads) in &loads {
            if !self.tasks.contains_key(name) {
                let keeper =
                    keep::Keeper::new(&self.operator, loads.clone(), self.records.clone());
                let tasks = self.operator.tasks.clone();
                let keeper = tasks.guarded(format!("keeper of plugin {name}"), keeper.run());
                self.tasks.insert(name.clone(), self.operator.plugins.spawn(keeper));
            }
        }
        self.operator.plugins.write().loads = loads;
        self.operator.plugins_changed();
        let (operator, names) = (
            self.operator.clone(),
            self.config.plugins.iter().map(|plugin| plugin.name.clone()).collect(),
        );
        // A removal by the previous names could delete the DevicePlugin of a plugin that is
        // configured again.
        self.removing.abort();
        self.removing = tokio::spawn(async move {
            // A standby changes nothing: the fence would refuse its deletes.
            operator.leadership.leads().await;
            show::remove_stale(&operator, names).await;
        });
    }
}

fn host(arguments: &Arguments, config: &OperatorConfig) -> Result<Host, EngineError> {
    Host::new(HostSettings {
        cache: arguments.cache.clone(),
        // A plugin is compiled by a child process of the same program.
        compiler: std::env::current_exe().map_err(|error| {
            EngineError::Start(format!("path of the program's own executable: {error}"))
        })?,
        limits: config.limits,
        registries: config.registries.clone(),
        trust: config.trust.clone(),
    })
}
