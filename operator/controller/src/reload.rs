//! Takes the configuration file anew when its content changes, or that of a key or authority that it names. A bad file is refused whole,
//! and the old one stays.

use std::path::PathBuf;
use std::time::Duration;

use flashjob_plugin_host::Digest;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};

use crate::config;
use crate::operator::Operator;
use crate::plugins::Loader;

/// A mounted ConfigMap changes by way of symbolic links: reading the content is what tells a change for certain.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks at the file, and at the keys and authorities that it names, until the process ends. `text` is what is in force.
pub async fn follow(
    path: PathBuf,
    mut text: String,
    mut loader: Loader,
    operator: &Operator,
    namespace: &str,
) {
    let mut files = contents(loader.files()).await;
    let (mut refused, mut told): (Option<String>, Option<String>) = (None, None);
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = contents(loader.files()).await;
        let files_changed = std::mem::replace(&mut files, now) != files;
        let changed = match tokio::fs::read_to_string(&path).await {
            Ok(now) if now != text => {
                let taken = config::parse(&now).map_err(|error| error.to_string());
                text = now;
                Some(taken.and_then(|config| {
                    loader.change(config, files_changed).map_err(|error| error.to_string())
                }))
            }
            Ok(_) if files_changed => {
                tracing::info!("a key or an authority has changed: every plugin is verified again");
                loader.again().err().map(|error| Err(error.to_string()))
            }
            Ok(_) => None,
            Err(error) => {
                Some(Err(format!("cannot read the configuration {}: {error}", path.display())))
            }
        };
        match changed {
            Some(Ok(())) => {
                (refused, told) = (None, None);
                files = contents(loader.files()).await;
                operator.metrics.configuration_taken();
                tracing::info!(path = %path.display(), "the configuration has changed and is in force");
            }
            Some(Err(error)) if refused.as_ref() != Some(&error) => {
                tracing::error!(
                    error,
                    "the changed configuration is not taken; the one before stays in force"
                );
                operator.metrics.configuration_refused();
                refused = Some(error);
            }
            _ => {}
        }
        // A standby may write nothing, and leaves it at the log; it tells once it leads.
        if let Some(error) = refused
            .as_ref()
            .filter(|error| told.as_ref() != Some(*error) && operator.leadership.is_leading())
        {
            tell(operator, namespace, error).await;
            told = Some(error.clone());
        }
    }
}

/// What is in files, as digests: keys may be large, and nobody is to read them here.
async fn contents(files: Vec<PathBuf>) -> Vec<(PathBuf, Option<Digest>)> {
    let mut contents = Vec::new();
    for file in files {
        let digest = tokio::fs::read(&file).await.ok().map(|bytes| Digest::of(&bytes));
        contents.push((file, digest));
    }
    contents
}

/// Tells of a refused file in an event about the operator's own Pod, where it runs in one.
async fn tell(operator: &Operator, namespace: &str, error: &str) {
    let Ok(pod) = std::env::var("POD_NAME") else { return };
    let reference = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod),
        namespace: Some(namespace.to_owned()),
        ..ObjectReference::default()
    };
    let event = Event {
        type_: EventType::Warning,
        reason: "ConfigurationRefused".to_owned(),
        note: Some(error.chars().take(1000).collect()),
        action: "Reload".to_owned(),
        secondary: None,
    };
    if let Err(error) = operator.recorder.publish(&event, &reference).await {
        tracing::debug!(%error, "an event could not be written");
    }
}
