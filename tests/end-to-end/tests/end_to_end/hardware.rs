//! Hardware families other than ESP32, each through the whole operator with its own plugin.

use flashjob_api::Phase;
use flashjob_end_to_end::{apply, ended, job, nothing_left};
use flashjob_simulators::smp::Behaviour;
use flashjob_testbed::smp::{FIRMWARE, NetworkDevice};
use flashjob_testbed::{Options, Testbed};
use serde_json::json;

/// The product's flash image, for plugins that specify the whole command.
const FLASHER: &str = "registry.example/flasher:1";

#[tokio::test]
async fn devices_that_are_uploaded_to_complete_with_the_configured_flash_image_and_their_own_word()
-> anyhow::Result<()> {
    let devices = vec!["wled:light:0.1.0=2".to_owned(), "esp32:thermo:0.1.0=1".to_owned()];
    let plugins = vec!["http-push".to_owned(), "esp32".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, plugins, ..Options::default() }).await?;
    for plugin in testbed.config["plugins"].as_array_mut().into_iter().flatten() {
        if plugin["name"] == "http-push" {
            plugin["flashImage"] = json!(FLASHER);
        }
    }
    testbed.start_operator().await?;
    let all: Vec<String> = testbed.devices().await?.into_iter().map(|(uid, _)| uid).collect();
    apply(&testbed, &job("mixed", &all, json!({"flashjobPodImage": null}))).await?;
    let status = ended(&testbed, "mixed").await?;
    assert_eq!(
        (status.phase, status.completed_uuids.len()),
        (Some(Phase::Completed), 3),
        "{status:?}"
    );
    for report in testbed.fleet.reports().await? {
        assert_eq!((report.flashed, report.version.as_str()), (1, "0.2.0"), "{report:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_device_with_mcuboot_completes_by_its_hash_and_one_that_goes_back_is_given_up()
-> anyhow::Result<()> {
    let plugins = vec!["mcumgr".to_owned()];
    let mut testbed = Testbed::start(&Options { plugins, ..Options::default() }).await?;
    testbed.config["plugins"][0]["flashImage"] = json!(FLASHER);
    testbed.start_operator().await?;
    let well = NetworkDevice::switch_on(&testbed, "akri-well", Behaviour::default()).await?;
    let reverts = Behaviour { reverts: true, ..Behaviour::default() };
    let reverts = NetworkDevice::switch_on(&testbed, "akri-reverts", reverts).await?;
    for (name, device) in [("keeps", &well), ("reverts", &reverts)] {
        let spec = json!({
            "firmware": FIRMWARE, "version": "2.0.0", "flashjobPodImage": null,
            "backoffLimitPerDevice": 3,
        });
        apply(&testbed, &job(name, std::slice::from_ref(&device.uid), spec)).await?;
    }

    // Akri reports no version: the version that the flash program read from the device is the
    // proof.
    let status = ended(&testbed, "keeps").await?;
    assert_eq!(status.phase, Some(Phase::Completed), "{status:?}");
    assert_eq!(status.completed_uuids, std::slice::from_ref(&well.uid));
    let device = &well.device;
    let state = (device.runs(), device.is_confirmed(), device.resets());
    assert_eq!(state, ("2.0.0".to_owned(), true, 1));

    let status = ended(&testbed, "reverts").await?;
    assert_eq!(status.phase, Some(Phase::Failed), "{status:?}");
    let failed = &status.devices[0];
    assert_eq!(failed.reason.as_deref(), Some("GaveUp"), "{failed:?}");
    let message = failed.message.clone().unwrap_or_default();
    assert!(
        message.starts_with("Reverted: ") && message.contains("runs 1.0.0 again"),
        "{message}"
    );
    let device = &reverts.device;
    let state = (device.runs(), device.is_confirmed(), device.resets());
    assert_eq!(state, ("1.0.0".to_owned(), true, 1), "it is not tried again");
    nothing_left(&testbed).await
}
