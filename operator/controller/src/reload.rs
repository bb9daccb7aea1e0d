//! Reloads the configuration file when its content changes, or that of a key or certificate
//! authority that it names. An invalid file is refused entirely, and the previous configuration
//! stays in force. If there was no file, the first one is loaded when it appears.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use flashjob_plugin_host::Digest;

use crate::operator::Operator;
use crate::plugins::loader::Loader;
use crate::telemetry::health::advice;
use crate::telemetry::health::problem::ProblemSource;

/// Polling interval. A mounted ConfigMap changes through symbolic links, so only reading the
/// content detects a change reliably.
const INTERVAL: Duration = Duration::from_secs(1);

/// Polls the file, and the keys and certificate authorities that it names, until the process ends.
/// `text` is the content of the configuration in force, if any.
pub async fn follow(
    path: PathBuf,
    mut text: Option<String>,
    mut loader: Loader,
    operator: &Operator,
) {
    let mut files = contents(loader.files()).await;
    let mut refused: Option<String> = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = contents(loader.files()).await;
        let files_changed = std::mem::replace(&mut files, now) != files;
        let changed = match tokio::fs::read_to_string(&path).await {
            Ok(now) if text.as_ref() != Some(&now) => {
                let new_config = flashjob_config::parse(&now).map_err(|error| error.to_string());
                // Also if it is refused: the file is not parsed again every second, and its fault
                // is reported once.
                text = Some(now);
                Some(new_config.and_then(|config| {
                    loader.change(config, files_changed).map_err(|error| error.to_string())
                }))
            }
            Ok(_) if files_changed => {
                tracing::info!(
                    "a key or certificate authority has changed; verifying every plugin again"
                );
                loader.again().err().map(|error| Err(error.to_string()))
            }
            Ok(_) => None,
            // There was none at start either, which is reported as ConfigurationMissing.
            Err(error) if text.is_none() && error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                Some(Err(format!("cannot read the configuration {}: {error}", path.display())))
            }
        };
        match changed {
            Some(Ok(())) => {
                refused = None;
                // The new configuration may name other files.
                files = contents(loader.files()).await;
                operator.metrics.configuration_taken();
                let advice = advice::of(loader.config(), &path, &operator.installation);
                operator.reports.state(ProblemSource::Configuration, advice);
                tracing::info!(
                    path = %path.display(),
                    "the configuration has changed and is in force"
                );
            }
            // A file that stays unreadable fails every second, and is reported once.
            Some(Err(error)) if refused.as_ref() != Some(&error) => {
                operator.metrics.configuration_refused();
                operator
                    .reports
                    .fails(ProblemSource::Configuration, advice::refused(&error, &path));
                refused = Some(error);
            }
            _ => {}
        }
    }
}

/// Returns the contents of files as digests: keys may be large, and their content is not needed
/// here.
async fn contents(files: Vec<PathBuf>) -> Vec<(PathBuf, Option<Digest>)> {
    let mut contents = Vec::new();
    for file in files {
        let digest = tokio::fs::read(&file).await.ok().map(|bytes| Digest::of(&bytes));
        contents.push((file, digest));
    }
    contents
}
