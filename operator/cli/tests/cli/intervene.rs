//! Tests of commands on FlashJobs that are repeated, too early or without effect, and of their
//! messages.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use flashjob_simulators::devices::Behaviour;

use crate::person::Person;

const FIRMWARE: &str = "harbor.nbfc.io/nubificus/firmware:0.2.0";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_already_is_said_and_not_done_twice() -> anyhow::Result<()> {
    let person = Person::new(&["esp32:thermo:0.1.0=2"]).await?;
    let flash = ["flash", "--all", "--firmware", FIRMWARE, "--version", "0.2.0", "--yes"];
    let with = |words: &[&'static str]| [&flash[..], words].concat();
    let output = person.run(&with(&["-n", "nowhere"]))?;
    ensure!(output.code == Some(3), "{output:?}");
    ensure!(output.errors.contains("found no device in namespace nowhere"), "{output:?}");
    let output = person.run(&with(&["--pod-image", "!!"]))?;
    ensure!(
        output.code == Some(2) && output.errors.contains("is not a valid image"),
        "{output:?}"
    );
    let output = person.answer(&["flash"], &format!("\n\n\ny\n{FIRMWARE}\n!!\n"))?;
    ensure!(
        output.code == Some(1) && output.text.contains("\"!!\" is not a valid image"),
        "{output:?}"
    );
    ensure!(person.jobs().get_opt("flashjob").await?.is_none());
    person.behave(&Behaviour { cut_transfer: true, ..Behaviour::default() }).await?;
    let output = person.run(&flash)?;
    ensure!(output.code == Some(10), "{output:?}");
    // With a timeout of 0, a FlashJob that is over is reported as over.
    let output = person.run(&["status", "flashjob", "--timeout", "0"])?;
    ensure!(output.code == Some(10) && output.text.contains("failed 2"), "{output:?}");
    ensure!(!output.errors.contains("timed out after"), "{output:?}");
    let output = person.run(&["status", "missing", "--timeout", "0"])?;
    ensure!(output.code == Some(3) && output.errors.contains("no FlashJob"), "{output:?}");
    for (command, words) in [
        ("resume", "is not paused; nothing changed"),
        ("pause", "paused"),
        ("pause", "is already paused; nothing changed"),
        ("resume", "resumed"),
    ] {
        let output = person.run(&[command, "flashjob"])?;
        ensure!(output.code == Some(0) && output.text.contains(words), "{output:?}");
    }
    person.run(&["status", "flashjob", "-w"])?;
    person.behave(&Behaviour { transfer_ms: 300_000, ..Behaviour::default() }).await?;
    let output = person.run(&["retry", "flashjob", "--yes"])?;
    ensure!(output.code == Some(0), "{output:?}");
    let output = person.run(&["retry", "flashjob", "--yes"])?;
    ensure!(output.code == Some(3) && output.errors.contains("flashjob-retry-1"), "{output:?}");
    ensure!(person.jobs().list(&Default::default()).await?.items.len() == 2);
    let output = person.run(&["retry", "flashjob", "--again", "--dry-run", "-o", "name"])?;
    ensure!(output.code == Some(0) && output.text.contains("flashjob-retry-2"), "{output:?}");
    let output = person.run(&["status", "flashjob-retry-1", "--timeout", "0"])?;
    ensure!(
        output.code == Some(11) && output.errors.contains("timed out after 0 s"),
        "{output:?}"
    );
    ensure!(output.text.contains("FlashJob default/flashjob-retry-1"), "{output:?}");
    interrupted(&person, "flashjob-retry-1")
}

/// Interrupts a watch, and checks that it says how to end the FlashJob.
fn interrupted(person: &Person, name: &str) -> anyhow::Result<()> {
    let mut command = person.command();
    command.args(["status", name, "-w"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut watch = command.spawn()?;
    let mut line = String::new();
    BufReader::new(watch.stdout.take().context("no output")?).read_line(&mut line)?;
    ensure!(Command::new("kill").args(["-INT", &watch.id().to_string()]).status()?.success());
    let ended = watch.wait_with_output()?;
    let errors = String::from_utf8(ended.stderr)?;
    ensure!(ended.status.code() == Some(130), "{errors}");
    let cancel = format!("kubectl flashjob cancel {name} -n default ends it");
    ensure!(errors.contains(&cancel), "{errors}");
    Ok(())
}
