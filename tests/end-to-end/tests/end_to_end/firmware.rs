//! `firmwarePolicy` of FlashJobs without a rollout: firmware is resolved and verified before it is
//! flashed, with keys and keyless.

use flashjob_api::{FlashJobStatus, Phase, condition};
use flashjob_end_to_end::{
    apply, ended, job, jobs, nothing_left, pod_where, reason_of, status_where, uids,
};
use flashjob_testbed::artifacts::{firmware, push_firmware};
use flashjob_testbed::keyless::{Signing, Sigstore};
use flashjob_testbed::signatures::{SIGN, Signer, attach_bundle, attach_simple};
use flashjob_testbed::{Options, Testbed};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

/// Returns a FlashJob that requires signed firmware.
fn policed(
    testbed: &Testbed,
    name: &str,
    uids: &[String],
    firmware: &str,
    version: &str,
) -> Value {
    let reference = format!("{}/{firmware}", testbed.registry.host);
    let policy = json!({"verify": "Required"});
    job(name, uids, json!({"firmware": reference, "version": version, "firmwarePolicy": policy}))
}

fn trust(testbed: &mut Testbed, cosign: Value) {
    let pattern = format!("{}/nubificus/**", testbed.registry.host);
    testbed.config["firmwareTrust"] = json!([{"match": pattern, "cosign": cosign}]);
}

/// Returns the number of times that each device was flashed.
async fn flashed(testbed: &Testbed) -> anyhow::Result<Vec<u32>> {
    Ok(testbed.fleet.reports().await?.iter().map(|report| report.flashed).collect())
}

/// Returns the number of Pods and Services that exist for a FlashJob.
async fn objects(testbed: &Testbed, job: &str) -> anyhow::Result<usize> {
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), "default");
    let services: Api<Service> = Api::namespaced(testbed.client.clone(), "default");
    let of_job = ListParams::default().labels(&format!("app={job}"));
    Ok(pods.list(&of_job).await?.items.len() + services.list(&of_job).await?.items.len())
}

fn waits_for(reason: &str) -> impl Fn(&FlashJobStatus) -> bool {
    move |status| status.waiting.keys().eq([reason]) && status.phase == Some(Phase::InProgress)
}

#[tokio::test]
async fn a_job_keeps_the_digest_that_its_tag_had_and_unsigned_firmware_flashes_nothing()
-> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=3".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    let signer = Signer::new(testbed.folder(), "ours")?;
    trust(&mut testbed, json!({"publicKeyFiles": [signer.public_key]}));
    let (tag, repository) = ("nubificus/one:latest", "nubificus/one");
    let digest =
        push_firmware(&testbed.registry, tag, &[firmware("esp32", "thermo", "0.2.0")]).await?;
    signer.sign_bundle(&testbed.registry, repository, &digest, &digest).await?;
    testbed.start_operator().await?;
    let all = uids(&testbed, "esp32", 3).await?;
    apply(&testbed, &policed(&testbed, "signed", &all[..1], tag, "0.2.0")).await?;
    let first = ended(&testbed, "signed").await?;
    assert_eq!(first.phase, Some(Phase::Completed), "{first:?}");
    let pinned = format!("{}/{repository}@{digest}", testbed.registry.host);
    assert_eq!(first.firmware.as_ref().map(|firmware| &firmware.reference), Some(&pinned));
    assert!(condition::holds(&first.conditions, condition::FIRMWARE_VERIFIED), "{first:?}");
    // The tag moves, the operator restarts, and more devices join the run.
    let moved =
        push_firmware(&testbed.registry, tag, &[firmware("esp32", "thermo", "0.3.0")]).await?;
    testbed.kill_operator().await?;
    testbed.start_operator().await?;
    apply(&testbed, &policed(&testbed, "signed", &all, tag, "0.2.0")).await?;
    let has_digest = |pod: &Pod| format!("{:?}", pod.spec).contains(&pinned);
    pod_where(&testbed, "signed", "its firmware is the digest", has_digest).await?;
    let status = status_where(&testbed, "signed", "all are flashed", |status| {
        status.completed_uuids.len() == 3
    })
    .await?;
    assert_eq!(status.firmware, first.firmware);
    for report in testbed.fleet.reports().await? {
        assert_eq!((report.flashed, report.version.as_str()), (1, "0.2.0"), "{report:?}");
    }
    // The tag now refers to unsigned firmware.
    apply(&testbed, &policed(&testbed, "unsigned", &all, tag, "0.3.0")).await?;
    let refused = waits_for("FirmwareUntrusted");
    let status = status_where(&testbed, "unsigned", "it is refused", refused).await?;
    let message = status.message.clone().unwrap_or_default();
    assert!(message.contains("is not signed"), "{status:?}");
    assert!(condition::holds(&status.conditions, condition::STALLED), "{status:?}");
    assert_eq!(status.firmware, None);
    assert_eq!(objects(&testbed, "unsigned").await?, 0);
    assert_eq!(flashed(&testbed).await?, [1; 3]);
    signer.sign_simple(&testbed.registry, repository, &moved, &moved).await?;
    let status = ended(&testbed, "unsigned").await?;
    assert_eq!(status.phase, Some(Phase::Completed), "{status:?}");
    assert_eq!(status.firmware.and_then(|firmware| firmware.digest), Some(moved));
    assert_eq!(flashed(&testbed).await?, [2; 3]);
    nothing_left(&testbed).await
}

#[tokio::test]
async fn an_identity_signs_firmware_without_a_key_on_the_index_or_for_one_platform()
-> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=3".to_owned(), "esp32s2:thermo:0.1.0=1".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    let (sigstore, root) = (Sigstore::new()?, testbed.folder().join("trusted-root.json"));
    std::fs::write(&root, sigstore.trusted_root().to_string())?;
    let (issuer, ours, other) =
        ("https://ci.example", "release@firmware.example", "somebody@firmware.example");
    let identities = json!([{"issuer": issuer, "subject": ours}]);
    trust(&mut testbed, json!({"keyless": {"trustedRootFile": root, "identities": identities}}));
    let signing = |subject: &str| Signing::now(subject, issuer);
    let platform_images =
        [firmware("esp32", "thermo", "0.2.0"), firmware("esp32s2", "thermo", "0.2.0")];
    let registry = &testbed.registry;
    let index = push_firmware(registry, "nubificus/index:0.2.0", &platform_images).await?;
    let bundle = sigstore.bundle(&signing(ours), &[&index], SIGN)?;
    attach_bundle(registry, "nubificus/index", &index, &bundle).await?;
    // The older format, on the manifest of one platform alone.
    push_firmware(registry, "nubificus/manifest:0.2.0", &platform_images).await?;
    let reference = format!("{}/nubificus/manifest:0.2.0-esp32", registry.host).parse()?;
    let manifest = registry.client()?.fetch_manifest_digest(&reference, &registry.auth()).await?;
    let (payload, annotations) = sigstore.simple(&signing(ours), &manifest)?;
    attach_simple(registry, "nubificus/manifest", &manifest, payload, annotations).await?;
    let foreign = push_firmware(registry, "nubificus/foreign:0.2.0", &platform_images).await?;
    let bundle = sigstore.bundle(&signing(other), &[&foreign], SIGN)?;
    attach_bundle(registry, "nubificus/foreign", &foreign, &bundle).await?;
    testbed.start_operator().await?;
    let esp32 = uids(&testbed, "esp32", 3).await?;
    let esp32s2 = uids(&testbed, "esp32s2", 1).await?;
    let mixed = [esp32[0].clone(), esp32s2[0].clone()];
    apply(&testbed, &policed(&testbed, "index", &mixed, "nubificus/index:0.2.0", "0.2.0")).await?;
    let status = ended(&testbed, "index").await?;
    assert_eq!(status.completed_uuids.len(), 2, "{status:?}");
    assert_eq!(status.firmware.and_then(|firmware| firmware.signer).as_deref(), Some(ours));
    let manifest = "nubificus/manifest:0.2.0";
    apply(&testbed, &policed(&testbed, "one", &esp32[1..2], manifest, "0.2.0")).await?;
    let status = ended(&testbed, "one").await?;
    assert_eq!(status.completed_uuids.len(), 1, "{status:?}");
    // A device of the other type joins the run, and its platform is not signed.
    let mixed = [esp32[1].clone(), esp32s2[0].clone()];
    apply(&testbed, &policed(&testbed, "one", &mixed, manifest, "0.2.0")).await?;
    let refused = waits_for("FirmwareUntrusted");
    status_where(&testbed, "one", "the other platform is refused", refused).await?;
    let foreign = "nubificus/foreign:0.2.0";
    apply(&testbed, &policed(&testbed, "foreign", &esp32[2..], foreign, "0.2.0")).await?;
    let refused = waits_for("FirmwareUntrusted");
    let status = status_where(&testbed, "foreign", "it is refused", refused).await?;
    assert!(status.message.as_ref().is_some_and(|text| text.contains(other)), "{status:?}");
    let mut counts = flashed(&testbed).await?;
    counts.sort_unstable();
    assert_eq!(counts, [0, 1, 1, 1]);
    Ok(())
}

#[tokio::test]
async fn a_registry_that_is_away_holds_a_job_back_until_it_answers() -> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=1".to_owned(), "esp32s2:thermo:0.1.0=1".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    let one = [firmware("esp32", "thermo", "0.2.0")];
    push_firmware(&testbed.registry, "nubificus/one:0.2.0", &one).await?;
    testbed.start_operator().await?;
    let mixed = [uids(&testbed, "esp32", 1).await?, uids(&testbed, "esp32s2", 1).await?].concat();
    // Waits until the plugins are loaded.
    for plugin in ["esp32", "esp32s2"] {
        flashjob_end_to_end::plugin_where(&testbed, plugin, "it serves", |status| {
            condition::holds(&status.conditions, condition::READY)
        })
        .await?;
    }
    testbed.registry.stop().await?;
    let reference = format!("{}/nubificus/one:0.2.0", testbed.registry.host);
    let spec = json!({"firmware": reference, "firmwarePolicy": {}});
    apply(&testbed, &job("away", &mixed, spec)).await?;
    let waits = waits_for("FirmwareUnavailable");
    let status = status_where(&testbed, "away", "the registry is away", waits).await?;
    assert!(condition::holds(&status.conditions, condition::PROGRESSING), "{status:?}");
    assert_eq!(objects(&testbed, "away").await?, 0);
    testbed.registry.start_again().await?;
    let status = ended(&testbed, "away").await?;
    assert_eq!((status.phase, &status.completed_uuids[..]), (Some(Phase::Failed), &mixed[..1]));
    assert_eq!(reason_of(&status, &mixed[1]).as_deref(), Some("MissingPlatform"), "{status:?}");
    let stored = jobs(&testbed).get("away").await?;
    assert_eq!(stored.spec.firmware, reference);
    assert!(!condition::holds(&status.conditions, condition::FIRMWARE_VERIFIED), "{status:?}");
    Ok(())
}

#[tokio::test]
async fn firmware_that_a_changed_trust_does_not_allow_goes_to_no_further_device()
-> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=2".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    let ours = Signer::new(testbed.folder(), "ours")?;
    let theirs = Signer::new(testbed.folder(), "theirs")?;
    trust(&mut testbed, json!({"publicKeyFiles": [ours.public_key]}));
    let (tag, repository) = ("nubificus/one:0.2.0", "nubificus/one");
    let digest =
        push_firmware(&testbed.registry, tag, &[firmware("esp32", "thermo", "0.2.0")]).await?;
    ours.sign_bundle(&testbed.registry, repository, &digest, &digest).await?;
    testbed.start_operator().await?;
    let all = uids(&testbed, "esp32", 2).await?;
    apply(&testbed, &policed(&testbed, "job", &all[..1], tag, "0.2.0")).await?;
    let first = ended(&testbed, "job").await?;
    assert_eq!(first.phase, Some(Phase::Completed), "{first:?}");
    testbed.kill_operator().await?;
    trust(&mut testbed, json!({"publicKeyFiles": [theirs.public_key]}));
    testbed.start_operator().await?;
    // The run continues with the digest that it has stored.
    apply(&testbed, &policed(&testbed, "job", &all, tag, "0.2.0")).await?;
    let refused = waits_for("FirmwareUntrusted");
    let status = status_where(&testbed, "job", "it is refused", refused).await?;
    assert!(condition::holds(&status.conditions, condition::STALLED), "{status:?}");
    assert!(!condition::holds(&status.conditions, condition::FIRMWARE_VERIFIED), "{status:?}");
    assert_eq!(flashed(&testbed).await?.iter().sum::<u32>(), 1);
    theirs.sign_bundle(&testbed.registry, repository, &digest, &digest).await?;
    let status = ended(&testbed, "job").await?;
    assert_eq!(status.phase, Some(Phase::Completed), "{status:?}");
    let (first, second) = (first.firmware.expect("stored"), status.firmware.expect("stored"));
    assert_eq!(first.reference, second.reference);
    assert_ne!(first.signer, second.signer);
    assert_eq!(flashed(&testbed).await?, [1; 2]);
    nothing_left(&testbed).await
}
