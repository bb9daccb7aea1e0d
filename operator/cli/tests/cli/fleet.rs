//! Tests of the commands for devices and FlashJobs: the dialogue from a pipe and on a terminal,
//! options, batches, and each exit code.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use flashjob_api::{FlashJob, FlashJobSpec};
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::process::{eventually, script as script_of};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use rexpect::process::WaitStatus;
use rexpect::session::{PtySession, spawn_command};
use serde_json::{Value, json};

use crate::person::{CommandOutput, Person, answer};

/// Longer than any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
const FIRMWARE: &str = "harbor.nbfc.io/nubificus/firmware:0.2.0";
const FILE: &str = "flashjob_operator/config/samples/application_v1alpha1_flashjob.yaml";

fn kubectl(person: &Person) -> Command {
    let mut kubectl = Command::new(person.testbed.control_plane.programs.join("kubectl"));
    kubectl.env("KUBECONFIG", &person.testbed.control_plane.kubeconfig);
    kubectl
}

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

#[tokio::test(flavor = "multi_thread")]
async fn options_flash_and_each_way_to_end_has_its_exit_code() -> anyhow::Result<()> {
    let person = Person::new(&["esp32:thermo:0.1.0=3"]).await?;
    let flash = ["flash", "--type", "esp32", "--firmware", FIRMWARE, "--version", "0.2.0"];
    let with = |words: &[&'static str]| [&flash[..], words].concat();
    // Nothing is flashed without confirmation, or in a dry run.
    let output = person.run(&flash)?;
    ensure!(output.code == Some(2) && output.errors.contains("--yes"), "{output:?}");
    let output = person.run(&with(&["--dry-run", "-o", "yaml"]))?;
    ensure!(output.code == Some(0), "{output:?}");
    let job: FlashJob = serde_json::from_value(serde_saphyr::from_str(&output.text)?)?;
    ensure!(job.spec.uuid.len() == 3, "{job:?}");
    let output = person.run(&with(&["--dry-run", "--name", "No_Name"]))?;
    ensure!(output.code == Some(1) && output.errors.contains("No_Name"), "{output:?}");
    ensure!(person.jobs().get_opt("flashjob").await?.is_none());
    // Programs get their output format even if the command line is invalid.
    let output = person.run(&with(&["--batch-size", "none", "--output=json"]))?;
    ensure!(output.code == Some(2) && output.json()?["error"]["reason"] == "Usage", "{output:?}");
    // A likely mistake flashes nothing.
    let all = ["--firmware", FIRMWARE, "--version", "0.2.0", "--yes"];
    let output = person.run(&[&["flash", "--uid", ""], &all[..]].concat())?;
    ensure!(output.code == Some(2), "{output:?}");
    let output =
        person.run(&[&["flash", "--type", "esp32", "--uid", "nosuch"], &all[..]].concat())?;
    ensure!(output.code == Some(3) && output.errors.contains("nosuch"), "{output:?}");
    let output = person.run(&with(&["--yes", "--file", "/proc/nobody/may/write.yaml"]))?;
    ensure!(output.code == Some(1), "{output:?}");
    ensure!(person.jobs().get_opt("flashjob").await?.is_none());
    // One device of the first batch fails: no other batch starts.
    let first = person.uids("esp32")?.swap_remove(0);
    let endpoint = json!({"uuid": [first]});
    let reports = person.testbed.devices().await?;
    let (_, report) = reports.iter().find(|(uid, _)| *uid == first).context("no device")?;
    let broken = Behaviour { cut_transfer: true, ..Behaviour::default() };
    person.testbed.fleet.behave(&report.id, &broken).await?;
    let output = person.run(&with(&["--yes", "--batch-size", "1", "-o", "json"]))?;
    ensure!(output.code == Some(10), "{output:?}");
    ensure!(output.json()?["error"]["reason"] == "BatchFailed", "{output:?}");
    let job = person.jobs().get("flashjob").await?;
    ensure!(json!({"uuid": job.spec.uuid}) == endpoint, "{:?}", job.spec);
    let output = person.run(&["status", "flashjob"])?;
    ensure!(output.code == Some(10) && output.text.contains("To do: "), "{output:?}");
    let output = person.run(&["report", "flashjob", "-o", "csv"])?;
    ensure!(
        output.text.contains(&format!("{first},{},0.1.0,0.2.0,failed,", name(&output))),
        "{output:?}"
    );
    // A dry run shows the devices of the FlashJob and those that would be added.
    let output = person.run(&with(&["--dry-run", "--file", "shown.yaml"]))?;
    ensure!(output.code == Some(0) && output.errors.contains("Left out: 1 device"), "{output:?}");
    let job: FlashJob = serde_json::from_value(serde_saphyr::from_str(&output.text)?)?;
    ensure!(job.spec.uuid.len() == 3 && job.spec.uuid[0] == first, "{job:?}");
    ensure!(person.folder.path().join("shown.yaml").is_file());
    ensure!(person.jobs().get("flashjob").await?.spec.uuid.len() == 1);
    let output = person.run(&["retry", "flashjob", "--dry-run"])?;
    let job: FlashJob = serde_json::from_value(serde_saphyr::from_str(&output.text)?)?;
    ensure!(job.spec.uuid == [first.clone()], "{job:?}");
    // Shell completion offers the names of FlashJobs.
    let output = person.run(&["__complete", "status", "flash"])?;
    ensure!(output.text == "flashjob\n:4\n", "{output:?}");
    // After its repair the device is flashed again, in a FlashJob of its own.
    person.testbed.fleet.behave(&report.id, &Behaviour::default()).await?;
    let output = person.run(&["retry", "flashjob", "--reason", "NoSuchReason", "--yes"])?;
    ensure!(output.code == Some(3), "{output:?}");
    let output = person.run(&["retry", "flashjob", "--yes", "-o", "name"])?;
    ensure!(output.text.trim().ends_with("/flashjob-retry-1"), "{output:?}");
    let watch = ["status", "flashjob-retry-1", "-w", "--timeout", "2m"];
    let output = person
        .run(&[&watch[..], &["--as", "watcher", "--as-group", "system:masters"]].concat())?;
    ensure!(output.code == Some(0), "{output:?}");
    let retried = person.run(&["report", "flashjob-retry-1", "-o", "json"])?.json()?;
    let retried = &retried["devices"][0];
    let retry_fields = (&retried["from"], &retried["attempts"], &retried["unverified"]);
    ensure!(retry_fields == (&json!("0.1.0"), &json!(1), &json!(false)), "{retried}");
    ensure!(retried["seconds"].is_u64(), "{retried}");
    let requests = requests_as(&person, "watcher")?;
    // One list and one watch, which may be logged at their start and end; no request per device.
    ensure!(requests.len() <= 3, "{requests:?}");
    ensure!(requests.iter().all(|request| request.ends_with(" flashjobs")), "{requests:?}");
    // While the FlashJob is paused, no device starts; the command times out, or reports that
    // somebody has to act.
    ensure!(person.run(&["pause", "flashjob"])?.code == Some(0));
    let more = json!({"spec": {"uuid": person.uids("esp32")?}});
    person.jobs().patch("flashjob", &PatchParams::default(), &Patch::Merge(more)).await?;
    let output = person.run(&["status", "flashjob", "--until", "blocked"])?;
    ensure!(output.code == Some(12), "{output:?}");
    let output = person.run(&["status", "flashjob", "--timeout", "1s"])?;
    ensure!(output.code == Some(11), "{output:?}");
    ensure!(output.errors.contains("kubectl flashjob resume flashjob -n default"), "{output:?}");
    // If one object is missing, nothing is changed, and existing ones are shown.
    ensure!(person.run(&["resume", "flashjob", "missing"])?.code == Some(3));
    ensure!(person.jobs().get("flashjob").await?.spec.suspend == Some(true));
    let output = person.run(&["status", "flashjob", "missing"])?;
    ensure!(output.code == Some(3) && output.text.contains("default/flashjob"), "{output:?}");
    ensure!(output.errors.contains("default/missing"), "{output:?}");
    ensure!(person.run(&["resume", "flashjob"])?.code == Some(0));
    let output = person.run(&["status", "flashjob", "-w"])?;
    ensure!(output.code == Some(10) && output.text.contains("failed 1"), "{output:?}");
    // A FlashJob that is not over and flashes something else stays unchanged.
    person.behave(&Behaviour { transfer_ms: 300_000, ..Behaviour::default() }).await?;
    let other = ["--again", "--yes", "--timeout", "1s"];
    // A pause lasts longer than the run that it was set in.
    ensure!(person.run(&["pause", "flashjob"])?.code == Some(0));
    eventually("the pause is seen", LIMIT, || async {
        let job = person.jobs().get("flashjob").await?;
        let observed_generation = job.status.and_then(|status| status.observed_generation);
        Ok((observed_generation == job.metadata.generation).then_some(()))
    })
    .await?;
    let output = person.run(&with(&other))?;
    ensure!(output.code == Some(11), "{output:?}");
    ensure!(output.errors.contains("kubectl flashjob resume flashjob -n default"), "{output:?}");
    ensure!(person.jobs().get("flashjob").await?.spec.suspend == Some(true));
    ensure!(person.run(&["resume", "flashjob"])?.code == Some(0));
    let output = person.run(&with(&other))?;
    ensure!(output.code == Some(1) && output.errors.contains("is not over"), "{output:?}");
    eventually("a device is held by the FlashJob", LIMIT, || async {
        let listing = person.run(&["devices", "-o", "json"])?.json()?;
        let devices = listing["devices"].as_array().context("no devices")?;
        let held = devices.iter().any(|device| device["heldBy"]["job"] == "flashjob");
        Ok(held.then_some(()))
    })
    .await?;
    who_may_see_less(&person).await?;
    let output = person.run(&["cancel", "flashjob"])?;
    ensure!(output.code == Some(2), "{output:?}");
    let output = person.run(&["cancel", "flashjob", "flashjob-retry-1", "--yes"])?;
    ensure!(output.code == Some(0), "{output:?}");
    ensure!(person.jobs().get_opt("flashjob").await?.is_none());
    let output = person.run(&["status", "flashjob"])?;
    ensure!(output.code == Some(3), "{output:?}");
    Ok(())
}

/// Checks a user who may list FlashJobs of the namespace only, and one who may list none.
async fn who_may_see_less(person: &Person) -> anyhow::Result<()> {
    let both_resources = "instances.akri.sh,flashjobs.application.flashjob.nbfc.io";
    for (name, resources) in [("some", both_resources), ("none", "instances.akri.sh")] {
        let role =
            ["role", name, "--verb=list", &format!("--resource={resources}")].map(str::to_owned);
        let binding = ["rolebinding", name, &format!("--role={name}"), &format!("--user={name}")];
        for words in [role, binding.map(str::to_owned)] {
            let created = answer(kubectl(person).arg("create").args(words), "")?;
            ensure!(created.code == Some(0), "{created:?}");
        }
    }
    let devices = |user: &'static str| async move {
        // A right takes effect a moment after it is granted.
        eventually("the rights hold", LIMIT, || async {
            let output = person.run(&["devices", "-o", "json", "--as", user])?;
            Ok((output.code == Some(0)).then_some(output))
        })
        .await
    };
    let output = devices("some").await?;
    ensure!(output.errors.contains("FlashJobs of other namespaces"), "{output:?}");
    let listed = output.json()?;
    ensure!(listed["holdersKnown"] == true, "{listed}");
    let held = |device: &Value| device["heldBy"]["job"] == "flashjob";
    ensure!(listed["devices"].as_array().is_some_and(|all| all.iter().any(held)), "{listed}");
    let output = devices("none").await?;
    ensure!(output.json()?["holdersKnown"] == false, "{output:?}");
    let output = person.run(&["devices", "--as", "none"])?;
    ensure!(output.text.lines().nth(1).is_some_and(|line| line.ends_with('?')), "{output:?}");
    ensure!(output.errors.contains("HELD BY is not known in namespace default"), "{output:?}");
    Ok(())
}

/// Returns verb and resource of each request that was made as this user.
fn requests_as(person: &Person, user: &str) -> anyhow::Result<Vec<String>> {
    let log = std::fs::read_to_string(&person.testbed.control_plane.audit_log)?;
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let user_entries = entries.filter(|entry| entry["impersonatedUser"]["username"] == user);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(user_entries
        .map(|entry| format!("{} {}", text(&entry["verb"]), text(&entry["objectRef"]["resource"])))
        .collect())
}

/// Returns the Instance's name in the second line of a report.
fn name(output: &CommandOutput) -> String {
    let line = output.text.lines().nth(1).unwrap_or_default();
    line.split(',').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_at_once_lose_no_device_of_each_other() -> anyhow::Result<()> {
    let person = Person::new(&["esp32:thermo:0.1.0=4"]).await?;
    let uids = person.uids("esp32")?;
    let flash = |uids: &[String]| {
        let mut command = person.command();
        command.args(["flash", "--firmware", FIRMWARE, "--version", "0.2.0", "--yes"]);
        command.args(["--batch-size", "1", "--uid", &uids.join(",")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn()
    };
    let children = [flash(&uids[..2])?, flash(&uids[2..])?];
    for child in children {
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let job = person.jobs().get("flashjob").await?;
    ensure!(job.spec.uuid.len() == 4, "{:?}", job.spec.uuid);
    ensure!(person.flashed().await? == [1; 4]);
    // The timeout of a command applies during a delay too, and no other batch starts.
    let again =
        ["flash", "--all", "--firmware", FIRMWARE, "--version", "0.2.0", "--yes", "--again"];
    let pace = ["--batch-size", "1", "--delay", "10m", "--timeout", "30s"];
    let output = person.run(&[&again[..], &pace].concat())?;
    ensure!(output.code == Some(11), "{output:?}");
    ensure!(output.errors.contains("Not started: 3 devices"), "{output:?}");
    ensure!(output.errors.contains("without --again"), "{output:?}");
    ensure!(person.jobs().get("flashjob").await?.spec.uuid.len() == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_first_run_from_working_is_said_with_what_to_do() -> anyhow::Result<()> {
    let mut person = Person::new(&[]).await?;
    let good = std::fs::read_to_string(&person.testbed.control_plane.kubeconfig)?;
    let server = serde_json::from_str::<Value>(&good)?;
    let server =
        server["clusters"][0]["cluster"]["server"].as_str().context("no server")?.to_owned();
    let closed = person.folder.path().join("closed");
    std::fs::write(&closed, good.replace(&server, "https://127.0.0.1:9"))?;
    let closed = closed.display().to_string();
    let nowhere = answer(
        person.command().args(["devices"]).env_remove("KUBECONFIG").env("HOME", "/nonexistent"),
        "",
    )?;
    ensure!(nowhere.code == Some(3) && nowhere.errors.contains("KUBECONFIG"), "{nowhere:?}");
    let output = person.run(&["devices", "--kubeconfig", &closed])?;
    ensure!(output.code == Some(3) && output.errors.contains("Connection refused"), "{output:?}");
    let output = person.run(&["status", "a", "-w", "--kubeconfig", &closed])?;
    ensure!(output.code == Some(3) && output.errors.contains("Connection refused"), "{output:?}");
    let output = person.answer(&["flash", "--kubeconfig", &closed], "\n\n\n")?;
    ensure!(output.code == Some(1), "{output:?}");
    ensure!(output.text.ends_with(
        "Error accessing Kubernetes API: Connection refused\nFailed to retrieve Akri instances.\n"
    ));
    let output = person.run(&["devices", "--as", "nobody"])?;
    ensure!(output.code == Some(3) && output.errors.contains("permission denied"), "{output:?}");
    let output = person.run(&["devices", "--user", "nobody"])?;
    ensure!(output.code == Some(3) && output.errors.contains("no user nobody"), "{output:?}");
    let output = person.run(&["devices"])?;
    ensure!(output.code == Some(3) && output.errors.contains("found no device"), "{output:?}");
    let output = person.run(&["devices", "-o", "junit"])?;
    ensure!(output.code == Some(2) && output.errors.contains("wide"), "{output:?}");
    let output = person.run(&["devices", "-n", "a/b"])?;
    ensure!(output.code == Some(2) && output.errors.contains("\"a/b\" is not a valid namespace"));
    let output = person.run(&["status", "a", "--timeout", "18446744073709551615"])?;
    ensure!(output.code == Some(2) && output.errors.contains("366 days"), "{output:?}");
    let output = person.run(&["status", "-o", "name"])?;
    ensure!(output.code == Some(0) && output.text.is_empty(), "{output:?}");
    // No operator runs, so nothing works on the FlashJob.
    person.testbed.kill_operator().await?;
    let spec = FlashJobSpec {
        uuid: vec!["a".to_owned()],
        firmware: "a".to_owned(),
        version: "1".to_owned(),
        ..FlashJobSpec::default()
    };
    person.jobs().create(&PostParams::default(), &FlashJob::new("alone", spec)).await?;
    let output = person.run(&["status", "alone"])?;
    ensure!(
        output.code == Some(0) && output.text.contains("No operator has processed it yet"),
        "{output:?}"
    );
    let output = person.run(&["report", "alone", "-o", "csv"])?;
    ensure!(output.text.contains("a,,,1,pending,"), "{output:?}");
    let output = person.run(&["retry", "alone", "--yes"])?;
    ensure!(output.code == Some(3) && output.errors.contains("has not seen"), "{output:?}");
    remove_definitions(&person).await?;
    let output = person.run(&["status"])?;
    ensure!(
        output.code == Some(3) && output.errors.contains("kind is not installed"),
        "{output:?}"
    );
    Ok(())
}

async fn remove_definitions(person: &Person) -> anyhow::Result<()> {
    for job in person.jobs().list(&Default::default()).await?.items {
        let free = json!({"metadata": {"finalizers": null}});
        let name = job.name_any();
        person.jobs().patch(&name, &PatchParams::default(), &Patch::Merge(free)).await?;
        person.jobs().delete(&name, &DeleteParams::default()).await?;
    }
    let mut kubectl = kubectl(person);
    kubectl.args(["delete", "crd", "flashjobs.application.flashjob.nbfc.io", "--timeout=60s"]);
    let deleted = answer(&mut kubectl, "")?;
    ensure!(deleted.code == Some(0), "{deleted:?}");
    eventually("the kind is gone", LIMIT, || async {
        let listed = person.jobs().list(&Default::default()).await;
        Ok(listed.is_err().then_some(()))
    })
    .await
}

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
