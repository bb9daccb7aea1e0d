//! Tests of the dialogue of `flash`, from a pipe and on a terminal.

use anyhow::ensure;
use flashjob_simulators::devices::Behaviour;
use rexpect::process::WaitStatus;
use rexpect::session::{PtySession, spawn_command};

use crate::person::{Person, answer, kubectl};

const FIRMWARE: &str = "harbor.nbfc.io/nubificus/firmware:0.2.0";
const FILE: &str = "flashjob_operator/config/samples/application_v1alpha1_flashjob.yaml";

fn on_a_terminal(person: &Person, words: &[&str]) -> anyhow::Result<PtySession> {
    let mut command = person.command();
    command.args(words);
    Ok(spawn_command(command, Some(60_000))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn piped_answers_of_the_script_get_its_words_and_flash_in_batches() -> anyhow::Result<()> {
    let person = Person::new(&["esp32:thermo:0.1.0=3", "esp32s2:thermo:0.1.0=1"]).await?;
    let uids = person.uids("esp32")?;
    ensure!(uids.len() == 3, "{uids:?}");
    let answers = format!("ESP32\nthermo\n\nn\n7\n\n0,2\n{FIRMWARE}\n\n1\n1\n");
    let output = person.answer(&["flash"], &answers)?;
    ensure!(output.code == Some(0), "{output:?}");
    let line = |number: usize| {
        let uid = &uids[number];
        format!("[{number}] UUID: {uid}, Device Type: esp32, Application Type: thermo\n")
    };
    let batch = |number: usize, uid: &str| {
        format!(
            "\nApplying batch {number} with UUIDs: ['{uid}']\nUUIDs saved to {FILE}\n\
             Successfully applied {FILE}\nWaiting for 1 seconds before the next batch...\n"
        )
    };
    let numbers = "\nEnter the numbers of the UUIDs you want to include (comma-separated): ";
    let expected = format!(
        "Enter device type to filter (or press Enter to skip): \
         Enter application type to filter (or press Enter to skip): \
         Enter UUID to filter (or press Enter to skip): \n\
         Available Akri Instances:\n{}{}{}\n\
         Do you want to select all UUIDs? (y/n): {numbers}\
         \"7\" is not a number from 0 to 2; nothing was selected.\n{numbers}\
         Please enter at least one number.\n{numbers}\
         Enter the firmware to use: \
         Enter the flashjobPodImage to use [the plugin's default]: \
         Enter the number of UUIDs per batch (default is 5): \
         Enter the delay between batches in seconds (default is 60): {}{}",
        line(0),
        line(1),
        line(2),
        batch(1, &uids[0]),
        batch(2, &uids[2]),
    );
    ensure!(output.text.starts_with(&expected), "expected:\n{expected}\nsaid:\n{}", output.text);
    ensure!(output.text.contains("completed 2, failed 0"), "{}", output.text);
    let job = person.jobs().get("flashjob").await?;
    ensure!(job.spec.uuid == [uids[0].clone(), uids[2].clone()], "{:?}", job.spec);
    ensure!(job.spec.device.as_deref() == Some("esp32") && job.spec.version == "0.2.0");
    // kubectl accepts the file, and the operator has nothing more to do.
    let mut kubectl = kubectl(&person);
    let applied = answer(kubectl.args(["apply", "-f"]).arg(person.folder.path().join(FILE)), "")?;
    ensure!(applied.code == Some(0), "{applied:?}");
    ensure!(person.jobs().get("flashjob").await?.spec == job.spec);
    // The order of the answers before the question about the image was added.
    let answers = format!("esp32\nthermo\n\ny\n{FIRMWARE}\n2\n0\n");
    let output = person.answer(&["flash", "--interactive"], &answers)?;
    ensure!(output.code == Some(0), "{output:?}");
    ensure!(output.text.contains("Left out: 2 devices"), "{output:?}");
    ensure!(person.jobs().get("flashjob").await?.spec.uuid.len() == 3);
    let mut flashed = person.flashed().await?;
    flashed.sort_unstable();
    ensure!(flashed == [0, 1, 1, 1], "{flashed:?}");
    let output = person.answer(&["flash"], &answers)?;
    ensure!(output.code == Some(0) && output.text.contains("is unchanged"), "{output:?}");
    another_mix_of_devices(&person, &uids)?;
    ensure!(person.flashed().await?.iter().sum::<u32>() == 3);
    let output = person.answer(&["flash"], "no-such-type\n\n\n")?;
    ensure!(output.code == Some(0), "{output:?}");
    ensure!(
        output
            .text
            .contains("No instances found matching the criteria.\nNo matching instances found.\n")
    );
    let output = person.answer(&["flash"], "esp32\n\n\ny\n")?;
    ensure!(output.code == Some(1) && output.errors.contains("nothing was applied"), "{output:?}");
    Ok(())
}

/// Checks that a FlashJob for one type takes no device of another, and keeps its results.
fn another_mix_of_devices(person: &Person, uids: &[String]) -> anyhow::Result<()> {
    let version = ["--firmware", FIRMWARE, "--version", "0.2.0", "--yes"];
    let output = person.run(&[&["flash", "--all"], &version[..]].concat())?;
    ensure!(
        output.code == Some(1) && output.errors.contains("spec.device is esp32"),
        "{output:?}"
    );
    // Devices that are in the FlashJob already stay unchanged, whichever option selected them.
    let all = uids.join(",");
    let output = person.run(&[&["flash", "--uid", &all], &version[..]].concat())?;
    ensure!(output.code == Some(0) && output.text.contains("is unchanged"), "{output:?}");
    // Options narrow what the dialogue lists, and are the defaults of its questions.
    let narrow = ["--interactive", "--type", "esp32s2", "--firmware", FIRMWARE];
    let words = [&["flash"], &narrow[..], &["--name", "other", "--dry-run"]].concat();
    let output = person.answer(&words, "\n\n\ny\n\n\n\n\n")?;
    ensure!(output.code == Some(0) && !output.text.contains(&uids[0]), "{output:?}");
    ensure!(
        output.text.contains(&format!("Enter the firmware to use [{FIRMWARE}]: ")),
        "{output:?}"
    );
    ensure!(output.text.contains("(default is 60): \napiVersion: "), "{output:?}");
    ensure!(output.text.contains("device: esp32s2"), "{output:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_the_version_is_asked_for_and_a_signal_leaves_a_whole_job()
-> anyhow::Result<()> {
    let person = Person::new(&["esp32:thermo:0.1.0=2"]).await?;
    let uids = person.uids("esp32")?;
    let mut terminal = on_a_terminal(&person, &["flash"])?;
    terminal.exp_string("Enter device type to filter")?;
    terminal.send_control('c')?;
    terminal.exp_string("interrupted; nothing was applied")?;
    ensure!(matches!(terminal.process().wait()?, WaitStatus::Exited(_, 130)));
    ensure!(person.jobs().get_opt("flashjob").await?.is_none());
    person.behave(&Behaviour { transfer_ms: 3000, ..Behaviour::default() }).await?;
    let mut terminal = on_a_terminal(&person, &["flash"])?;
    for (question, answer) in [
        ("Enter device type to filter", ""),
        ("Enter application type to filter", ""),
        ("Enter UUID to filter", ""),
        ("Do you want to select all UUIDs? (y/n): ", "maybe"),
        ("Please answer y or n.", "y"),
        ("Enter the firmware to use: ", FIRMWARE),
        ("Enter the flashjobPodImage to use", ""),
        ("Enter the version that the devices report afterwards [0.2.0]: ", ""),
        ("Enter the number of UUIDs per batch (default is 5): ", "1"),
        ("Enter the delay between batches in seconds (default is 60): ", "1"),
    ] {
        terminal.exp_string(question)?;
        terminal.send_line(answer)?;
    }
    terminal.exp_string(&format!("Applying batch 1 with UUIDs: ['{}']", uids[0]))?;
    terminal.exp_string("1 in flight")?;
    terminal.send_control('c')?;
    terminal.exp_string("FlashJob default/flashjob remains")?;
    terminal.exp_string("Not started: 1 device of later batches")?;
    // The FlashJob is complete, and the same answers continue with the other devices.
    let output = person.run(&["status", "flashjob", "--timeout", "2m", "-o", "json"])?;
    ensure!(output.code == Some(0), "{output:?}");
    ensure!(output.json()?["jobs"][0]["counts"]["completed"] == 1, "{output:?}");
    let output = person.answer(&["flash"], &format!("\n\n\ny\n{FIRMWARE}\n\n5\n0\n"))?;
    ensure!(output.code == Some(0), "{output:?}");
    ensure!(person.flashed().await? == [1, 1]);
    // A view that is redrawn in place.
    let mut terminal = on_a_terminal(&person, &["status", "flashjob", "-w"])?;
    terminal.exp_string("[########################] 2/2")?;
    terminal.exp_eof()?;
    Ok(())
}
