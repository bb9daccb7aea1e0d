//! Third-party plugins, built against the contract alone, and plugins that misbehave.

use anyhow::Context;
use flashjob_api::{DevicePlugin, Phase};
use flashjob_end_to_end::{apply, ended, job, plugin_where, uids};
use flashjob_testbed::process::{LIMIT, eventually};
use flashjob_testbed::{Options, Testbed};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use std::collections::BTreeMap;

/// A flash image that accepts any arguments, and reports at its end the folder where it was
/// started.
const TOASTER: &str = "registry.example/toaster:1";

#[tokio::test]
async fn a_plugin_built_against_the_contract_alone_flashes_its_own_device_type()
-> anyhow::Result<()> {
    let options = Options {
        devices: vec!["toaster:thermo:0.1.0=2".into()],
        plugins: vec!["toaster".into()],
        ..Options::default()
    };
    let mut testbed = Testbed::start(&options).await?;
    testbed.start_operator().await?;
    let all = uids(&testbed, "toaster", 2).await?;
    apply(&testbed, &job("breakfast", &all, json!({"flashjobPodImage": null}))).await?;
    let status = ended(&testbed, "breakfast").await?;
    assert_eq!(status.phase, Some(Phase::Completed), "{status:?}");
    // This plugin takes the Pod's success as proof, so the job does not wait until the devices
    // have rebooted.
    eventually("the toasters run the new firmware", LIMIT, || async {
        Ok(testbed
            .fleet
            .reports()
            .await?
            .iter()
            .all(|report| report.version == "0.2.0" && report.flashed == 1)
            .then_some(()))
    })
    .await?;
    let plugins: Api<DevicePlugin> = Api::all(testbed.client.clone());
    let status = plugins.get("toaster").await?.status.unwrap_or_default();
    assert_eq!(
        (status.device_types, status.version.as_deref()),
        (vec!["toaster".to_owned()], Some("1.0.0"))
    );
    Ok(())
}

#[tokio::test]
async fn plugins_of_two_versions_of_the_contract_flash_side_by_side_under_one_operator()
-> anyhow::Result<()> {
    let types = ["toaster", "kiln"];
    let devices = types.iter().map(|name| format!("{name}:thermo:0.1.0=1")).collect();
    let plugins = types.iter().map(|name| (*name).to_owned()).collect();
    let mut testbed = Testbed::start(&Options { devices, plugins, ..Options::default() }).await?;
    testbed.start_operator().await?;
    for (name, version) in [("toaster", "0.1.0"), ("kiln", "0.2.0")] {
        let status =
            plugin_where(&testbed, name, "it serves", |status| status.digest.is_some()).await?;
        assert_eq!(status.wit_version.as_deref(), Some(version), "{name}");
    }
    let all: Vec<String> = testbed.devices().await?.into_iter().map(|(uid, _)| uid).collect();
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), "default");
    let before =
        pods.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    apply(&testbed, &job("bakery", &all, json!({"flashjobPodImage": TOASTER}))).await?;
    let status = ended(&testbed, "bakery").await?;
    assert_eq!(
        (status.phase, status.completed_uuids.len()),
        (Some(Phase::Completed), 2),
        "{status:?}"
    );
    // The Pods may already be gone. The API server's watch cache still has their last states, with
    // the termination messages of the flash programs.
    let mut events =
        pods.watch(&WatchParams::default().labels("app=bakery"), &before).await?.boxed();
    let mut messages = BTreeMap::new();
    while messages.len() < types.len() {
        let WatchEvent::Modified(pod) = events.try_next().await?.context("the watch ended")?
        else {
            continue;
        };
        let containers =
            pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let mut ended = containers.filter_map(|container| {
            container.state.as_ref()?.terminated.as_ref()?.message.clone()
        });
        let Some(message) = ended.next() else { continue };
        let plugin = pod
            .annotations()
            .get("application.flashjob.nbfc.io/plugin")
            .cloned()
            .unwrap_or_default();
        messages.insert(plugin, message);
    }
    let expected = [("kiln", "flashed, from /kiln"), ("toaster", "flashed, from /")]
        .map(|(name, text)| (name.to_owned(), text.to_owned()));
    assert_eq!(messages, BTreeMap::from(expected));
    Ok(())
}

#[tokio::test]
async fn a_plugin_that_misbehaves_costs_its_own_devices_and_no_other_waits() -> anyhow::Result<()>
{
    let hostile = ["loops", "eats-memory", "huge-list", "traps"];
    let mut devices: Vec<String> =
        hostile.iter().map(|name| format!("{}:thermo:0.1.0=1", name.replace('-', ""))).collect();
    devices.push("esp32:thermo:0.1.0=2".to_owned());
    let plugins =
        hostile.iter().copied().chain(["esp32", "wrong-name"]).map(str::to_owned).collect();
    let mut testbed = Testbed::start(&Options { devices, plugins, ..Options::default() }).await?;
    testbed.start_operator().await?;
    let all: Vec<String> = testbed.devices().await?.into_iter().map(|(uid, _)| uid).collect();
    apply(&testbed, &job("hostile", &all, json!({"backoffLimitPerDevice": 0}))).await?;
    let status = ended(&testbed, "hostile").await?;
    assert_eq!((status.completed_uuids.len(), status.failed_uuids.len()), (2, 4), "{status:?}");
    let messages: Vec<String> =
        status.devices.iter().filter_map(|device| device.message.clone()).collect();
    for expected in ["did not answer within", "bytes of memory", "answer is rejected", "crashed"] {
        assert!(
            messages.iter().any(|message| message.contains(expected)),
            "{expected}: {messages:?}"
        );
    }
    let plugins: Api<DevicePlugin> = Api::all(testbed.client.clone());
    let error = eventually("the wrong name is said", LIMIT, || async {
        Ok(plugins
            .get_opt("wrong-name")
            .await?
            .and_then(|plugin| plugin.status)
            .and_then(|status| status.last_error))
    });
    let error = error.await?;
    assert!(error.contains("it calls itself another"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_component_that_costs_too_much_to_compile_is_refused_and_the_operator_lives_on()
-> anyhow::Result<()> {
    let plugins = vec!["esp32".into()];
    let options = Options { plugins, compiles_plugins: true, ..Options::default() };
    let mut testbed = Testbed::start(&options).await?;
    testbed.config["limits"] = json!({"compileMemory": "48Mi"});
    testbed.start_operator().await?;
    let plugins: Api<DevicePlugin> = Api::all(testbed.client.clone());
    let ready = || async {
        let status =
            plugins.get_opt("esp32").await?.and_then(|plugin| plugin.status).unwrap_or_default();
        let ready = status.conditions.into_iter().find(|condition| condition.type_ == "Ready");
        Ok(ready.map(|condition| (condition.status, condition.reason, condition.message)))
    };
    let (status, reason, message) = eventually("the refusal is said", LIMIT, ready).await?;
    assert_eq!((status.as_str(), reason.as_str()), ("False", "CompileLimitReached"), "{message}");
    assert!(message.contains("limits.compileMemory"), "{message}");
    testbed.config["limits"] = json!({});
    testbed.write_config()?;
    let serves = || async { Ok(ready().await?.filter(|(status, ..)| status == "True")) };
    eventually("the same operator serves it under the usual limit", LIMIT, serves).await?;
    Ok(())
}

#[tokio::test]
async fn plugins_written_in_go_and_javascript_flash_their_own_device_types() -> anyhow::Result<()>
{
    let types = ["kettle", "lamp"];
    let devices = types.iter().map(|name| format!("{name}:thermo:0.1.0=1")).collect();
    let plugins = types.iter().map(|name| (*name).to_owned()).collect();
    let mut testbed = Testbed::start(&Options { devices, plugins, ..Options::default() }).await?;
    testbed.start_operator().await?;
    let all: Vec<String> = testbed.devices().await?.into_iter().map(|(uid, _)| uid).collect();
    let spec = json!({"flashjobPodImage": TOASTER, "settings": {"lamp": {"shade": "green"}}});
    apply(&testbed, &job("languages", &all, spec)).await?;
    let status = ended(&testbed, "languages").await?;
    assert_eq!(
        (status.phase, status.completed_uuids.len()),
        (Some(Phase::Completed), 2),
        "{status:?}"
    );
    let reports = testbed.fleet.reports().await?;
    assert!(
        reports.iter().all(|report| report.version == "0.2.0" && report.flashed == 1),
        "each device runs what it was given, once"
    );
    Ok(())
}
