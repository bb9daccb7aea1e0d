//! Loads one plugin under the configuration in force, with its passwords and through the plugin
//! host, and checks the configured settings. Talks to registries.

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
    /// Stage at which loading failed.
    pub stage: Stage,
    /// CamelCase name.
    pub reason: &'static str,
    /// Message for people.
    pub message: String,
    /// True if the cause is temporary, such as a registry that does not respond.
    pub transient: bool,
    /// Pause that the registry demands before the next request, at most an hour.
    pub retry_after: Option<Duration>,
    /// Result of verification, if a later stage failed: true for a signature, false if the
    /// configuration allows an unsigned plugin. None if loading failed before.
    pub signed: Option<bool>,
}

impl LoadFailure {
    pub fn new(stage: Stage, reason: &'static str, message: String) -> Self {
        Self { stage, reason, message, transient: false, retry_after: None, signed: None }
    }

    /// Returns the same failure for a plugin that passed verification: with a signature, or
    /// because unsigned plugins are allowed.
    pub fn of_verified(self, signed: bool) -> Self {
        Self { signed: Some(signed), ..self }
    }

    /// Returns true if the plugin is not available anywhere, which a retry does not change.
    pub fn is_gone(&self) -> bool {
        matches!(self.reason, "NotFound" | "NotCached")
    }

    /// Returns true if a configured password cannot be read.
    pub fn is_broken(&self) -> bool {
        self.reason == BROKEN
    }
}

/// Reason of a configured password that cannot be read. The operator never falls back to an
/// anonymous pull.
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

    /// Loads the plugin that a reference names, and checks its name and the configured settings.
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

    /// Loads a digest that attempts began with and that is no longer loaded, to judge how they
    /// ended: from the cache, or from the source of the plugin. It is verified again; its settings
    /// no longer matter and are not checked.
    pub async fn recall(&self, digest: &Digest) -> Result<Plugin, LoadFailure> {
        self.verified(&self.plugin.image.pinned(digest), self.by_digest()).await
    }

    /// Pull policy for a plugin whose digest is known.
    pub fn by_digest(&self) -> PullPolicy {
        if self.plugin.pull_policy == PullPolicy::Never {
            PullPolicy::Never
        } else {
            // A digest always names the same content, so the registry is asked only for what the
            // cache lacks.
            PullPolicy::IfNotPresent
        }
    }

    async fn verified(
        &self,
        image: &Reference,
        pull_policy: PullPolicy,
    ) -> Result<Plugin, LoadFailure> {
        // From the cache nothing is fetched, so a Secret that is missing must not keep a cached
        // plugin from serving.
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

    /// Reads the current passwords from the Secrets.
    async fn logins(&self) -> Result<Logins, LoadFailure> {
        let logins = self.passwords.read(&format!("plugin {}", self.plugin.name)).await;
        logins.map_err(|error| LoadFailure::new(Stage::Resolve, BROKEN, error.to_string()))
    }

    /// Checks that the plugin accepts the settings in the configuration.
    async fn check_settings(&self, loaded: &Plugin) -> Result<(), LoadFailure> {
        if self.plugin.settings.is_empty() && self.plugin.locked_settings.is_empty() {
            return Ok(());
        }
        let mut settings = Value::Object(self.plugin.settings.clone());
        // As for a FlashJob: locked settings override the others (JSON merge patch, RFC 7396).
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
