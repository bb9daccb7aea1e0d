//! Families of hardware beside ESP32, each through the whole operator with its own plugin.

use flashjob_api::Phase;
use flashjob_end_to_end::{apply, ended, job};
use flashjob_testbed::{Options, Testbed};
use serde_json::json;

/// The product's flash image, where a plugin gives the whole command.
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
