//! FlashRollouts through the whole operator: batches, gates, failures, and firmware that moves.

use flashjob_api::{FlashJob, FlashRolloutStatus, RolloutPhase, condition};
use flashjob_end_to_end::rollouts::{
    apply, behave, change, ended, flashed, rollout, rollouts, status_where,
};
use flashjob_end_to_end::{called, examples, jobs, strict_dry_run};
use flashjob_rules::rollout::Rollout;
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::artifacts::{firmware, push_firmware};
use flashjob_testbed::process::{LIMIT, eventually, repository};
use flashjob_testbed::signatures::Signer;
use flashjob_testbed::{Options, Testbed};
use kube::api::{ListParams, Patch};
use serde_json::json;

#[tokio::test]
async fn a_fleet_is_flashed_batch_by_batch_with_the_digest_that_the_tag_had() -> anyhow::Result<()>
{
    let devices = vec!["esp32:thermo:0.1.0=4".to_owned(), "esp32s2:thermo:0.1.0=3".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    testbed.start_operator().await?;
    let batches = json!([
        {"name": "canary", "size": 1, "soakSeconds": 1},
        {"name": "third", "size": "34%"},
    ]);
    apply(&testbed, &rollout(&testbed, "fleet", json!({"batches": batches}))).await?;
    let status = status_where(&testbed, "fleet", "it ends", |status| {
        status.phase.is_some_and(RolloutPhase::is_final)
    })
    .await?;
    assert_eq!(status.phase, Some(RolloutPhase::Completed), "{status:?}");
    let names: Vec<_> =
        status.batches.iter().map(|batch| (batch.name.as_str(), batch.counts.completed)).collect();
    assert_eq!(names, [("canary", 1), ("third", 2), ("rest", 4)], "{status:?}");
    for report in testbed.fleet.reports().await? {
        assert_eq!((report.flashed, report.version.as_str()), (1, "0.2.0"), "{report:?}");
    }
    let digest = status.firmware.and_then(|firmware| firmware.digest).expect("a digest");
    let jobs = jobs(&testbed).list(&ListParams::default()).await?.items;
    assert_eq!(jobs.len(), 3, "{jobs:?}");
    let pinned = format!("{}/nubificus/firmware@{digest}", testbed.registry.host);
    assert!(jobs.iter().all(|job| job.spec.firmware == pinned), "{jobs:?}");
    Ok(())
}

#[tokio::test]
async fn a_batch_waits_for_its_own_approval_while_the_tag_moves_and_the_operator_restarts()
-> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=4".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    testbed.start_operator().await?;
    let batches = json!([{"name": "canary", "size": 1}, {"name": "all", "approval": true}]);
    apply(&testbed, &rollout(&testbed, "fleet", json!({"batches": batches}))).await?;
    let waits = |status: &FlashRolloutStatus| {
        status.phase == Some(RolloutPhase::Waiting)
            && status.waiting_for.as_deref() == Some("approval of batch all")
    };
    let status = status_where(&testbed, "fleet", "it waits for approval", waits).await?;
    let run = status.run.clone().expect("a run");
    // The approval of another run opens no gate, and a moved tag changes nothing.
    change(&testbed, "fleet", json!({"approvals": ["all@000000"]})).await?;
    let other = [firmware("esp32", "thermo", "9.9.9")];
    push_firmware(&testbed.registry, "nubificus/firmware:0.2.0", &other).await?;
    testbed.kill_operator().await?;
    testbed.start_operator().await?;
    let generation = rollouts(&testbed).get("fleet").await?.metadata.generation;
    status_where(&testbed, "fleet", "the change is seen", |status| {
        status.observed_generation == generation && waits(status)
    })
    .await?;
    assert_eq!(flashed(&testbed).await?.iter().sum::<u32>(), 1);
    change(&testbed, "fleet", json!({"approvals": ["all@000000", format!("all@{run}")]})).await?;
    let status = ended(&testbed, "fleet").await?;
    assert_eq!(
        (status.phase, status.run.as_ref()),
        (Some(RolloutPhase::Completed), Some(&run)),
        "{status:?}"
    );
    for report in testbed.fleet.reports().await? {
        assert_eq!((report.flashed, report.version.as_str()), (1, "0.2.0"), "{report:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_canary_that_fails_pauses_the_run_before_anybody_else_and_a_retry_goes_on()
-> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=5".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    testbed.start_operator().await?;
    behave(&testbed, &Behaviour { cut_transfer: true, ..Behaviour::default() }).await?;
    let spec = json!({
        "batches": [{"name": "canary", "size": 1}],
        "template": {"backoffLimitPerDevice": 0},
    });
    apply(&testbed, &rollout(&testbed, "fleet", spec)).await?;
    let status = status_where(&testbed, "fleet", "it pauses", |status| {
        status.phase == Some(RolloutPhase::Paused)
    })
    .await?;
    let counts = status.counts.expect("counts");
    assert_eq!((counts.failed, counts.completed, counts.in_flight), (1, 0, 0), "{status:?}");
    assert_eq!(status.failed.len(), 1, "{status:?}");
    assert!(condition::holds(&status.conditions, "Paused"), "{status:?}");
    assert_eq!(jobs(&testbed).list(&ListParams::default()).await?.items.len(), 1);
    behave(&testbed, &Behaviour::default()).await?;
    change(&testbed, "fleet", json!({"retry": "1"})).await?;
    let status = ended(&testbed, "fleet").await?;
    assert_eq!(status.phase, Some(RolloutPhase::Completed), "{status:?}");
    assert_eq!(status.counts.map(|counts| (counts.completed, counts.failed)), Some((5, 0)));
    assert_eq!(flashed(&testbed).await?, [1; 5]);
    Ok(())
}

#[tokio::test]
async fn an_aborted_run_starts_nothing_more_and_a_new_one_flashes_the_rest() -> anyhow::Result<()>
{
    let devices = vec!["esp32:thermo:0.1.0=6".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    testbed.start_operator().await?;
    behave(&testbed, &Behaviour::holding()).await?;
    let spec = json!({"batches": [{"name": "all"}], "parallelism": 2});
    apply(&testbed, &rollout(&testbed, "fleet", spec)).await?;
    called(&testbed, 1).await?;
    change(&testbed, "fleet", json!({"abort": true})).await?;
    let is_told = |job: &FlashJob| {
        let conditions = job.status.as_ref().map(|status| &status.conditions[..]);
        condition::holds(conditions.unwrap_or_default(), condition::SUSPENDED)
    };
    eventually("its FlashJob starts nothing more", LIMIT, || async {
        let jobs = jobs(&testbed).list(&ListParams::default()).await?.items;
        Ok(jobs.iter().all(is_told).then_some(()))
    })
    .await?;
    behave(&testbed, &Behaviour::default()).await?;
    let status = ended(&testbed, "fleet").await?;
    assert_eq!(status.phase, Some(RolloutPhase::Aborted), "{status:?}");
    let first = status.counts.map_or(0, |counts| counts.completed);
    assert!((1..=2).contains(&first), "{status:?}");
    assert_eq!(flashed(&testbed).await?.iter().sum::<u32>(), first);
    // Removing `abort` does not resume the run; a new run flashes the other devices.
    behave(&testbed, &Behaviour::default()).await?;
    change(&testbed, "fleet", json!({"abort": null, "runID": "again", "parallelism": 6})).await?;
    let status = status_where(&testbed, "fleet", "the new run completes", |status| {
        status.phase == Some(RolloutPhase::Completed)
    })
    .await?;
    assert_eq!(status.history.len(), 1, "{status:?}");
    assert_eq!(status.history[0].phase, "Aborted", "{status:?}");
    assert_eq!(flashed(&testbed).await?, [1; 6]);
    Ok(())
}

#[tokio::test]
async fn firmware_that_nobody_signed_or_that_lacks_a_platform_flashes_nothing_until_it_is_mended()
-> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=2".to_owned(), "esp32s3:thermo:0.1.0=1".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    let signer = Signer::new(testbed.folder(), "ours")?;
    testbed.config["firmwareTrust"] = json!([{
        "match": format!("{}/nubificus/**", testbed.registry.host),
        "cosign": {"publicKeyFiles": [signer.public_key]},
    }]);
    testbed.start_operator().await?;
    let one = [firmware("esp32", "thermo", "0.2.0")];
    let digest = push_firmware(&testbed.registry, "nubificus/one:0.2.0", &one).await?;
    let reference = format!("{}/nubificus/one:0.2.0", testbed.registry.host);
    let spec = json!({"firmware": reference, "firmwarePolicy": {"verify": "Required"}});
    apply(&testbed, &rollout(&testbed, "fleet", spec)).await?;
    let refused = |reason: &'static str| {
        move |status: &FlashRolloutStatus| status.reason.as_deref() == Some(reason)
    };
    let status =
        status_where(&testbed, "fleet", "no signature", refused("FirmwareUntrusted")).await?;
    assert!(
        status.message.as_ref().is_some_and(|text| text.contains("is not signed")),
        "{status:?}"
    );
    signer.sign_simple(&testbed.registry, "nubificus/one", &digest, &digest).await?;
    let status =
        status_where(&testbed, "fleet", "no platform", refused("MissingPlatform")).await?;
    assert!(status.message.as_ref().is_some_and(|text| text.contains("esp32s3")), "{status:?}");
    assert_eq!(jobs(&testbed).list(&ListParams::default()).await?.items.len(), 0);
    change(&testbed, "fleet", json!({"selector": {"all": null, "deviceTypes": ["ESP32"]}}))
        .await?;
    let status = status_where(&testbed, "fleet", "it completes", |status| {
        status.phase == Some(RolloutPhase::Completed)
    })
    .await?;
    assert!(condition::holds(&status.conditions, "FirmwareVerified"), "{status:?}");
    assert_eq!(flashed(&testbed).await?.iter().sum::<u32>(), 2);
    Ok(())
}

#[tokio::test]
async fn a_signature_of_one_platform_covers_its_devices_in_every_batch() -> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=2".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    let signer = Signer::new(testbed.folder(), "ours")?;
    testbed.config["firmwareTrust"] = json!([{
        "match": format!("{}/nubificus/**", testbed.registry.host),
        "cosign": {"publicKeyFiles": [signer.public_key]},
    }]);
    let registry = &testbed.registry;
    let platform_images =
        [firmware("esp32", "thermo", "0.2.0"), firmware("esp32s2", "thermo", "0.2.0")];
    push_firmware(registry, "nubificus/both:0.2.0", &platform_images).await?;
    let tag = format!("{}/nubificus/both:0.2.0-esp32", registry.host).parse()?;
    let manifest = registry.client()?.fetch_manifest_digest(&tag, &registry.auth()).await?;
    signer.sign_simple(registry, "nubificus/both", &manifest, &manifest).await?;
    testbed.start_operator().await?;
    let reference = format!("{}/nubificus/both:0.2.0", testbed.registry.host);
    let spec = json!({"firmware": reference, "firmwarePolicy": {"verify": "Required"}});
    apply(&testbed, &rollout(&testbed, "fleet", spec)).await?;
    let status = ended(&testbed, "fleet").await?;
    assert_eq!(status.phase, Some(RolloutPhase::Completed), "{status:?}");
    assert_eq!(flashed(&testbed).await?, [1; 2]);
    Ok(())
}

#[tokio::test]
async fn a_platform_that_is_published_later_is_found_without_a_change_of_the_rollout()
-> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=1".to_owned(), "esp32s2:thermo:0.1.0=1".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    testbed.start_operator().await?;
    let all = [firmware("esp32", "thermo", "0.2.0"), firmware("esp32s2", "thermo", "0.2.0")];
    push_firmware(&testbed.registry, "nubificus/one:0.2.0", &all[..1]).await?;
    let reference = format!("{}/nubificus/one:0.2.0", testbed.registry.host);
    apply(&testbed, &rollout(&testbed, "fleet", json!({"firmware": reference}))).await?;
    status_where(&testbed, "fleet", "no platform", |status| {
        status.reason.as_deref() == Some("MissingPlatform")
    })
    .await?;
    push_firmware(&testbed.registry, "nubificus/one:0.2.0", &all).await?;
    let status = ended(&testbed, "fleet").await?;
    assert_eq!(status.phase, Some(RolloutPhase::Completed), "{status:?}");
    assert_eq!(flashed(&testbed).await?, [1; 2]);
    Ok(())
}

#[tokio::test]
async fn of_two_rollouts_over_one_fleet_the_older_goes_first_and_the_other_names_it()
-> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=3".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    testbed.start_operator().await?;
    let batches = json!([{"name": "canary", "size": 1, "approval": true}, {"name": "others"}]);
    apply(&testbed, &rollout(&testbed, "older", json!({"batches": batches}))).await?;
    let waits = |status: &FlashRolloutStatus| status.phase == Some(RolloutPhase::Waiting);
    let status = status_where(&testbed, "older", "it waits for approval", waits).await?;
    let run = status.run.expect("a run");
    let firmware = format!("{}/nubificus/firmware:0.3.0", testbed.registry.host);
    let spec = json!({"firmware": firmware, "version": "0.3.0", "batches": [{"name": "all"}]});
    apply(&testbed, &rollout(&testbed, "younger", spec)).await?;
    status_where(&testbed, "younger", "it waits for the older one", |status| {
        let for_older = "FlashRollout older, which waits for approval of batch canary";
        waits(status) && status.waiting_for.as_deref() == Some(for_older)
    })
    .await?;
    assert_eq!(flashed(&testbed).await?, [0; 3]);
    change(&testbed, "older", json!({"approvals": [format!("canary@{run}")]})).await?;
    for name in ["older", "younger"] {
        let status = ended(&testbed, name).await?;
        assert_eq!(status.phase, Some(RolloutPhase::Completed), "{name}: {status:?}");
    }
    for report in testbed.fleet.reports().await? {
        assert_eq!((report.flashed, report.version.as_str()), (2, "0.3.0"), "{report:?}");
    }
    Ok(())
}

#[tokio::test]
async fn outside_its_windows_a_rollout_starts_nothing_and_says_when_the_next_one_opens()
-> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=2".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    testbed.start_operator().await?;
    // A window that is always open, and a blackout that always closes it.
    let always = json!([{"start": "0 * * * *", "durationSeconds": 3600}]);
    let spec = json!({"windows": always, "blackouts": always});
    apply(&testbed, &rollout(&testbed, "fleet", spec)).await?;
    let status = status_where(&testbed, "fleet", "no window opens", |status| {
        status.reason.as_deref() == Some("NoWindow")
    })
    .await?;
    assert!(status.waits_for_person(), "{status:?}");
    let next_leap_day = json!([{"start": "0 0 29 2 *", "durationSeconds": 60}]);
    change(&testbed, "fleet", json!({"windows": next_leap_day, "blackouts": null})).await?;
    let closed = |status: &FlashRolloutStatus| status.reason.as_deref() == Some("WindowClosed");
    let status = status_where(&testbed, "fleet", "the window is closed", closed).await?;
    assert!(status.waiting_for.is_some_and(|text| text.contains("the next window")));
    // An invalid window is reported, and also starts nothing.
    let unknown =
        json!([{"start": "0 2 * * *", "durationSeconds": 60, "timeZone": "Europe/Nowhere"}]);
    change(&testbed, "fleet", json!({"windows": unknown})).await?;
    let status = status_where(&testbed, "fleet", "it is invalid", |status| {
        condition::holds(&status.conditions, condition::STALLED)
    })
    .await?;
    let message = status.message.unwrap_or_default();
    assert!(message.contains("windows[0].timeZone"), "{message}");
    assert_eq!(flashed(&testbed).await?, [0; 2]);
    change(&testbed, "fleet", json!({"windows": always})).await?;
    let status = ended(&testbed, "fleet").await?;
    assert_eq!(status.phase, Some(RolloutPhase::Completed), "{status:?}");
    assert_eq!(flashed(&testbed).await?, [1; 2]);
    Ok(())
}

#[tokio::test]
async fn every_documented_rollout_is_taken_by_the_api_server_and_by_the_rules()
-> anyhow::Result<()> {
    let testbed = Testbed::start(&Options { plugins: Vec::new(), ..Options::default() }).await?;
    let mut count = 0;
    for file in ["docs/rollouts.md", "deploy/samples/flashrollout.yaml"] {
        for example in
            examples(&std::fs::read_to_string(repository().join(file))?, "FlashRollout")?
        {
            let name = example["metadata"]["name"].as_str().unwrap_or_default();
            let stored_rollout =
                rollouts(&testbed).patch(name, &strict_dry_run(), &Patch::Apply(&example)).await?;
            let read = Rollout::of(stored_rollout);
            assert!(read.spec.is_ok(), "{file}: {:?}", read.spec);
            count += 1;
        }
    }
    assert_eq!(count, 4, "three examples and the sample");
    Ok(())
}
