//! A plugin through restarts, moved tags and outages: every replica uses the digest that the
//! leader recorded, and never a lower version.

use std::path::Path;

use anyhow::Context;
use flashjob_api::{DevicePluginStatus, Phase};
use flashjob_end_to_end::{LIMIT, apply, ended, job, plugin_where, pod_where, runs, uids};
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::artifacts::push_plugin;
use flashjob_testbed::keyless::{Signing, Sigstore};
use flashjob_testbed::process::{eventually, repository};
use flashjob_testbed::proxy::{Action, Call, Proxy};
use flashjob_testbed::signatures::{Signer, attach_simple};
use flashjob_testbed::{Options, Signal, Testbed};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

/// A testbed with only the plugin esp32, and the digest to which its tag refers.
async fn testbed() -> anyhow::Result<(Testbed, String)> {
    let plugins = vec!["esp32".into()];
    let options = Options { plugins, compiles_plugins: true, ..Options::default() };
    let mut testbed = Testbed::start(&options).await?;
    let digest = push(&testbed, "0.1.0", "0.1.0").await?;
    testbed.config["plugins"][0]["pullIntervalSeconds"] = json!(10);
    Ok((testbed, digest))
}

/// Pushes esp32 with this version in the component, under a tag; returns its digest.
async fn push(testbed: &Testbed, version: &str, tag: &str) -> anyhow::Result<String> {
    let component = std::fs::read(repository().join("target/plugins/esp32.wasm"))?;
    let (old_marker, new_marker) =
        (b"esp320.1.0".as_slice(), format!("esp32{version}").into_bytes());
    let at = component
        .windows(old_marker.len())
        .position(|bytes| bytes == old_marker)
        .context("the component names its version")?;
    let file = testbed.folder().join(format!("esp32-{version}.wasm"));
    std::fs::write(
        &file,
        [&component[..at], new_marker.as_slice(), &component[at + old_marker.len()..]].concat(),
    )?;
    let reference =
        push_plugin(&testbed.registry, &file, &format!("flashjob/esp32:{tag}")).await?;
    Ok(reference.split_once('@').context("a digest")?.1.to_owned())
}

fn condition(status: &DevicePluginStatus, kind: &str, reason: &str) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == kind && condition.reason == reason)
}

/// Waits until an operator's log contains some words after its first `from` bytes, and returns the
/// log.
async fn says(
    testbed: &Testbed,
    operator: &str,
    from: usize,
    words: &str,
) -> anyhow::Result<String> {
    let file = testbed.folder().join(format!("{operator}.log"));
    eventually(&format!("{operator} says {words}"), LIMIT, || async {
        let log = std::fs::read_to_string(&file).unwrap_or_default();
        Ok(log.get(from..).filter(|log| log.contains(words)).map(str::to_owned))
    })
    .await
}

fn log_length(testbed: &Testbed, operator: &str) -> usize {
    std::fs::metadata(testbed.folder().join(format!("{operator}.log")))
        .map_or(0, |log| log.len() as usize)
}

#[tokio::test]
async fn a_standby_uses_the_digest_of_its_leader_while_the_tag_moves() -> anyhow::Result<()> {
    let (mut testbed, first) = testbed().await?;
    testbed.start_operator().await?;
    plugin_where(&testbed, "esp32", "it serves", |status| status.digest.as_ref() == Some(&first))
        .await?;
    let second = push(&testbed, "0.2.0", "0.1.0").await?;
    assert_eq!(testbed.start_operator().await?, 1);
    let log = says(&testbed, "operator-1", 0, "the plugin is ready").await?;
    assert!(log.contains(&first) && !log.contains(&second), "{log}");
    testbed.config["plugins"][0]["pullPolicy"] = json!("Always");
    testbed.write_config()?;
    plugin_where(&testbed, "esp32", "the leader takes the new version", |status| {
        status.digest.as_ref() == Some(&second)
    })
    .await?;
    says(&testbed, "operator-1", 0, &second).await?;
    testbed.signal_operator(0, Signal::TERM)?;
    testbed.operator_ended(0, LIMIT).await?;
    eventually("the standby leads", LIMIT, || async {
        Ok(testbed.role(1).await?.filter(|role| role == "leader"))
    })
    .await?;
    let status = plugin_where(&testbed, "esp32", "it serves", |status| {
        condition(status, "Ready", "Serving")
    })
    .await?;
    assert_eq!(
        (status.digest.as_ref(), status.last_good_version.as_deref()),
        (Some(&second), Some("0.2.0"))
    );
    Ok(())
}

#[tokio::test]
async fn a_new_leader_uses_the_last_digest_of_the_leader_before_although_its_watch_lags()
-> anyhow::Result<()> {
    let (mut testbed, first) = testbed().await?;
    testbed.start_operator().await?;
    plugin_where(&testbed, "esp32", "it serves", |status| status.digest.as_ref() == Some(&first))
        .await?;
    let proxy = Proxy::start(&mut testbed.control_plane).await?;
    assert_eq!(testbed.start_operator().await?, 1);
    says(&testbed, "operator-1", 0, "the plugin is ready").await?;
    proxy.on(Action::Answer(500), u32::MAX, |call| {
        call.resource == "deviceplugins" && !call.changes()
    });
    proxy.cut_watches();

    let second = push(&testbed, "0.2.0", "0.1.0").await?;
    testbed.config["plugins"][0]["pullPolicy"] = json!("Always");
    testbed.write_config()?;
    plugin_where(&testbed, "esp32", "the leader takes the new version", |status| {
        status.digest.as_ref() == Some(&second)
    })
    .await?;
    testbed.config["plugins"][0]["pullPolicy"] = json!("IfNotPresent");
    testbed.write_config()?;
    testbed.signal_operator(0, Signal::TERM)?;
    testbed.operator_ended(0, LIMIT).await?;
    says(&testbed, "operator-1", 0, "cannot read the recorded state of the plugin").await?;
    proxy.clear_rules();
    says(&testbed, "operator-1", 0, &second).await?;
    plugin_where(&testbed, "esp32", "it serves", |status| condition(status, "Ready", "Serving"))
        .await?;
    let wrote = |call: &Call| {
        call.changes()
            && call.resource == "deviceplugins/status"
            && call.body["status"]["digest"] == json!(first)
    };
    assert_eq!(proxy.count(wrote), 0, "the digest before was written again");
    Ok(())
}

#[tokio::test]
async fn a_lower_version_is_refused_after_a_restart_too_and_the_last_good_one_serves()
-> anyhow::Result<()> {
    let (mut testbed, good) = testbed().await?;
    let lower = push(&testbed, "0.0.9", "0.0.9").await?;
    testbed.start_operator().await?;
    plugin_where(&testbed, "esp32", "it serves", |status| status.digest.as_ref() == Some(&good))
        .await?;
    testbed.kill_operator().await?;
    testbed.config["plugins"][0]["image"] =
        json!(format!("{}/flashjob/esp32:0.0.9", testbed.registry.host));
    // An empty cache, as a new Pod has: the last good digest comes from the recorded status.
    testbed.start_operators(&["cold"]).await?;
    let refused = |status: &DevicePluginStatus| {
        status.last_error.as_ref().is_some_and(|error| error.contains("lower than 0.1.0"))
    };
    let status = plugin_where(&testbed, "esp32", "the lower version is refused", refused).await?;
    assert!(
        condition(&status, "Ready", "ServingLastGood") && status.digest.as_ref() == Some(&good),
        "{status:?}"
    );
    let events: Api<Event> = Api::namespaced(testbed.client.clone(), "default");
    eventually("an event tells why", LIMIT, || async {
        let all = events.list(&ListParams::default()).await?.items;
        Ok(all.into_iter().find(|event| {
            let about = event
                .regarding
                .as_ref()
                .is_some_and(|about| about.kind.as_deref() == Some("DevicePlugin"));
            about && event.reason.as_deref() == Some("DowngradeRefused")
        }))
    })
    .await?;
    testbed.config["plugins"][0]["allowDowngrade"] = json!(true);
    testbed.write_config()?;
    plugin_where(&testbed, "esp32", "the lower version serves", |status| {
        status.digest.as_ref() == Some(&lower)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_restart_while_the_registry_is_away_serves_from_the_cache_and_says_so()
-> anyhow::Result<()> {
    let (mut testbed, digest) = testbed().await?;
    testbed.config["plugins"][0]["pullPolicy"] = json!("Always");
    testbed.start_operator().await?;
    plugin_where(&testbed, "esp32", "it serves", |status| status.digest.as_ref() == Some(&digest))
        .await?;
    testbed.kill_operator().await?;
    testbed.registry.stop().await?;
    testbed.start_operator().await?;
    let away = |status: &DevicePluginStatus| condition(status, "Resolved", "RegistryUnreachable");
    let status = plugin_where(&testbed, "esp32", "the registry cannot be asked", away).await?;
    assert!(
        condition(&status, "Ready", "ServingLastGood") && status.digest.as_ref() == Some(&digest),
        "{status:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_device_is_judged_by_the_digest_it_began_with_after_a_restart_with_another_one()
-> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=1".into()];
    let options = Options { plugins: vec!["esp32".into()], devices, ..Options::default() };
    let mut testbed = Testbed::start(&options).await?;
    testbed.fleet.behave("esp32-0", &Behaviour::holding()).await?;
    testbed.start_operator().await?;
    let began = plugin_where(&testbed, "esp32", "it serves", |status| {
        condition(status, "Ready", "Serving")
    })
    .await?
    .digest;
    apply(&testbed, &job("slow", &uids(&testbed, "esp32", 1).await?, json!({}))).await?;
    pod_where(&testbed, "slow", "it runs", runs).await?;
    testbed.kill_operator().await?;
    let second = push(&testbed, "0.2.0", "0.2.0").await?;
    testbed.config["plugins"][0]["image"] =
        json!(format!("{}/flashjob/esp32:0.2.0", testbed.registry.host));
    let restarted = log_length(&testbed, "operator");
    testbed.start_operator().await?;
    plugin_where(&testbed, "esp32", "the new version serves", |status| {
        status.digest.as_ref() == Some(&second)
    })
    .await?;
    testbed.fleet.behave("esp32-0", &Behaviour::default()).await?;
    let status = ended(&testbed, "slow").await?;
    assert_eq!(status.phase, Some(Phase::Completed), "{status:?}");
    let log = says(&testbed, "operator", restarted, "to judge the attempts").await?;
    let line = log.lines().find(|line| line.contains("to judge the attempts")).unwrap_or_default();
    assert!(began.is_some_and(|began| line.contains(&began)), "{line}");
    Ok(())
}

#[tokio::test]
async fn two_replicas_that_start_at_once_agree_with_one_cache_and_with_their_own()
-> anyhow::Result<()> {
    for caches in [["shared", "shared"], ["one", "two"]] {
        let (mut testbed, digest) = testbed().await?;
        testbed.start_operators(&caches).await?;
        for operator in ["operator", "operator-1"] {
            let log = says(&testbed, operator, 0, "the plugin is ready").await?;
            assert!(log.contains(&digest) && !log.contains("cannot be loaded"), "{log}");
        }
        let status = plugin_where(&testbed, "esp32", "it serves", |status| {
            condition(status, "Ready", "Serving")
        })
        .await?;
        assert_eq!(status.digest, Some(digest));
    }
    Ok(())
}

#[tokio::test]
async fn passwords_keys_trusted_roots_and_authorities_are_taken_as_they_are_now()
-> anyhow::Result<()> {
    let (mut testbed, digest) = testbed().await?;
    let (ours, foreign) =
        (Signer::new(testbed.folder(), "ours")?, Signer::new(testbed.folder(), "foreign")?);
    ours.sign_bundle(&testbed.registry, "flashjob/esp32", &digest, &digest).await?;
    let (key, authority) =
        (testbed.folder().join("trusted.pub"), testbed.folder().join("authority.pem"));
    let right = testbed.config["registries"][0]["caFile"].as_str().context("a file")?.to_owned();
    std::fs::copy(&ours.public_key, &key)?;
    std::fs::write(&authority, "none yet")?;
    testbed.config["registries"][0]["caFile"] = json!(authority);
    testbed.config["trust"] = json!([{
        "match": format!("{}/**", testbed.registry.host), "cosign": {"publicKeyFiles": [key]},
    }]);
    let good = testbed.registry.docker_config();
    secret(&testbed, &good.replace("secret-of-the-robot", "outdated")).await?;
    testbed.start_operator().await?;
    let ready = |reason: &'static str| {
        move |status: &DevicePluginStatus| condition(status, "Ready", reason)
    };
    plugin_where(
        &testbed,
        "esp32",
        "the authority cannot be read",
        ready("RegistryMisconfigured"),
    )
    .await?;
    std::fs::copy(right, &authority)?;
    plugin_where(&testbed, "esp32", "the password is refused", ready("AccessDenied")).await?;
    secret(&testbed, &good).await?;
    plugin_where(&testbed, "esp32", "it serves", ready("Serving")).await?;
    std::fs::copy(&foreign.public_key, &key)?;
    let status =
        plugin_where(&testbed, "esp32", "its key is no longer trusted", ready("WrongKey")).await?;
    assert_eq!(status.digest, None);
    std::fs::copy(&ours.public_key, &key)?;
    plugin_where(&testbed, "esp32", "it serves again", ready("Serving")).await?;
    // The same with the trusted root of keyless signatures.
    let (sigstore, root) = (Sigstore::new()?, testbed.folder().join("trusted-root.json"));
    let (subject, issuer) = ("release@plugins.example", "https://accounts.example");
    let (payload, annotations) = sigstore.simple(&Signing::now(subject, issuer), &digest)?;
    attach_simple(&testbed.registry, "flashjob/esp32", &digest, payload, annotations).await?;
    let keyless =
        json!({"trustedRootFile": root, "identities": [{"issuer": issuer, "subject": subject}]});
    testbed.config["trust"][0]["cosign"] = json!({"keyless": keyless});
    testbed.write_config()?;
    plugin_where(&testbed, "esp32", "there is no trusted root", ready("TrustedRootUnusable"))
        .await?;
    std::fs::write(&root, sigstore.trusted_root().to_string())?;
    plugin_where(&testbed, "esp32", "it serves without a key", ready("Serving")).await?;
    std::fs::write(&root, Sigstore::new()?.trusted_root().to_string())?;
    let status = plugin_where(
        &testbed,
        "esp32",
        "its authority is no longer trusted",
        ready("SignatureUnproven"),
    )
    .await?;
    assert_eq!(status.digest, None);
    Ok(())
}

async fn secret(testbed: &Testbed, text: &str) -> anyhow::Result<()> {
    let secrets: Api<Secret> = Api::namespaced(testbed.client.clone(), "default");
    let patch = json!({"stringData": {".dockerconfigjson": text}});
    secrets.patch("registry-robot", &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

#[tokio::test]
async fn a_plugin_from_an_image_layout_serves_and_a_type_that_two_plugins_want_is_kept_by_one()
-> anyhow::Result<()> {
    let mut testbed = Testbed::start(&Options {
        plugins: vec!["esp32".into(), "esp32s2".into()],
        ..Options::default()
    })
    .await?;
    let layout = testbed.folder().join("layout");
    let digest = save(&testbed, "flashjob/esp32s2:0.1.0", &layout).await?;
    testbed.config["plugins"][1]["image"] =
        json!(format!("oci-layout://{}:0.1.0", layout.display()));
    testbed.config["plugins"][1]["deviceTypes"] = json!(["ESP32*"]);
    testbed.config["trust"]
        .as_array_mut()
        .context("a list")?
        .push(json!({"match": "oci-layout/**", "allowUnsigned": true}));
    testbed.start_operator().await?;
    let layout = plugin_where(&testbed, "esp32s2", "it serves", |status| {
        condition(status, "Ready", "Serving")
    })
    .await?;
    assert!(condition(&layout, "TypeConflict", "NoConflict"), "{layout:?}");
    assert_eq!((layout.digest, layout.device_types), (Some(digest), vec!["esp32*".to_owned()]));
    let other = plugin_where(&testbed, "esp32", "the other keeps its type", |status| {
        condition(status, "TypeConflict", "KeptByAnother")
    })
    .await?;
    assert!(other.device_types.is_empty() && condition(&other, "Ready", "Serving"), "{other:?}");
    Ok(())
}

/// Copies an artifact from the registry into an image layout, and returns its digest.
async fn save(testbed: &Testbed, name: &str, folder: &Path) -> anyhow::Result<String> {
    let (client, auth) = (testbed.registry.client()?, testbed.registry.auth());
    let reference: oci_client::Reference = format!("{}/{name}", testbed.registry.host).parse()?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let (manifest, digest) = client.pull_manifest_raw(&reference, &auth, &[kind]).await?;
    let parsed: oci_client::manifest::OciImageManifest = serde_json::from_slice(&manifest)?;
    let mut component = Vec::new();
    client.pull_blob(&reference, &parsed.layers[0], &mut component).await?;
    let file = |digest: &str| folder.join("blobs").join(digest.replace(':', "/"));
    std::fs::create_dir_all(folder.join("blobs/sha256"))?;
    std::fs::write(file(&digest), &manifest)?;
    std::fs::write(file(&parsed.layers[0].digest), component)?;
    let tag = json!({"org.opencontainers.image.ref.name": "0.1.0"});
    let entry =
        json!({"mediaType": kind, "digest": digest, "size": manifest.len(), "annotations": tag});
    std::fs::write(
        folder.join("index.json"),
        json!({"schemaVersion": 2, "manifests": [entry]}).to_string(),
    )?;
    std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)?;
    Ok(digest)
}
