//! Runs the program as a fleet operator does, on a control plane with simulated devices.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::Context;
use flashjob_api::FlashJob;
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::{Options, Testbed};
use kube::Api;
use serde_json::Value;

/// A fleet operator, with a folder.
pub struct Person {
    pub testbed: Testbed,
    pub folder: tempfile::TempDir,
}

/// Exit code and output of a command.
#[derive(Debug)]
pub struct CommandOutput {
    pub code: Option<i32>,
    pub text: String,
    pub errors: String,
}

impl CommandOutput {
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("{self:?}"))
    }
}

impl Person {
    pub async fn new(devices: &[&str]) -> anyhow::Result<Self> {
        let mut person = Self::without_operator(devices).await?;
        person.testbed.start_operator().await?;
        Ok(person)
    }

    pub async fn without_operator(devices: &[&str]) -> anyhow::Result<Self> {
        let devices = devices.iter().map(|group| (*group).to_owned()).collect();
        let testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
        Ok(Self { testbed, folder: tempfile::tempdir()? })
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-flashjob"));
        command.current_dir(self.folder.path()).env_remove("RUST_LOG");
        command.env("KUBECONFIG", &self.testbed.control_plane.kubeconfig);
        command
    }

    /// Runs a command without input.
    pub fn run(&self, words: &[&str]) -> anyhow::Result<CommandOutput> {
        self.answer(words, "")
    }

    /// Runs a command with these answers from a pipe.
    pub fn answer(&self, words: &[&str], answers: &str) -> anyhow::Result<CommandOutput> {
        answer(self.command().args(words), answers)
    }

    /// Returns the uids of the devices of a type, in the order in which they are listed.
    pub fn uids(&self, kind: &str) -> anyhow::Result<Vec<String>> {
        let listing = self.run(&["devices", "--type", kind, "-o", "json"])?.json()?;
        let devices = listing["devices"].as_array().context("no devices")?;
        let uids = devices.iter().filter_map(|device| device["uid"].as_str().map(str::to_owned));
        Ok(uids.collect())
    }

    pub fn jobs(&self) -> Api<FlashJob> {
        Api::namespaced(self.testbed.client.clone(), "default")
    }

    pub async fn behave(&self, behaviour: &Behaviour) -> anyhow::Result<()> {
        for report in self.testbed.fleet.reports().await? {
            self.testbed.fleet.behave(&report.id, behaviour).await?;
        }
        Ok(())
    }

    /// Returns how often each device was flashed.
    pub async fn flashed(&self) -> anyhow::Result<Vec<u32>> {
        Ok(self.testbed.fleet.reports().await?.iter().map(|report| report.flashed).collect())
    }
}

pub fn answer(command: &mut Command, answers: &str) -> anyhow::Result<CommandOutput> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // A command that ends early does not read all of its input.
    let _ = child.stdin.take().context("no input")?.write_all(answers.as_bytes());
    let output = child.wait_with_output()?;
    let (text, errors) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    Ok(CommandOutput { code: output.status.code(), text, errors })
}

/// Returns the real kubectl with the person's kubeconfig.
pub fn kubectl(person: &Person) -> Command {
    let mut kubectl = Command::new(person.testbed.control_plane.programs.join("kubectl"));
    kubectl.env("KUBECONFIG", &person.testbed.control_plane.kubeconfig);
    kubectl
}
