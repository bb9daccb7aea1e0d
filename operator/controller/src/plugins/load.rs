//! Loads one plugin under the configuration in force: passwords, the plugin host, and the settings
//! that the configuration gives. Talks to registries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flashjob_plugin_host::config::PullPolicy;
use flashjob_plugin_host::{
    Digest, Host, LoadError, Logins, Plugin, PluginSource, Reference, Stage,
};
use serde_json::Value;

use crate::cluster::passwords::Passwords;
use crate::telemetry::metrics::Metrics;
use flashjob_config::PluginConfig;

/// Reason for which a plugin, or its new version, does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoadFailure {
    /// Stage that it reached.
    pub stage: Stage,
    /// In one word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// True if the cause is a registry that does not answer now.
    pub transient: bool,
    /// The pause that the registry asks for before it is asked again.
    pub retry_after: Option<Duration>,
    /// The outcome of verification, where a later step failed: true for a signature, false where
    /// the configuration allows it unsigned. None where it failed before.
    pub signed: Option<bool>,
}

impl LoadFailure {
    pub fn new(stage: Stage, reason: &'static str, message: String) -> Self {
        Self { stage, reason, message, transient: false, retry_after: None, signed: None }
    }

    /// The same failure, of a plugin that was verified before it: with a signature, or allowed
    /// unsigned.
    pub fn of_verified(self, signed: bool) -> Self {
        Self { signed: Some(signed), ..self }
    }

    /// Returns true if it is nowhere to be had, which trying again does not change.
    pub fn is_gone(&self) -> bool {
        matches!(self.reason, "NotFound" | "NotCached")
    }

    /// Returns true if a password is configured and cannot be had.
    pub fn is_broken(&self) -> bool {
        self.reason == BROKEN
    }
}

/// A password that is configured and cannot be had. It never becomes an anonymous pull.
const BROKEN: &str = "CredentialsBroken";

impl From<LoadError> for LoadFailure {
    fn from(error: LoadError) -> Self {
        Self {
            stage: error.stage(),
            reason: error.reason(),
            message: error.to_string(),
            transient: error.is_transient(),
            retry_after: error.retry_after(),
            signed: None,
        }
    }
}

/// Everything needed to load one plugin.
#[derive(Clone)]
pub(super) struct Loads {
    metrics: Arc<Metrics>,
    host: Host,
    /// The plugin as it is configured.
    pub plugin: PluginConfig,
    passwords: Passwords,
}

impl Loads {
    pub fn new(
        metrics: Arc<Metrics>,
        host: Host,
        plugin: PluginConfig,
        passwords: Passwords,
    ) -> Self {
        Self { metrics, host, plugin, passwords }
    }

    /// Names of the Secrets with passwords.
    pub fn secret_names(&self) -> impl Iterator<Item = String> {
        self.passwords.secret_names()
    }

    /// Loads what a reference names. It has its name and its settings fit, so it may serve as far
    /// as this goes.
    pub async fn load(
        &self,
        image: &Reference,
        pull_policy: PullPolicy,
    ) -> Result<Plugin, LoadFailure> {
        let loaded = self.verified(image, pull_policy).await?;
        match self.check_settings(&loaded).await {
            Ok(()) => Ok(loaded),
            Err(failure) => Err(failure.of_verified(loaded.signed())),
        }
    }

    /// Loads what attempts began with and what is no longer loaded, to be asked how they ended:
    /// from the cache, or from where the plugin comes from. It is verified again; whether the
    /// settings suit it is no longer of interest.
    pub async fn recall(&self, digest: &Digest) -> Result<Plugin, LoadFailure> {
        self.verified(&self.plugin.image.pinned(digest), self.by_digest()).await
    }

    /// Pull policy for a plugin whose digest is known.
    pub fn by_digest(&self) -> PullPolicy {
        if self.plugin.pull_policy == PullPolicy::Never {
            PullPolicy::Never
        } else {
            PullPolicy::IfNotPresent
        }
    }

    async fn verified(
        &self,
        image: &Reference,
        pull_policy: PullPolicy,
    ) -> Result<Plugin, LoadFailure> {
        let logins =
            if pull_policy == PullPolicy::Never { Logins::none() } else { self.logins().await? };
        let source = PluginSource {
            name: self.plugin.name.clone(),
            reference: image.clone(),
            pull_policy,
            allow_unsigned: self.plugin.allow_unsigned,
        };
        let verified = self.host.obtain(&source, &logins).await;
        let (signed, loaded) = match verified {
            Ok(verified) => {
                (Some(verified.signed()), self.host.start_named(&verified, &source).await)
            }
            Err(error) => (None, Err(error)),
        };
        self.metrics.plugin_loaded(&source.name, loaded.as_ref().err());
        loaded.map_err(|error| LoadFailure { signed, ..error.into() })
    }

    /// The passwords as the Secrets have them now.
    async fn logins(&self) -> Result<Logins, LoadFailure> {
        let logins = self.passwords.read(&format!("plugin {}", self.plugin.name)).await;
        logins.map_err(|error| LoadFailure::new(Stage::Resolve, BROKEN, error.to_string()))
    }

    /// Settings that the configuration gives must suit the plugin before it serves.
    async fn check_settings(&self, loaded: &Plugin) -> Result<(), LoadFailure> {
        if self.plugin.settings.is_empty() && self.plugin.locked_settings.is_empty() {
            return Ok(());
        }
        let mut settings = Value::Object(self.plugin.settings.clone());
        json_patch::merge(&mut settings, &Value::Object(self.plugin.locked_settings.clone()));
        let since = Instant::now();
        let validated = loaded.validate_settings(&settings.to_string()).await;
        self.metrics.plugin_asked(
            &self.plugin.name,
            "validate-settings",
            since.elapsed(),
            &validated,
        );
        validated.map_err(|error| {
            let message = format!(
                "the settings of plugin {} in the configuration: {error}",
                self.plugin.name
            );
            LoadFailure::new(Stage::Start, "SettingsRejected", message)
        })
    }
}
