//! Objects of the cluster in files: YAML or JSON, documents and lists; and objects of the API
//! server in the form for a file.

use std::collections::BTreeSet;
use std::path::Path;

use flashjob_api::FlashJob;
use kube::api::ObjectMeta;
use kube::{CustomResourceExt, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::definition;
use crate::cluster::{self, Scope};
use crate::decode::decode;
use crate::failure::Failure;
use crate::input::{read_file, read_source};

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
    let (mut objects, others): (Vec<Value>, Vec<Value>) =
        objects(path)?.into_iter().partition(|object| object["kind"] == kind);
    let file = source_name(path).display();
    match (objects.len(), objects.pop()) {
        (1, Some(object)) => Ok(object),
        (0, _) => {
            let kinds = others.iter().map(|object| object["kind"].as_str().unwrap_or("(missing)"));
            let kinds: BTreeSet<&str> = kinds.collect();
            let kinds: Vec<&str> = kinds.into_iter().collect();
            let found = match kinds.as_slice() {
                [] => "it has no object".to_owned(),
                kinds => format!("kind is {}", kinds.join(", ")),
            };
            Err(Failure::usage(format!("{file} has no {kind}: {found}; write kind: {kind}")))
        }
        (count, _) => Err(Failure::usage(format!("{file} has {count} {kind}s; expected one"))),
    }
}

/// Decodes an object of a file as its kind.
///
/// # Errors
/// The version is another one, or a field is missing, unknown, of another type, or breaks a rule
/// of the API server.
pub fn decoded<K>(path: &Path, mut object: Value) -> Result<K, Failure>
where
    K: DeserializeOwned + CustomResourceExt + Resource<DynamicType = ()>,
{
    let kind = K::kind(&());
    let file = source_name(path).display();
    let refused = |why| Failure::usage(format!("{file}: the {kind} cannot be read: {why}"));
    // Another version has other fields.
    if let Some(fault) = definition::version_fault::<K>(&object) {
        return Err(invalid::<K>(path, &fault));
    }
    if let Some(fields) = object.as_object_mut() {
        // The type of a kind has neither.
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    if let Some(field) = unknown_field::<K>(&object) {
        let explained = kind.to_lowercase();
        return Err(refused(format!("unknown field {field}; see kubectl explain {explained}")));
    }
    let fault = definition::metadata_fault(&object).or_else(|| definition::fault::<K>(&object));
    let decoded: K = decode(object).map_err(refused)?;
    fault.map_or(Ok(decoded), |fault| Err(invalid::<K>(path, &fault)))
}

/// Returns the failure for an object of a file that the API server or the operator would refuse.
pub fn invalid<K: Resource<DynamicType = ()>>(path: &Path, fault: &str) -> Failure {
    let file = source_name(path).display();
    Failure::usage(format!("{file}: the {} is not valid: {fault}", K::kind(&())))
}

/// Returns the name of a file for messages.
pub fn source_name(path: &Path) -> &Path {
    if is_standard_input(path) { Path::new("standard input") } else { path }
}

fn is_standard_input(path: &Path) -> bool {
    path == Path::new("-")
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
        Failure::usage(format!("{} is not YAML or JSON: {error}", source_name(path).display()))
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
    match is_standard_input(path) {
        true => read_source(source_name(path), std::io::stdin()),
        false => read_file(path),
    }
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
    fn a_fault_of_standard_input_does_not_name_a_dash() {
        let read: Result<FlashJob, _> = decoded(Path::new("-"), json!({"kind": "FlashJob"}));
        let message = read.map_err(|failure| failure.message).expect_err("refused");
        assert!(message.starts_with("standard input: the FlashJob is not valid: "), "{message}");
    }

    #[test]
    fn what_is_no_flashjob_of_this_version_is_told_with_what_to_write() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("job.yaml");
        let refusal = |text: &str| {
            std::fs::write(&file, text).expect("a file");
            let read =
                one(&file, "FlashJob").and_then(|object| decoded::<FlashJob>(&file, object));
            let message = read.map_err(|failure| failure.message).expect_err(text);
            message.replace(&file.display().to_string(), "job.yaml")
        };
        let spec = "spec: {uuid: [a], firmware: 'r.io/f:1', version: '1'}";
        let version = "application.flashjob.nbfc.io/v1alpha1";
        let named_so =
            format!("kind: FlashJob\napiVersion: {version}\nmetadata: {{name: A}}\n{spec}");
        for (text, expected) in [
            ("", "job.yaml has no FlashJob: it has no object; write kind: FlashJob"),
            (
                "kind: Flashjob\n---\nmetadata: {}\n",
                "job.yaml has no FlashJob: kind is (missing), Flashjob; write kind: FlashJob",
            ),
            (
                "kind: FlashJob\napiVersion: v1\nmetadata: {name: a}\nunknown: 1",
                "job.yaml: the FlashJob is not valid: apiVersion: it is \"v1\"; write application",
            ),
            (
                named_so.as_str(),
                "job.yaml: the FlashJob is not valid: metadata.name: \"A\" is not a valid name;",
            ),
        ] {
            let message = refusal(text);
            assert!(message.starts_with(expected), "{message}");
        }
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
