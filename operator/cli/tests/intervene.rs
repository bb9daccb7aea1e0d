//! Tests of commands on FlashJobs that are repeated, too early or without effect, and of their
//! messages.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use flashjob_simulators::devices::Behaviour;

#[allow(dead_code, reason = "some of it is for other tests")]
mod person;

use person::Person;

const FIRMWARE: &str = "harbor.nbfc.io/nubificus/firmware:0.2.0";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_already_is_said_and_not_done_twice() -> anyhow::Result<()> {
    let person = Person::new(&["esp32:thermo:0.1.0=2"]).await?;
    let flash = ["flash", "--all", "--firmware", FIRMWARE, "--version", "0.2.0", "--yes"];
    let with = |words: &[&'static str]| [&flash[..], words].concat();
    let said = person.run(&with(&["-n", "nowhere"]))?;
    ensure!(said.code == Some(3), "{said:?}");
    ensure!(said.errors.contains("found no device in namespace nowhere"), "{said:?}");
    let said = person.run(&with(&["--pod-image", "!!"]))?;
    ensure!(said.code == Some(2) && said.errors.contains("is not a valid image"), "{said:?}");
    let said = person.answer(&["flash"], &format!("\n\n\ny\n{FIRMWARE}\n!!\n"))?;
    ensure!(said.code == Some(1) && said.text.contains("\"!!\" is not a valid image"), "{said:?}");
    ensure!(person.jobs().get_opt("flashjob").await?.is_none());
    person.behave(&Behaviour { cut_transfer: true, ..Behaviour::default() }).await?;
    let said = person.run(&flash)?;
    ensure!(said.code == Some(10), "{said:?}");
    // With a timeout of 0, a FlashJob that is over is reported as over.
    let said = person.run(&["status", "flashjob", "--timeout", "0"])?;
    ensure!(said.code == Some(10) && said.text.contains("failed 2"), "{said:?}");
    ensure!(!said.errors.contains("timed out after"), "{said:?}");
    let said = person.run(&["status", "missing", "--timeout", "0"])?;
    ensure!(said.code == Some(3) && said.errors.contains("no FlashJob"), "{said:?}");
    for (command, words) in [
        ("resume", "is not paused; nothing changed"),
        ("pause", "paused"),
        ("pause", "is already paused; nothing changed"),
        ("resume", "resumed"),
    ] {
        let said = person.run(&[command, "flashjob"])?;
        ensure!(said.code == Some(0) && said.text.contains(words), "{said:?}");
    }
    person.run(&["status", "flashjob", "-w"])?;
    person.behave(&Behaviour { transfer_ms: 300_000, ..Behaviour::default() }).await?;
    let said = person.run(&["retry", "flashjob", "--yes"])?;
    ensure!(said.code == Some(0), "{said:?}");
    let said = person.run(&["retry", "flashjob", "--yes"])?;
    ensure!(said.code == Some(3) && said.errors.contains("flashjob-retry-1"), "{said:?}");
    ensure!(person.jobs().list(&Default::default()).await?.items.len() == 2);
    let said = person.run(&["retry", "flashjob", "--again", "--dry-run", "-o", "name"])?;
    ensure!(said.code == Some(0) && said.text.contains("flashjob-retry-2"), "{said:?}");
    let said = person.run(&["status", "flashjob-retry-1", "--timeout", "0"])?;
    ensure!(said.code == Some(11) && said.errors.contains("timed out after 0 s"), "{said:?}");
    ensure!(said.text.contains("FlashJob default/flashjob-retry-1"), "{said:?}");
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
