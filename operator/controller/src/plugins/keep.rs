//! Keeps one plugin loaded: loads it, tries again what may work later, and looks for new versions where that is wanted. Talks to
//! registries and to the API server.

use std::sync::Arc;
use std::time::Duration;

use flashjob_plugin_host::config::{PullPolicy, RegistryConfig};
use flashjob_plugin_host::{Credentials, Host, LoadError, Plugin, PluginSource, Reference, Stage, parse_docker_config_json};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use serde_json::Value;

use super::{publish, show};
use crate::config::PluginConfig;
use crate::operator::Operator;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why a plugin, or its new version, does not serve.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// How far it came.
    pub stage: Stage,
    /// In one word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Whether that is a registry that does not answer now.
    transient: bool,
}

impl Failure {
    fn new(stage: Stage, reason: &'static str, message: String) -> Self {
        Self { stage, reason, message, transient: false }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self { stage: error.stage(), reason: error.reason(), message: error.to_string(), transient: error.is_transient() }
    }
}

/// One plugin and what it takes to load it.
pub(super) struct Keeper {
    operator: Arc<Operator>,
    host: Host,
    namespace: String,
    plugin: PluginConfig,
    /// Secret and registry.
    secret: Option<(String, String)>,
    /// Whether what serves was verified under this configuration.
    verified: bool,
}

impl Keeper {
    pub fn new(operator: &Arc<Operator>, host: &Host, namespace: &str, plugin: &PluginConfig, registries: &[RegistryConfig]) -> Self {
        let secret = match &plugin.image {
            Reference::Registry { host, .. } => {
                let registry = registries.iter().find(|registry| registry.host.eq_ignore_ascii_case(host));
                let credentials = registry.and_then(|registry| registry.credentials.as_ref());
                credentials.map(|credentials| (credentials.secret_name.clone(), host.clone()))
            }
            Reference::File { .. } => None,
        };
        Self {
            operator: operator.clone(),
            host: host.clone(),
            namespace: namespace.to_owned(),
            plugin: plugin.clone(),
            secret,
            verified: false,
        }
    }

    pub async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = self.load().await.err();
            if let Some(Failure { message, .. }) = &failure {
                tracing::warn!(plugin = self.plugin.name, error = message, "the plugin cannot be loaded");
            }
            publish(&self.operator);
            let again = match &failure {
                Some(_) => Some(pause),
                None if self.plugin.pull_policy == PullPolicy::Always => {
                    Some(Duration::from_secs(self.plugin.pull_interval_seconds.into()))
                }
                None => None,
            };
            pause = if failure.is_some() { (pause * 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
            if !self.operator.leadership.is_leading() {
                // A standby has its plugins at hand, and leaves it to the leader to write.
                let leads = tokio::time::timeout(again.unwrap_or(Duration::MAX), self.operator.leadership.leads());
                if leads.await.is_err() {
                    continue;
                }
            }
            if let Err(error) = self.show(failure.as_ref()).await {
                tracing::warn!(plugin = self.plugin.name, %error, "the DevicePlugin object cannot be written");
                tokio::time::sleep(FIRST_PAUSE).await;
                continue;
            }
            match again {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return,
            }
        }
    }

    async fn show(&self, failure: Option<&Failure>) -> kube::Result<()> {
        let serving = self.operator.plugins.serving(&self.plugin.name);
        show::show(&self.operator.client, &self.plugin, serving.as_ref(), failure).await
    }

    /// Loads what the reference names now, and has it serve. What served before goes on where that fails, if it still may.
    async fn load(&mut self) -> Result<(), Failure> {
        let serving = self.operator.plugins.serving(&self.plugin.name);
        let loaded = self.load_checked(&self.plugin.image, self.plugin.pull_policy, serving.as_ref()).await;
        match loaded {
            Ok(plugin) => {
                let same = serving.is_some_and(|serving| serving.digest() == plugin.digest());
                if !(same && self.verified) {
                    self.serve(&plugin);
                }
                self.verified = true;
                Ok(())
            }
            Err(failure) => {
                self.fall_back(serving.as_ref(), &failure).await;
                Err(failure)
            }
        }
    }

    fn serve(&self, plugin: &Plugin) {
        let (name, digest, version) = (&self.plugin.name, plugin.digest(), &plugin.info().version);
        tracing::info!(plugin = name, %digest, %version, "the plugin is ready");
        self.operator.plugins.serve(plugin);
    }

    /// What serves is verified again under a changed configuration, and what is in the cache serves while the registry is away.
    async fn fall_back(&mut self, serving: Option<&Plugin>, failure: &Failure) {
        let again = match serving {
            Some(_) if self.verified => return,
            Some(serving) => self.load_checked(&pinned(serving), PullPolicy::IfNotPresent, Some(serving)).await,
            None if failure.transient => self.load_checked(&self.plugin.image, PullPolicy::Never, None).await,
            None => return self.operator.plugins.withhold(&self.plugin.name, &failure.message),
        };
        match (again, serving) {
            (Ok(plugin), _) => {
                self.serve(&plugin);
                self.verified = true;
            }
            // It cannot be had any more, but nothing speaks against it.
            (Err(again), Some(_)) if again.stage == Stage::Resolve && again.reason != "CredentialsBroken" => {}
            (Err(again), Some(_)) => self.operator.plugins.withhold(&self.plugin.name, &again.message),
            (Err(_), None) => self.operator.plugins.withhold(&self.plugin.name, &failure.message),
        }
    }

    async fn load_checked(&self, image: &Reference, pull_policy: PullPolicy, serving: Option<&Plugin>) -> Result<Plugin, Failure> {
        let credentials = match &self.secret {
            Some((secret, registry)) if pull_policy != PullPolicy::Never => {
                let read = credentials(&self.operator.client, &self.namespace, secret, registry).await;
                Some(read.map_err(|message| Failure::new(Stage::Resolve, "CredentialsBroken", message))?)
            }
            _ => None,
        };
        let source = PluginSource {
            name: self.plugin.name.clone(),
            reference: image.clone(),
            pull_policy,
            allow_unsigned: self.plugin.allow_unsigned,
        };
        let loaded = self.host.load(&source, credentials.as_ref()).await;
        self.operator.metrics.plugin_loaded(&source.name, loaded.as_ref().err());
        let loaded = loaded?;
        self.check_version(&loaded, serving)?;
        self.check_settings(&loaded).await?;
        Ok(loaded)
    }

    fn check_version(&self, loaded: &Plugin, serving: Option<&Plugin>) -> Result<(), Failure> {
        match serving.map(|serving| &serving.info().version) {
            Some(serving) if loaded.info().version < *serving && !self.plugin.allow_downgrade => {
                let message = format!(
                    "version {} is lower than {serving}, which serves; set allowDowngrade: true if that is meant",
                    loaded.info().version
                );
                Err(Failure::new(Stage::Start, "DowngradeRefused", message))
            }
            _ => Ok(()),
        }
    }

    /// Settings that the configuration gives must suit the plugin before it serves.
    async fn check_settings(&self, loaded: &Plugin) -> Result<(), Failure> {
        if self.plugin.settings.is_empty() && self.plugin.locked_settings.is_empty() {
            return Ok(());
        }
        let mut settings = Value::Object(self.plugin.settings.clone());
        json_patch::merge(&mut settings, &Value::Object(self.plugin.locked_settings.clone()));
        let validated = loaded.validate_settings(&settings.to_string()).await;
        validated.map_err(|error| {
            Failure::new(
                Stage::Start,
                "SettingsRejected",
                format!("the settings of plugin {} in the configuration: {error}", self.plugin.name),
            )
        })
    }
}

/// The reference of exactly what serves.
fn pinned(serving: &Plugin) -> Reference {
    let mut reference = serving.reference().clone();
    match &mut reference {
        Reference::Registry { digest, .. } | Reference::File { digest, .. } => *digest = Some(serving.digest().clone()),
    }
    reference
}

async fn credentials(client: &Client, namespace: &str, name: &str, registry: &str) -> Result<Credentials, String> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = secrets
        .get(name)
        .await
        .map_err(|error| format!("cannot read Secret {namespace}/{name} with the credentials of registry {registry}: {error}"))?;
    let text = secret.data.as_ref().and_then(|data| data.get(".dockerconfigjson"));
    let text = text.ok_or_else(|| {
        format!("Secret {namespace}/{name} has no key .dockerconfigjson; make it with kubectl create secret docker-registry")
    })?;
    parse_docker_config_json(&text.0, registry).map_err(|error| {
        format!("Secret {namespace}/{name}: {error}; make it with kubectl create secret docker-registry --docker-server={registry}")
    })
}
