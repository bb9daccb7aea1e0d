//! Finds out whether the installed CustomResourceDefinitions have all fields that this operator knows: the API server drops the others
//! without a word. It reads what the API server publishes of its schemas under `/openapi/v3`, which everybody who is authenticated may
//! (ClusterRole `system:discovery`), so that no right on definitions is needed. Does I/O.

use std::time::Duration;

use flashjob_api::{DevicePlugin, FlashJob, GROUP};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Client, CustomResourceExt};
use serde_json::Value;

use crate::answer::in_one_line;
use crate::health::keeper::Reports;
use crate::health::problem::{Cause, DEVICE_PLUGINS, FLASH_JOBS, Problem, Resource, Source};

/// Between two looks while all is well.
const INTERVAL: Duration = Duration::from_secs(600);
/// The same while a definition is old, or nothing is known.
const SHORT_INTERVAL: Duration = Duration::from_secs(15);
/// Fields that a message names; the others are counted.
const NAMED: usize = 3;

/// Looks at the definitions until the process ends.
pub async fn follow(client: Client, reports: Reports) {
    loop {
        let well = match published(&client).await {
            Ok(document) => {
                let flash_jobs = outdated(&document, FLASH_JOBS, &FlashJob::crd());
                let device_plugins = outdated(&document, DEVICE_PLUGINS, &DevicePlugin::crd());
                let well = flash_jobs.is_none() && device_plugins.is_none();
                reports.state(Source::Definition(FLASH_JOBS), flash_jobs);
                reports.state(Source::Definition(DEVICE_PLUGINS), device_plugins);
                well
            }
            // The watches say what is wrong: nothing is installed, or the API server does not answer.
            Err(error) => {
                let error = in_one_line(&error);
                tracing::debug!(error, "the published schemas cannot be read");
                false
            }
        };
        tokio::time::sleep(if well { INTERVAL } else { SHORT_INTERVAL }).await;
    }
}

/// The schemas of our group, as OpenAPI 3.0.
async fn published(client: &Client) -> kube::Result<Value> {
    let request = http::Request::get(format!("/openapi/v3/apis/{GROUP}/v1alpha1"))
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    client.request(request).await
}

/// The problem of an installed definition that is older than this operator. One that is not installed is none here.
fn outdated(
    document: &Value,
    resource: Resource,
    own: &CustomResourceDefinition,
) -> Option<Problem> {
    let kind = own.spec.names.kind.as_str();
    let schemas = document["components"]["schemas"].as_object()?;
    let installed = schemas.values().find(|schema| is_of(schema, kind))?;
    let version = own.spec.versions.first()?;
    let schema = version.schema.as_ref()?.open_api_v3_schema.as_ref()?;
    let mut missing = Vec::new();
    for part in ["spec", "status"] {
        let own = serde_json::to_value(schema.properties.as_ref()?.get(part)?).ok()?;
        compare(&own, &installed["properties"][part], part, &mut missing);
    }
    let named = missing.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = match missing.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!missing.is_empty()).then(|| {
        let rest = format!(
            "is older than this operator: the API server drops {named}{more}; install the one of \
             this version with kubectl apply --server-side -f deploy/crds (make install), or with \
             the chart's CRDs"
        );
        let object = format!("CustomResourceDefinition {resource}");
        Problem::new(Cause::DefinitionOutdated, object, &rest)
    })
}

fn is_of(schema: &Value, kind: &str) -> bool {
    let kinds = schema["x-kubernetes-group-version-kind"].as_array();
    kinds.into_iter().flatten().any(|of| of["group"] == GROUP && of["kind"] == kind)
}

/// Collects the paths of fields that the installed schema lacks.
fn compare(own: &Value, installed: &Value, path: &str, missing: &mut Vec<String>) {
    if installed.is_null() {
        return missing.push(path.to_owned());
    }
    if installed["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    for (name, schema) in own["properties"].as_object().into_iter().flatten() {
        compare(schema, &installed["properties"][name], &format!("{path}.{name}"), missing);
    }
    for (part, suffix) in [("items", "[]"), ("additionalProperties", ".*")] {
        if own[part].is_object() {
            compare(&own[part], &installed[part], &format!("{path}{suffix}"), missing);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As the API server publishes an installed definition.
    fn document(change: impl Fn(&mut Value)) -> Value {
        let crd = FlashJob::crd();
        let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref();
        let mut schema = serde_json::to_value(schema.unwrap()).unwrap();
        schema["x-kubernetes-group-version-kind"] =
            json!([{"group": GROUP, "kind": "FlashJob", "version": "v1alpha1"}]);
        change(&mut schema);
        json!({"components": {"schemas": {"io.example.FlashJob": schema}}})
    }

    fn problem(change: impl Fn(&mut Value)) -> Option<Problem> {
        outdated(&document(change), FLASH_JOBS, &FlashJob::crd())
    }

    #[test]
    fn the_definition_of_this_version_and_one_with_more_fields_are_good() {
        assert_eq!(problem(|_| {}), None);
        assert_eq!(
            problem(|schema| {
                schema["properties"]["spec"]["properties"]["later"] = json!({"type": "string"});
            }),
            None
        );
        assert_eq!(outdated(&json!({}), FLASH_JOBS, &FlashJob::crd()), None, "not installed");
    }

    #[test]
    fn fields_that_the_installed_definition_lacks_are_named_down_to_lists() {
        let old = problem(|schema| {
            let remove = |schema: &mut Value, path: &str, name: &str| {
                let parent = schema.pointer_mut(path).and_then(Value::as_object_mut);
                assert!(parent.unwrap().remove(name).is_some(), "{name}");
            };
            remove(schema, "/properties/spec/properties", "exposure");
            remove(
                schema,
                "/properties/status/properties/devices/items/properties",
                "baselineVersion",
            );
        });
        let message = old.expect("a problem").message;
        assert!(
            message
                .contains("the API server drops spec.exposure, status.devices[].baselineVersion;"),
            "{message}"
        );
        let empty = problem(|schema| schema["properties"]["status"] = json!({"type": "object"}));
        assert!(empty.expect("a problem").message.contains(" more; install"));
    }
}
