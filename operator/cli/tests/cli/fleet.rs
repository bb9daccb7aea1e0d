//! Tests of the commands for devices and FlashJobs with options: batches, rights, and each exit
//! code.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use flashjob_api::FlashJob;
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::process::eventually;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::person::{CommandOutput, Person, answer, kubectl};

/// Longer than any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
const FIRMWARE: &str = "harbor.nbfc.io/nubificus/firmware:0.2.0";

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
