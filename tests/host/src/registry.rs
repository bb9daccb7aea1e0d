//! Real registries with different authentication over one storage. They speak HTTP and are behind
//! fronts.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use flashjob_testbed::process::{Process, eventually, free_port};
use serde_json::{Value, json};
use tokio::process::Command;

/// A running registry.
pub struct Registry {
    /// `http://127.0.0.1:…`.
    pub url: String,
    _process: Process,
}

impl Registry {
    /// Starts a registry; `auth` is in the format of distribution's configuration, null for none.
    /// All registries in one folder share their storage.
    ///
    /// # Errors
    /// The registry does not start.
    pub async fn start(
        programs: &Path,
        folder: &Path,
        name: &str,
        auth: Value,
    ) -> anyhow::Result<Self> {
        let host = format!("127.0.0.1:{}", free_port()?);
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": folder.join("storage")}},
            "http": {"addr": host},
        });
        if !auth.is_null() {
            config["auth"] = auth;
        }
        let file = folder.join(format!("{name}.json"));
        std::fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
        let mut command = Command::new(programs.join("registry"));
        command.arg("serve").arg(&file);
        let mut process = Process::start(name, command, folder)?;
        let (client, url) =
            (reqwest::Client::builder().no_proxy().build()?, format!("http://{host}"));
        let ready = eventually("a registry is ready", Duration::from_secs(30), || {
            let (ended, request) = (process.check(), client.get(format!("{url}/v2/")).send());
            async move {
                ended?;
                Ok(request.await.ok().map(|_| ()))
            }
        });
        ready.await.context("registry")?;
        Ok(Self { url, _process: process })
    }
}
