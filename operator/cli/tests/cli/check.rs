//! Tests of `check`: it names what is missing in a cluster, one thing after the other, until
//! nothing is missing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use flashjob_api::akri::Instance;
use flashjob_testbed::certificates::Authority;
use flashjob_testbed::control_plane::ControlPlane;
use flashjob_testbed::process::{eventually, script};
use flashjob_testbed::testbed::install_crds;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::author::{CommandOutput, command_output};

/// Longer than any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn ask(kubeconfig: &Path, words: &[&str]) -> anyhow::Result<CommandOutput> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-flashjob"));
    command.args(["-o", "json", "check", "--kubeconfig"]).arg(kubeconfig).args(words);
    command_output(command.env_remove("RUST_LOG").output()?)
}

/// Returns status and message of a check.
fn status_and_message(output: &CommandOutput, check: &str) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let checks = output.json["checks"].as_array().into_iter().flatten();
    let mut checks = checks.filter(|finding| finding["check"] == check);
    checks.next().map_or_else(
        || panic!("no check {check} in {}", output.json),
        |finding| {
            let words = [text(&finding["message"]), text(&finding["next"])].join(" ");
            (text(&finding["status"]), words)
        },
    )
}

#[track_caller]
fn is(output: &CommandOutput, check: &str, status: &str, words: &str) {
    let (actual, message) = status_and_message(output, check);
    assert!(actual == status && message.contains(words), "{check}: {actual}: {message}");
}

/// Creates an object with its status.
async fn create(client: &Client, object: Value) -> anyhow::Result<()> {
    let object: DynamicObject = serde_json::from_value(object)?;
    let kind = object.types.as_ref().context("no kind")?.try_into()?;
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    api.create(&PostParams::default(), &object).await?;
    if object.data.get("status").is_some() {
        let (name, status) = (object.name_any(), json!({"status": object.data["status"]}));
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
    }
    Ok(())
}

/// Returns a Pod of the operator; `label` is the one by which it is found.
fn pod(name: &str, label: &str, ready: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "default", "labels": {label: "flashjob-operator"},
        },
        // No scheduler of that name runs, so the Pod never starts.
        "spec": {"schedulerName": "none", "containers": [{"name": "operator", "image": "a:1"}]},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    })
}

/// Returns an event as the operator writes it on its Pod.
fn event(reason: &str, note: &str) -> Value {
    let now = Timestamp::now();
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {
            "name": format!("operator-0.{}", now.as_nanosecond()), "namespace": "default",
        },
        "type": "Warning", "reason": reason, "note": note, "action": "a",
        "eventTime": format!("{now:.6}"), "reportingController": "flashjob-operator",
        "reportingInstance": "operator-0",
        "regarding": {
            "apiVersion": "v1", "kind": "Pod", "name": "operator-0", "namespace": "default",
        },
    })
}

fn plugin(name: &str, ready: &str, reason: &str, message: &str) -> Value {
    json!({
        "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "DevicePlugin",
        "metadata": {"name": name}, "spec": {"image": "registry.example/a:1"},
        "status": {
            "deviceTypes": ["esp32"], "version": "0.1.0",
            "conditions": [{
                "type": "Ready", "status": ready, "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        },
    })
}

#[tokio::test]
async fn what_is_missing_is_named_with_what_to_do_next_until_nothing_is() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir()?;
    let programs = PathBuf::from(script("tests/control-plane/build.sh")?);
    let plane =
        ControlPlane::start(&programs, folder.path(), &Authority::new(folder.path())?).await?;
    let client = plane.client().await?;
    let check = || ask(&plane.kubeconfig, &[]);

    let nothing = check()?;
    is(&nothing, "definition FlashJob", "failed", "make install");
    is(&nothing, "devices (Akri)", "failed", "install Akri");
    is(&nothing, "operator", "failed", "app.kubernetes.io/part-of=flashjob-operator");
    let elsewhere = ask(&plane.kubeconfig, &["-n", "wrong"])?;
    is(&elsewhere, "operator", "failed", "namespace wrong");
    is(&elsewhere, "operator", "failed", "leave out -n");
    nothing.failed(10, "CheckFailed", "definition FlashJob");

    install_crds(&client).await?;
    // The first is as an older version installed it.
    create(&client, pod("operator-0", "app.kubernetes.io/name", "False")).await?;
    create(&client, pod("operator-1", "app.kubernetes.io/part-of", "True")).await?;
    create(&client, event("ConfigurationMissing", "there is no configuration file; do so"))
        .await?;
    create(&client, event("RightMissing", "the right to get leases is missing; grant it")).await?;
    let forbidden = eventually("the schemas are published", LIMIT, || async {
        let output = check()?;
        Ok((status_and_message(&output, "definition DevicePlugin").0 == "ok").then_some(output))
    })
    .await?;
    is(&forbidden, "definition FlashJob", "ok", "of this version");
    is(&forbidden, "definition DevicePlugin", "ok", "of this version");
    is(&forbidden, "devices (Akri)", "warning", "no device");
    is(
        &forbidden,
        "pod default/operator-0",
        "failed",
        "the right to get leases is missing; grant",
    );
    is(&forbidden, "pod default/operator-1", "ok", "is ready");
    is(&forbidden, "lease default/flashjob-operator", "failed", "does not exist");
    is(&forbidden, "plugins", "failed", "there is no configuration file; do so");
    is(&forbidden, "load balancer", "unknown", "");

    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(client.clone(), "default");
    let ready = Patch::Merge(pod("operator-0", "app.kubernetes.io/name", "True"));
    pods.patch_status("operator-0", &PatchParams::default(), &ready).await?;
    create(
        &client,
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "flashjob-operator", "namespace": "default"},
            "spec": {
                "holderIdentity": "operator-0_1", "leaseDurationSeconds": 3600,
                "renewTime": format!("{:.6}", Timestamp::now()),
            },
        }),
    )
    .await?;
    create(&client, plugin("esp32", "False", "Unsigned", "it is not signed; sign it")).await?;
    create(&client, plugin("esp32s2", "True", "Serving", "")).await?;
    let unsigned = check()?;
    is(&unsigned, "lease default/flashjob-operator", "ok", "operator-0_1");
    is(&unsigned, "plugin esp32", "failed", "Unsigned: it is not signed; sign it");
    is(&unsigned, "plugin esp32s2", "ok", "version 0.1.0 serves esp32");
    unsigned.failed(10, "CheckFailed", "plugin esp32");

    let plugins: Api<flashjob_api::DevicePlugin> = Api::all(client.clone());
    let serving = Patch::Merge(plugin("esp32", "True", "Serving", ""));
    plugins.patch_status("esp32", &PatchParams::default(), &serving).await?;
    let instances: Api<Instance> = Api::namespaced(client.clone(), "default");
    for name in ["a", "b"] {
        let instance = json!({
            "apiVersion": "akri.sh/v0", "kind": "Instance", "metadata": {"name": name},
            "spec": {"configurationName": "a", "capacity": 1, "cdiName": "a"},
        });
        instances.create(&PostParams::default(), &serde_json::from_value(instance)?).await?;
    }
    let good = ask(&plane.kubeconfig, &["-n", "default"])?;
    is(&good, "devices (Akri)", "ok", "2 Instances");
    good.good()?;

    // A user without rights learns what they may not read, and nothing else is reported as failed.
    let denied = ask(&plane.client_kubeconfig, &[])?;
    is(&denied, "operator", "denied", "User \"client\" cannot list resource");
    is(&denied, "definition FlashJob", "ok", "of this version");
    denied.failed(3, "AccessDenied", "operator");
    Ok(())
}
