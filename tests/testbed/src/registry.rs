//! A real OCI registry with TLS and a password.

use std::path::{Path, PathBuf};

use anyhow::Context;
use oci_client::Client;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig};
use oci_client::secrets::RegistryAuth;
use serde_json::json;
use tokio::process::Command;

use crate::certificates::Authority;
use crate::process::{LIMIT, Process, eventually, free_port};

/// Name of the registry's only user.
pub const USER: &str = "robot";
/// Password of that user.
pub const PASSWORD: &str = "secret-of-the-robot";

/// Returns the htpasswd file of a registry: its only user and the hash of the password.
///
/// # Errors
/// The system provides no random numbers.
pub fn htpasswd() -> anyhow::Result<String> {
    Ok(format!("{USER}:{}\n", bcrypt::hash(PASSWORD, 4)?))
}

/// Name of the configuration file in the registry's folder.
const CONFIG: &str = "registry.json";

/// A running registry.
pub struct Registry {
    /// `host:port`.
    pub host: String,
    certificate: Vec<u8>,
    program: PathBuf,
    folder: PathBuf,
    process: Process,
}

impl Registry {
    /// Starts the registry, and waits until it answers.
    ///
    /// # Errors
    /// The registry does not start.
    pub async fn start(
        programs: &Path,
        folder: &Path,
        authority: &Authority,
    ) -> anyhow::Result<Self> {
        let host = format!("{}:{}", authority.address, free_port()?);
        let (certificate, key) = authority.server("registry")?;
        let passwords = folder.join("htpasswd");
        std::fs::write(&passwords, htpasswd()?)?;
        let config = json!({
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": true}},
            "storage": {
                "filesystem": {"rootdirectory": folder.join("registry")},
                "delete": {"enabled": true},
            },
            "http": {"addr": host, "tls": {"certificate": certificate, "key": key}},
            "auth": {"htpasswd": {"realm": "testbed", "path": passwords}},
        });
        let file = folder.join(CONFIG);
        std::fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
        let certificate = std::fs::read(&authority.certificate)?;
        let (program, folder) = (programs.join("registry"), folder.to_owned());
        let process = serve(&program, &folder)?;
        let mut registry = Self { host, certificate, program, folder, process };
        registry.ready().await?;
        Ok(registry)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let http = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&self.certificate)?])
            .no_proxy()
            .build()?;
        let url = format!("https://{}/v2/", self.host);
        let process = &mut self.process;
        let ready = eventually("the registry is ready", LIMIT, || {
            let (ended, request) =
                (process.check(), http.get(&url).basic_auth(USER, Some(PASSWORD)).send());
            async move {
                ended?;
                Ok(request.await.ok().filter(|answer| answer.status().is_success()))
            }
        });
        ready.await.context("registry").map(drop)
    }

    /// Kills the registry, as an outage would.
    ///
    /// # Errors
    /// The registry could not be killed.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.kill().await
    }

    /// Restarts the registry at the same address, with its stored content.
    ///
    /// # Errors
    /// The registry does not start.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        self.process = serve(&self.program, &self.folder)?;
        self.ready().await
    }

    /// Returns a client that trusts the registry's certificate.
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub fn client(&self) -> anyhow::Result<Client> {
        let certificate =
            Certificate { encoding: CertificateEncoding::Pem, data: self.certificate.clone() };
        let config =
            ClientConfig { extra_root_certificates: vec![certificate], ..ClientConfig::default() };
        Ok(Client::try_from(config)?)
    }

    /// Returns the user name and password.
    #[must_use]
    pub fn auth(&self) -> RegistryAuth {
        RegistryAuth::Basic(USER.to_owned(), PASSWORD.to_owned())
    }

    /// Returns the Docker configuration with the password, as a Secret stores it.
    #[must_use]
    pub fn docker_config(&self) -> String {
        json!({"auths": {&self.host: {"username": USER, "password": PASSWORD}}}).to_string()
    }
}

fn serve(program: &Path, folder: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new(program);
    command.arg("serve").arg(folder.join(CONFIG));
    Process::start("registry", command, folder)
}
