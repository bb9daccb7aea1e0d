//! Rules of a CustomResourceDefinition for single fields: patterns, lengths, ranges, and numbers of
//! entries; and those for the version and the metadata of an object. Pure.
//!
//! The API server checks them before it stores an object, and a preview of a file when there is no
//! API server. Types and unknown fields are errors of [`super::manifest`].

use std::collections::HashMap;

use flashjob_api::is_visible;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::{CustomResourceExt, Resource};
use regex::Regex;
use serde_json::Value;

use crate::cluster;

/// Patterns that are compiled already; None for one that only the API server can read. The uids of
/// a FlashJob are up to 4096 texts with the same pattern.
type Patterns<'a> = HashMap<&'a str, Option<Regex>>;

/// Path of a field, and the rule that it breaks.
type Fault = (String, String);

/// Length limit for the name of a FlashJob or FlashRollout, which is the value of a label.
const LONGEST_NAME: usize = 63;

/// Length limit for a `generateName`. The API server cuts it so that the name has at most 63
/// characters with those that it appends.
const LONGEST_PREFIX: usize = 253;

/// Returns the fault of an object's `apiVersion`; None if it is that of the kind.
pub fn version_fault<K: Resource<DynamicType = ()>>(object: &Value) -> Option<String> {
    let expected = K::api_version(&());
    match object["apiVersion"].as_str() {
        Some(version) if version == expected => None,
        Some(version) => Some(format!("apiVersion: it is {version:?}; write {expected}")),
        None => Some(format!("apiVersion: the field is missing; write {expected}")),
    }
}

/// Returns the first fault of an object's name or namespace; None if it has none.
pub fn metadata_fault(object: &Value) -> Option<String> {
    let text = |field: &str| object["metadata"][field].as_str().filter(|text| !text.is_empty());
    if let Some(Err(fault)) = text("namespace").map(cluster::namespace) {
        return Some(format!("metadata.namespace: {fault}"));
    }
    let (field, name, longest, example) = match (text("name"), text("generateName")) {
        (Some(name), _) => ("name", name, LONGEST_NAME, "hall-3"),
        (None, Some(prefix)) => ("generateName", prefix, LONGEST_PREFIX, "hall-"),
        (None, None) => {
            return Some("metadata.name: the field is missing; give a name such as hall-3".into());
        }
    };
    // The API server appends letters and digits to a prefix, which may therefore end with a dash.
    // A dot is refused: the check of the prefix itself excepts only the dash.
    let is_prefix = field == "generateName" && !name.ends_with('.');
    let whole = if is_prefix { format!("{name}x") } else { name.to_owned() };
    let is_valid = name.len() <= longest && whole.split('.').all(is_part);
    (!is_valid).then(|| {
        format!(
            "metadata.{field}: {name:?} is not a valid name; expected up to {longest} lower-case \
             letters, digits, dashes and dots, such as {example}"
        )
    })
}

/// Returns true for the characters of a label of RFC 1123, which Kubernetes demands of each part
/// between dots of a name. Unlike a label, a part may have more than 63 characters.
fn is_part(text: &str) -> bool {
    let is_inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (first, last) = (text.as_bytes().first(), text.as_bytes().last());
    first.is_some_and(is_inner)
        && last.is_some_and(is_inner)
        && text.bytes().all(|byte| is_inner(&byte) || byte == b'-')
}

/// Returns the first fault of an object's `spec` in the words of the API server; None if it has
/// none.
pub fn fault<K: CustomResourceExt>(object: &Value) -> Option<String> {
    let definition = K::crd();
    let version = definition.spec.versions.first()?;
    let schema = version.schema.as_ref()?.open_api_v3_schema.as_ref()?;
    let spec = schema.properties.as_ref()?.get("spec")?;
    let (path, rule) = fault_of(spec, object.get("spec")?, "spec", &mut Patterns::new())?;
    let kind = definition.spec.names.kind.to_lowercase();
    // The path of the field in the definition has no indexes.
    let field: String = path.split(['[', ']']).step_by(2).collect();
    Some(format!("{path}: {rule}; see kubectl explain {kind}.{field}"))
}

fn fault_of<'a>(
    schema: &'a JSONSchemaProps,
    value: &Value,
    path: &str,
    patterns: &mut Patterns<'a>,
) -> Option<Fault> {
    let rule = match value {
        Value::String(text) => broken_by_text(schema, text, path, patterns),
        Value::Number(number) => {
            let invalid =
                |rule: String| format!("Invalid value: {number}: {path} in body should be {rule}");
            broken_by_number(schema, number.as_f64()).map(invalid)
        }
        Value::Array(items) => broken_by_list(schema, items.len(), path),
        Value::Object(fields) => too_many(fields.len(), schema.max_properties),
        Value::Bool(_) | Value::Null => None,
    };
    if let Some(rule) = rule {
        return Some((path.to_owned(), rule));
    }
    match (value, &schema.items) {
        (Value::Array(items), Some(JSONSchemaPropsOrArray::Schema(schema))) => {
            items.iter().enumerate().find_map(|(index, item)| {
                fault_of(schema, item, &format!("{path}[{index}]"), patterns)
            })
        }
        (Value::Object(fields), _) => fields.iter().find_map(|(name, value)| {
            fault_of(schema_of(schema, name)?, value, &format!("{path}.{name}"), patterns)
        }),
        _ => None,
    }
}

/// Returns the schema of a field; None if the definition says nothing about it.
fn schema_of<'a>(schema: &'a JSONSchemaProps, name: &str) -> Option<&'a JSONSchemaProps> {
    let property = schema.properties.as_ref().and_then(|properties| properties.get(name));
    property.or(match &schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(schema)) => Some(schema),
        _ => None,
    })
}

fn broken_by_text<'a>(
    schema: &'a JSONSchemaProps,
    text: &str,
    path: &str,
    patterns: &mut Patterns<'a>,
) -> Option<String> {
    let length = text.chars().count();
    if let Some(least) = schema.min_length.filter(|least| is_below(length, *least)) {
        let rule = format!("{path} in body should be at least {least} chars long");
        return Some(format!("Invalid value: {text:?}: {rule}"));
    }
    if let Some(most) = schema.max_length.filter(|most| is_above(length, *most)) {
        return Some(format!("Too long: may not be more than {most} characters"));
    }
    let pattern = schema.pattern.as_deref()?;
    let compiled = patterns.entry(pattern).or_insert_with(|| Regex::new(pattern).ok());
    let is_broken = compiled.as_ref().is_some_and(|compiled| !compiled.is_match(text));
    is_broken.then(|| {
        let rule = format!("Invalid value: {text:?}: {path} in body should match '{pattern}'");
        // Nobody sees which character it is, and `{:?}` does not escape all of them.
        match text.chars().find(|letter| !is_visible(*letter)) {
            Some(hidden) => format!("{rule}; it contains U+{:04X}", u32::from(hidden)),
            None => rule,
        }
    })
}

fn broken_by_number(schema: &JSONSchemaProps, number: Option<f64>) -> Option<String> {
    let number = number?;
    let least = schema.minimum.filter(|least| number < *least);
    let most = schema.maximum.filter(|most| number > *most);
    least
        .map(|least| format!("greater than or equal to {least}"))
        .or_else(|| most.map(|most| format!("less than or equal to {most}")))
}

fn broken_by_list(schema: &JSONSchemaProps, count: usize, path: &str) -> Option<String> {
    match schema.min_items.filter(|least| is_below(count, *least)) {
        Some(least) => Some(format!(
            "Invalid value: {count}: {path} in body should have at least {least} items"
        )),
        None => too_many(count, schema.max_items),
    }
}

fn too_many(count: usize, most: Option<i64>) -> Option<String> {
    let most = most.filter(|most| is_above(count, *most))?;
    Some(format!("Too many: {count}: must have at most {most} items"))
}

fn is_below(count: usize, least: i64) -> bool {
    i64::try_from(count).is_ok_and(|count| count < least)
}

fn is_above(count: usize, most: i64) -> bool {
    i64::try_from(count).is_ok_and(|count| count > most)
}

#[cfg(test)]
mod tests {
    use flashjob_api::{FlashJob, FlashRollout};
    use serde_json::json;

    use super::*;

    /// Returns the fault of a FlashJob with this value of a field.
    fn of_job(field: &str, value: Value) -> String {
        let mut job = json!({"spec": {"uuid": ["a"], "firmware": "r.io/f:1", "version": "1"}});
        job["spec"][field] = value;
        fault::<FlashJob>(&job).unwrap_or_default()
    }

    #[test]
    fn what_the_definition_refuses_is_refused_in_the_words_of_the_api_server() {
        let uid = "3F0C8E1A-44d2-4b7e-9a51-0c6d1e2f3a4b";
        assert_eq!(
            of_job("uuid", json!(["a", uid])),
            format!(
                "spec.uuid[1]: Invalid value: \"{uid}\": spec.uuid[1] in body should match \
                 '^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$'; see kubectl explain flashjob.spec.uuid"
            )
        );
        let tolerations = json!({"tolerations": [{"operator": "Maybe"}]});
        let many: Vec<String> = (0..4097).map(|index| format!("uid-{index}")).collect();
        for (field, value, expected) in [
            ("uuid", json!([]), "spec.uuid: Invalid value: 0: spec.uuid in body should have at l"),
            ("uuid", json!([""]), "spec.uuid[0]: Invalid value: \"\": spec.uuid[0] in body shou"),
            ("uuid", json!(many), "spec.uuid: Too many: 4097: must have at most 4096 items; see"),
            ("version", json!("x".repeat(257)), "spec.version: Too long: may not be more than"),
            ("firmware", json!("a b"), "spec.firmware: Invalid value: \"a b\": spec.firmware in"),
            ("hostEndpoint", json!(" a:1"), "spec.hostEndpoint: Invalid value: \" a:1\": spec."),
            ("exposure", json!("Shared"), "spec.exposure: Invalid value: \"Shared\": spec.expo"),
            ("parallelism", json!(501), "spec.parallelism: Invalid value: 501: spec.parallelism"),
            ("podOverrides", tolerations, "spec.podOverrides.tolerations[0].operator: Invalid"),
        ] {
            let fault = of_job(field, value);
            assert!(fault.starts_with(expected), "{fault}");
        }
        let hidden = of_job("version", json!("1\u{3164}"));
        let expected = "]+$'; it contains U+3164; see kubectl explain flashjob.spec.version";
        assert!(hidden.ends_with(expected), "{hidden}");
        let rollout = json!({"spec": {"batches": [{"name": "Canary", "size": 0}]}});
        let fault = fault::<FlashRollout>(&rollout).unwrap_or_default();
        assert!(fault.ends_with("see kubectl explain flashrollout.spec.batches.name"), "{fault}");
    }

    #[test]
    fn the_samples_and_fields_that_are_null_break_no_rule() {
        for sample in [
            include_str!("../../../../deploy/samples/flashjob.yaml"),
            include_str!("../../../../deploy/samples/flashjob-serial.yaml"),
            include_str!("../../../../deploy/samples/flashjob-every-field.yaml"),
        ] {
            let sample: Value = serde_saphyr::from_str(sample).expect("YAML");
            assert_eq!(fault::<FlashJob>(&sample), None);
        }
        let sample = include_str!("../../../../deploy/samples/flashrollout.yaml");
        let sample: Value = serde_saphyr::from_str(sample).expect("YAML");
        assert_eq!(fault::<FlashRollout>(&sample), None);
        for field in ["hostEndpoint", "parallelism", "settings", "podOverrides"] {
            assert_eq!(of_job(field, Value::Null), "");
        }
    }

    #[test]
    fn the_version_and_the_name_of_an_object_are_those_that_the_api_server_accepts() {
        let version = |version: Value| version_fault::<FlashJob>(&json!({"apiVersion": version}));
        assert_eq!(version(json!("application.flashjob.nbfc.io/v1alpha1")), None);
        let expected = "apiVersion: it is \"v1\"; write application.flashjob.nbfc.io/v1alpha1";
        assert_eq!(version(json!("v1")).as_deref(), Some(expected));
        let missing = version(Value::Null).unwrap_or_default();
        assert!(missing.starts_with("apiVersion: the field is missing; write app"), "{missing}");
        let of = |metadata: Value| metadata_fault(&json!({"metadata": metadata}));
        for metadata in [
            json!({"name": "hall-3"}),
            json!({"name": "hall.3", "namespace": "fleet"}),
            json!({"generateName": "hall-"}),
            json!({"generateName": format!("{}-", "x".repeat(63))}),
            json!({"name": "x".repeat(63), "namespace": null}),
        ] {
            assert_eq!(of(metadata.clone()), None, "{metadata}");
        }
        for (metadata, expected) in [
            (json!({}), "metadata.name: the field is missing; give a name"),
            (json!({"name": ""}), "metadata.name: the field is missing; give a name"),
            (json!({"name": "Hall_3"}), "metadata.name: \"Hall_3\" is not a valid name; expected"),
            (json!({"name": "hall..3"}), "metadata.name: \"hall..3\" is not a valid name"),
            (json!({"name": "x".repeat(64)}), "metadata.name: \"xxxx"),
            (json!({"generateName": "Hall-"}), "metadata.generateName: \"Hall-\" is not a val"),
            (json!({"generateName": "hall."}), "metadata.generateName: \"hall.\" is not a val"),
            (json!({"generateName": "-"}), "metadata.generateName: \"-\" is not a valid name"),
            (
                json!({"name": "a", "namespace": "a/b"}),
                "metadata.namespace: \"a/b\" is not a valid",
            ),
        ] {
            let fault = of(metadata).unwrap_or_default();
            assert!(fault.starts_with(expected), "{fault}");
        }
    }

    /// Returns the patterns of a schema and of all schemas in it.
    fn patterns(schema: &Value) -> Vec<&str> {
        let below: Vec<&str> = match schema {
            Value::Object(fields) => fields.values().flat_map(patterns).collect(),
            Value::Array(items) => items.iter().flat_map(patterns).collect(),
            _ => Vec::new(),
        };
        schema["pattern"].as_str().into_iter().chain(below).collect()
    }

    #[test]
    fn each_pattern_of_the_definitions_can_be_checked_here() {
        for definition in [FlashJob::crd(), FlashRollout::crd()] {
            let definition = serde_json::to_value(definition).expect("a definition");
            let patterns = patterns(&definition["spec"]["versions"][0]["schema"]);
            assert!(patterns.len() > 10, "{patterns:?}");
            for pattern in patterns {
                assert!(Regex::new(pattern).is_ok(), "{pattern}");
            }
        }
    }
}
