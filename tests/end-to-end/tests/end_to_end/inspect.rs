//! Firmware that plugins inspect before a rollout, or a FlashJob with a `firmwarePolicy`, flashes
//! the first device.

use flashjob_api::{FlashJobStatus, FlashRolloutStatus, Phase, RolloutPhase, condition};
use flashjob_end_to_end::rollouts::{apply, ended, flashed, rollout, status_where};
use flashjob_end_to_end::{self as flash_jobs, job, jobs, plugin_where, uids};
use flashjob_simulators::firmware::Firmware;
use flashjob_testbed::artifacts::{firmware, push_files, push_firmware};
use flashjob_testbed::{Options, Testbed};
use kube::api::ListParams;
use serde_json::json;

/// Returns firmware that does not compress, so that its layer is larger than the part that is
/// inspected first.
fn large(device: &str, version: &str) -> anyhow::Result<Vec<u8>> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    let payload = (0..256 << 10).map(next).collect();
    Firmware { payload, ..firmware(device, "thermo", version) }.encode()
}

#[tokio::test]
async fn firmware_for_another_chip_of_another_version_or_that_is_none_flashes_nothing()
-> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=2".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    testbed.start_operator().await?;
    let words = [
        ("chip", large("esp32s3", "0.2.0")?, "is an image for ESP32-S3, and device type esp32 is"),
        ("version", large("esp32", "0.3.0")?, "version 0.3.0, but spec.version is 0.2.0"),
        ("none", b"no firmware at all".to_vec(), "is not an image for an ESP32"),
    ];
    for (name, file, words) in words {
        let image = format!("nubificus/{name}:0.2.0");
        push_files(&testbed.registry, &image, &[("esp32".to_owned(), file)]).await?;
        let reference = format!("{}/{image}", testbed.registry.host);
        apply(&testbed, &rollout(&testbed, name, json!({"firmware": reference}))).await?;
        let refused =
            |status: &FlashRolloutStatus| status.reason.as_deref() == Some("FirmwareMismatch");
        let status = status_where(&testbed, name, "it is refused", refused).await?;
        assert_eq!(status.phase, Some(RolloutPhase::Paused), "{status:?}");
        assert!(condition::holds(&status.conditions, condition::STALLED), "{status:?}");
        let message = status.message.unwrap_or_default();
        assert!(message.contains(words) && message.contains("plugin esp32"), "{message}");
    }
    assert_eq!(jobs(&testbed).list(&ListParams::default()).await?.items.len(), 0);
    assert_eq!(flashed(&testbed).await?, [0; 2]);
    // The run continues by itself once the tag refers to the right image.
    let right = [("esp32".to_owned(), large("esp32", "0.2.0")?)];
    push_files(&testbed.registry, "nubificus/chip:0.2.0", &right).await?;
    let status = ended(&testbed, "chip").await?;
    assert_eq!(status.phase, Some(RolloutPhase::Completed), "{status:?}");
    assert_eq!(flashed(&testbed).await?, [1; 2]);
    Ok(())
}

#[tokio::test]
async fn a_flash_job_with_a_policy_flashes_nothing_that_its_plugin_refuses() -> anyhow::Result<()>
{
    let devices = vec!["esp32:thermo:0.1.0=1".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    testbed.start_operator().await?;
    let uids = uids(&testbed, "esp32", 1).await?;
    let image = "nubificus/one:0.2.0";
    let wrong = [("esp32".to_owned(), large("esp32s3", "0.2.0")?)];
    push_files(&testbed.registry, image, &wrong).await?;
    let reference = format!("{}/{image}", testbed.registry.host);
    let spec = json!({"firmware": reference, "version": "0.2.0", "firmwarePolicy": {}});
    flash_jobs::apply(&testbed, &job("one", &uids, spec)).await?;
    let refused = |status: &FlashJobStatus| status.waiting.keys().eq(["FirmwareMismatch"]);
    let status = flash_jobs::status_where(&testbed, "one", "it is refused", refused).await?;
    assert!(condition::holds(&status.conditions, condition::STALLED), "{status:?}");
    let message = status.message.unwrap_or_default();
    let words = "is an image for ESP32-S3, and device type esp32 is";
    assert!(message.contains(words) && message.contains("plugin esp32"), "{message}");
    assert_eq!((status.firmware, flashed(&testbed).await?), (None, vec![0]));
    // The tag refers to the right image now, and the job continues by itself.
    let right = [("esp32".to_owned(), large("esp32", "0.2.0")?)];
    push_files(&testbed.registry, image, &right).await?;
    let status = flash_jobs::ended(&testbed, "one").await?;
    assert_eq!(status.phase, Some(Phase::Completed), "{status:?}");
    assert_eq!(flashed(&testbed).await?, [1]);
    Ok(())
}

#[tokio::test]
async fn a_plugin_of_an_earlier_contract_flashes_uninspected_beside_one_that_inspects()
-> anyhow::Result<()> {
    let devices = ["esp32", "toaster"].map(|name| format!("{name}:thermo:0.1.0=1")).into();
    let plugins = ["esp32", "toaster"].map(str::to_owned).into();
    let mut testbed = Testbed::start(&Options { devices, plugins, ..Options::default() }).await?;
    testbed.start_operator().await?;
    for (name, version) in [("toaster", "0.1.0"), ("esp32", "0.3.0")] {
        let status =
            plugin_where(&testbed, name, "it serves", |status| status.digest.is_some()).await?;
        assert_eq!(status.wit_version.as_deref(), Some(version), "{name}");
    }
    // The toaster's firmware does not begin like an image of any known format.
    let platform_images = ["esp32", "toaster"].map(|device| firmware(device, "thermo", "0.2.0"));
    push_firmware(&testbed.registry, "nubificus/both:0.2.0", &platform_images).await?;
    let reference = format!("{}/nubificus/both:0.2.0", testbed.registry.host);
    apply(&testbed, &rollout(&testbed, "both", json!({"firmware": reference}))).await?;
    let status = ended(&testbed, "both").await?;
    assert_eq!(status.phase, Some(RolloutPhase::Completed), "{status:?}");
    for report in testbed.fleet.reports().await? {
        assert_eq!((report.flashed, report.version.as_str()), (1, "0.2.0"), "{report:?}");
    }
    Ok(())
}
