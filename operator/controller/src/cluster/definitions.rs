//! Compares the installed CustomResourceDefinitions with those of this version: the API server
//! silently drops a field that they lack, and refuses one that has another type there. The schemas
//! are read from `/openapi/v3`, which every authenticated user may read (ClusterRole
//! `system:discovery`), so that no permission on CustomResourceDefinitions is needed. Does I/O.

use std::time::Duration;

use flashjob_api::schema::{outdated_fields, published_path};
use flashjob_api::{DevicePlugin, FlashJob, FlashRollout, GROUP};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Client, CustomResourceExt};
use serde_json::Value;

use crate::cluster::answer::in_one_line;
use crate::telemetry::health::keeper::Reports;
use crate::telemetry::health::problem::{
    Cause, DEVICE_PLUGINS, FLASH_JOBS, FLASH_ROLLOUTS, Problem, ProblemSource, Resource,
};

/// Interval of checks while all definitions are current.
const INTERVAL: Duration = Duration::from_secs(600);
/// Interval of checks while a definition is outdated, or the schemas cannot be read.
const SHORT_INTERVAL: Duration = Duration::from_secs(15);
/// Number of fields that a message names; the others are counted.
const NAMED: usize = 3;

/// Checks the definitions until the process ends.
pub async fn follow(client: Client, reports: Reports) {
    loop {
        let well = match published(&client).await {
            Ok(document) => {
                let flash_jobs = outdated(&document, FLASH_JOBS, &FlashJob::crd());
                let rollouts = outdated(&document, FLASH_ROLLOUTS, &FlashRollout::crd());
                let device_plugins = outdated(&document, DEVICE_PLUGINS, &DevicePlugin::crd());
                let all = [&flash_jobs, &rollouts, &device_plugins];
                let well = all.iter().all(|problem| problem.is_none());
                reports.state(ProblemSource::Definition(FLASH_JOBS), flash_jobs);
                reports.state(ProblemSource::Definition(FLASH_ROLLOUTS), rollouts);
                reports.state(ProblemSource::Definition(DEVICE_PLUGINS), device_plugins);
                well
            }
            // The watches report the problem: nothing is installed, or the API server does not
            // respond.
            Err(error) => {
                let error = in_one_line(&error);
                tracing::debug!(error, "cannot read the published OpenAPI schemas");
                false
            }
        };
        tokio::time::sleep(if well { INTERVAL } else { SHORT_INTERVAL }).await;
    }
}

/// Returns the schemas of our API group, as OpenAPI 3.0.
async fn published(client: &Client) -> kube::Result<Value> {
    // The document of one group is small; the whole schema of a cluster (`/openapi/v2`) has
    // megabytes.
    let request = http::Request::get(published_path(GROUP, "v1alpha1"))
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    client.request(request).await
}

/// Returns the problem of an installed definition that is older than this operator; None also if
/// the definition is not installed.
fn outdated(
    document: &Value,
    resource: Resource,
    own_definition: &CustomResourceDefinition,
) -> Option<Problem> {
    let missing =
        outdated_fields(document, own_definition).filter(|missing| !missing.is_empty())?;
    let named = missing.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = match missing.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let rest = format!(
        "is older than this operator: the API server drops or refuses {named}{more}; install the \
         definition of this version with kubectl apply --server-side -f deploy/crds (make \
         install), or with the chart's CRDs"
    );
    let object = format!("CustomResourceDefinition {resource}");
    Some(Problem::new(Cause::DefinitionOutdated, object, &rest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn three_fields_that_are_dropped_are_named_and_the_others_counted() {
        let empty = json!({"properties": {}});
        let schema = json!({
            "x-kubernetes-group-version-kind": [{"group": GROUP, "kind": "DevicePlugin"}],
            "properties": {"spec": empty, "status": empty},
        });
        let document = json!({"components": {"schemas": {"a": schema}}});
        let old = outdated(&document, DEVICE_PLUGINS, &DevicePlugin::crd()).expect("a problem");
        let expected = "refuses spec.image, status.conditions, status.deviceTypes and 6 more;";
        assert!(old.message.contains(expected), "{}", old.message);
        assert_eq!(outdated(&json!({}), FLASH_JOBS, &FlashJob::crd()), None, "not installed");
    }
}
