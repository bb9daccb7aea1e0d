//! Objects of the cluster in files: YAML or JSON, documents and lists; and objects of the API
//! server in the form for a file.

use std::path::Path;

use flashjob_api::FlashJob;
use kube::CustomResourceExt;
use kube::api::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::definition;
use crate::cluster::{self, Scope};
use crate::decode::decode;
use crate::failure::Failure;

/// Reads the objects of a kind from a file; `-` is standard input.
///
/// # Errors
/// The file cannot be read, or is neither YAML nor JSON.
pub fn of_kind(path: &Path, kind: &str) -> Result<Vec<Value>, Failure> {
    let mut objects = objects(path)?;
    objects.retain(|object| object["kind"] == kind);
    Ok(objects)
}

/// Reads the only object of a kind from a file.
///
/// # Errors
/// Same as [`of_kind`], or the file has no such object or several.
pub fn one(path: &Path, kind: &str) -> Result<Value, Failure> {
    let mut objects = of_kind(path, kind)?;
    match (objects.len(), objects.pop()) {
        (1, Some(object)) => Ok(object),
        (count, _) => {
            let message = format!("{} has {count} {kind}s; expected one", path.display());
            Err(Failure::usage(message))
        }
    }
}

/// Decodes an object of a file as its kind.
///
/// # Errors
/// A field is missing, unknown, of another type, or breaks a rule of the definition.
pub fn decoded<K>(path: &Path, mut object: Value) -> Result<K, Failure>
where
    K: DeserializeOwned + CustomResourceExt,
{
    let kind = object["kind"].as_str().unwrap_or("object").to_owned();
    let refused =
        |why| Failure::usage(format!("{}: the {kind} cannot be read: {why}", path.display()));
    if let Some(fields) = object.as_object_mut() {
        // The type of a kind has neither.
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    if let Some(field) = unknown_field::<K>(&object) {
        let explained = kind.to_lowercase();
        return Err(refused(format!("unknown field {field}; see kubectl explain {explained}")));
    }
    let fault = definition::fault::<K>(&object);
    let decoded: K = decode(object).map_err(refused)?;
    match fault {
        Some(fault) => {
            Err(Failure::usage(format!("{}: the {kind} is not valid: {fault}", path.display())))
        }
        None => Ok(decoded),
    }
}

/// Path of the first field that a kind does not have. The API server refuses it too where
/// `kubectl apply` sends the file.
fn unknown_field<K: DeserializeOwned>(object: &Value) -> Option<String> {
    let mut unknown = None;
    let read: Result<K, _> = serde_ignored::deserialize(object, |path| {
        // serde_ignored writes `?` for an optional level, which no path in the file has.
        unknown.get_or_insert_with(|| path.to_string().replace(".?", ""));
    });
    // Another fault comes first.
    read.ok().and(unknown)
}

/// Returns the namespace of a file, else that of the command line. As with kubectl, a file may not
/// name a namespace other than that of `-n`.
pub fn namespace(
    scope: &Scope,
    written: Option<&str>,
    scope_namespace: String,
) -> Result<String, Failure> {
    let Some(written) = written else { return Ok(scope_namespace) };
    if scope.names_namespace() && written != scope_namespace {
        let message = format!("the file says namespace {written}, and -n says {scope_namespace}");
        return Err(Failure::usage(message));
    }
    cluster::namespace(written).map_err(Failure::usage)
}

/// Returns a FlashJob from a dry run without the fields that the API server sets, so that it can
/// be applied.
pub fn applicable(answered: FlashJob) -> FlashJob {
    FlashJob { metadata: written(answered.metadata), spec: answered.spec, status: None }
}

/// Returns metadata without the fields that the API server sets.
pub fn written(metadata: ObjectMeta) -> ObjectMeta {
    let ObjectMeta { name, namespace, labels, annotations, .. } = metadata;
    ObjectMeta { name, namespace, labels, annotations, ..ObjectMeta::default() }
}

/// Reads all objects of a file: documents, and the items of lists.
fn objects(path: &Path) -> Result<Vec<Value>, Failure> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text(path)?).map_err(|error| {
        Failure::usage(format!("{} is not YAML or JSON: {error}", path.display()))
    })?;
    // Nothing between two `---`, or after the last one, is an empty document.
    let items = documents.into_iter().filter(|document| !document.is_null());
    Ok(items
        .flat_map(|document| match document.get("items").and_then(Value::as_array) {
            Some(items) => items.clone(),
            None => vec![document],
        })
        .collect())
}

fn text(path: &Path) -> Result<String, Failure> {
    let (read, path) = match path == Path::new("-") {
        true => (std::io::read_to_string(std::io::stdin()), Path::new("standard input")),
        false => (std::fs::read_to_string(path), path),
    };
    read.map_err(|error| Failure::unreadable(path, &error))
}

#[cfg(test)]
mod tests {
    use flashjob_api::FlashRollout;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_that_the_definition_refuses_is_refused_by_its_field() {
        let object = json!({
            "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashJob",
            "metadata": {"name": "a"},
            "spec": {"uuid": ["ABC"], "firmware": "registry.example/a:1", "version": "1"},
        });
        let read: Result<FlashJob, _> = decoded(Path::new("a.yaml"), object);
        let message = read.map_err(|failure| failure.message).expect_err("refused");
        let expected = "a.yaml: the FlashJob is not valid: spec.uuid[0]: Invalid value: \"ABC\":";
        assert!(message.starts_with(expected), "{message}");
    }

    #[test]
    fn an_unknown_field_of_a_file_is_refused_by_its_path() {
        let object = |batch: Value| {
            json!({
                "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashRollout",
                "metadata": {"name": "a"},
                "spec": {
                    "firmware": "registry.example/a:1", "version": "1", "selector": {},
                    "batches": [batch],
                },
            })
        };
        let read = |batch| {
            let read: Result<FlashRollout, _> = decoded(Path::new("a.yaml"), object(batch));
            read.map(|rollout| rollout.spec.batches).map_err(|failure| failure.message)
        };
        let batches = read(json!({"name": "first", "size": "5%"})).expect("a FlashRollout");
        assert_eq!(batches.expect("batches")[0].name, "first");
        let refused = read(json!({"name": "first", "soakMinuts": 5})).expect_err("unknown field");
        let expected = "unknown field spec.batches.0.soakMinuts; see kubectl explain flashrollout";
        assert!(refused.contains(expected), "{refused}");
    }
}
