//! Runs the program as a plugin author does, with a registry.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::Context;
use flashjob_testbed::certificates::Authority;
use flashjob_testbed::process::{repository, script};
use flashjob_testbed::registry::Registry;
use serde_json::Value;
use tempfile::TempDir;

/// A plugin author, with a folder and a registry that accepts pushes.
pub struct Author {
    pub folder: TempDir,
    pub registry: Registry,
    authority: PathBuf,
}

/// Exit code and output of a command.
pub struct CommandOutput {
    pub code: Option<i32>,
    pub json: Value,
    pub errors: String,
}

impl Author {
    pub async fn new() -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let programs = PathBuf::from(script("tests/control-plane/build.sh")?);
        let folder = tempfile::tempdir()?;
        let authority = Authority::new(folder.path())?;
        let registry = Registry::start(&programs, folder.path(), &authority).await?;
        let author = Self { folder, registry, authority: authority.certificate };
        author.log_in(&author.registry.docker_config())?;
        Ok(author)
    }

    /// Writes this Docker configuration.
    pub fn log_in(&self, config: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.folder.path().join("config.json"), config)?)
    }

    /// Runs `plugin` with these words, against the registry.
    pub fn plugin(&self, words: &[&str]) -> anyhow::Result<CommandOutput> {
        let mut command = plugin(words, self.folder.path());
        command.arg("--ca-file").arg(&self.authority);
        command_output(command.output()?)
    }

    /// Returns a reference in the registry.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.host)
    }
}

/// Returns the program with `plugin` and these words, in a folder that has its Docker
/// configuration.
pub fn plugin(words: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-flashjob"));
    command.args(["-o", "json", "plugin"]).args(words).current_dir(folder);
    command.env("DOCKER_CONFIG", folder).env_remove("SOURCE_DATE_EPOCH").env_remove("RUST_LOG");
    command
}

pub fn command_output(output: Output) -> anyhow::Result<CommandOutput> {
    let (text, errors) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    let json = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).with_context(|| format!("{text} {errors}"))?
    };
    Ok(CommandOutput { code: output.status.code(), json, errors })
}

impl CommandOutput {
    /// Returns the output of a command that succeeded.
    pub fn good(self) -> anyhow::Result<Value> {
        anyhow::ensure!(self.code == Some(0), "exit code {:?}: {}", self.code, self.errors);
        Ok(self.json)
    }

    /// Checks how a command failed: the exit code, the reason for programs, and words of the
    /// message for people.
    #[track_caller]
    pub fn failed(self, code: i32, reason: &str, words: &str) {
        assert_eq!(self.code, Some(code), "{}", self.errors);
        assert_eq!(self.json["error"]["reason"], reason, "{}", self.errors);
        assert_eq!(self.json["error"]["exitCode"], code);
        assert!(self.errors.contains(words), "{:?} does not say {words:?}", self.errors);
    }
}

/// Returns the path of a component that `tests/wasm/build.sh` built.
pub fn component(name: &str) -> String {
    repository().join(format!("target/plugins/{name}.wasm")).display().to_string()
}
