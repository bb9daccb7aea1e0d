//! Takes the configuration file anew when its content changes. A bad file is refused whole, and the old one stays.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};

use crate::config;
use crate::operator::Operator;
use crate::plugins::Loader;

/// A mounted ConfigMap changes by way of symbolic links: reading the content is what tells a change for certain.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks at the file until the process ends. `text` is what is in force.
pub async fn follow(path: PathBuf, mut text: String, mut loader: Loader, operator: &Operator, namespace: &str) {
    let mut said = String::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let read = tokio::fs::read_to_string(&path).await;
        let changed = match read {
            Ok(now) if now == text => continue,
            Ok(now) => {
                let taken = config::parse(&now).map_err(|error| error.to_string());
                text = now;
                taken.and_then(|config| loader.change(config).map_err(|error| error.to_string()))
            }
            Err(error) => Err(format!("cannot read the configuration {}: {error}", path.display())),
        };
        match changed {
            Ok(()) => {
                said.clear();
                tracing::info!(path = %path.display(), "the configuration has changed and is in force");
            }
            Err(error) if error != said => {
                tracing::error!(error, "the changed configuration is not taken; the one before stays in force");
                tell(operator, namespace, &error).await;
                said = error;
            }
            Err(_) => {}
        }
    }
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
