//! A real OCI registry with TLS and a password.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use oci_client::Client;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig};
use oci_client::secrets::RegistryAuth;
use serde_json::json;
use tokio::process::Command;

use crate::certificates::Authority;
use crate::process::{Process, eventually, free_port};

/// The one user.
pub const USER: &str = "robot";
/// Its password.
pub const PASSWORD: &str = "secret-of-the-robot";

/// The one user and the hash of its password, as a registry reads them.
///
/// # Errors
/// The system gives no random numbers.
pub fn htpasswd() -> anyhow::Result<String> {
    Ok(format!("{USER}:{}\n", bcrypt::hash(PASSWORD, 4)?))
}

/// Its configuration, in its folder.
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
    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// It does not start.
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
        let ready = eventually("the registry is ready", Duration::from_secs(30), || {
            let (ended, request) =
                (process.check(), http.get(&url).basic_auth(USER, Some(PASSWORD)).send());
            async move {
                ended?;
                Ok(request.await.ok().filter(|answer| answer.status().is_success()))
            }
        });
        ready.await.context("registry").map(drop)
    }

    /// Ends it, as an outage would.
    ///
    /// # Errors
    /// It could not be killed.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.kill().await
    }

    /// Starts it again at the same address, with what it had.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        self.process = serve(&self.program, &self.folder)?;
        self.ready().await
    }

    /// A client that trusts it.
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

    /// User name and password.
    #[must_use]
    pub fn auth(&self) -> RegistryAuth {
        RegistryAuth::Basic(USER.to_owned(), PASSWORD.to_owned())
    }

    /// The Docker configuration with the password, as a Secret holds it.
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
