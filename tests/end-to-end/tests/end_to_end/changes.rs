//! State that exists before a run: a spec that changed while devices are in flight, and objects
//! that the Go operator left.

use flashjob_api::condition::SUSPENDED;
use flashjob_api::{FINALIZER, FlashJob, Phase};
use flashjob_end_to_end::rollouts::behave;
use flashjob_end_to_end::{
    apply, condition, create, ended, job, jobs, nothing_left, pod_where, runs, status_where, uids,
};
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::artifacts::{firmware, push_firmware};
use flashjob_testbed::process::{LIMIT, eventually};
use flashjob_testbed::testbed::FLASHER_IMAGE;
use flashjob_testbed::{Options, Testbed};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

async fn testbed() -> anyhow::Result<Testbed> {
    Testbed::start(&Options {
        devices: vec!["esp32:thermo:0.1.0=3".into()],
        addresses: 4,
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn a_run_that_changes_in_flight_begins_afresh_once_the_devices_in_flight_are_done()
-> anyhow::Result<()> {
    let mut testbed = testbed().await?;
    testbed.start_operator().await?;
    let devices = testbed.devices().await?;
    behave(&testbed, &Behaviour::holding()).await?;
    let all: Vec<String> = devices.iter().map(|(uid, _)| uid.clone()).collect();
    apply(&testbed, &job("changed", &all, json!({"parallelism": 1}))).await?;
    pod_where(&testbed, "changed", "it runs", runs).await?;
    let first = jobs(&testbed).get("changed").await?.status.and_then(|status| status.run);
    let newer = json!({
        "parallelism": 3, "firmware": "harbor.nbfc.io/nubificus/firmware:0.3.0",
        "version": "0.3.0",
    });
    apply(&testbed, &job("changed", &all, newer)).await?;
    status_where(&testbed, "changed", "it has seen the change", |status| {
        let message = status.message.as_deref().unwrap_or_default();
        message.contains("the spec has changed; still in flight")
    })
    .await?;
    behave(&testbed, &Behaviour::default()).await?;
    let over = |status: &flashjob_api::FlashJobStatus| {
        status.run != first && status.phase == Some(Phase::Completed)
    };
    let status = status_where(&testbed, "changed", "the new run is complete", over).await?;
    assert_eq!(status.completed_uuids, all);
    // A device that reported the version meanwhile may still reboot.
    eventually("every device runs the firmware of the new run", LIMIT, || async {
        Ok(testbed
            .fleet
            .reports()
            .await?
            .iter()
            .all(|report| report.version == "0.3.0")
            .then_some(()))
    })
    .await?;
    let reports = testbed.fleet.reports().await?;
    assert!(reports.iter().all(|report| report.conflicts == 0), "{reports:?}");
    let mut updates: Vec<u32> = reports.iter().map(|report| report.updates).collect();
    updates.sort_unstable();
    assert_eq!(updates, [1, 1, 2], "only the device in flight was flashed twice");
    nothing_left(&testbed).await
}

#[tokio::test]
async fn what_the_go_operator_left_is_taken_over_and_its_running_pod_keeps_its_device()
-> anyhow::Result<()> {
    let mut testbed = testbed().await?;
    let devices = testbed.devices().await?;
    testbed.fleet.behave(&devices[1].1.id, &Behaviour::holding()).await?;
    let all: Vec<String> = devices.iter().map(|(uid, _)| uid.clone()).collect();
    let mut old = job(
        "left",
        &all,
        json!({"device": null, "hostEndpoint": null, "externalIP": null, "applicationType": null}),
    );
    old["metadata"]["finalizers"] = json!([FINALIZER]);
    create(&testbed, &old).await?;
    let status =
        json!({"status": {"phase": "Running", "message": "Flashing", "completedUUIDs": [all[0]]}});
    let stored = jobs(&testbed)
        .patch_status("left", &PatchParams::default(), &Patch::Merge(status))
        .await?;
    let pod = leave_behind(&testbed, &stored, &devices[1].0, &devices[1].1.endpoint).await?;
    testbed.start_operator().await?;
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), "default");
    eventually("the other devices are flashed while the old Pod is at work", LIMIT, || async {
        Ok((testbed.fleet.reports().await?[2].flashed == 1).then_some(()))
    })
    .await?;
    testbed.fleet.behave(&devices[1].1.id, &Behaviour::default()).await?;
    let status = ended(&testbed, "left").await?;
    assert_eq!(status.phase, Some(Phase::Completed), "{status:?}");
    let reports = testbed.fleet.reports().await?;
    let updates: Vec<u32> = reports.iter().map(|report| report.updates).collect();
    assert_eq!(
        updates,
        [0, 1, 1],
        "neither what was completed nor what the old Pod flashed again"
    );
    assert!(reports.iter().all(|report| report.conflicts == 0), "{reports:?}");
    eventually("the old Pod is removed", LIMIT, || async {
        Ok(pods.get_opt(&pod).await?.is_none().then_some(()))
    })
    .await?;
    nothing_left(&testbed).await
}

/// Creates a Pod and a Service as the Go operator did: two labels, an owner that is not a
/// controller, the endpoint in the environment.
async fn leave_behind(
    testbed: &Testbed,
    job: &FlashJob,
    uid: &str,
    endpoint: &str,
) -> anyhow::Result<String> {
    let name = format!("left-flashing-pod-{uid}");
    let metadata = json!({
        "name": name, "labels": {"app": "left", "uuid": uid},
        "ownerReferences": [{
            "apiVersion": FlashJob::api_version(&()), "kind": "FlashJob", "name": job.name_any(),
            "uid": job.uid().unwrap_or_default(),
        }],
    });
    let services: Api<Service> = Api::namespaced(testbed.client.clone(), "default");
    let service: Service = serde_json::from_value(json!({
        "metadata": metadata,
        "spec": {
            "type": "LoadBalancer", "selector": {"app": "left", "uuid": uid},
            "ports": [{"port": 4433, "protocol": "TCP"}],
        },
    }))?;
    services.create(&PostParams::default(), &service).await?;
    let address = eventually("the Service has its address", LIMIT, || async {
        let status = services.get(&name).await?.status;
        let ingress = status
            .and_then(|status| status.load_balancer)
            .and_then(|status| status.ingress)
            .unwrap_or_default();
        Ok(ingress.into_iter().find_map(|entry| entry.ip))
    })
    .await?;
    let variables = [
        ("FIRMWARE", "harbor.nbfc.io/nubificus/firmware:0.2.0"),
        ("UUID", uid),
        ("HOST_ENDPOINT", endpoint),
        ("DEVICE", "esp32"),
        ("APPLICATION_TYPE", "thermo"),
        ("VERSION", "0.2.0"),
        ("EXTERNAL_IP", &address),
    ];
    let variables = variables.map(|(name, value)| json!({"name": name, "value": value}));
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), "default");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": metadata,
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "flash-container", "image": FLASHER_IMAGE, "env": variables}],
        },
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    pod_where(testbed, "left", "the old Pod runs", runs).await?;
    Ok(name)
}

#[tokio::test]
async fn a_tag_that_moves_before_the_flash_is_flashed_as_it_is_then_and_a_digest_as_it_was()
-> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=2".to_owned()];
    let plugins = vec!["esp32".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, plugins, ..Options::default() }).await?;
    testbed.start_operator().await?;
    let all = uids(&testbed, "esp32", 2).await?;
    let publish = async |version: &str| {
        let firmware = firmware("esp32", "thermo", version);
        push_firmware(&testbed.registry, "nubificus/moving:1", &[firmware]).await
    };
    let digest = publish("0.2.0").await?;
    let cases = [
        ("tag", "harbor.nbfc.io/nubificus/moving:1".to_owned()),
        ("digest", format!("harbor.nbfc.io/nubificus/moving@{digest}")),
    ];
    for ((name, firmware), uid) in cases.iter().zip(&all) {
        let spec = json!({
            "firmware": firmware, "suspend": true, "backoffLimitPerDevice": 0,
            "verify": {"timeoutSeconds": 2},
        });
        apply(&testbed, &job(name, std::slice::from_ref(uid), spec)).await?;
        status_where(&testbed, name, "it is suspended", |status| {
            condition(status, SUSPENDED).is_some_and(|(status, _)| status == "True")
        })
        .await?;
    }
    publish("0.3.0").await?;
    for (name, _) in &cases {
        let goes_on = Patch::Merge(json!({"spec": {"suspend": false}}));
        jobs(&testbed).patch(name, &PatchParams::default(), &goes_on).await?;
    }

    // A version other than the requested one is no proof.
    for (name, unverified) in [("digest", 0), ("tag", 1)] {
        let status = ended(&testbed, name).await?;
        assert_eq!(status.phase, Some(Phase::Completed), "{status:?}");
        let counts = status.counts.map(|counts| (counts.completed, counts.unverified));
        assert_eq!(counts, Some((1, unverified)), "{name}");
    }
    let devices = testbed.devices().await?;
    let runs = |uid: &String| {
        let device = devices.iter().find(|(instance_uid, _)| instance_uid == uid);
        device.map(|(_, report)| report.version.clone()).unwrap_or_default()
    };
    assert_eq!((runs(&all[0]), runs(&all[1])), ("0.3.0".to_owned(), "0.2.0".to_owned()));
    Ok(())
}
