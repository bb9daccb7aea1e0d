//! Tests that standard output and error of plugins in other languages are in the log of the
//! process, under the plugin's name.

use std::sync::Mutex;

use anyhow::Context;
use flashjob_host_tests::hosts::{host, source};
use flashjob_plugin_host::config::{Limits, PullPolicy};
use flashjob_plugin_host::{CallError, Logins, Plugin};
use flashjob_testbed::process::repository;
use serde_json::{Value, json};

async fn load(name: &str) -> anyhow::Result<Plugin> {
    let folder = tempfile::tempdir()?;
    let host = host(&folder.path().join("cache"), json!([]), json!([]), Limits::default())?;
    let file = repository().join(format!("target/plugins/{name}.wasm"));
    Ok(host
        .load(
            &source(name, &format!("file://{}", file.display()), PullPolicy::Never)?,
            &Logins::none(),
        )
        .await?)
}

/// Calls a plugin, and returns its answer, and level and text of each log line with its name.
async fn answer_and_lines(
    plugin: &Plugin,
    settings: &str,
) -> anyhow::Result<(Result<(), CallError>, Vec<(String, String)>)> {
    let log = tempfile::NamedTempFile::new()?;
    let subscriber =
        tracing_subscriber::fmt().json().with_writer(Mutex::new(log.reopen()?)).finish();
    let listening = tracing::subscriber::set_default(subscriber);
    let answer = plugin.validate_settings(settings).await;
    drop(listening);
    let mut lines = Vec::new();
    for line in std::fs::read_to_string(log.path())?.lines() {
        let line: Value = serde_json::from_str(line)?;
        let text =
            |value: &Value| value.as_str().map(str::to_owned).with_context(|| line.to_string());
        if line["fields"]["plugin"] == plugin.info().name {
            lines.push((text(&line["level"])?, text(&line["fields"]["message"])?));
        }
    }
    Ok((answer, lines))
}

fn line(level: &str, text: &str) -> (String, String) {
    (level.to_owned(), text.to_owned())
}

#[tokio::test]
async fn standard_output_and_error_of_a_plugin_in_go_are_information_and_warnings_under_its_name()
-> anyhow::Result<()> {
    let (answer, lines) = answer_and_lines(&load("hostile-go").await?, "say").await?;
    assert_eq!(answer, Ok(()));
    assert_eq!(lines, [line("INFO", "to standard output"), line("WARN", "to standard error")]);
    Ok(())
}

/// QuickJS has no console: standard error contains only what the engine itself prints when it
/// aborts, and standard output contains nothing.
#[tokio::test]
async fn output_of_a_plugin_in_javascript_and_of_its_engine_is_logged_under_its_name()
-> anyhow::Result<()> {
    let plugin = load("hostile-javascript").await?;
    let (answer, lines) = answer_and_lines(&plugin, "say").await?;
    assert_eq!((answer, lines), (Ok(()), vec![line("INFO", "a little")]));
    let (answer, lines) = answer_and_lines(&plugin, "throw").await?;
    assert!(matches!(answer, Err(CallError::Trapped(_))), "{answer:?}");
    assert!(lines.iter().all(|(level, _)| level == "WARN"), "{lines:?}");
    assert!(lines.iter().any(|(_, text)| text.contains("out of hand")), "{lines:?}");
    Ok(())
}
