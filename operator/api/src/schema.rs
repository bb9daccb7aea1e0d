//! Compares an installed definition, as an API server publishes it under `/openapi/v3`, with the
//! one of this version. Pure.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

/// Path of the schemas of a group and version, which everybody who is authenticated may read
/// (ClusterRole `system:discovery`).
#[must_use]
pub fn published_path(group: &str, version: &str) -> String {
    format!("/openapi/v3/apis/{group}/{version}")
}

/// Fields of this version's `spec` and `status` that the installed definition lacks, which the API
/// server drops without a word, and those that have another type there, which it refuses. None:
/// the kind is not in the document, so it is not installed.
#[must_use]
pub fn outdated_fields(
    document: &Value,
    definition: &CustomResourceDefinition,
) -> Option<Vec<String>> {
    let schemas = document["components"]["schemas"].as_object()?;
    let installed = schemas.values().find(|schema| is_of(schema, definition))?;
    let version = definition.spec.versions.first()?;
    let schema = version.schema.as_ref()?.open_api_v3_schema.as_ref()?;
    let mut missing = Vec::new();
    for part in ["spec", "status"] {
        if let Some(expected) = schema.properties.as_ref().and_then(|parts| parts.get(part)) {
            let expected = serde_json::to_value(expected).ok()?;
            compare(&expected, &installed["properties"][part], part, &mut missing);
        }
    }
    Some(missing)
}

fn is_of(schema: &Value, definition: &CustomResourceDefinition) -> bool {
    let kinds = schema["x-kubernetes-group-version-kind"].as_array();
    let (group, kind) = (definition.spec.group.as_str(), definition.spec.names.kind.as_str());
    kinds.into_iter().flatten().any(|of| of["group"] == group && of["kind"] == kind)
}

/// Collects the paths of fields that the installed schema lacks, or has with another type.
fn compare(expected: &Value, installed: &Value, path: &str, missing: &mut Vec<String>) {
    let is_other = installed["type"].is_string() && installed["type"] != expected["type"];
    if installed.is_null() || is_other {
        return missing.push(path.to_owned());
    }
    if installed["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    for (name, schema) in expected["properties"].as_object().into_iter().flatten() {
        compare(schema, &installed["properties"][name], &format!("{path}.{name}"), missing);
    }
    for (part, suffix) in [("items", "[]"), ("additionalProperties", ".*")] {
        if expected[part].is_object() {
            compare(&expected[part], &installed[part], &format!("{path}{suffix}"), missing);
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;
    use serde_json::json;

    use super::*;
    use crate::{FlashJob, GROUP};

    /// Fields that are missing where the installed schema is changed like this.
    fn missing(change: impl Fn(&mut Value)) -> Option<Vec<String>> {
        let crd = FlashJob::crd();
        let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref();
        let mut schema = serde_json::to_value(schema.unwrap()).unwrap();
        schema["x-kubernetes-group-version-kind"] =
            json!([{"group": GROUP, "kind": "FlashJob", "version": "v1alpha1"}]);
        change(&mut schema);
        outdated_fields(&json!({"components": {"schemas": {"io.example.FlashJob": schema}}}), &crd)
    }

    #[test]
    fn the_definition_of_this_version_and_one_with_more_fields_lack_nothing() {
        assert_eq!(missing(|_| {}), Some(Vec::new()));
        let later = |schema: &mut Value| {
            schema["properties"]["spec"]["properties"]["later"] = json!({"type": "string"});
        };
        assert_eq!(missing(later), Some(Vec::new()));
        assert_eq!(outdated_fields(&json!({}), &FlashJob::crd()), None, "not installed");
    }

    #[test]
    fn a_field_of_another_type_is_named_too() {
        let other = missing(|schema| {
            schema["properties"]["status"]["properties"]["message"] =
                json!({"type": "array", "items": {"type": "string"}});
        });
        assert_eq!(other.unwrap(), ["status.message"]);
    }

    #[test]
    fn fields_that_the_installed_definition_lacks_are_named_down_to_lists() {
        let old = missing(|schema| {
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
        let expected = ["spec.exposure", "status.devices[].baselineVersion"];
        assert_eq!(old.unwrap(), expected);
    }
}
