//! State that GitOps tools see in our objects, as kstatus itself and `kubectl wait` report it.

use std::fmt::Debug;
use std::process::Stdio;

use anyhow::{Context, ensure};
use flashjob_api::{FlashJobStatus, FlashRolloutStatus, RolloutPhase};
use flashjob_end_to_end::rollouts::{self, apply, behave, change, rollout};
use flashjob_end_to_end::{
    LIMIT, create, ended, job, plugin_where, raw_jobs, reason_of, status_where, uids,
};
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::process::{eventually, script};
use flashjob_testbed::{Options, Testbed};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Time limit in seconds of a wait for a state that is reached: as [`LIMIT`].
const LONG: u32 = 300;

/// Returns the status that kstatus gives an object.
async fn of(program: &str, object: &Value) -> anyhow::Result<String> {
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(object.to_string().as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "kstatus failed on {object}");
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split('\t').next().unwrap_or_default().to_owned())
}

struct Kstatus<'a> {
    testbed: &'a Testbed,
    program: String,
}

impl Kstatus<'_> {
    async fn is(&self, name: &str, expected: &str) -> anyhow::Result<()> {
        self.calls(&raw_jobs(self.testbed), name, expected).await
    }

    async fn plugin_is(&self, name: &str, expected: &str) -> anyhow::Result<()> {
        let plugins: Api<flashjob_api::DevicePlugin> = Api::all(self.testbed.client.clone());
        self.calls(&plugins, name, expected).await
    }

    /// Waits until the rollout is in this phase for this reason, and checks its kstatus.
    async fn rollout_is(
        &self,
        name: &str,
        phase: RolloutPhase,
        reason: &str,
        expected: &str,
    ) -> anyhow::Result<FlashRolloutStatus> {
        let what = format!("it is {phase:?}, {reason}");
        let status = rollouts::status_where(self.testbed, name, &what, |status| {
            status.phase == Some(phase) && status.reason.as_deref() == Some(reason)
        })
        .await?;
        self.calls(&rollouts::rollouts(self.testbed), name, expected).await?;
        Ok(status)
    }

    async fn calls<K>(&self, api: &Api<K>, name: &str, expected: &str) -> anyhow::Result<()>
    where
        K: Clone + DeserializeOwned + Serialize + Debug,
    {
        eventually(&format!("kstatus calls {name} {expected}"), LIMIT, || async {
            let object = serde_json::to_value(api.get(name).await?)?;
            Ok((of(&self.program, &object).await? == expected).then_some(()))
        })
        .await
    }

    /// Runs `kubectl wait`; returns true if the FlashJob became ready in time.
    async fn waits(&self, name: &str, seconds: u32) -> anyhow::Result<bool> {
        self.waits_for(&format!("flashjob/{name}"), seconds).await
    }

    async fn waits_for(&self, object: &str, seconds: u32) -> anyhow::Result<bool> {
        let kubectl = self.testbed.control_plane.programs.join("kubectl");
        let mut command = Command::new(kubectl);
        command.env("KUBECONFIG", &self.testbed.control_plane.kubeconfig);
        command.args(["wait", "--for=condition=Ready", object]);
        let output = command.arg(format!("--timeout={seconds}s")).output().await?;
        Ok(output.status.success())
    }
}

#[tokio::test]
async fn kstatus_and_kubectl_wait_know_every_state() -> anyhow::Result<()> {
    let options = Options {
        devices: vec!["esp32:thermo:0.1.0=4".into()],
        addresses: 4,
        plugins: vec!["esp32".into()],
        ..Options::default()
    };
    let mut testbed = Testbed::start(&options).await?;
    // A plugin that is not published, and a device type that only this plugin serves.
    let broken = format!("{}/flashjob/nobody:1", testbed.registry.host);
    testbed.config["plugins"]
        .as_array_mut()
        .context("a list")?
        .push(json!({"name": "broken", "image": broken, "deviceTypes": ["lamp"]}));
    testbed.start_operator().await?;
    plugin_where(&testbed, "esp32", "it serves", |status| status.digest.is_some()).await?;
    let all = uids(&testbed, "esp32", 4).await?;
    let kstatus = Kstatus { testbed: &testbed, program: script("tests/kstatus/build.sh")? };
    kstatus.plugin_is("esp32", "Current").await?;
    kstatus.plugin_is("broken", "Failed").await?;

    let device = &testbed.devices().await?[0].1.id;
    testbed.fleet.behave(device, &Behaviour::holding()).await?;
    create(&testbed, &job("good", &all[..1], json!({}))).await?;
    kstatus.is("good", "InProgress").await?;
    testbed.fleet.behave(device, &Behaviour::default()).await?;
    ensure!(kstatus.waits("good", LONG).await?, "kubectl wait sees that it is ready");
    kstatus.is("good", "Current").await?;

    create(&testbed, &job("bad", &all[1..2], json!({"applicationType": "other"}))).await?;
    kstatus.is("bad", "Failed").await?;
    ensure!(!kstatus.waits("bad", 1).await?, "a failed job is not ready");
    let status = ended(&testbed, "bad").await?;
    ensure!(status.reasons.get("DeviceTypeMismatch") == Some(&1), "{:?}", status.reasons);

    create(&testbed, &job("held", &all[2..3], json!({"suspend": true}))).await?;
    let is_held = |status: &FlashJobStatus| status.observed_generation.is_some();
    status_where(&testbed, "held", "it is seen", is_held).await?;
    ensure!(!kstatus.waits("held", 1).await?, "what is held back is not ready");
    let again = Patch::Merge(json!({"spec": {"suspend": false}}));
    raw_jobs(&testbed).patch("held", &PatchParams::default(), &again).await?;
    kstatus.is("held", "Current").await?;
    ensure!(kstatus.waits("held", LONG).await?, "it is ready in the end");

    // The job stalls until the plugin is published.
    let instances: Api<flashjob_api::akri::Instance> =
        Api::namespaced(testbed.client.clone(), "default");
    let lamp = json!({
        "metadata": {"name": "lamp"},
        "spec": {
            "configurationName": "c", "capacity": 1, "cdiName": "a/c=b",
            "nodes": ["simulated-node"],
            "brokerProperties": {"HOST_ENDPOINT": "127.0.0.1:9", "DEVICE": "lamp", "VERSION": "1"},
        },
    });
    let lamp = instances.create(&Default::default(), &serde_json::from_value(lamp)?).await?;
    let uid = lamp.metadata.uid.unwrap_or_default();
    create(&testbed, &job("stuck", std::slice::from_ref(&uid), json!({}))).await?;
    kstatus.is("stuck", "Failed").await?;
    let status = status_where(&testbed, "stuck", "it says why", |status| {
        status.waiting.contains_key("PluginNotReady")
    })
    .await?;
    ensure!(
        reason_of(&status, &uid).is_none_or(|reason| reason == "PluginNotReady"),
        "{status:?}"
    );

    let finalizer = json!({
        "metadata": {
            "finalizers": ["example.com/held", "application.flashjob.nbfc.io/flashjob-finalizer"],
        },
    });
    raw_jobs(&testbed).patch("stuck", &PatchParams::default(), &Patch::Merge(finalizer)).await?;
    raw_jobs(&testbed).delete("stuck", &DeleteParams::default()).await?;
    kstatus.is("stuck", "Terminating").await?;
    let none = json!({"metadata": {"finalizers": null}});
    raw_jobs(&testbed).patch("stuck", &PatchParams::default(), &Patch::Merge(none)).await?;
    Ok(())
}

#[tokio::test]
async fn kstatus_and_kubectl_wait_know_every_state_of_a_rollout() -> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=2".to_owned(), "esp32:hygro:0.1.0=2".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    testbed.start_operator().await?;
    behave(&testbed, &Behaviour::holding()).await?;
    let kstatus = Kstatus { testbed: &testbed, program: script("tests/kstatus/build.sh")? };
    use RolloutPhase::{Aborted, Completed, Failed, Paused, Planning, Progressing, Waiting};
    let of = |application| json!({"applicationTypes": [application]});

    // Gates, and a successful end.
    let always = json!([{"start": "0 * * * *", "durationSeconds": 3600}]);
    let batches = json!([{"name": "canary", "size": 1}, {"name": "all", "approval": true}]);
    let spec = json!({"batches": batches, "selector": of("thermo"), "blackouts": always});
    apply(&testbed, &rollout(&testbed, "good", spec)).await?;
    kstatus.rollout_is("good", Waiting, "NoWindow", "Failed").await?;
    let next_leap_day = json!([{"start": "0 0 29 2 *", "durationSeconds": 60}]);
    change(&testbed, "good", json!({"blackouts": null, "windows": next_leap_day})).await?;
    kstatus.rollout_is("good", Waiting, "WindowClosed", "InProgress").await?;
    change(&testbed, "good", json!({"windows": null, "suspend": true})).await?;
    kstatus.rollout_is("good", Paused, "SuspendRequested", "InProgress").await?;
    change(&testbed, "good", json!({"suspend": null})).await?;
    kstatus.rollout_is("good", Progressing, "Flashing", "InProgress").await?;
    behave(&testbed, &Behaviour::default()).await?;
    let status = kstatus.rollout_is("good", Waiting, "ApprovalMissing", "InProgress").await?;
    ensure!(!kstatus.waits_for("flashrollout/good", 1).await?, "what waits is not ready");
    let approval = format!("all@{}", status.run.context("a run")?);
    change(&testbed, "good", json!({"approvals": [approval]})).await?;
    kstatus.rollout_is("good", Completed, "AllBatchesPassed", "Current").await?;
    ensure!(
        kstatus.waits_for("flashrollout/good", LONG).await?,
        "kubectl wait sees that it is ready"
    );

    // States that need a person to act.
    let broken = json!({
        "windows": [{"start": "0 2 * * *", "durationSeconds": 60, "timeZone": "Europe/Nowhere"}],
    });
    change(&testbed, "good", broken).await?;
    kstatus.rollout_is("good", Completed, "InvalidSpec", "Failed").await?;
    change(&testbed, "good", json!({"windows": null, "selector": of("nobody")})).await?;
    kstatus.rollout_is("good", Planning, "NoDevices", "Failed").await?;
    let cut = Behaviour { cut_transfer: true, ..Behaviour::default() };
    behave(&testbed, &cut).await?;
    let template = json!({"backoffLimitPerDevice": 0});
    let spec = json!({"selector": of("hygro"), "template": template});
    apply(&testbed, &rollout(&testbed, "bad", spec)).await?;
    kstatus.rollout_is("bad", Paused, "TooManyFailed", "Failed").await?;
    change(&testbed, "bad", json!({"abort": true})).await?;
    kstatus.rollout_is("bad", Aborted, "AbortRequested", "Failed").await?;
    let again = json!({"abort": null, "runID": "again", "onFailure": "Abort"});
    change(&testbed, "bad", again).await?;
    kstatus.rollout_is("bad", Failed, "TooManyFailed", "Failed").await?;
    ensure!(!kstatus.waits_for("flashrollout/bad", 1).await?, "a failed rollout is not ready");
    Ok(())
}
