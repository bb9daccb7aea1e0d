//! Plugins and firmware in the registry of the node.

use flashjob_testbed::artifacts::{firmware, push_firmware, push_plugin};
use flashjob_testbed::process::repository;
use flashjob_testbed::registry::Registry;

/// Pushes plugins and firmware, as their authors do.
///
/// # Errors
/// A plugin was not built, or the registry refuses it.
pub async fn publish(registry: &Registry) -> anyhow::Result<()> {
    for plugin in ["esp32", "esp32s2"] {
        let file = repository().join(format!("target/plugins/{plugin}.wasm"));
        push_plugin(registry, &file, &format!("flashjob/{plugin}:0.1.0")).await?;
    }
    for version in ["0.2.0", "0.3.0"] {
        let firmwares = ["esp32", "esp32s2"].map(|device| firmware(device, "thermo", version));
        push_firmware(registry, &format!("nubificus/firmware:{version}"), &firmwares).await?;
    }
    Ok(())
}
