//! The simulated hardware of a testbed: devices, Akri, load balancer, and a kubelet that runs a
//! program of this machine for each image.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::certificates::Authority;
use crate::fleet::Fleet;
use crate::options::Options;
use crate::process::{Process, free_port, sibling};
use crate::registry::Registry;

/// The folder and the cluster of the simulators.
pub(crate) struct Simulators<'a> {
    pub folder: &'a Path,
    pub kubeconfig: &'a Path,
}

impl Simulators<'_> {
    fn command(&self, simulator: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(sibling("simulate")?);
        command.args(["--exit-with-stdin", simulator]).env("KUBECONFIG", self.kubeconfig);
        Ok(command)
    }

    pub async fn start(
        &self,
        options: &Options,
        registry: &Registry,
        authority: &Authority,
    ) -> anyhow::Result<(Fleet, Vec<Process>)> {
        let mut devices = self.command("devices")?;
        options.devices.iter().for_each(|group| {
            devices.args(["--devices", group]);
        });
        let (devices, addresses) =
            Process::start_and_listen("devices", devices, self.folder).await?;
        let at = |addresses: &Value| {
            addresses["admin"].as_str().map(str::to_owned).context("no address")
        };
        let address = at(&addresses)?;
        let mut akri = self.command("akri")?;
        akri.args(["--devices", &address]);
        let (akri, addresses) = Process::start_and_listen("akri", akri, self.folder).await?;
        let fleet = Fleet::new(&address, &at(&addresses)?)?;
        let kubelet =
            Process::start("kubelet", self.kubelet(options, registry, authority)?, self.folder)?;
        let mut balancer = self.command("load-balancer")?;
        balancer.args(["--first", &subnet()?, "--count", &options.addresses.to_string()]);
        let balancer = Process::start("load-balancer", balancer, self.folder)?;
        Ok((fleet, vec![devices, akri, kubelet, balancer]))
    }

    /// Starts the simulated kubelet. Its flash image is the product's flash program with these
    /// options.
    fn kubelet(
        &self,
        options: &Options,
        registry: &Registry,
        authority: &Authority,
    ) -> anyhow::Result<Command> {
        let mut kubelet = self.command("kubelet")?;
        // A second image, whose termination message is the folder in which its container was
        // started.
        let toaster = self.folder.join("toaster.sh");
        let script = [
            "#!/bin/sh".to_owned(),
            "set -e".to_owned(),
            flasher("\"$EXTERNAL_IP\"", "\"$SIMULATED_ROOT\"")?,
            "printf 'flashed, from /%s' \"${PWD#\"$SIMULATED_ROOT\"}\" | tr -s / \
             >\"$SIMULATED_ROOT\"/dev/termination-log"
                .to_owned(),
        ];
        std::fs::write(&toaster, script.join("\n"))?;
        let images = [
            ("*/esp32-sota:*", flasher("$(EXTERNAL_IP)", "$(SIMULATED_ROOT)")?),
            // For plugins that specify the whole command.
            (
                "registry.example/flasher:1",
                format!("{CONTAINED} {}", sibling("flashjob-flasher")?.display()),
            ),
            ("registry.example/toaster:1", format!("{CONTAINED} sh {}", toaster.display())),
        ];
        for (pattern, program) in images {
            kubelet.args(["--image", &format!("{pattern}={program}")]);
        }
        let access = self.folder.join("firmware-access");
        write_access(&access, registry, &authority.certificate)?;
        let variables = [
            // A simulated chip is already in its bootloader, and its port has no control lines.
            ("FLASHER_BEFORE", "no-reset".to_owned()),
            ("FLASHER_AFTER", "no-reset".to_owned()),
            ("FLASHER_REGISTRY_DIRECTORY", access.display().to_string()),
            ("FLASHER_TERMINATION_LOG", "$(SIMULATED_ROOT)/dev/termination-log".to_owned()),
            ("FLASHER_WAIT", format!("{}ms", options.flasher_wait_ms)),
            ("FLASHER_CALLBACK_TIMEOUT", format!("{}ms", options.flasher_callback_timeout_ms)),
            ("FLASHER_ASK_AGAIN", format!("{}ms", options.flasher_ask_again_ms)),
            // As long as an attempt by default: a device may hold its transfer for a test.
            ("FLASHER_STALL_TIMEOUT", "15m".to_owned()),
        ];
        for (name, value) in variables {
            kubelet.args(["--image-env", &format!("{name}={value}")]);
        }
        kubelet.arg("--root").arg(self.folder.join("pods"));
        Ok(kubelet)
    }
}

/// Returns the command of the flash program in a container: on its own address, with its own
/// files.
fn flasher(address: &str, root: &str) -> anyhow::Result<String> {
    Ok(format!(
        "{CONTAINED} {} ota --listen={address} --certificates={root}/ota/certs \
         --termination-log={root}/dev/termination-log",
        sibling("flashjob-flasher")?.display()
    ))
}

/// Command prefix for a program that is killed when its parent ends.
const CONTAINED: &str = "setpriv --pdeathsig KILL --";

/// Writes the files with which the flash image reaches the registry. The registry acts as a mirror
/// of the one that references name.
///
/// # Errors
/// The folder cannot be written.
pub fn write_access(folder: &Path, registry: &Registry, authority: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("config.json"), registry.docker_config())?;
    std::fs::copy(authority, folder.join("ca.crt"))?;
    let policy = json!({"registries": [
        {"host": "harbor.nbfc.io", "mirrors": [registry.host]},
        {"host": registry.host, "caFile": "ca.crt"},
    ]});
    std::fs::write(folder.join("policy.yaml"), policy.to_string())?;
    Ok(())
}

/// Returns an address of a loopback subnet that no other testbed has: the subnet is derived from a
/// free port, which is unique.
fn subnet() -> anyhow::Result<String> {
    let port = free_port()?;
    Ok(format!("127.{}.{}.1", 100 + port / 256 % 100, port % 256))
}
