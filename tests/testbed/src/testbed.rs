//! Puts the parts together: control plane, registry, simulators, and the operator with its
//! configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use flashjob_simulators::devices::Report;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Client, ResourceExt};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::artifacts::{firmware, push_firmware, push_plugin};
use crate::certificates::Authority;
use crate::control_plane::ControlPlane;
use crate::fleet::Fleet;
use crate::options::Options;
use crate::process::{LIMIT, Process, eventually, free_port, repository, script, sibling};
use crate::registry::Registry;
use crate::simulators::Simulators;

/// Flash image that users of the Go operator specify.
pub const FLASHER_IMAGE: &str = "harbor.nbfc.io/nubificus/iot/esp32-sota:simulated";

/// Number of lines of an operator's log that a failed test shows.
const LAST_LINES: usize = 40;

/// One operator of several.
struct Replica {
    process: Process,
    health: String,
}

/// A complete environment on loopback.
pub struct Testbed {
    /// Client of the cluster, with an administrator's rights.
    pub client: Client,
    /// The control plane.
    pub control_plane: ControlPlane,
    /// The registry.
    pub registry: Registry,
    /// The devices.
    pub fleet: Fleet,
    /// The operator's configuration; written to its file when an operator starts. Null: there is
    /// no file.
    pub config: Value,
    /// Additional arguments of operators that start from now on.
    pub operator_arguments: Vec<String>,
    /// Environment variables of operators that start from now on.
    pub operator_environment: Vec<(String, String)>,
    replicas: Vec<Option<Replica>>,
    one_namespace: bool,
    compiles_plugins: bool,
    lease_seconds: u64,
    _simulators: Vec<Process>,
    folder: TempDir,
}

impl Testbed {
    /// Starts everything but the operator.
    ///
    /// # Errors
    /// A part does not start.
    pub async fn start(options: &Options) -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let programs = PathBuf::from(script("tests/control-plane/build.sh")?);
        // FLASHJOB_KEEP keeps the logs of all parts, to investigate a failure.
        let keep = std::env::var_os("FLASHJOB_KEEP").is_some();
        let folder = tempfile::Builder::new()
            .prefix("flashjob-testbed-")
            .disable_cleanup(keep)
            .tempdir()?;
        let authority = Authority::new(folder.path())?;
        let (control_plane, registry) = tokio::try_join!(
            ControlPlane::start(&programs, folder.path(), &authority),
            Registry::start(&programs, folder.path(), &authority)
        )?;
        let client = control_plane.client().await?;
        install_crds(&client).await?;
        grant_rights(&client, if options.one_namespace { "namespaced" } else { "role" }).await?;
        let config = publish(&client, &registry, options, &authority).await?;
        let simulators =
            Simulators { folder: folder.path(), kubeconfig: &control_plane.kubeconfig };
        let (fleet, simulators) = simulators.start(options, &registry, &authority).await?;
        let testbed = Self {
            client,
            control_plane,
            registry,
            fleet,
            config,
            operator_arguments: Vec::new(),
            operator_environment: Vec::new(),
            replicas: Vec::new(),
            one_namespace: options.one_namespace,
            compiles_plugins: options.compiles_plugins,
            lease_seconds: options.lease_seconds,
            _simulators: simulators,
            folder,
        };
        testbed.wait_for_instances().await?;
        Ok(testbed)
    }

    /// Returns the folder of this testbed; it is deleted with the testbed.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the operator's configuration atomically, as a mounted ConfigMap changes.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn write_config(&self) -> anyhow::Result<PathBuf> {
        let config = self.folder.path().join("config.yaml");
        let next = self.folder.path().join("config.next");
        if self.config.is_null() {
            if config.exists() {
                std::fs::remove_file(&config)?;
            }
            return Ok(config);
        }
        std::fs::write(&next, serde_json::to_vec_pretty(&self.config)?)?;
        std::fs::rename(&next, &config)?;
        Ok(config)
    }

    /// Starts another operator without waiting until it is ready. Returns its index, as
    /// [`Self::start_operator`] does.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn launch_operator(&mut self) -> anyhow::Result<usize> {
        let index = self.replicas.iter().position(Option::is_none).unwrap_or(self.replicas.len());
        self.launch(
            index,
            &if index == 0 { "cache".to_owned() } else { format!("cache-{index}") },
        )?;
        Ok(index)
    }

    /// Starts another operator, and waits until it is ready, as leader or as standby. Returns its
    /// index: the lowest that no running operator has. A later operator with the same index reuses
    /// its cache.
    ///
    /// # Errors
    /// The operator does not become ready.
    pub async fn start_operator(&mut self) -> anyhow::Result<usize> {
        let index = self.launch_operator()?;
        self.is_ready(index).await?;
        Ok(index)
    }

    /// Starts several operators at once, each with the cache of this name, and waits until all are
    /// ready.
    ///
    /// # Errors
    /// An operator does not become ready.
    pub async fn start_operators(&mut self, caches: &[&str]) -> anyhow::Result<()> {
        for (index, cache) in caches.iter().enumerate() {
            self.launch(index, cache)?;
        }
        for index in 0..caches.len() {
            self.is_ready(index).await?;
        }
        Ok(())
    }

    fn create_cache(&self, name: &str) -> anyhow::Result<PathBuf> {
        let cache = self.folder.path().join(name);
        let compiled = cache.join("compiled");
        if !self.compiles_plugins && !compiled.exists() {
            let shared = repository().join("target/tmp/compiled-plugins");
            std::fs::create_dir_all(&shared)?;
            std::fs::create_dir_all(&cache)?;
            std::os::unix::fs::symlink(shared, compiled)?;
        }
        Ok(cache)
    }

    fn launch(&mut self, index: usize, cache: &str) -> anyhow::Result<()> {
        let config = self.write_config()?;
        let health = format!("127.0.0.1:{}", free_port()?);
        let mut command = Command::new(sibling("flashjob-operator")?);
        command
            .arg("--config")
            .arg(&config)
            .arg("--cache")
            .arg(self.create_cache(cache)?)
            .arg("--exit-with-stdin");
        let lease_seconds = self.lease_seconds.to_string();
        command.args(["--health-address", &health, "--lease-duration-seconds", &lease_seconds]);
        if self.one_namespace {
            command.args(["--watch-namespace", "default"]);
        }
        command.args(&self.operator_arguments);
        command.envs(self.operator_environment.iter().map(|(name, value)| (name, value)));
        command
            .env("KUBECONFIG", &self.control_plane.operator_kubeconfig)
            .env("POD_NAME", format!("operator-{index}"));
        let name = if index == 0 { "operator".to_owned() } else { format!("operator-{index}") };
        let process = Process::start(&name, command, self.folder.path())?;
        self.replicas.resize_with(self.replicas.len().max(index + 1), || None);
        self.replicas[index] = Some(Replica { process, health });
        Ok(())
    }

    async fn is_ready(&mut self, index: usize) -> anyhow::Result<()> {
        let replica =
            self.replicas.get_mut(index).and_then(Option::as_mut).context("no such operator")?;
        eventually("the operator is ready", LIMIT, || {
            let (ended, role) = (replica.process.check(), role(&replica.health));
            async move {
                ended?;
                Ok(role.await)
            }
        })
        .await
        .map(|_| ())
    }

    /// Kills every operator with SIGKILL.
    ///
    /// # Errors
    /// An operator could not be killed.
    pub async fn kill_operator(&mut self) -> anyhow::Result<()> {
        for replica in &mut self.replicas {
            if let Some(mut replica) = replica.take() {
                replica.process.kill().await?;
            }
        }
        Ok(())
    }

    /// Sends a signal to an operator: TERM, KILL, STOP, CONT.
    ///
    /// # Errors
    /// The operator does not run.
    pub fn signal_operator(&self, index: usize, signal: Signal) -> anyhow::Result<()> {
        let id = self.replica(index)?.process.id().context("the operator has ended")?;
        let id = Pid::from_raw(i32::try_from(id)?).context("no process id")?;
        Ok(kill_process(id, signal)?)
    }

    /// Waits until an operator has ended, and returns its exit status.
    ///
    /// # Errors
    /// The operator still runs after the limit.
    pub async fn operator_ended(
        &mut self,
        index: usize,
        limit: Duration,
    ) -> anyhow::Result<std::process::ExitStatus> {
        let mut replica =
            self.replicas.get_mut(index).and_then(Option::take).context("no such operator")?;
        tokio::time::timeout(limit, replica.process.wait())
            .await
            .context("the operator does not end")?
    }

    /// Returns an operator's role, `leader` or `standby`, with the reason if it is held back;
    /// `None` while it does not answer or is not ready.
    ///
    /// # Errors
    /// The operator was never started, or has ended.
    pub async fn role(&self, index: usize) -> anyhow::Result<Option<String>> {
        Ok(role(&self.replica(index)?.health).await)
    }

    /// Returns an operator's response on a path of its health address, with the HTTP status;
    /// `None` while it does not answer.
    ///
    /// # Errors
    /// The operator was never started, or has ended.
    pub async fn health(&self, index: usize, path: &str) -> anyhow::Result<Option<(u16, String)>> {
        Ok(health_response(&self.replica(index)?.health, path).await)
    }

    /// Returns the last lines of each running operator's log, for the message of a failed test.
    #[must_use]
    pub fn operator_log_tails(&self) -> String {
        let running = self.replicas.iter().flatten();
        let words = running.map(|replica| replica.process.last_lines(LAST_LINES));
        words.collect::<Vec<_>>().join("\n--\n")
    }

    fn replica(&self, index: usize) -> anyhow::Result<&Replica> {
        self.replicas.get(index).and_then(Option::as_ref).context("no such operator")
    }

    /// Returns the devices with the uids of their Instances.
    ///
    /// # Errors
    /// The API server or the simulator does not answer.
    pub async fn devices(&self) -> anyhow::Result<Vec<(String, Report)>> {
        self.fleet.devices(&self.client, "default").await
    }

    async fn wait_for_instances(&self) -> anyhow::Result<()> {
        let all = || async {
            let (devices, reports) = (self.devices().await?, self.fleet.reports().await?);
            Ok((devices.len() == reports.len()).then_some(()))
        };
        eventually("every device has its Instance", LIMIT, all).await
    }
}

/// Returns the role that an operator reports at its health address, if it is ready.
async fn role(health: &str) -> Option<String> {
    health_response(health, "/readyz").await.filter(|(code, _)| *code == 200).map(|(_, text)| text)
}

async fn health_response(health: &str, path: &str) -> Option<(u16, String)> {
    let http =
        reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build().ok()?;
    let answer = http.get(format!("http://{health}{path}")).send().await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

/// Installs the CustomResourceDefinitions, Akri's among them.
///
/// # Errors
/// The API server refuses one.
pub async fn install_crds(client: &Client) -> anyhow::Result<()> {
    flashjob_simulators::akri::install(client).await?;
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in ["flashjobs", "flashrollouts", "deviceplugins"] {
        let name = format!("{name}.application.flashjob.nbfc.io");
        let text = std::fs::read_to_string(repository().join(format!("deploy/crds/{name}.yaml")))?;
        let crd: Value = serde_saphyr::from_str(&text)?;
        crds.patch(&name, &PatchParams::apply("testbed").force(), &Patch::Apply(crd)).await?;
        let established = || async {
            let conditions = crds
                .get(&name)
                .await?
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            Ok(conditions
                .iter()
                .any(|condition| condition.type_ == "Established" && condition.status == "True")
                .then_some(()))
        };
        eventually(
            "the CustomResourceDefinition is established",
            Duration::from_secs(20),
            established,
        )
        .await?;
    }
    Ok(())
}

/// Grants the operator the rights in a file of deploy/rbac and no others.
///
/// # Errors
/// The API server refuses one of its documents.
pub async fn grant_rights(client: &Client, file: &str) -> anyhow::Result<()> {
    grant_rights_without(client, file, &[]).await
}

/// Grants the operator the rights in a file of deploy/rbac except some, each a verb and a
/// resource.
///
/// # Errors
/// The API server refuses a document.
pub async fn grant_rights_without(
    client: &Client,
    file: &str,
    without: &[(&str, &str)],
) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(repository().join(format!("deploy/rbac/{file}.yaml")))?;
    for document in text.split("\n---\n") {
        let mut object: Value = serde_saphyr::from_str(document)?;
        let namespace = &object["metadata"]["namespace"];
        // The Leases of nodes are in a namespace of Kubernetes itself.
        if namespace.is_string() && namespace != "kube-node-lease" {
            object["metadata"]["namespace"] = json!("default");
        }
        if let Some(rules) = object.get_mut("rules").and_then(Value::as_array_mut) {
            rules.iter_mut().for_each(|rule| take_away(rule, without));
            // The API server rejects a rule without verbs.
            rules.retain(|rule| rule["verbs"].as_array().is_some_and(|verbs| !verbs.is_empty()));
        }
        if object["subjects"].is_array() {
            object["subjects"] = json!([{
                "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "operator",
            }]);
        }
        let object: DynamicObject = serde_json::from_value(object)?;
        let kind = object.types.as_ref().context("a document without kind")?.try_into()?;
        let resource = ApiResource::from_gvk(&kind);
        let api: Api<DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        api.patch(
            &object.name_any(),
            &PatchParams::apply("testbed").force(),
            &Patch::Apply(&object),
        )
        .await?;
    }
    Ok(())
}

/// Removes verbs from a rule. A rule of several resources loses a verb for all of them.
fn take_away(rule: &mut Value, without: &[(&str, &str)]) {
    let of_rule = |resource: &str| {
        rule["resources"].as_array().is_some_and(|all| all.iter().any(|name| name == resource))
    };
    let verbs: Vec<&str> =
        without.iter().filter(|(_, resource)| of_rule(resource)).map(|(verb, _)| *verb).collect();
    if let Some(of_rule) = rule["verbs"].as_array_mut() {
        of_rule.retain(|verb| !verbs.iter().any(|removed_verb| verb == removed_verb));
    }
}

/// Pushes plugins and firmware, stores the registry's password, and returns the operator's
/// configuration.
///
/// # Errors
/// A plugin was not built; the registry or the API server refuses.
pub async fn publish(
    client: &Client,
    registry: &Registry,
    options: &Options,
    authority: &Authority,
) -> anyhow::Result<Value> {
    let mut plugins = Vec::new();
    for name in &options.plugins {
        let file = repository().join(format!("target/plugins/{name}.wasm"));
        push_plugin(registry, &file, &format!("flashjob/{name}:0.1.0"))
            .await
            .with_context(|| format!("plugin {name}"))?;
        plugins.push(
            json!({"name": name, "image": format!("{}/flashjob/{name}:0.1.0", registry.host)}),
        );
    }
    for version in ["0.2.0", "0.3.0"] {
        let firmwares =
            ["esp32", "esp32s2", "esp32s3", "toaster", "kiln", "kettle", "lamp", "wled"]
                .map(|device| firmware(device, "thermo", version));
        push_firmware(registry, &format!("nubificus/firmware:{version}"), &firmwares).await?;
    }
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "registry-robot"},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": registry.docker_config()},
    });
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "default");
    secrets
        .patch("registry-robot", &PatchParams::apply("testbed").force(), &Patch::Apply(secret))
        .await?;
    Ok(json!({
        "apiVersion": "config.flashjob.nbfc.io/v1alpha1", "kind": "OperatorConfig",
        "plugins": plugins,
        "registries": [
            {
                "host": registry.host, "credentials": {"secretName": "registry-robot"},
                "caFile": authority.certificate,
            },
            // The flash program on the node pulls the firmware from the same mirror.
            {"host": "harbor.nbfc.io", "mirrors": [registry.host]},
        ],
        "trust": [{"match": format!("{}/flashjob/**", registry.host), "allowUnsigned": true}],
        "periods": options.periods,
    }))
}
