//! Checks that docs/kubectl-flashjob-sessions.md is the output of the program: each session is run
//! and compared. With FLASHJOB_RECORD=1 the page is written instead (`make sessions`).

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use flashjob_api::{FlashRollout, FlashRolloutStatus, RolloutPhase};
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::process::{eventually, repository};
use kube::Api;
use regex::Regex;
use serde_json::Value;

use crate::person::{Person, answer};

const FIRMWARE: &str = "harbor.nbfc.io/nubificus/firmware:0.2.0";
/// Replaces the registry of the testbed.
const REGISTRY: &str = "harbor.nbfc.io";
const ROLLOUT: &str = "hall-4";
/// Longer than any step takes on a slow machine.
const LIMIT: Duration = Duration::from_secs(120);
const BEGIN: &str = "# Sessions of kubectl flashjob
Recorded with `make sessions` from a control plane with simulated devices, and compared with the
program in every test run. Uids, ports, hashes and times are replaced by examples. Each command is
described in [kubectl-flashjob.md](kubectl-flashjob.md).
";

/// A page that is being written.
struct Page {
    text: String,
    /// Uids and names of the devices, in the order in which they are listed.
    devices: Vec<(String, String)>,
}

impl Page {
    /// Adds a session: a command line, its answers from a pipe, and its output.
    fn session(
        &mut self,
        person: &Person,
        words: &[&str],
        answers: &str,
        code: i32,
    ) -> anyhow::Result<()> {
        let mut command = person.command();
        command.args(words).env("DOCKER_CONFIG", person.folder.path());
        let output = answer(&mut command, answers)?;
        ensure!(output.code == Some(code), "{words:?}: {output:?}");
        let typed = match answers {
            "" => String::new(),
            answers => format!("printf '{}' | ", answers.replace('\n', "\\n")),
        };
        let line = format!("{typed}kubectl flashjob {}", words.join(" "));
        writeln!(self.text, "```console\n$ {line}\n{}", output.text.trim_end())?;
        if code != 0 {
            writeln!(self.text, "$ echo $?\n{code}")?;
        }
        writeln!(self.text, "```")?;
        Ok(())
    }

    fn title(&mut self, title: &str) -> anyhow::Result<()> {
        Ok(writeln!(self.text, "\n## {title}")?)
    }

    /// Replaces text that differs from run to run with examples of the same length.
    fn with_examples(mut self) -> anyhow::Result<String> {
        for (number, (uid, name)) in self.devices.iter().enumerate() {
            let example = format!("{number:08x}-0000-4000-8000-{number:012x}");
            self.text = self.text.replace(uid, &example);
            let (stem, _) = name.rsplit_once('-').context("a name without a dash")?;
            self.text = self.text.replace(name, &format!("{stem}-{number:06x}"));
        }
        for (pattern, example) in [
            (r"127\.0\.0\.1:[0-9]{5}", "192.0.2.77:8080"),
            (r"127\.0\.0\.1:[0-9]{4}", "192.0.2.7:8080"),
            // The seconds of a device, in the last cell of its row.
            (r"(?m)^([0-9a-f-]{36} .* [0-9]+ +)[0-9]+$", "${1}3"),
            (r"\btook [0-9]+ (s|min [0-9]+ s|min)", "took 3 s"),
            (r"sha256:[0-9a-f]{64}", "sha256:…"),
            (r"sha256:[0-9a-f]{12}", "sha256:0123456789ab"),
            (r"(the transfer failed: )[^(]+\(os error [0-9]+\)", "${1}Connection reset"),
            (r#"time="[0-9.]+""#, "time=\"3.000\""),
            (r"fj-([a-z0-9-]+?)-[0-9a-f]{12}", "fj-$1-0123456789ab"),
            (r#"slot: "?[0-9a-f]{12}"?"#, "slot: 0123456789ab"),
            (
                r"uid: [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
                "uid: 00000000-0000-4000-8000-0000000000ff",
            ),
        ] {
            self.text = Regex::new(pattern)?.replace_all(&self.text, example).into_owned();
        }
        Ok(self.text)
    }
}

fn waits_for_approval(status: &FlashRolloutStatus) -> bool {
    status.waiting_for.as_ref().is_some_and(|awaited| awaited.starts_with("approval"))
}

/// Waits until the rollout is in this phase, and no device is in flight.
async fn stops(person: &Person, phase: RolloutPhase) -> anyhow::Result<FlashRolloutStatus> {
    let rollouts: Api<FlashRollout> = Api::namespaced(person.testbed.client.clone(), "default");
    eventually(&format!("the rollout is {phase:?}"), LIMIT, || async {
        let rollout = rollouts.get(ROLLOUT).await?;
        let is_seen = |status: &FlashRolloutStatus| {
            status.observed_generation == rollout.metadata.generation
                && status.version.as_ref() == Some(&rollout.spec.version)
                && status.phase == Some(phase)
                // In this phase, the rollout may also wait for the firmware's registry.
                && (phase != RolloutPhase::Waiting || waits_for_approval(status))
                && status.counts.is_none_or(|counts| counts.in_flight == 0)
        };
        Ok(rollout.status.clone().filter(is_seen))
    })
    .await
}

/// Sessions of `kubectl flashjob rollout`: a run that is approved and completes, and one that
/// fails, is retried and aborted.
async fn rollout_sessions(person: &Person) -> anyhow::Result<String> {
    let mut page = Page { text: String::new(), devices: Vec::new() };
    let repository = format!("{}/nubificus/firmware", person.testbed.registry.host);
    let firmware = |version: &str| format!("{repository}:{version}");
    let create = ["rollout", "create", ROLLOUT, "--type", "esp32"];
    let batches = ["--batch", "canary=1", "--batch", "rest", "--approve", "rest", "--yes"];
    let first = firmware("0.3.0");
    let version = ["--firmware", &first, "--version", "0.3.0"];
    page.title("rollout create")?;
    page.session(person, &[&create[..], &version, &batches].concat(), "", 0)?;
    let mut runs = vec![stops(person, RolloutPhase::Waiting).await?];
    // The run decides which of equal devices goes first, so they are numbered in its order.
    let members = runs[0].members.iter().flat_map(|batch| batch.instances.clone());
    let uids = person.testbed.devices().await?.into_iter().map(|(uid, _)| uid);
    page.devices = uids.zip(members).collect();
    page.title("rollout preview")?;
    page.session(person, &["rollout", "preview", ROLLOUT], "", 0)?;
    page.title("rollout status")?;
    page.session(person, &["rollout", "status"], "", 0)?;
    page.session(person, &["rollout", "status", ROLLOUT], "", 0)?;
    page.title("rollout pause, resume")?;
    page.session(person, &["rollout", "pause", ROLLOUT], "", 0)?;
    page.session(person, &["rollout", "resume", ROLLOUT], "", 0)?;
    page.title("rollout approve")?;
    page.session(person, &["rollout", "approve", &format!("{ROLLOUT}/rest")], "", 0)?;
    stops(person, RolloutPhase::Completed).await?;
    page.session(person, &["rollout", "status", ROLLOUT], "", 0)?;
    page.title("rollout retry")?;
    let broken = Behaviour { cut_transfer: true, ..Behaviour::default() };
    person.behave(&broken).await?;
    let second = firmware("0.2.0");
    let version = ["--firmware", &second, "--version", "0.2.0", "--allow-downgrade"];
    page.session(person, &[&create[..], &version, &batches].concat(), "", 0)?;
    runs.push(stops(person, RolloutPhase::Paused).await?);
    page.session(person, &["rollout", "status", ROLLOUT], "", 0)?;
    person.behave(&Behaviour::default()).await?;
    page.session(person, &["rollout", "retry", ROLLOUT, "--yes"], "", 0)?;
    stops(person, RolloutPhase::Waiting).await?;
    page.title("rollout abort")?;
    page.session(person, &["rollout", "abort", ROLLOUT, "--yes"], "", 0)?;
    stops(person, RolloutPhase::Aborted).await?;
    page.title("rollout history")?;
    page.session(person, &["rollout", "history", ROLLOUT], "", 0)?;
    for (number, status) in runs.iter().enumerate() {
        let run = status.run.as_ref().context("no run")?;
        page.text = page.text.replace(run, &format!("{number:02x}1b2c"));
    }
    page.text = page.text.replace(&person.testbed.registry.host, REGISTRY);
    let mut text = page.with_examples()?;
    for (pattern, example) in [
        // The device that goes first differs, and so does its version from earlier sessions.
        (r"(akri-esp32-[0-9]{6} +esp32 +thermo +)0\.[12]\.0", "${1}0.2.0"),
        (r"For example akri-esp32-[0-9]{6}", "For example akri-esp32-000000"),
        (r"(?m)^  akri-esp32-[0-9]{6}( +canary )", "  akri-esp32-000000$1"),
        (r"(the transfer failed: ).+( \(Error, exit code)", "${1}Connection reset$2"),
        (r"\bbegan [0-9]+ s ago", "began 3 s ago"),
        (r"[0-9-]{10} [0-9:]{8}Z +[0-9]+ s +", "2026-01-02 03:04:05Z   3 s    "),
    ] {
        text = Regex::new(pattern)?.replace_all(&text, example).into_owned();
    }
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_sessions_are_what_the_program_says() -> anyhow::Result<()> {
    let person = Person::new(&["esp32:thermo:0.1.0=3", "esp32s2:thermo:0.1.0=1"]).await?;
    let listed = person.run(&["devices", "-o", "json"])?.json()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let devices = listed["devices"].as_array().context("no devices")?;
    let devices =
        devices.iter().filter_map(|device| text(&device["uid"]).zip(text(&device["name"])));
    let devices: Vec<_> = devices.collect();
    let first = devices.first().context("no device")?.0.clone();
    std::fs::write(
        person.folder.path().join("config.json"),
        person.testbed.registry.docker_config(),
    )?;
    std::fs::copy(person.testbed.write_config()?, person.folder.path().join("operator.yaml"))?;
    let mut page = Page { text: BEGIN.to_owned(), devices };
    let version = ["--firmware", FIRMWARE, "--version", "0.2.0"];
    page.title("devices")?;
    page.session(&person, &["devices"], "", 0)?;
    page.session(&person, &["devices", "--type", "esp32s2", "-o", "name"], "", 0)?;
    page.title("flash: the dialogue")?;
    let answers = format!("esp32\nthermo\n\nn\n0,2\n{FIRMWARE}\n\n1\n1\n");
    page.session(&person, &["flash"], &answers, 0)?;
    page.title("flash: from options")?;
    let dry = [&["flash", "--type", "esp32s2", "--name", "hall-2"], &version[..], &["--dry-run"]]
        .concat();
    page.session(&person, &dry, "", 0)?;
    let report = person.testbed.devices().await?;
    let broken = Behaviour { cut_transfer: true, ..Behaviour::default() };
    let kind = |report: &flashjob_simulators::devices::Report| report.device == "esp32s2";
    let (_, device) = report.iter().find(|(_, report)| kind(report)).context("no device")?;
    person.testbed.fleet.behave(&device.id, &broken).await?;
    let flash =
        [&["flash", "--type", "esp32s2"], &version[..], &["--name", "hall-3", "--yes"]].concat();
    page.session(&person, &flash, "", 10)?;
    page.title("preview")?;
    let preview = ["preview", "hall-3", "--config", "operator.yaml"];
    page.session(&person, &preview, "", 0)?;
    page.title("status")?;
    page.session(&person, &["status"], "", 0)?;
    page.session(&person, &["status", "hall-3"], "", 10)?;
    page.title("report")?;
    page.session(&person, &["report", "flashjob"], "", 0)?;
    page.session(&person, &["report", "hall-3", "-o", "junit"], "", 0)?;
    page.title("retry")?;
    person.testbed.fleet.behave(&device.id, &Behaviour::default()).await?;
    page.session(&person, &["retry", "hall-3", "--yes"], "", 0)?;
    // The number of lines that a watch prints differs from run to run.
    person.run(&["status", "hall-3-retry-1", "--timeout", "5m"])?;
    page.session(&person, &["status", "hall-3-retry-1"], "", 0)?;
    page.title("pause, resume")?;
    page.session(&person, &["pause", "flashjob"], "", 0)?;
    page.session(&person, &["resume", "flashjob"], "", 0)?;
    page.title("cancel")?;
    page.session(&person, &["cancel", "hall-3", "hall-3-retry-1", "--yes"], "", 0)?;
    ensure!(page.text.contains(&first));
    let text = page.with_examples()? + &rollout_sessions(&person).await?;
    let path: PathBuf = repository().join("docs/kubectl-flashjob-sessions.md");
    if std::env::var_os("FLASHJOB_RECORD").is_some() {
        return Ok(std::fs::write(path, text)?);
    }
    let documented = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (is, says)) in text.lines().zip(documented.lines()).enumerate() {
        ensure!(is == says, "line {}: documented:\n{says}\nsaid:\n{is}", number + 1);
    }
    ensure!(
        text == documented,
        "docs/kubectl-flashjob-sessions.md is not what the program says: make sessions"
    );
    Ok(())
}
