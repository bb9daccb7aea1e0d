//! Trust in plugins: signatures in a real registry, and the status of the DevicePlugin for each
//! refusal.

use std::collections::BTreeMap;

use anyhow::Context;
use flashjob_api::{DevicePlugin, DevicePluginStatus};
use flashjob_end_to_end::{LIMIT, plugin_where};
use flashjob_testbed::artifacts::push_plugin;
use flashjob_testbed::process::{eventually, repository};
use flashjob_testbed::signatures::Signer;
use flashjob_testbed::{Options, Testbed};
use kube::Api;
use serde_json::json;

async fn reported_status(testbed: &Testbed, name: &str) -> anyhow::Result<DevicePluginStatus> {
    plugin_where(testbed, name, "it says how it does", |status| {
        condition(status, "Ready").is_some()
    })
    .await
}

fn condition(status: &DevicePluginStatus, kind: &str) -> Option<(String, String)> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((condition.status.clone(), condition.reason.clone()))
}

fn pair(status: &str, reason: &str) -> Option<(String, String)> {
    Some((status.to_owned(), reason.to_owned()))
}

#[tokio::test]
async fn only_what_a_trusted_key_signed_is_run_and_each_refusal_says_why() -> anyhow::Result<()> {
    let names = ["esp32", "esp32s2", "toaster", "traps", "loops", "eats-memory", "wrong-name"];
    let options = Options { plugins: names.map(str::to_owned).to_vec(), ..Options::default() };
    let mut testbed = Testbed::start(&options).await?;
    let (ours, foreign) =
        (Signer::new(testbed.folder(), "ours")?, Signer::new(testbed.folder(), "foreign")?);
    let mut digests = BTreeMap::new();
    for name in names {
        let file = repository().join(format!("target/plugins/{name}.wasm"));
        let reference =
            push_plugin(&testbed.registry, &file, &format!("flashjob/{name}:0.1.0")).await?;
        digests.insert(name, reference.split_once('@').context("a digest")?.1.to_owned());
    }
    let registry = &testbed.registry;
    ours.sign_simple(registry, "flashjob/esp32", &digests["esp32"], &digests["esp32"]).await?;
    ours.sign_bundle(registry, "flashjob/esp32s2", &digests["esp32s2"], &digests["esp32s2"])
        .await?;
    foreign.sign_simple(registry, "flashjob/traps", &digests["traps"], &digests["traps"]).await?;
    let nameless = &digests["wrong-name"];
    ours.sign_simple(registry, "flashjob/wrong-name", nameless, nameless).await?;
    ours.sign_bundle(registry, "flashjob/loops", &digests["loops"], &digests["esp32"]).await?;
    ours.sign_simple(
        registry,
        "flashjob/eats-memory",
        &digests["eats-memory"],
        &digests["eats-memory"],
    )
    .await?;
    let cosign = |forms: &[&str]| json!({"publicKeyFiles": [ours.public_key], "forms": forms});
    testbed.config["trust"] = json!([
        {
            "match": format!("{}/flashjob/**", registry.host),
            "cosign": cosign(&["bundle", "simple"]),
        },
        {
            "match": format!("{}/flashjob/eats-memory", registry.host),
            "cosign": cosign(&["bundle"]),
        },
    ]);
    testbed.start_operator().await?;
    for name in ["esp32", "esp32s2"] {
        let status = reported_status(&testbed, name).await?;
        assert_eq!(condition(&status, "Ready"), pair("True", "Serving"), "{status:?}");
        assert_eq!(condition(&status, "Verified"), pair("True", "SignatureFound"));
        assert_eq!(status.digest.as_deref(), Some(digests[name].as_str()));
    }
    for (name, reason, words) in [
        ("toaster", "Unsigned", "is not signed"),
        ("traps", "WrongKey", "with none of the keys"),
        ("loops", "OtherDigest", digests["esp32"].as_str()),
        ("eats-memory", "FormNotAllowed", "under forms"),
    ] {
        let status = reported_status(&testbed, name).await?;
        assert_eq!(condition(&status, "Resolved"), pair("True", "Resolved"), "{name}: {status:?}");
        assert_eq!(condition(&status, "Verified"), pair("False", reason), "{name}: {status:?}");
        assert_eq!(
            condition(&status, "Ready").map(|(status, _)| status).as_deref(),
            Some("False")
        );
        assert!(
            status.last_error.as_deref().is_some_and(|error| error.contains(words)),
            "{name}: {status:?}"
        );
    }
    // A valid signature is reported, though the signed plugin cannot be used.
    let status = reported_status(&testbed, "wrong-name").await?;
    assert_eq!(condition(&status, "Verified"), pair("True", "SignatureFound"), "{status:?}");
    assert_eq!(condition(&status, "Ready").map(|(status, _)| status).as_deref(), Some("False"));
    Ok(())
}

fn serving(status: &DevicePluginStatus) -> bool {
    condition(status, "Ready") == pair("True", "Serving")
}

#[tokio::test]
async fn a_changed_configuration_is_taken_whole_while_the_operator_runs() -> anyhow::Result<()> {
    let mut testbed = Testbed::start(&Options {
        plugins: vec!["esp32".into(), "toaster".into()],
        ..Options::default()
    })
    .await?;
    testbed.config["trust"] = json!([]);
    testbed.start_operator().await?;
    let refused =
        |status: &DevicePluginStatus| condition(status, "Verified") == pair("False", "NotTrusted");
    plugin_where(&testbed, "esp32", "it is not trusted", refused).await?;
    // An invalid file changes nothing, not even by its valid entries.
    let registry = testbed.registry.host.clone();
    let trusted = json!([{"match": format!("{registry}/flashjob/**"), "allowUnsigned": true}]);
    testbed.config["trust"] = trusted.clone();
    testbed.config["plugins"][1]["imagee"] = json!("x");
    testbed.write_config()?;
    eventually("the operator says which field is wrong", LIMIT, || async {
        let log = std::fs::read_to_string(testbed.folder().join("operator.log"))?;
        Ok((log.contains("changed configuration is refused") && log.contains("imagee"))
            .then_some(()))
    })
    .await?;
    assert!(refused(&reported_status(&testbed, "esp32").await?));
    if let Some(plugin) = testbed.config["plugins"][1].as_object_mut() {
        plugin.remove("imagee");
    }
    testbed.write_config()?;
    plugin_where(&testbed, "esp32", "it serves", serving).await?;
    plugin_where(&testbed, "toaster", "it serves", serving).await?;
    // A plugin that is removed from the configuration is withdrawn, and one that is no longer
    // trusted stops serving.
    testbed.config["plugins"] = json!([testbed.config["plugins"][0]]);
    testbed.config["trust"] = json!([]);
    testbed.write_config()?;
    let withdrawn = |status: &DevicePluginStatus| {
        condition(status, "Ready") == pair("False", "NotTrusted") && status.digest.is_none()
    };
    plugin_where(&testbed, "esp32", "it no longer serves", withdrawn).await?;
    let plugins: Api<DevicePlugin> = Api::all(testbed.client.clone());
    eventually("the DevicePlugin is gone", LIMIT, || async {
        Ok(plugins.get_opt("toaster").await?.is_none().then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_tag_is_followed_and_the_last_good_version_serves_while_a_new_one_fails()
-> anyhow::Result<()> {
    let mut testbed =
        Testbed::start(&Options { plugins: vec!["esp32".into()], ..Options::default() }).await?;
    testbed.config["plugins"][0]["pullPolicy"] = json!("Always");
    testbed.config["plugins"][0]["pullIntervalSeconds"] = json!(10);
    testbed.start_operator().await?;
    let first = plugin_where(&testbed, "esp32", "it serves", serving).await?.digest;
    let push = |name: &str| repository().join(format!("target/plugins/{name}.wasm"));
    push_plugin(&testbed.registry, &push("wrong-name"), "flashjob/esp32:0.1.0").await?;
    let fails = |status: &DevicePluginStatus| {
        condition(status, "Ready") == pair("True", "ServingLastGood")
    };
    let status = plugin_where(&testbed, "esp32", "the new version fails", fails).await?;
    assert_eq!(status.digest, first);
    assert!(status.last_error.is_some_and(|error| error.contains("calls itself another")));
    push_plugin(&testbed.registry, &push("esp32"), "flashjob/esp32:0.1.0").await?;
    let status = plugin_where(&testbed, "esp32", "it serves again", serving).await?;
    assert_eq!((status.digest, status.last_error), (first, None));
    Ok(())
}
