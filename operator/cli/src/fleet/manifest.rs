//! Objects of the cluster in files: YAML or JSON, documents and lists; and objects of the API
//! server in the form for a file.

use std::path::Path;

use flashjob_api::FlashJob;
use kube::api::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

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
/// A field is missing or is of another type.
pub fn decoded<K: DeserializeOwned>(path: &Path, object: Value) -> Result<K, Failure> {
    let kind = object["kind"].as_str().unwrap_or("object").to_owned();
    decode(object).map_err(|error| {
        Failure::usage(format!("{}: the {kind} cannot be read: {error}", path.display()))
    })
}

/// Returns the namespace of a file, else that of the command line. As with kubectl, a file may not
/// name a namespace other than that of `-n`.
pub fn namespace(scope: &Scope, written: Option<&str>, asked: String) -> Result<String, Failure> {
    let Some(written) = written else { return Ok(asked) };
    if scope.names_namespace() && written != asked {
        let message = format!("the file says namespace {written}, and -n says {asked}");
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
        Failure::usage(format!("{} is no YAML or JSON: {error}", path.display()))
    })?;
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
