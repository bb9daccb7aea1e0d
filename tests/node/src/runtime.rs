//! containerd, with a separate folder and socket.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use flashjob_testbed::process::{LIMIT, Process, eventually};
use tokio::process::Command;

use crate::network::PODS;
use crate::requirements;

/// Image of each Pod's sandbox container.
pub const PAUSE: &str = "registry.k8s.io/pause:node";

/// A running containerd.
pub struct Runtime {
    /// Socket of its CRI and of its own API.
    pub socket: PathBuf,
    programs: PathBuf,
    process: Process,
}

impl Runtime {
    /// Starts containerd, and waits until it answers.
    ///
    /// # Errors
    /// containerd does not start.
    pub async fn start(programs: &Path, folder: &Path) -> anyhow::Result<Self> {
        let networks = folder.join("networks");
        std::fs::create_dir_all(&networks)?;
        std::fs::write(networks.join("10-node.conflist"), network(folder))?;
        let socket = folder.join("containerd.sock");
        let config = folder.join("containerd.toml");
        std::fs::write(&config, configuration(folder, &socket, &networks)?)?;
        let mut command = Command::new(programs.join("containerd"));
        command.arg("--config").arg(&config).env("PATH", path(programs)?);
        let process = Process::start("containerd", command, folder)?;
        let mut runtime = Self { socket, programs: programs.to_owned(), process };
        eventually("containerd answers", LIMIT, || {
            let (ended, version) = (runtime.process.check(), runtime.ctr(&["version"]));
            async move {
                ended?;
                Ok(version.await.ok())
            }
        })
        .await?;
        Ok(runtime)
    }

    /// Imports the image of an archive into containerd, under the names in the archive.
    ///
    /// # Errors
    /// containerd refuses the image.
    pub async fn import(&self, archive: &Path) -> anyhow::Result<()> {
        let archive = archive.display().to_string();
        self.ctr(&["--namespace", "k8s.io", "images", "import", &archive]).await.map(|_| ())
    }

    /// Runs ctr, containerd's own client, and returns its output.
    ///
    /// # Errors
    /// ctr fails; the error contains its output.
    pub fn ctr(&self, arguments: &[&str]) -> impl Future<Output = anyhow::Result<String>> + use<> {
        let mut command = Command::new(self.programs.join("ctr"));
        command.arg("--address").arg(&self.socket).args(arguments).kill_on_drop(true);
        let command_line = arguments.join(" ");
        async move {
            let output = command.output().await.context("ctr")?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "ctr {command_line}: {stderr}");
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
    }
}

/// Returns a search path with the shim beside containerd, and with the folders of an
/// administrator's programs.
fn path(programs: &Path) -> anyhow::Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path);
    Ok(std::env::join_paths(
        [programs.to_owned()]
            .into_iter()
            .chain(folders)
            .chain(["/usr/sbin".into(), "/sbin".into()]),
    )?)
}

/// Returns a bridge network in hairpin mode, in which a Pod also reaches a Service that routes
/// back to it.
fn network(folder: &Path) -> String {
    serde_json::json!({
        "cniVersion": "1.0.0", "name": "node",
        "plugins": [{
            "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local", "ranges": [[{"subnet": PODS}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": folder.join("addresses"),
            },
        }],
    })
    .to_string()
}

fn configuration(folder: &Path, socket: &Path, networks: &Path) -> anyhow::Result<String> {
    let plugins = requirements::network_plugins().context("no network plugins for containers")?;
    let runc = requirements::find("runc").context("no runc")?;
    let (root, state) = (folder.join("containerd"), folder.join("containerd-state"));
    // Without CAP_SYS_RESOURCE, as in a container or a sandbox, containerd may not give a process
    // a lower oom_score_adj than its own.
    Ok(format!(
        r#"version = 3
root = {root:?}
state = {state:?}
[grpc]
address = {socket:?}
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = [{plugins:?}]
conf_dir = {networks:?}
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
BinaryName = {runc:?}
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"
"#
    ))
}
