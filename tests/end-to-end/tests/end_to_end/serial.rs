//! A chip on a node's serial port, and a plugin for another device type over the network.

use std::path::Path;

use flashjob_api::Phase;
use flashjob_end_to_end::{apply, ended, job, nothing_left, status_where, uids};
use flashjob_testbed::artifacts::firmware;
use flashjob_testbed::serial::{FIRMWARE, SerialChip, digest};
use flashjob_testbed::{Options, Testbed};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

/// Image with the flash program, for plugins that specify the whole command.
const FLASHER: &str = "registry.example/flasher:1";

/// Returns the number of the operator's requests to create an object of this resource.
fn creates(audit_log: &Path, resource: &str) -> anyhow::Result<usize> {
    let log = std::fs::read_to_string(audit_log)?;
    let requests = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ours = requests.filter(|request| {
        request["user"]["username"] == "operator"
            && request["verb"] == "create"
            && request["objectRef"]["resource"] == resource
    });
    Ok(ours.count())
}

fn serial_job(name: &str, chip: &SerialChip) -> Value {
    let spec = json!({
        "device": "esp-serial", "firmware": FIRMWARE, "flashjobPodImage": FLASHER,
        "backoffLimitPerDevice": 0, "settings": {"esp-serial": {"chip": "esp32"}},
    });
    job(name, std::slice::from_ref(&chip.uid), spec)
}

/// Returns the serial job's Pod while it exists.
async fn flash_pod(testbed: &Testbed) -> anyhow::Result<Option<Pod>> {
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), "default");
    Ok(pods.list(&ListParams::default().labels("app=granted")).await?.items.into_iter().next())
}

#[tokio::test]
async fn a_chip_on_a_serial_port_is_flashed_once_without_any_service_and_only_with_the_grant()
-> anyhow::Result<()> {
    let firmware = firmware("esp32", "thermo", "0.2.0");
    let plugins = vec!["esp-serial".to_owned()];
    let mut testbed = Testbed::start(&Options { plugins, ..Options::default() }).await?;
    let chip = SerialChip::plug_in(&testbed, firmware.clone()).await?;
    let grants = json!({"images": ["registry.example/flasher"], "groups": [20]});
    testbed.config["plugins"][0]["grants"] = grants.clone();
    testbed.start_operator().await?;

    apply(&testbed, &serial_job("refused", &chip)).await?;
    let status = ended(&testbed, "refused").await?;
    assert_eq!(status.phase, Some(Phase::Failed), "{status:?}");
    let device = &status.devices[0];
    assert_eq!(device.reason.as_deref(), Some("GrantDenied"), "{device:?}");
    assert!(
        device.message.as_deref().is_some_and(|message| message.contains("attachDevice")),
        "{device:?}"
    );
    let audit_log = testbed.control_plane.audit_log.clone();
    assert_eq!(
        (
            creates(&audit_log, "pods")?,
            creates(&audit_log, "services")?,
            chip.report().await?.begun
        ),
        (0, 0, 0)
    );

    testbed.kill_operator().await?;
    testbed.config["plugins"][0]["grants"] = grants;
    testbed.config["plugins"][0]["grants"]["attachDevice"] = json!(true);
    testbed.start_operator().await?;
    apply(&testbed, &serial_job("granted", &chip)).await?;
    let pod = flashjob_testbed::process::eventually(
        "the flash Pod is there",
        flashjob_end_to_end::LIMIT,
        || flash_pod(&testbed),
    )
    .await?;
    let pod = serde_json::to_value(pod)?;
    assert_eq!(
        pod["spec"]["containers"][0]["resources"]["limits"],
        json!({format!("akri.sh/{}", chip.instance): "1"})
    );
    assert_eq!(pod["spec"]["securityContext"]["supplementalGroups"], json!([20]));
    let status = ended(&testbed, "granted").await?;
    assert_eq!(status.phase, Some(Phase::Completed), "{status:?}");
    let report = chip.report().await?;
    assert_eq!(
        (report.begun, report.flashed, report.conflicts, report.refused),
        (1, 1, 0, 0),
        "{report:?}"
    );
    assert_eq!(report.sha256, digest(&firmware.encode()?));
    nothing_left(&testbed).await?;
    assert_eq!((creates(&audit_log, "pods")?, creates(&audit_log, "services")?), (1, 0));

    // The status of a failed flash contains the flash program's message, and there is no retry.
    let mut other = serial_job("other", &chip);
    other["spec"]["settings"]["esp-serial"]["offset"] = json!("0x800000");
    apply(&testbed, &other).await?;
    let status =
        status_where(&testbed, "other", "it failed", |status| status.phase == Some(Phase::Failed))
            .await?;
    let message = status.devices[0].message.clone().unwrap_or_default();
    assert!(message.contains("BadConfiguration: firmware harbor.nbfc.io/"), "{message}");
    assert!(message.contains("does not fit at offset"), "{message}");
    assert_eq!(chip.report().await?.begun, 1);
    Ok(())
}

#[tokio::test]
async fn an_esp32s3_is_flashed_over_the_network() -> anyhow::Result<()> {
    let options = Options {
        devices: vec!["esp32s3:thermo:0.1.0=2".into()],
        plugins: vec!["esp32s3".into()],
        ..Options::default()
    };
    let mut testbed = Testbed::start(&options).await?;
    testbed.start_operator().await?;
    let all = uids(&testbed, "esp32s3", 2).await?;
    apply(&testbed, &job("newest", &all, json!({}))).await?;
    let status = ended(&testbed, "newest").await?;
    assert_eq!(status.phase, Some(Phase::Completed), "{status:?}");
    assert!(
        testbed
            .fleet
            .reports()
            .await?
            .iter()
            .all(|report| report.flashed == 1 && report.version == "0.2.0")
    );
    nothing_left(&testbed).await
}
