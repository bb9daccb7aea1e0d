//! Readiness: an operator that cannot work is not ready, and reports what is missing; an operator
//! without configuration is ready, and reports that too.

use std::time::{Duration, Instant};

use flashjob_api::{DevicePlugin, FlashJobStatus, INSTALLATION, Phase};
use flashjob_end_to_end::{
    LIMIT, apply, create, ended, job, jobs, plugin_where, raw_jobs, status_where, uids,
};
use flashjob_testbed::process::eventually;
use flashjob_testbed::proxy::Call;
use flashjob_testbed::testbed::{grant_rights, grant_rights_without, install_crds};
use flashjob_testbed::{Options, Proxy, Testbed};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

/// Duration of a failure that makes a ready operator unready; it stays ready through shorter ones.
const UNREADY_AFTER: Duration = Duration::from_secs(30);

async fn testbed() -> anyhow::Result<Testbed> {
    Testbed::start(&Options { plugins: vec!["esp32".into()], ..Options::default() }).await
}

/// Waits until `/readyz` answers with this status and a text that contains all of these parts;
/// returns the text.
async fn readyz(testbed: &Testbed, code: u16, parts: &[&str]) -> anyhow::Result<String> {
    eventually(&format!("/readyz says {code}: {parts:?}"), LIMIT, || async {
        let answer = testbed.health(0, "/readyz").await?;
        Ok(answer
            .filter(|(status, text)| {
                *status == code && parts.iter().all(|part| text.contains(part))
            })
            .map(|(_, text)| text))
    })
    .await
}

/// Waits until the metric of a cause has this value.
async fn problem(testbed: &Testbed, cause: &str, value: u8) -> anyhow::Result<()> {
    let line = format!("flashjob_operator_problem{{cause=\"{cause}\"}} {value}");
    eventually(&line, LIMIT, || async {
        let metrics = testbed.health(0, "/metrics").await?.unwrap_or_default().1;
        Ok(metrics.lines().any(|metric| metric == line).then_some(()))
    })
    .await
}

/// Waits until an event about the operator's Pod has this reason and contains all of these parts.
async fn event(testbed: &Testbed, reason: &str, parts: &[&str]) -> anyhow::Result<()> {
    let events: Api<Event> = Api::namespaced(testbed.client.clone(), "default");
    eventually(&format!("an event {reason} on the operator's Pod"), LIMIT, || async {
        let all = events.list(&ListParams::default()).await?.items;
        Ok(all.into_iter().find(|event| {
            let about = event.regarding.as_ref();
            let note = event.note.as_deref().unwrap_or_default();
            about.is_some_and(|about| {
                about.kind.as_deref() == Some("Pod") && about.name.as_deref() == Some("operator-0")
            }) && event.reason.as_deref() == Some(reason)
                && parts.iter().all(|part| note.contains(part))
        }))
    })
    .await
    .map(|_| ())
}

fn log(testbed: &Testbed) -> anyhow::Result<String> {
    Ok(std::fs::read_to_string(testbed.folder().join("operator.log"))?)
}

/// Returns the number of log lines that contain this part of a message.
fn count_log_lines(testbed: &Testbed, part: &str) -> anyhow::Result<usize> {
    Ok(log(testbed)?.lines().filter(|line| line.contains(part)).count())
}

async fn live(testbed: &Testbed) -> anyhow::Result<()> {
    // A busy machine may answer late.
    let answer = || async { testbed.health(0, "/healthz").await };
    let (code, text) = eventually("/healthz answers", LIMIT, answer).await?;
    assert_eq!(code, 200, "{text}");
    Ok(())
}

#[tokio::test]
async fn an_operator_that_may_not_read_its_lease_is_never_ready_and_says_which_right_is_missing()
-> anyhow::Result<()> {
    let mut testbed = testbed().await?;
    grant_rights_without(&testbed.client, "role", &[("get", "leases")]).await?;
    let since = Instant::now();
    testbed.launch_operator()?;
    let right =
        "leases.coordination.k8s.io: the right to get them in namespace default is missing";
    let parts = [right, "User \"operator\"", "flashjob-operator-own", "deploy/rbac/role.yaml"];
    let text = readyz(&testbed, 503, &parts).await?;
    assert_eq!(text.lines().count(), 1, "{text}");
    event(&testbed, "RightMissing", &[right]).await?;
    problem(&testbed, "RightMissing", 1).await?;
    live(&testbed).await?;
    // The operator retries every second, and logs the problem with growing pauses.
    eventually("the problem is logged again", LIMIT, || async {
        Ok((count_log_lines(&testbed, right)? >= 2).then_some(()))
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (times, seconds) = (count_log_lines(&testbed, right)?, since.elapsed().as_secs());
    assert!(times as u64 <= 1 + seconds / 2, "said {times} times in {seconds} s");
    assert!(!log(&testbed)?.contains("Status {"), "{}", log(&testbed)?);
    assert_eq!(testbed.role(0).await?, None);

    grant_rights(&testbed.client, "role").await?;
    readyz(&testbed, 200, &["leader"]).await?;
    problem(&testbed, "RightMissing", 0).await?;
    assert_eq!(count_log_lines(&testbed, "resolved: get leases")?, 1);
    plugin_where(&testbed, "esp32", "it serves", |status| status.digest.is_some()).await?;
    Ok(())
}

#[tokio::test]
async fn an_operator_that_may_not_write_its_lease_is_not_ready_and_a_standby_is()
-> anyhow::Result<()> {
    let mut testbed = testbed().await?;
    grant_rights_without(&testbed.client, "role", &[("create", "leases")]).await?;
    testbed.launch_operator()?;
    readyz(&testbed, 503, &["the right to create them in namespace default is missing"]).await?;
    grant_rights(&testbed.client, "role").await?;
    readyz(&testbed, 200, &["leader"]).await?;
    assert_eq!(testbed.start_operator().await?, 1);
    let role = eventually("it says its role", LIMIT, || async { testbed.role(1).await }).await?;
    assert_eq!(role, "standby");
    Ok(())
}

#[tokio::test]
async fn a_forbidden_watch_makes_a_ready_operator_unready_after_thirty_seconds()
-> anyhow::Result<()> {
    let mut testbed = testbed().await?;
    let proxy = Proxy::start(&mut testbed.control_plane).await?;
    testbed.start_operator().await?;
    readyz(&testbed, 200, &["leader"]).await?;

    // Watches that break and reconnect do not make the operator unready.
    proxy.cut_watches();
    let rights = [("list", "flashjobs"), ("watch", "flashjobs")];
    grant_rights_without(&testbed.client, "role", &rights).await?;
    // The API server takes a moment to apply the changed rights; a watch that is open continues.
    let since = eventually("the watch is refused", LIMIT, || async {
        proxy.cut_watches();
        let since = Instant::now();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let metrics = testbed.health(0, "/metrics").await?.unwrap_or_default().1;
        let refused = "flashjob_api_requests_total{verb=\"watch\",code=\"403\"}";
        Ok(metrics.lines().any(|line| line.starts_with(refused)).then_some(since))
    })
    .await?;
    // The operator counts from the first refusal, which may be up to one iteration of this loop
    // earlier.
    let stays_ready = || since.elapsed() < UNREADY_AFTER - Duration::from_secs(5);
    let mut answers = 0;
    while stays_ready() {
        let answer = testbed.health(0, "/readyz").await?;
        // An answer that a busy machine delays, or none, shows nothing.
        if let Some((code, text)) = answer.filter(|_| stays_ready()) {
            assert_eq!((code, text.as_str()), (200, "leader"));
            answers += 1;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(answers > 0, "no answer while it stays ready");
    let right = "flashjobs.application.flashjob.nbfc.io: the right to watch them in the cluster";
    readyz(&testbed, 503, &["not ready: ", right, "deploy/rbac/role.yaml"]).await?;
    event(&testbed, "RightMissing", &[right]).await?;
    live(&testbed).await?;

    grant_rights(&testbed.client, "role").await?;
    readyz(&testbed, 200, &["leader"]).await?;
    problem(&testbed, "RightMissing", 0).await
}

#[tokio::test]
async fn kinds_that_are_not_installed_are_named_with_how_to_install_them() -> anyhow::Result<()> {
    let mut testbed = testbed().await?;
    let crds: Api<CustomResourceDefinition> = Api::all(testbed.client.clone());
    let names = ["deviceplugins.application.flashjob.nbfc.io", "instances.akri.sh"];
    for name in names {
        crds.delete(name, &DeleteParams::default()).await?;
        eventually("the definition is gone", LIMIT, || async {
            Ok(crds.get_opt(name).await?.is_none().then_some(()))
        })
        .await?;
    }
    testbed.launch_operator()?;
    let parts = [names[0], "make install", names[1], "install Akri", "(1)", "(2)"];
    readyz(&testbed, 503, &parts).await?;
    problem(&testbed, "DefinitionMissing", 1).await?;
    for name in names {
        event(&testbed, "DefinitionMissing", &[name, "is not installed"]).await?;
    }
    live(&testbed).await?;
    install_crds(&testbed.client).await?;
    readyz(&testbed, 200, &["leader"]).await?;
    problem(&testbed, "DefinitionMissing", 0).await
}

#[tokio::test]
async fn an_api_server_that_is_away_makes_the_operator_unready_and_never_dead()
-> anyhow::Result<()> {
    let mut testbed = testbed().await?;
    testbed.operator_arguments = vec!["--unready-after-seconds=5".into()];
    testbed.start_operator().await?;
    readyz(&testbed, 200, &["leader"]).await?;
    testbed.control_plane.stop_api_server().await?;
    readyz(&testbed, 503, &["not ready: API server: does not answer: ", "network"]).await?;
    problem(&testbed, "ApiServerUnreachable", 1).await?;
    live(&testbed).await?;
    testbed.control_plane.start_api_server().await?;
    readyz(&testbed, 200, &["leader"]).await?;
    problem(&testbed, "ApiServerUnreachable", 0).await
}

#[tokio::test]
async fn an_operator_without_configuration_plugin_or_trust_is_ready_and_says_what_to_do_next()
-> anyhow::Result<()> {
    let mut testbed = testbed().await?;
    let config = testbed.config.clone();

    testbed.config = json!({"kind": "OperatorConfig"});
    testbed.launch_operator()?;
    let ended = testbed.operator_ended(0, LIMIT).await?;
    assert_eq!(ended.code(), Some(1), "a file that is there and invalid ends it");

    testbed.config = Value::Null;
    testbed.start_operator().await?;
    let command = "kubectl -n default create configmap flashjob-operator-config";
    readyz(&testbed, 200, &["leader"]).await?;
    event(&testbed, "ConfigurationMissing", &["there is no configuration file", command]).await?;
    problem(&testbed, "ConfigurationMissing", 1).await?;
    assert_eq!(count_log_lines(&testbed, "there is no configuration file")?, 1);

    testbed.config = config.clone();
    testbed.config["plugins"] = json!([]);
    testbed.write_config()?;
    event(&testbed, "PluginsMissing", &["names no plugin", command]).await?;
    problem(&testbed, "ConfigurationMissing", 0).await?;

    testbed.config = config.clone();
    testbed.config["trust"] = json!([]);
    testbed.write_config()?;
    event(&testbed, "TrustMissing", &["esp32 (", "cosign.publicKeyFiles"]).await?;
    problem(&testbed, "PluginsMissing", 0).await?;

    testbed.config = config;
    testbed.config["registries"][0]["credentials"]["secretName"] = json!("absent");
    testbed.write_config()?;
    let command =
        "kubectl -n default create secret docker-registry absent --docker-server=127.0.0.1";
    event(&testbed, "SecretMissing", &["Secret default/absent: does not exist", command]).await?;
    problem(&testbed, "TrustMissing", 0).await?;
    plugin_where(&testbed, "esp32", "the Secret is named", |status| {
        let error = status.last_error.as_deref().unwrap_or_default();
        error.contains("Secret default/absent") && !error.contains("Status {")
    })
    .await?;
    readyz(&testbed, 200, &["leader"]).await?;

    let secrets: Api<Secret> = Api::namespaced(testbed.client.clone(), "default");
    let mut secret = secrets.get("registry-robot").await?;
    secret.metadata =
        kube::api::ObjectMeta { name: Some("absent".into()), ..kube::api::ObjectMeta::default() };
    secrets.create(&PostParams::default(), &secret).await?;
    problem(&testbed, "SecretMissing", 0).await?;
    plugin_where(&testbed, "esp32", "it serves", |status| status.last_error.is_none()).await?;
    Ok(())
}

#[tokio::test]
async fn a_definition_that_lacks_fields_is_told_and_the_operator_works_all_the_same()
-> anyhow::Result<()> {
    let mut testbed = testbed().await?;
    let crds: Api<CustomResourceDefinition> = Api::all(testbed.client.clone());
    let name = "flashjobs.application.flashjob.nbfc.io";
    let properties = "/spec/versions/0/schema/openAPIV3Schema/properties";
    let patch = json!([
        {"op": "remove", "path": format!("{properties}/spec/properties/exposure")},
        {"op": "remove", "path": format!("{properties}/status/properties/run")},
    ]);
    let patch: json_patch::Patch = serde_json::from_value(patch)?;
    crds.patch(name, &PatchParams::default(), &Patch::Json::<()>(patch)).await?;
    testbed.start_operator().await?;
    let parts = [name, "drops or refuses spec.exposure, status.run;", "make install"];
    event(&testbed, "DefinitionOutdated", &parts).await?;
    problem(&testbed, "DefinitionOutdated", 1).await?;
    readyz(&testbed, 200, &["leader"]).await?;
    install_crds(&testbed.client).await?;
    problem(&testbed, "DefinitionOutdated", 0).await?;
    let forbidden =
        flashjob_testbed::audit::forbidden(&testbed.control_plane.audit_log, "operator")?;
    assert_eq!(forbidden, Vec::new(), "no right is needed for it");
    Ok(())
}

#[tokio::test]
async fn a_flash_job_that_cannot_be_decoded_is_told_so_in_one_status_write() -> anyhow::Result<()>
{
    let devices = vec!["esp32:thermo:0.1.0=3".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    let proxy = Proxy::start(&mut testbed.control_plane).await?;
    let crds: Api<CustomResourceDefinition> = Api::all(testbed.client.clone());
    let name = "flashjobs.application.flashjob.nbfc.io";
    let of_anything = json!([{
        "op": "replace",
        "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/parallelism",
        "value": {"x-kubernetes-preserve-unknown-fields": true},
    }]);
    let patch: json_patch::Patch = serde_json::from_value(of_anything)?;
    crds.patch(name, &PatchParams::default(), &Patch::Json::<()>(patch)).await?;
    testbed.start_operator().await?;
    let all = uids(&testbed, "esp32", 3).await?;
    // The API server applies a changed definition a moment later.
    eventually("the FlashJob is taken", LIMIT, || async {
        Ok(create(&testbed, &job("words", &all, json!({"parallelism": "two"}))).await.ok())
    })
    .await?;
    let message = eventually("its status has a message", LIMIT, || async {
        let stored_job = raw_jobs(&testbed).get("words").await?;
        Ok(stored_job.data["status"]["message"].as_str().map(str::to_owned))
    })
    .await?;
    assert!(message.contains("spec.parallelism: invalid type: string \"two\""), "{message}");
    // Another job is flashed meanwhile, device by device.
    apply(&testbed, &job("numbers", &all, json!({"parallelism": 1}))).await?;
    ended(&testbed, "numbers").await?;
    let about_it = |call: &Call| call.resource == "flashjobs/status" && call.name == "words";
    assert_eq!(proxy.count(about_it), 1, "status writes");
    let mended = json!({"spec": {"parallelism": 2}});
    jobs(&testbed).patch("words", &PatchParams::default(), &Patch::Merge(mended)).await?;
    let status = ended(&testbed, "words").await?;
    assert_eq!(status.phase, Some(Phase::Completed), "{status:?}");
    Ok(())
}

#[tokio::test]
async fn a_device_plugin_of_another_installation_is_left_alone_and_told_and_the_own_plugin_serves()
-> anyhow::Result<()> {
    let mut testbed = testbed().await?;
    let plugins: Api<DevicePlugin> = Api::all(testbed.client.clone());
    for (name, owner) in [("esp32", "north"), ("theirs", "north"), ("stale", "default")] {
        let object = json!({
            "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "DevicePlugin",
            "metadata": {"name": name, "labels": {INSTALLATION: owner}},
            "spec": {"image": "registry.example/other:1"},
        });
        plugins.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    }
    testbed.start_operator().await?;
    let parts = ["DevicePlugin esp32: it belongs to the installation in namespace north"];
    event(&testbed, "DevicePluginNotOwned", &parts).await?;
    problem(&testbed, "DevicePluginNotOwned", 1).await?;
    eventually("the own plugin serves", LIMIT, || async {
        let metrics = testbed.health(0, "/metrics").await?.unwrap_or_default().1;
        let line = "flashjob_plugin_ready{plugin=\"esp32\"} 1";
        Ok(metrics.lines().any(|metric| metric == line).then_some(()))
    })
    .await?;
    eventually("the own stale object is removed", LIMIT, || async {
        Ok(plugins.get_opt("stale").await?.is_none().then_some(()))
    })
    .await?;
    let theirs = plugins.get("esp32").await?;
    assert_eq!(theirs.spec.image, "registry.example/other:1");
    assert_eq!((theirs.status, theirs.metadata.generation), (None, Some(1)));
    assert!(plugins.get_opt("theirs").await?.is_some());

    plugins.delete("esp32", &DeleteParams::default()).await?;
    plugin_where(&testbed, "esp32", "it is ours now", |status| status.digest.is_some()).await?;
    problem(&testbed, "DevicePluginNotOwned", 0).await?;
    let ours = plugins.get("esp32").await?;
    assert_eq!(ours.labels().get(INSTALLATION).map(String::as_str), Some("default"));

    plugins.delete("esp32", &DeleteParams::default()).await?;
    plugin_where(&testbed, "esp32", "it is created again", |status| status.digest.is_some())
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_proxy_of_the_environment_serves_the_registries_and_leaves_the_api_server_alone()
-> anyhow::Result<()> {
    let mut testbed = testbed().await?;
    let proxy = |value: &str, without: &str| -> Vec<(String, String)> {
        [("HTTPS_PROXY", value), ("NO_PROXY", without)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    };
    // No server listens there: a request through this proxy fails.
    let nowhere = "http://127.0.0.1:9";
    testbed.operator_environment = proxy(nowhere, "");
    testbed.start_operator().await?;
    plugin_where(&testbed, "esp32", "the registry is out of reach", |status| {
        status.last_error.as_ref().is_some_and(|error| !error.is_empty())
    })
    .await?;
    testbed.kill_operator().await?;
    // Usual spellings that kube itself does not read.
    testbed.operator_environment = proxy(&format!(" {nowhere} "), "registry.example 127.0.0.0/8,");
    testbed.start_operator().await?;
    plugin_where(&testbed, "esp32", "it serves", |status| status.digest.is_some()).await?;
    testbed.kill_operator().await?;
    testbed.operator_environment = proxy("proxy.example:port", "");
    let error = testbed.start_operator().await.expect_err("it ends at start");
    assert!(format!("{error:#}").contains("HTTPS_PROXY does not name a valid proxy"), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn a_delete_that_the_operator_has_no_right_to_is_said_in_the_status_until_it_is_granted()
-> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=1".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    testbed.start_operator().await?;
    let rights = [("delete", "services"), ("delete", "pods")];
    grant_rights_without(&testbed.client, "role", &rights).await?;
    let uids: Vec<String> = testbed.devices().await?.into_iter().map(|(uid, _)| uid).collect();
    apply(&testbed, &job("held", &uids, json!({}))).await?;
    let says = |status: &FlashJobStatus| {
        let message = status.message.as_deref().unwrap_or_default();
        message.contains("deleting Service") && message.contains("cannot delete resource")
    };
    status_where(&testbed, "held", "it is done, and names the right", |status| {
        says(status) && status.phase == Some(Phase::Completed)
    })
    .await?;
    jobs(&testbed).delete("held", &DeleteParams::default()).await?;
    let held_up = |status: &FlashJobStatus| {
        says(status) && !status.message.as_deref().unwrap_or_default().contains("completed")
    };
    status_where(&testbed, "held", "it says what holds the deletion up", held_up).await?;
    grant_rights(&testbed.client, "role").await?;
    eventually("the FlashJob is gone", LIMIT, || async {
        Ok(jobs(&testbed).get_opt("held").await?.is_none().then_some(()))
    })
    .await
}
