//! A plugin that is valid except for one import.

use anyhow::Context;
use flashjob_host_tests::components::importing_too;
use flashjob_host_tests::hosts::{component, host, source};
use flashjob_plugin_host::config::{Limits, PullPolicy};
use flashjob_plugin_host::{LoadError, Logins, Plugin};
use serde_json::json;

/// Loads the plugin for ESP32 with one additional import.
async fn with(import: &str) -> anyhow::Result<Result<Plugin, LoadError>> {
    let folder = tempfile::tempdir()?;
    let host = host(&folder.path().join("cache"), json!([]), json!([]), Limits::default())?;
    let file = folder.path().join("component.wasm");
    std::fs::write(&file, importing_too(&component("esp32")?, import)?)?;
    Ok(host
        .load(
            &source("esp32", &format!("file://{}", file.display()), PullPolicy::Never)?,
            &Logins::none(),
        )
        .await)
}

#[tokio::test]
async fn a_plugin_that_imports_sockets_is_refused_for_that_and_one_that_imports_a_clock_is_loaded()
-> anyhow::Result<()> {
    for import in [
        "wasi:sockets/tcp@0.2.12",
        "wasi:sockets/udp@0.2.12",
        "wasi:sockets/ip-name-lookup@0.2.12",
        "wasi:sockets/network@0.2.0",
    ] {
        let error = with(import).await?.err().context(import)?;
        assert_eq!(error.reason(), "ImportRefused", "{error}");
        assert!(
            error.to_string().contains(&format!("imports {import}, which plugins may not import")),
            "{error}"
        );
    }
    with("wasi:clocks/wall-clock@0.2.12").await??;
    Ok(())
}
