//! FlashRollouts from the command line, against a control plane without an operator: the stored
//! object, the changes of each verb, and the output for statuses that the tests write.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use flashjob_api::{
    BatchState, BatchStatus, FailedDevice, FlashRollout, FlashRolloutStatus, PastRun,
    RolloutCounts, RolloutPhase,
};
use flashjob_testbed::process::eventually;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::person::{CommandOutput, Person};

const FIRMWARE: &str = "harbor.nbfc.io/nubificus/firmware:0.2.0";
const CREATE: [&str; 7] =
    ["rollout", "create", "hall", "--firmware", FIRMWARE, "--version", "0.2.0"];
/// Every option of `create` except those of a file.
const OPTIONS: &str = "--type|esp32,esp32s2|--property|SITE=athens|--exclude-node|n9|\
    --batch|canary=1|--batch|ten=10%|--batch|rest=100%|--approve|2|--soak|10m|--max-failed|5%|\
    --success|90%|--on-failure|abort|--parallelism|4|--window|0 2 * * */4h@Europe/Athens|\
    --blackout|0 0 24 12 */48h|--group-budget|GATEWAY=4|--pod-image|r.io/flasher:1|\
    --min-version|0.0.9|--yes";
/// Run in the statuses that the tests write.
const RUN: &str = "0a1b2c";

fn rollouts(person: &Person) -> Api<FlashRollout> {
    Api::namespaced(person.testbed.client.clone(), "default")
}

fn create(person: &Person, words: &[&str]) -> anyhow::Result<CommandOutput> {
    person.run(&[&CREATE[..], words].concat())
}

/// Fails unless the command ended with this code and printed all of the words.
fn ended(output: &CommandOutput, code: i32, words: &[&str]) -> anyhow::Result<()> {
    ensure!(output.code == Some(code), "expected {code}: {output:?}");
    for word in words {
        let is_there = output.text.contains(word) || output.errors.contains(word);
        ensure!(is_there, "{word} is missing: {output:?}");
    }
    // Messages contain no internals of the program.
    for word in ["panicked", "RUST_BACKTRACE", "Err(", "Some(", "ApiError"] {
        ensure!(!output.errors.contains(word), "{output:?}");
    }
    Ok(())
}

/// Writes a status as the operator would, for the run of the current spec.
async fn set_status(person: &Person, status: FlashRolloutStatus) -> anyhow::Result<FlashRollout> {
    let rollout = rollouts(person).get("hall").await?;
    let status = FlashRolloutStatus {
        run: Some(RUN.to_owned()),
        fingerprint: Some(rollout.spec.effective()?.fingerprint),
        version: Some(rollout.spec.version.clone()),
        observed_generation: rollout.metadata.generation,
        ..status
    };
    // Replaces the whole status: a merge would keep fields of the previous one.
    let body = FlashRollout { status: Some(status), ..rollout };
    let parameters = kube::api::PostParams::default();
    Ok(rollouts(person).replace_status("hall", &parameters, &body).await?)
}

fn batch(name: &str, state: BatchState, planned: u32) -> BatchStatus {
    let counts = RolloutCounts { planned, ..RolloutCounts::default() };
    BatchStatus { name: name.to_owned(), state, counts, planned, ..BatchStatus::default() }
}

fn at(phase: RolloutPhase) -> FlashRolloutStatus {
    FlashRolloutStatus {
        phase: Some(phase),
        batch: Some("2/3 ten".to_owned()),
        counts: Some(RolloutCounts {
            planned: 3,
            completed: 1,
            failed: 1,
            ..RolloutCounts::default()
        }),
        batches: vec![
            batch("canary", BatchState::Passed, 1),
            batch("ten", BatchState::Pending, 1),
            batch("rest", BatchState::Pending, 1),
        ],
        ..FlashRolloutStatus::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn options_become_the_object_they_say_and_a_dry_run_stores_nothing() -> anyhow::Result<()> {
    let person = Person::without_operator(&["esp32:thermo:0.1.0=3"]).await?;
    let rollouts = rollouts(&person);
    let output = create(&person, &["--yes"])?;
    ended(&output, 2, &["which devices?", "--all for every device"])?;
    ended(&create(&person, &["--all"])?, 2, &["add --yes"])?;
    let output = create(&person, &["--all", "--dry-run", "-o", "yaml"])?;
    ended(&output, 0, &["kind: FlashRollout"])?;
    let rollout: FlashRollout = serde_json::from_value(serde_saphyr::from_str(&output.text)?)?;
    ensure!(
        rollout.spec.selector.all == Some(true) && rollout.spec.batches.is_none(),
        "{rollout:?}"
    );
    ensure!(rollouts.get_opt("hall").await?.is_none());
    let all: Vec<&str> = OPTIONS.split('|').collect();
    let output = create(&person, &all)?;
    ended(&output, 0, &["flashrollout.application.flashjob.nbfc.io/hall created"])?;
    let stored = rollouts.get("hall").await?;
    let expected = json!({
        "firmware": FIRMWARE, "version": "0.2.0",
        "selector": {
            "deviceTypes": ["esp32", "esp32s2"], "exclude": {"nodes": ["n9"]},
            "properties": [{"key": "SITE", "operator": "In", "values": ["athens"]}],
        },
        "batches": [
            {"name": "canary", "size": 1, "soakSeconds": 600},
            {"name": "ten", "size": "10%", "soakSeconds": 600, "approval": true},
            {"name": "rest", "size": "100%", "soakSeconds": 600},
        ],
        "maxFailed": "5%", "successThreshold": "90%", "onFailure": "Abort", "parallelism": 4,
        "windows": [
            {"start": "0 2 * * *", "durationSeconds": 14400, "timeZone": "Europe/Athens"},
        ],
        "blackouts": [{"start": "0 0 24 12 *", "durationSeconds": 172_800}],
        "groupBudget": {"by": "GATEWAY", "maxInFlight": 4},
        "template": {"flashjobPodImage": "r.io/flasher:1"}, "minVersion": "0.0.9",
    });
    ensure!(json!(stored.spec) == expected, "{:#}", json!(stored.spec));
    let managers = stored.metadata.managed_fields.clone().unwrap_or_default();
    let is_ours = |manager: &Option<String>| manager.as_deref() == Some("kubectl-flashjob");
    ensure!(
        managers
            .iter()
            .any(|entry| is_ours(&entry.manager) && entry.operation.as_deref() == Some("Apply")),
        "{managers:?}"
    );
    ended(&create(&person, &all)?, 0, &["hall unchanged"])?;
    // Fields that are no longer given are removed, and the others stay.
    ended(&create(&person, &["--type", "esp32", "--yes", "-o", "name"])?, 0, &["/hall"])?;
    let stored = rollouts.get("hall").await?;
    ensure!(stored.spec.windows.is_none() && stored.spec.max_failed.is_none(), "{stored:?}");
    refused(&person).await?;
    previewed(&person)?;
    Ok(())
}

/// Checks that errors of the API server are shown with advice.
async fn refused(person: &Person) -> anyhow::Result<()> {
    // Another tool owns a field.
    let patch = Patch::Apply(json!({
        "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashRollout",
        "metadata": {"name": "hall"}, "spec": {"parallelism": 7},
    }));
    rollouts(person).patch("hall", &PatchParams::apply("gitops").force(), &patch).await?;
    let other = ["--type", "esp32", "--parallelism", "8", "--yes"];
    ended(&create(person, &other)?, 1, &["gitops", "--force-conflicts"])?;
    let output = create(person, &[&other[..], &["--force-conflicts"]].concat())?;
    ended(&output, 0, &["hall configured"])?;
    // Validation rules of the CustomResourceDefinition.
    let file = person.folder.path().join("rollout.yaml");
    std::fs::write(
        &file,
        "apiVersion: application.flashjob.nbfc.io/v1alpha1\nkind: FlashRollout\n\
         metadata:\n  name: file\nspec:\n  firmware: r.io/f:1\n  version: '1'\n  selector: {}\n",
    )?;
    let output = person.run(&["rollout", "create", "-f", "rollout.yaml", "--yes"])?;
    ended(&output, 1, &["give at least one condition, or all: true", "kubectl explain"])?;
    let words = ["rollout", "create", "-f", "rollout.yaml", "--all", "--yes"];
    ended(&person.run(&words)?, 0, &["file created"])?;
    ensure!(rollouts(person).get("file").await?.spec.version == "1");
    let text = std::fs::read_to_string(&file)?.replace("selector: {}", "selektor: {}");
    std::fs::write(&file, text)?;
    ended(&person.run(&words)?, 1, &["selektor"])?;
    // Windows and batches are parsed before any request is sent.
    for (option, value, word) in [
        ("--window", "0 2 * * *", "the duration is missing"),
        ("--window", "0 2 * * */4h@Mars/Base", "Mars/Base"),
        ("--batch", "canary=none", "canary=1"),
        ("--approve", "nine", "no batch has that name or number"),
    ] {
        ended(&create(person, &["--all", "--yes", option, value])?, 2, &[word])?;
    }
    // Missing rights.
    let output = create(person, &["--all", "--yes", "--as", "nobody"])?;
    ended(&output, 3, &["permission denied", "ask whoever administers the cluster"])?;
    Ok(())
}

fn previewed(person: &Person) -> anyhow::Result<()> {
    let output = person.run(&["rollout", "preview", "hall"])?;
    ended(&output, 0, &["3 devices in 3 batches", "BATCH 1 canary: 1 device", "no name yet"])?;
    let preview = person.run(&["rollout", "preview", "hall", "-o", "json"])?.json()?;
    let sizes: Vec<usize> = preview["batches"]
        .as_array()
        .context("no batches")?
        .iter()
        .filter_map(|batch| Some(batch["instances"].as_array()?.len()))
        .collect();
    ensure!(sizes == [1, 1, 1], "{preview}");
    let nothing = json!({
        "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashRollout",
        "metadata": {"name": "none"},
        "spec": {"firmware": "r:1", "version": "1", "selector": {"deviceTypes": ["toaster"]}},
    });
    std::fs::write(person.folder.path().join("none.json"), nothing.to_string())?;
    let output = person.run(&["rollout", "preview", "-f", "none.json"])?;
    ended(&output, 3, &["the selector matches no device", "kubectl flashjob devices"])
}

#[tokio::test(flavor = "multi_thread")]
async fn each_verb_changes_its_field_and_nothing_else() -> anyhow::Result<()> {
    let person = Person::without_operator(&[]).await?;
    let batches = ["--batch", "canary=1", "--batch", "ten=1", "--batch", "rest"];
    let approve = ["--approve", "ten", "--approve", "rest", "--all", "--yes"];
    ended(&create(&person, &[&batches[..], &approve].concat())?, 0, &["hall created"])?;
    let before = json!(rollouts(&person).get("hall").await?.spec);
    let spec_with = |changes: &Value| {
        let mut spec = before.clone();
        json_patch::merge(&mut spec, &json!(changes));
        spec
    };
    let stored = || async { anyhow::Ok(json!(rollouts(&person).get("hall").await?.spec)) };
    let run = |words: &[&str]| person.run(&[&["rollout"], words].concat());
    // Pause and resume.
    ended(&run(&["resume", "hall"])?, 0, &["hall is not paused; nothing changed"])?;
    ended(&run(&["pause", "hall"])?, 0, &["hall paused"])?;
    ended(&run(&["pause", "hall"])?, 0, &["hall is already paused; nothing changed"])?;
    ensure!(stored().await? == spec_with(&json!({"suspend": true})));
    ended(&run(&["resume", "hall"])?, 0, &["hall resumed"])?;
    ensure!(stored().await? == before, "null takes it away");
    ended(&run(&["pause", "hall", "lobby"])?, 3, &["there is no FlashRollout default/lobby"])?;
    ensure!(stored().await? == before, "nothing changes where one is missing");
    // Approvals.
    ended(&run(&["approve", "hall/ten"])?, 1, &["has not started the run"])?;
    set_status(&person, at(RolloutPhase::Waiting)).await?;
    ended(&run(&["approve", "hall/9"])?, 3, &["1 canary, 2 ten, 3 rest"])?;
    ended(&run(&["approve", "hall/ten", "--run", "ffffff"])?, 1, &["the run is 0a1b2c"])?;
    ended(&run(&["approve", "hall/1"])?, 0, &["needs no approval; nothing was changed"])?;
    ensure!(stored().await? == before);
    ended(&run(&["approve", "hall/2"])?, 0, &["batch ten approved for run 0a1b2c"])?;
    ensure!(stored().await? == spec_with(&json!({"approvals": ["ten@0a1b2c"]})));
    ended(&run(&["approve", "hall/ten"])?, 0, &["was already approved for run 0a1b2c"])?;
    // Two approvals at once, several times: none is lost.
    for _ in 0..5 {
        let clear = json!({"spec": {"approvals": null}});
        let manager = PatchParams::default();
        rollouts(&person).patch("hall", &manager, &Patch::Merge(clear)).await?;
        let mut children = Vec::new();
        for batch in ["hall/ten", "hall/rest"] {
            let mut command = person.command();
            command.args(["rollout", "approve", batch]).stdout(Stdio::null());
            children.push(command.spawn()?);
        }
        for mut child in children {
            ensure!(child.wait()?.success());
        }
        let mut approvals = rollouts(&person).get("hall").await?.spec.approvals.context("none")?;
        approvals.sort();
        ensure!(approvals == ["rest@0a1b2c", "ten@0a1b2c"], "{approvals:?}");
    }
    let before = stored().await?;
    // Retry.
    ended(&run(&["retry", "hall"])?, 2, &["add --yes"])?;
    ended(&run(&["retry", "hall", "--yes"])?, 0, &["hall retried"])?;
    let first = rollouts(&person).get("hall").await?.spec.retry.context("no retry")?;
    ended(&run(&["retry", "hall", "--yes"])?, 0, &["hall retried"])?;
    let second = rollouts(&person).get("hall").await?.spec.retry.context("no retry")?;
    ensure!(first != second, "a new value each time");
    let mut after = stored().await?;
    after.as_object_mut().context("a spec")?.remove("retry");
    ensure!(after == before, "{after:#}");
    // Abort.
    ended(&run(&["abort", "hall"])?, 2, &["add --yes"])?;
    let output = run(&["abort", "hall", "--yes", "-o", "json"])?;
    ended(&output, 0, &[])?;
    ensure!(output.json()?["rollouts"][0]["done"] == "aborted", "{output:?}");
    let mut after = stored().await?;
    ensure!(after["abort"] == true);
    let fields = after.as_object_mut().context("a spec")?;
    fields.retain(|field, _| field != "abort" && field != "retry");
    ensure!(after == before, "{after:#}");
    set_status(&person, at(RolloutPhase::Aborted)).await?;
    ended(&run(&["abort", "hall", "--yes"])?, 1, &["its run is already over (Aborted)"])?;
    ended(&run(&["retry", "hall", "--yes"])?, 1, &["spec.runID"])?;
    let next = ["--run-id", "2", "--all", "--yes"];
    ended(&create(&person, &[&batches[..], &next].concat())?, 1, &["kubectl patch flashrollout"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_told_with_what_to_do_and_each_end_has_its_exit_code() -> anyhow::Result<()> {
    let person = Person::without_operator(&[]).await?;
    let run = |words: &[&str]| person.run(&[&["rollout"], words].concat());
    ended(&run(&["status"])?, 0, &["No FlashRollouts in namespace default"])?;
    ended(&run(&["status", "hall"])?, 3, &["there is no FlashRollout default/hall"])?;
    let batches = ["--batch", "canary=1", "--batch", "ten=1", "--approve", "ten"];
    ended(&create(&person, &[&batches[..], &["--all", "--yes"]].concat())?, 0, &[])?;
    ended(&run(&["status", "hall"])?, 0, &["NotSeen", "kubectl flashjob check"])?;
    let hint = "kubectl flashjob rollout status hall -n default";
    ended(&person.run(&["status", "hall"])?, 3, &["no FlashJob default/hall", hint])?;
    ended(&run(&["history", "hall"])?, 0, &["has had no run yet"])?;
    // Waits for a person.
    let waiting = FlashRolloutStatus {
        waiting_for: Some("approval of batch ten".to_owned()),
        reason: Some("ApprovalMissing".to_owned()),
        ..at(RolloutPhase::Waiting)
    };
    set_status(&person, waiting).await?;
    let command = "kubectl flashjob rollout approve hall/ten -n default";
    let words = ["2/3", "Waits for: approval of batch ten", command, "needs approval"];
    ended(&run(&["status", "hall"])?, 0, &words)?;
    ended(&run(&["status", "hall", "--until", "blocked"])?, 12, &[command])?;
    ended(&run(&["status", "hall", "--timeout", "1s"])?, 11, &["timed out after 1 s"])?;
    let status = run(&["status", "hall", "-o", "json"])?.json()?;
    ensure!(status["rollouts"][0]["approvalOf"] == "ten", "{status}");
    let completed = person.run(&["__complete", "rollout", "approve", ""])?;
    ensure!(completed.text == "hall/ten\n:4\n", "{completed:?}");
    let completed = person.run(&["__complete", "rollout", "status", "h"])?;
    ensure!(completed.text == "hall\n:4\n", "{completed:?}");
    // Paused by a batch that did not pass.
    let failed = FailedDevice {
        instance: "akri-7".to_owned(),
        batch: "canary".to_owned(),
        reason: "FlashTimeout".to_owned(),
        message: Some("too slow".to_owned()),
    };
    let paused = FlashRolloutStatus {
        reason: Some("TooManyFailed".to_owned()),
        reasons: [("FlashTimeout".to_owned(), 1)].into(),
        failed: vec![failed],
        ..at(RolloutPhase::Paused)
    };
    set_status(&person, paused).await?;
    let words = ["akri-7", "1 x FlashTimeout", "deviceTimeoutSeconds", "rollout retry hall"];
    ended(&run(&["status", "hall"])?, 0, &words)?;
    ended(&run(&["status", "hall", "--until", "blocked"])?, 12, &["TooManyFailed"])?;
    ended(&run(&["resume", "hall"])?, 0, &["the operator paused it: TooManyFailed"])?;
    // Soaks.
    let mut soaking = at(RolloutPhase::Soaking);
    soaking.batches[0].state = BatchState::Soaking;
    soaking.batches[0].soak_until =
        Some(Time(jiff::Timestamp::now() + Duration::from_secs(7_150)));
    set_status(&person, soaking).await?;
    ended(&run(&["status", "hall"])?, 0, &["soaks for 1 h 59 min more"])?;
    interrupted(&person)?;
    followed(&person).await?;
    for (phase, code) in
        [(RolloutPhase::Completed, 0), (RolloutPhase::Failed, 10), (RolloutPhase::Aborted, 10)]
    {
        set_status(&person, at(phase)).await?;
        ended(&run(&["status", "hall"])?, code, &["2 of 3 devices"][..usize::from(code > 0)])?;
        ended(&run(&["status", "hall", "-w"])?, code, &[])?;
    }
    let past = PastRun {
        run: "ffffff".to_owned(),
        firmware: "r.io/old:1".to_owned(),
        version: "0.1.0".to_owned(),
        phase: "Superseded".to_owned(),
        ..PastRun::default()
    };
    let status = FlashRolloutStatus { history: vec![past], ..at(RolloutPhase::Completed) };
    set_status(&person, status).await?;
    ended(&run(&["history", "hall"])?, 0, &["0a1b2c   Completed", "ffffff   Superseded"])?;
    listed(&person).await
}

/// Starts to follow the rollout, and waits for the first output.
fn following(person: &Person) -> anyhow::Result<Child> {
    let mut command = person.command();
    command
        .args(["rollout", "status", "hall", "-w"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdout.as_mut().context("no output")?.read_exact(&mut [0; 4])?;
    Ok(child)
}

fn interrupted(person: &Person) -> anyhow::Result<()> {
    let child = following(person)?;
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    let output = child.wait_with_output()?;
    let errors = String::from_utf8(output.stderr)?;
    ensure!(sent.success() && output.status.code() == Some(130), "{errors}");
    ensure!(errors.contains("interrupted; FlashRollout default/hall continues"), "{errors}");
    let abort = "kubectl flashjob rollout abort hall -n default ends it";
    ensure!(errors.contains(abort), "{errors}");
    Ok(())
}

/// A watch ends when the run does.
async fn followed(person: &Person) -> anyhow::Result<()> {
    let child = following(person)?;
    set_status(person, at(RolloutPhase::Progressing)).await?;
    set_status(person, at(RolloutPhase::Failed)).await?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.code() == Some(10), "{text}");
    ensure!(text.contains("FlashRollout default/hall   Failed"), "{text}");
    Ok(())
}

/// Checks that without a name `status` lists both kinds, or only FlashJobs if the other kind is
/// missing.
async fn listed(person: &Person) -> anyhow::Result<()> {
    let output = person.run(&["status"])?;
    ended(&output, 0, &["ROLLOUT", "hall", "No FlashJobs in namespace default"])?;
    let status = person.run(&["status", "-o", "json"])?.json()?;
    ensure!(
        status["rollouts"][0]["state"] == "Completed" && status["jobs"] == json!([]),
        "{status}"
    );
    let output = person.run(&["status", "-A", "-o", "name"])?;
    ensure!(output.text == "flashrollout.application.flashjob.nbfc.io/hall\n", "{output:?}");
    let crds: Api<CustomResourceDefinition> = Api::all(person.testbed.client.clone());
    let name = "flashrollouts.application.flashjob.nbfc.io";
    rollouts(person).delete("hall", &DeleteParams::default()).await?;
    crds.delete(name, &DeleteParams::default()).await?;
    let is_gone = || async { Ok(crds.get_opt(name).await?.is_none().then_some(())) };
    eventually("the definition is gone", Duration::from_secs(30), is_gone).await?;
    let unknown = || async {
        let output = person.run(&["rollout", "status", "hall"])?;
        Ok(output.errors.contains("kind is not installed").then_some(output))
    };
    let output = eventually("the kind is gone", Duration::from_secs(30), unknown).await?;
    ended(&output, 3, &["kubectl flashjob check"])?;
    for words in [&["rollout", "status"][..], &["rollout", "pause", "hall"], &CREATE] {
        let words = [words, if words == CREATE { &["--all", "--yes"][..] } else { &[] }].concat();
        ended(&person.run(&words)?, 3, &["kind is not installed"])?;
    }
    let output = person.run(&["status"])?;
    ended(&output, 0, &["No FlashJobs in namespace default"])?;
    ensure!(!output.text.contains("ROLLOUT") && output.errors.is_empty(), "{output:?}");
    let status = person.run(&["status", "-o", "json"])?.json()?;
    ensure!(status["rollouts"] == json!([]), "{status}");
    Ok(())
}
