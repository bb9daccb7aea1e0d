//! Tests of shell completion and of the manual.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use flashjob_testbed::process::script as script_of;

use crate::person::answer;

#[test]
fn kubectl_completes_commands_and_options_and_a_manual_is_written() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let program = PathBuf::from(env!("CARGO_BIN_EXE_kubectl-flashjob"));
    let written = answer(Command::new(&program).args(["completion", "kubectl"]), "")?;
    let script = folder.path().join("kubectl_complete-flashjob");
    std::fs::write(&script, written.text)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let programs = PathBuf::from(script_of("tests/control-plane/build.sh")?);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = program.parent().context("no folder")?.to_owned();
    let folders =
        [folder.path().to_owned(), beside].into_iter().chain(std::env::split_paths(&path));
    let mut kubectl = Command::new(programs.join("kubectl"));
    kubectl.args(["__complete", "flashjob", "st"]).env("PATH", std::env::join_paths(folders)?);
    let output = answer(&mut kubectl, "")?;
    ensure!(output.text.starts_with("status\tShow how FlashJobs get on"), "{output:?}");
    let manual = folder.path().join("man1");
    let output = answer(
        Command::new(&program).args(["completion", "man", "--directory"]).arg(&manual),
        "",
    )?;
    ensure!(output.code == Some(0), "{output:?}");
    ensure!(manual.join("kubectl-flashjob-flash.1").is_file());
    Ok(())
}
