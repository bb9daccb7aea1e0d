//! The main job and its simple faults, on a real control plane with simulated devices.

use std::time::Duration;

use flashjob_api::Phase;
use flashjob_api::condition::{COMPLETE, FAILED, PROGRESSING};
use flashjob_end_to_end::rollouts::behave;
use flashjob_end_to_end::{
    apply, called, condition, create, delete, ended, events, job, jobs, nothing_left,
    plugin_where, status_where, uids, wait_until_gone,
};
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::process::{LIMIT, eventually};
use flashjob_testbed::{Options, Testbed};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

async fn testbed(devices: &[&str], addresses: u32) -> anyhow::Result<Testbed> {
    let devices = devices.iter().map(|group| (*group).to_owned()).collect();
    let mut testbed =
        Testbed::start(&Options { devices, addresses, ..Options::default() }).await?;
    testbed.start_operator().await?;
    Ok(testbed)
}

#[tokio::test]
async fn more_devices_than_addresses_are_all_flashed_once_and_nothing_is_left()
-> anyhow::Result<()> {
    let testbed = testbed(&["esp32:thermo:0.1.0=7", "esp32s2:thermo:0.1.0=5"], 3).await?;
    let devices = testbed.devices().await?;
    let all: Vec<String> = devices.iter().map(|(uid, _)| uid.clone()).collect();
    apply(&testbed, &job("mixed", &all, json!({}))).await?;
    let status = ended(&testbed, "mixed").await?;
    assert_eq!(status.phase, Some(Phase::Completed), "{status:?}");
    assert_eq!(status.progress.as_deref(), Some("12/12"));
    assert_eq!(status.completed_uuids.len(), 12);
    assert_eq!(condition(&status, COMPLETE), Some(("True".into(), "Completed".into())));
    assert_eq!(condition(&status, PROGRESSING).map(|(status, _)| status), Some("False".into()));
    for report in testbed.fleet.reports().await? {
        assert_eq!(
            (report.version.as_str(), report.flashed, report.updates, report.conflicts),
            ("0.2.0", 1, 1, 0),
            "{report:?}"
        );
    }
    nothing_left(&testbed).await?;
    // Applying the same FlashJob again changes nothing.
    let before = jobs(&testbed).get("mixed").await?;
    apply(&testbed, &job("mixed", &all, json!({}))).await?;
    apply(&testbed, &job("mixed", &all, json!({"parallelism": 3}))).await?;
    status_where(&testbed, "mixed", "it has seen the change", |status| {
        status.observed_generation > before.metadata.generation
    })
    .await?;
    assert!(testbed.fleet.reports().await?.iter().all(|report| report.updates == 1));
    // A new run flashes again.
    apply(
        &testbed,
        &job(
            "mixed",
            &all,
            json!({"firmware": "harbor.nbfc.io/nubificus/firmware:0.3.0", "version": "0.3.0"}),
        ),
    )
    .await?;
    status_where(&testbed, "mixed", "the new run is complete", |status| {
        status.phase == Some(Phase::Completed)
            && status.run != before.status.as_ref().and_then(|status| status.run.clone())
    })
    .await?;
    assert!(
        testbed
            .fleet
            .reports()
            .await?
            .iter()
            .all(|report| report.version == "0.3.0" && report.flashed == 2)
    );
    Ok(())
}

#[tokio::test]
async fn every_kind_of_fault_ends_with_its_own_reason_and_disturbs_nobody() -> anyhow::Result<()> {
    let testbed =
        testbed(&["esp32:thermo:0.1.0=4", "lamp:thermo:0.1.0=1", "esp32s2:thermo:0.1.0=1"], 4)
            .await?;
    let devices = testbed.devices().await?;
    let uid = |id: &str| {
        devices
            .iter()
            .find(|(_, report)| report.id == id)
            .map(|(uid, _)| uid.clone())
            .unwrap_or_default()
    };
    testbed
        .fleet
        .behave(
            "esp32-1",
            &Behaviour { cut_transfer: true, times: Some(1), ..Behaviour::default() },
        )
        .await?;
    testbed
        .fleet
        .behave("esp32-2", &Behaviour { cut_transfer: true, ..Behaviour::default() })
        .await?;
    let unknown = "00000000-0000-0000-0000-000000000000".to_owned();
    let all = [
        uid("esp32-0"),
        uid("esp32-1"),
        uid("esp32-2"),
        uid("lamp-4"),
        uid("esp32s2-5"),
        unknown.clone(),
    ];
    apply(&testbed, &job("faults", &all, json!({"device": "ESP-32", "backoffLimitPerDevice": 1})))
        .await?;
    let status = ended(&testbed, "faults").await?;
    assert_eq!(status.phase, Some(Phase::Failed));
    assert_eq!(condition(&status, FAILED).map(|(status, _)| status), Some("True".into()));
    assert_eq!(status.completed_uuids, [uid("esp32-0"), uid("esp32-1")]);
    let reason = |uid: &str| {
        status
            .devices
            .iter()
            .find(|device| device.uid == uid)
            .and_then(|device| device.reason.clone())
    };
    assert_eq!(reason(&uid("esp32-2")).as_deref(), Some("PodFailed"), "{status:?}");
    assert_eq!(reason(&uid("lamp-4")).as_deref(), Some("DeviceTypeMismatch"));
    assert_eq!(reason(&uid("esp32s2-5")).as_deref(), Some("DeviceTypeMismatch"));
    assert_eq!(reason(&unknown).as_deref(), Some("UnknownDevice"));
    let reports = testbed.fleet.reports().await?;
    let updates: Vec<u32> = reports.iter().map(|report| report.updates).collect();
    assert_eq!(updates, [1, 2, 2, 0, 0, 0], "as many updates as attempts");
    let event_texts = events(&testbed, "faults").await?;
    assert!(
        event_texts
            .iter()
            .any(|event| event.starts_with("PodFailed") && event.contains("transfer failed")),
        "{event_texts:?}"
    );
    apply(&testbed, &job("no-plugin", &[uid("lamp-4")], json!({}))).await?;
    let status = ended(&testbed, "no-plugin").await?;
    assert_eq!(status.devices[0].reason.as_deref(), Some("NoPluginForDevice"));
    nothing_left(&testbed).await
}

#[tokio::test]
async fn an_operator_killed_half_way_flashes_every_device_exactly_once() -> anyhow::Result<()> {
    let mut testbed = testbed(&["esp32:thermo:0.1.0=16"], 5).await?;
    let all = uids(&testbed, "esp32", 16).await?;
    apply(&testbed, &job("killed", &all, json!({}))).await?;
    for flashed in [1, 5, 9, 13] {
        let fleet = testbed.fleet.clone();
        eventually("some devices are flashed", LIMIT, || async {
            let done = fleet.reports().await?.iter().filter(|report| report.flashed > 0).count();
            Ok((done >= flashed).then_some(()))
        })
        .await?;
        testbed.kill_operator().await?;
        testbed.start_operator().await?;
    }
    let status = ended(&testbed, "killed").await?;
    assert_eq!(status.phase, Some(Phase::Completed), "{status:?}");
    for report in testbed.fleet.reports().await? {
        assert_eq!((report.updates, report.flashed, report.conflicts), (1, 1, 0), "{report:?}");
    }
    nothing_left(&testbed).await
}

#[tokio::test]
async fn a_job_deleted_while_it_flashes_leaves_nothing_behind() -> anyhow::Result<()> {
    let testbed = testbed(&["esp32:thermo:0.1.0=6"], 3).await?;
    behave(&testbed, &Behaviour::holding()).await?;
    let all = uids(&testbed, "esp32", 6).await?;
    apply(&testbed, &job("deleted", &all, json!({}))).await?;
    called(&testbed, 1).await?;
    jobs(&testbed).delete("deleted", &DeleteParams::default()).await?;
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), "default");
    eventually("its Pods are told to end", LIMIT, || async {
        let pods = pods.list(&ListParams::default()).await?.items;
        let all = pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_some());
        Ok(all.then_some(()))
    })
    .await?;
    behave(&testbed, &Behaviour::default()).await?;
    wait_until_gone(&testbed, "deleted").await?;
    nothing_left(&testbed).await?;
    apply(&testbed, &job("again", &all, json!({}))).await?;
    assert_eq!(ended(&testbed, "again").await?.phase, Some(Phase::Completed));
    Ok(())
}

#[tokio::test]
async fn two_jobs_that_name_one_device_flash_it_one_after_the_other() -> anyhow::Result<()> {
    let testbed = testbed(&["esp32:thermo:0.1.0=3"], 9).await?;
    let all = uids(&testbed, "esp32", 3).await?;
    for name in ["first", "second", "third"] {
        create(&testbed, &job(name, &all, json!({}))).await?;
    }
    for name in ["first", "second", "third"] {
        assert_eq!(ended(&testbed, name).await?.phase, Some(Phase::Completed));
    }
    // A device that already reports the version cannot prove it again, so the job does not wait
    // until it has rebooted.
    eventually("every device has rebooted three times", LIMIT, || async {
        Ok(testbed.fleet.reports().await?.iter().all(|report| report.flashed == 3).then_some(()))
    })
    .await?;
    assert!(testbed.fleet.reports().await?.iter().all(|report| report.conflicts == 0));
    Ok(())
}

#[tokio::test]
async fn an_operator_with_the_rights_for_one_namespace_alone_flashes_there() -> anyhow::Result<()>
{
    let devices = vec!["esp32:thermo:0.1.0=2".to_owned()];
    let mut testbed =
        Testbed::start(&Options { devices, one_namespace: true, ..Options::default() }).await?;
    testbed.start_operator().await?;
    let all = uids(&testbed, "esp32", 2).await?;
    apply(&testbed, &job("here", &all, json!({}))).await?;
    assert_eq!(ended(&testbed, "here").await?.phase, Some(Phase::Completed));
    delete(&testbed, "here").await?;
    plugin_where(&testbed, "esp32.default", "it is named with the namespace", |status| {
        status.digest.is_some()
    })
    .await?;
    // Also fails if any request was forbidden.
    nothing_left(&testbed).await
}

#[tokio::test]
async fn two_jobs_share_the_budget_of_a_node() -> anyhow::Result<()> {
    let testbed = testbed(&["esp32:thermo:0.1.0=4"], 9).await?;
    let transfer = Duration::from_millis(1500);
    let slow = Behaviour { transfer_ms: 1500, ..Behaviour::default() };
    for report in testbed.fleet.reports().await? {
        testbed.fleet.behave(&report.id, &slow).await?;
    }
    let all = uids(&testbed, "esp32", 4).await?;
    let budget = json!({"groupBudget": {"by": "Node", "maxInFlight": 1}});
    let begin = std::time::Instant::now();
    apply(&testbed, &job("one", &all[..2], budget.clone())).await?;
    apply(&testbed, &job("other", &all[2..], budget)).await?;
    for name in ["one", "other"] {
        assert_eq!(ended(&testbed, name).await?.phase, Some(Phase::Completed));
    }
    // However fast the machine is, sequential transfers take at least this long.
    assert!(begin.elapsed() >= transfer * 4, "devices were flashed side by side");
    for report in testbed.fleet.reports().await? {
        assert_eq!((report.flashed, report.conflicts), (1, 0), "{report:?}");
    }
    nothing_left(&testbed).await
}
