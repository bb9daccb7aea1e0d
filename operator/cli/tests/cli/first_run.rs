//! Tests of the messages where something keeps a first run from working: the connection, rights,
//! devices, the operator or its definitions are missing.

use std::time::Duration;

use anyhow::{Context, ensure};
use flashjob_api::{FlashJob, FlashJobSpec};
use flashjob_testbed::process::eventually;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::person::{Person, answer, kubectl};

/// Longer than any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

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
