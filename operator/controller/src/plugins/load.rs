//! Loads one plugin under the configuration in force: passwords, the plugin host, and the settings
//! that the configuration gives. Talks to registries, and to the API server for Secrets, which are
//! read anew at each load.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flashjob_plugin_host::config::{PullPolicy, RegistryConfig};
use flashjob_plugin_host::{
    Credentials, Digest, Host, LoadError, Logins, Plugin, PluginSource, Reference, Stage,
    parse_docker_config_json, places,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use serde_json::Value;

use crate::answer::in_one_line;
use crate::config::PluginConfig;
use crate::health::keeper::Reports;
use crate::health::problem::{Cause, Problem, Request, SECRETS, Source};
use crate::installation::Installation;
use crate::metrics::Metrics;
use crate::operator::Operator;

/// Reason for which a plugin, or its new version, does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
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

impl Failure {
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

impl From<LoadError> for Failure {
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
    client: Client,
    metrics: Arc<Metrics>,
    reports: Reports,
    installation: Installation,
    host: Host,
    /// The plugin as it is configured.
    pub plugin: PluginConfig,
    /// Registries that want a password, the repository there, and the Secrets with them.
    secrets: Vec<(String, String, String)>,
}

impl Loads {
    pub fn new(
        operator: &Arc<Operator>,
        host: &Host,
        plugin: &PluginConfig,
        registries: &[RegistryConfig],
    ) -> Self {
        let secret = |host: &str| {
            registries.iter().find(|registry| registry.is_at(host))?.credentials.as_ref()
        };
        let places = places(&plugin.image, registries).into_iter();
        let secrets = places.filter_map(|(host, repository)| {
            let name = secret(&host)?.secret_name.clone();
            Some((host, repository, name))
        });
        Self {
            client: operator.client.clone(),
            metrics: operator.metrics.clone(),
            reports: operator.reports.clone(),
            installation: operator.installation.clone(),
            host: host.clone(),
            plugin: plugin.clone(),
            secrets: secrets.collect(),
        }
    }

    /// Names of the Secrets with passwords.
    pub fn secret_names(&self) -> impl Iterator<Item = String> {
        self.secrets.iter().map(|(_, _, secret)| secret.clone())
    }

    /// Loads what a reference names. It has its name and its settings fit, so it may serve as far
    /// as this goes.
    pub async fn load(
        &self,
        image: &Reference,
        pull_policy: PullPolicy,
    ) -> Result<Plugin, Failure> {
        let loaded = self.verified(image, pull_policy).await?;
        match self.check_settings(&loaded).await {
            Ok(()) => Ok(loaded),
            Err(failure) => Err(failure.of_verified(loaded.signed())),
        }
    }

    /// Loads what attempts began with and what is no longer loaded, to be asked how they ended:
    /// from the cache, or from where the plugin comes from. It is verified again; whether the
    /// settings suit it is no longer of interest.
    pub async fn recall(&self, digest: &Digest) -> Result<Plugin, Failure> {
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
    ) -> Result<Plugin, Failure> {
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
        loaded.map_err(|error| Failure { signed, ..error.into() })
    }

    /// The passwords as the Secrets have them now.
    async fn logins(&self) -> Result<Logins, Failure> {
        let mut logins = Vec::new();
        for (host, repository, secret) in &self.secrets {
            let read = self.credentials(secret, &format!("{host}/{repository}")).await;
            let problem = read.as_ref().err().and_then(|error| self.problem(error, secret, host));
            self.reports.state(Source::Secret(secret.clone()), problem);
            let read =
                read.map_err(|error| Failure::new(Stage::Resolve, BROKEN, error.to_string()));
            logins.push((host.clone(), read?));
        }
        Ok(logins.into_iter().collect())
    }

    /// Settings that the configuration gives must suit the plugin before it serves.
    async fn check_settings(&self, loaded: &Plugin) -> Result<(), Failure> {
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
            Failure::new(Stage::Start, "SettingsRejected", message)
        })
    }

    async fn credentials(
        &self,
        name: &str,
        registry: &str,
    ) -> Result<Credentials, CredentialsError> {
        let namespace = &self.installation.namespace;
        let object = format!("{namespace}/{name}");
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = match secrets.get(name).await {
            Ok(secret) => secret,
            Err(error) => {
                let registry = registry.to_owned();
                return Err(CredentialsError::Read { object, registry, error });
            }
        };
        let text = secret.data.as_ref().and_then(|data| data.get(".dockerconfigjson"));
        let Some(text) = text else { return Err(CredentialsError::NoKey { object }) };
        parse_docker_config_json(&text.0, registry)
            .map_err(|error| CredentialsError::Form { object, message: error.to_string() })
    }

    /// Problem that says what somebody has to do for the operator to have the Secret.
    fn problem(&self, error: &CredentialsError, name: &str, registry: &str) -> Option<Problem> {
        let CredentialsError::Read { error, .. } = error else { return None };
        let installation = &self.installation;
        let namespace = &installation.namespace;
        let kube::Error::Api(status) = error else { return None };
        match status.code {
            403 => {
                let request = Request { verb: "get", resource: SECRETS, installation };
                Some(request.problem(error))
            }
            404 => {
                let rest = format!(
                    "does not exist, and plugin {} needs it for registry {registry}; kubectl -n \
                     {namespace} create secret docker-registry {name} --docker-server={registry} \
                     --docker-username=USER --docker-password=PASSWORD",
                    self.plugin.name
                );
                let object = format!("Secret {namespace}/{name}");
                Some(Problem::new(Cause::SecretMissing, object, &rest))
            }
            _ => None,
        }
    }
}

/// Reason for which there is no password, though one is configured.
#[derive(Debug, thiserror::Error)]
enum CredentialsError {
    #[error(
        "cannot read Secret {object} with the credentials of registry {registry}: {}",
        in_one_line(error)
    )]
    Read { object: String, registry: String, error: kube::Error },
    #[error(
        "Secret {object} has no key .dockerconfigjson; make it with kubectl create secret docker-registry"
    )]
    NoKey { object: String },
    #[error("Secret {object}: {message}")]
    Form { object: String, message: String },
}
