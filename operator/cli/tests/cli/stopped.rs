//! `flash` in batches, stopped by somebody who deletes its FlashJob: it is not created again, and
//! the command says which devices were not started.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{Context, ensure};
use flashjob_api::{FlashJob, FlashJobSpec};
use kube::api::PostParams;

use crate::person::Person;

const FIRMWARE: &str = "harbor.nbfc.io/nubificus/firmware:0.2.0";

/// A running command.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn begin(person: &Person, words: &[&str], answers: &str) -> anyhow::Result<Self> {
        let mut command = person.command();
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        child.stdin.take().context("no input")?.write_all(answers.as_bytes())?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, output })
    }

    /// Waits for a line with these words.
    fn says(&mut self, words: &str) -> anyhow::Result<()> {
        let mut text = String::new();
        while !text.lines().last().is_some_and(|line| line.contains(words)) {
            ensure!(self.output.read_line(&mut text)? > 0, "ended without {words:?}: {text}");
        }
        Ok(())
    }

    /// Returns the exit code and standard error.
    fn ends(self) -> anyhow::Result<(Option<i32>, String)> {
        let ended = self.child.wait_with_output()?;
        Ok((ended.status.code(), String::from_utf8(ended.stderr)?))
    }
}

/// Deletes a FlashJob while the command waits for its next batch, and checks how the command ends.
async fn deleted(person: &Person, running: Running, name: &str) -> anyhow::Result<()> {
    let output = person.run(&["cancel", name, "--yes"])?;
    ensure!(output.code == Some(0), "{output:?}");
    let (code, errors) = running.ends()?;
    ensure!(code == Some(3), "{code:?}: {errors}");
    ensure!(errors.contains(&format!("FlashJob default/{name} was deleted")), "{errors}");
    ensure!(errors.contains("Not started: 2 devices of later batches"), "{errors}");
    ensure!(person.jobs().get_opt(name).await?.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_deleted_between_batches_is_not_made_again() -> anyhow::Result<()> {
    let person = Person::new(&["esp32:thermo:0.1.0=3"]).await?;
    let flash = ["flash", "--all", "--firmware", FIRMWARE, "--version", "0.2.0", "--yes"];
    let flash = [&flash[..], &["--batch-size", "1", "--delay", "10m"]].concat();
    let mut running = Running::begin(&person, &flash, "")?;
    running.says("The next batch follows after 10 min")?;
    deleted(&person, running, "flashjob").await?;
    // The same in the dialogue.
    let answers = format!("\n\n\ny\n{FIRMWARE}\n\n1\n600\n");
    let mut running = Running::begin(&person, &["flash"], &answers)?;
    running.says("Waiting for 600 seconds")?;
    let output = person.run(&["status", "flashjob", "--timeout", "2m"])?;
    ensure!(output.code == Some(0), "{output:?}");
    deleted(&person, running, "flashjob").await?;
    // The same for the FlashJob that takes the devices for which the first has no room.
    let spec = FlashJobSpec {
        uuid: (0..4096).map(|number| format!("nobody-{number}")).collect(),
        firmware: FIRMWARE.to_owned(),
        version: "0.2.0".to_owned(),
        ..FlashJobSpec::default()
    };
    person.jobs().create(&PostParams::default(), &FlashJob::new("flashjob", spec)).await?;
    let mut running = Running::begin(&person, &flash, "")?;
    running.says("FlashJob default/flashjob-2")?;
    running.says("The next batch follows after 10 min")?;
    deleted(&person, running, "flashjob-2").await?;
    // Each time only the first batch was started, with the same device.
    let flashed = person.flashed().await?;
    ensure!(flashed.iter().filter(|count| **count > 0).count() == 1, "{flashed:?}");
    Ok(())
}
