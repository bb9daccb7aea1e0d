//! Real etcd, kube-apiserver, kube-controller-manager and kube-scheduler.

use std::path::{Path, PathBuf};

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::certificates::{Authority, SERVICE_ADDRESSES};
use crate::process::{LIMIT, Process, eventually, free_port};

/// A running control plane.
pub struct ControlPlane {
    /// Kubeconfig of an administrator.
    pub kubeconfig: PathBuf,
    /// Kubeconfig of the operator, with the rights of deploy/rbac. Names the API server, or the
    /// proxy that was started last.
    pub operator_kubeconfig: PathBuf,
    /// Kubeconfig of a second client, which the audit log tells apart from the operator; it has no
    /// rights of its own.
    pub client_kubeconfig: PathBuf,
    /// Kubeconfig of the real node's kubelet, if there is a real node.
    pub kubelet_kubeconfig: PathBuf,
    /// Folder of the programs.
    pub programs: PathBuf,
    /// Path of the audit log of all requests, level Metadata.
    pub audit_log: PathBuf,
    /// Path of the certificate of the API server's authority, in PEM.
    pub(crate) authority: PathBuf,
    folder: PathBuf,
    port: u16,
    etcd: String,
    arguments: Vec<String>,
    parts: Vec<Process>,
    api_server: Option<Process>,
}

impl ControlPlane {
    /// Starts all parts, and waits until Pods can be created.
    ///
    /// # Errors
    /// A part does not start; the error contains its output.
    pub async fn start(
        programs: &Path,
        folder: &Path,
        authority: &Authority,
    ) -> anyhow::Result<Self> {
        Self::start_for(programs, folder, authority, None).await
    }

    /// Starts all parts for a real node of this name. Its kubelet has the rights of a node and no
    /// others.
    ///
    /// # Errors
    /// A part does not start; the error contains its output.
    pub async fn start_with_node(
        programs: &Path,
        folder: &Path,
        authority: &Authority,
        node: &str,
    ) -> anyhow::Result<Self> {
        Self::start_for(programs, folder, authority, Some(node)).await
    }

    async fn start_for(
        programs: &Path,
        folder: &Path,
        authority: &Authority,
        node: Option<&str>,
    ) -> anyhow::Result<Self> {
        let (etcd, peer, port) = (free_port()?, free_port()?, free_port()?);
        let mut plane = Self {
            kubeconfig: folder.join("kubeconfig"),
            operator_kubeconfig: folder.join("operator-kubeconfig"),
            client_kubeconfig: folder.join("client-kubeconfig"),
            kubelet_kubeconfig: folder.join("kubelet-kubeconfig"),
            programs: programs.to_owned(),
            audit_log: folder.join("audit.log"),
            authority: authority.certificate.clone(),
            folder: folder.to_owned(),
            port,
            etcd: format!("http://127.0.0.1:{etcd}"),
            arguments: Vec::new(),
            parts: Vec::new(),
            api_server: None,
        };
        plane.start_etcd(peer)?;
        plane.write_access(authority, node)?;
        plane.start_api_server().await?;
        plane.start_controllers(authority)?;
        plane.wait_for_service_account().await?;
        Ok(plane)
    }

    /// Returns host and port of the API server.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Makes operators that start from now on connect to a proxy; `cluster` is its entry in their
    /// kubeconfig.
    ///
    /// # Errors
    /// The kubeconfig cannot be written.
    pub(crate) fn redirect_operator(&mut self, cluster: &Value) -> anyhow::Result<()> {
        // A file of its own: an operator that is running keeps that with which it was started.
        self.operator_kubeconfig = self.folder.join("operator-kubeconfig.proxied");
        write_kubeconfig(&self.operator_kubeconfig, "operator", cluster)
    }

    /// Returns a command that runs a program of the control plane.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        // The programs are written in Go. Each lives for a minute and reads most of what it
        // allocates once, so the default, a collection whenever the heap has doubled, takes CPU
        // time from the tests.
        command.env("GOGC", "400");
        command
    }

    fn start_etcd(&mut self, peer: u16) -> anyhow::Result<()> {
        let peer = format!("http://127.0.0.1:{peer}");
        let mut command = self.program("etcd");
        command.arg("--data-dir").arg(self.folder.join("etcd")).args([
            "--unsafe-no-fsync",
            "--log-level=warn",
            "--quota-backend-bytes=8589934592",
        ]);
        command.args(["--listen-client-urls", &self.etcd, "--advertise-client-urls", &self.etcd]);
        command.args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &format!("default={peer}"),
        ]);
        self.parts.push(Process::start("etcd", command, &self.folder)?);
        Ok(())
    }

    /// Writes certificates, tokens and kubeconfigs.
    fn write_access(&mut self, authority: &Authority, node: Option<&str>) -> anyhow::Result<()> {
        let (certificate, key) = authority.server("kube-apiserver")?;
        let accounts = self.folder.join("service-accounts.key");
        let pair = KeyPair::generate()?;
        std::fs::write(&accounts, pair.serialize_pem())?;
        let public = self.folder.join("service-accounts.pub");
        std::fs::write(&public, pair.public_key_pem())?;
        let tokens = self.folder.join("tokens.csv");
        let mut lines = vec![
            "administrator,administrator,administrator,system:masters".to_owned(),
            "operator,operator,operator".to_owned(),
            "client,client,client".to_owned(),
        ];
        lines.extend(node.map(|name| format!("kubelet,system:node:{name},kubelet,system:nodes")));
        std::fs::write(&tokens, lines.join("\n") + "\n")?;
        let policy = self.folder.join("audit-policy.yaml");
        std::fs::write(
            &policy,
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\n\
             rules: [{level: Metadata}]\n",
        )?;
        let cluster = json!({
            "server": format!("https://{}", self.address()),
            "certificate-authority": self.authority,
        });
        let users = [
            (&self.kubeconfig, "administrator"),
            (&self.operator_kubeconfig, "operator"),
            (&self.client_kubeconfig, "client"),
            (&self.kubelet_kubeconfig, "kubelet"),
        ];
        for (file, user) in users {
            write_kubeconfig(file, user, &cluster)?;
        }
        let path = |path: &Path| path.display().to_string();
        let mut pairs = vec![
            ("etcd-servers", self.etcd.clone()),
            ("secure-port", self.port.to_string()),
            ("bind-address", "127.0.0.1".to_owned()),
            ("advertise-address", authority.address.to_string()),
            ("tls-cert-file", path(&certificate)),
            ("tls-private-key-file", path(&key)),
            ("token-auth-file", path(&tokens)),
            ("authorization-mode", "RBAC".to_owned()),
            ("service-cluster-ip-range", SERVICE_ADDRESSES.to_owned()),
            ("service-node-port-range", "1024-65000".to_owned()),
            ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
            ("service-account-key-file", path(&public)),
            ("service-account-signing-key-file", path(&accounts)),
            ("audit-policy-file", path(&policy)),
            ("audit-log-path", path(&self.audit_log)),
            // Megabytes; by default the log is rotated at 100.
            ("audit-log-maxsize", "100000".to_owned()),
            // No test client should wait for another.
            ("max-requests-inflight", "4000".to_owned()),
            ("max-mutating-requests-inflight", "2000".to_owned()),
            ("profiling", "false".to_owned()),
        ];
        if node.is_none() {
            pairs.push(("endpoint-reconciler-type", "none".to_owned()));
        } else {
            // The API server reads container logs from the kubelet.
            let (certificate, key) = authority.client("kubelet-client", "system:masters")?;
            let of_node = [
                ("bind-address", "0.0.0.0".to_owned()),
                ("authorization-mode", "Node,RBAC".to_owned()),
                ("enable-admission-plugins", "NodeRestriction".to_owned()),
                ("client-ca-file", path(&authority.certificate)),
                ("kubelet-client-certificate", path(&certificate)),
                ("kubelet-client-key", path(&key)),
                // No DNS server resolves the node's name here.
                ("kubelet-preferred-address-types", "InternalIP".to_owned()),
                ("allow-privileged", "true".to_owned()),
                // Above the ports that free_port gives to the other servers, which also use the
                // node's address.
                ("service-node-port-range", "40000-49999".to_owned()),
            ];
            pairs.retain(|(name, _)| of_node.iter().all(|(other, _)| other != name));
            pairs.extend(of_node);
        }
        self.arguments =
            pairs.into_iter().map(|(name, value)| format!("--{name}={value}")).collect();
        Ok(())
    }

    /// Starts the API server, or restarts it after [`Self::stop_api_server`].
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn start_api_server(&mut self) -> anyhow::Result<()> {
        let mut command = self.program("kube-apiserver");
        command.args(&self.arguments);
        let mut server = Process::start("kube-apiserver", command, &self.folder)?;
        let client = self.client().await?;
        let ready = eventually("the API server is ready", LIMIT, || {
            let ended = server.check();
            let client = client.clone();
            async move {
                ended?;
                let request = http_get("/readyz")?;
                Ok(client.request_text(request).await.ok().filter(|text| text == "ok"))
            }
        });
        ready.await?;
        self.api_server = Some(server);
        Ok(())
    }

    /// Kills the API server.
    ///
    /// # Errors
    /// It could not be killed.
    pub async fn stop_api_server(&mut self) -> anyhow::Result<()> {
        match self.api_server.take() {
            Some(mut server) => server.kill().await,
            None => Ok(()),
        }
    }

    /// Sets the fraction of HTTP/2 requests, at most 0.02, after which the API server tells the
    /// client to open another connection (GOAWAY). Takes effect at its next start.
    pub fn set_goaway_chance(&mut self, chance: f64) {
        self.arguments.push(format!("--goaway-chance={chance}"));
    }

    /// Compacts etcd's history: a watch that resumes from an earlier version must list again.
    ///
    /// # Errors
    /// etcd does not answer.
    pub async fn compact(&self) -> anyhow::Result<()> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let range = http
            .post(format!("{}/v3/kv/range", self.etcd))
            .json(&json!({"key": "AA=="}))
            .send()
            .await?;
        let range: Value = range.error_for_status()?.json().await?;
        let revision = range["header"]["revision"].as_str().context("etcd names no revision")?;
        let compaction = json!({"revision": revision, "physical": true});
        http.post(format!("{}/v3/kv/compaction", self.etcd))
            .json(&compaction)
            .send()
            .await?
            .error_for_status()?;
        Ok(())
    }

    fn start_controllers(&mut self, authority: &Authority) -> anyhow::Result<()> {
        let common = [
            format!("--kubeconfig={}", self.kubeconfig.display()),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ];
        let mut manager = self.program("kube-controller-manager");
        manager.args(&common).arg(format!(
            "--service-account-private-key-file={}",
            self.folder.join("service-accounts.key").display()
        ));
        manager.arg(format!("--root-ca-file={}", authority.certificate.display()));
        manager.args([
            "--controllers=*,-horizontal-pod-autoscaler-controller,-cronjob-controller",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        ]);
        let mut scheduler = self.program("kube-scheduler");
        scheduler.args(&common).args(["--kube-api-qps=500", "--kube-api-burst=1000"]);
        // Both programs resolve their certificate folder relative to the working directory.
        manager.current_dir(&self.folder);
        scheduler.current_dir(&self.folder);
        self.parts.push(Process::start("kube-controller-manager", manager, &self.folder)?);
        self.parts.push(Process::start("kube-scheduler", scheduler, &self.folder)?);
        Ok(())
    }

    /// Returns a client with an administrator's rights.
    ///
    /// # Errors
    /// The kubeconfig cannot be read.
    pub async fn client(&self) -> anyhow::Result<Client> {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        let config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    /// Waits for the default service account of the namespace; Pods are rejected until it exists.
    async fn wait_for_service_account(&mut self) -> anyhow::Result<()> {
        let accounts: kube::Api<k8s_openapi::api::core::v1::ServiceAccount> =
            kube::Api::namespaced(self.client().await?, "default");
        for part in &mut self.parts {
            part.check()?;
        }
        eventually("the default service account", LIMIT, || async {
            Ok(accounts.get_opt("default").await?)
        })
        .await?;
        Ok(())
    }
}

/// Writes the kubeconfig of a user; `cluster` is its only entry of a cluster.
fn write_kubeconfig(file: &Path, user: &str, cluster: &Value) -> anyhow::Result<()> {
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "testbed",
        "clusters": [{"name": "testbed", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": user}}],
        "contexts": [{
            "name": "testbed",
            "context": {"cluster": "testbed", "user": user, "namespace": "default"},
        }],
    });
    Ok(std::fs::write(file, serde_json::to_vec_pretty(&kubeconfig)?)?)
}

fn http_get(path: &str) -> anyhow::Result<http::Request<Vec<u8>>> {
    http::Request::get(path).body(Vec::new()).context("a request")
}
