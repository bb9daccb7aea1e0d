//! Questions to a plugin, read from files: a request, and the end of a flash Pod. Fields that a
//! file leaves out are taken from an example.

use std::path::{Path, PathBuf};

use clap::Args;
use flashjob_plugin_host::Plugin;
use flashjob_plugin_host::types::{Device, Outcome, Request};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::input::read_file;
use crate::number::number;

/// End of the flash Pod: asks `judge` too.
#[derive(Debug, Args)]
#[command(next_help_heading = "Outcome")]
pub struct OutcomeOptions {
    /// The container's exit code.
    #[arg(long, value_name = "N", value_parser = |text: &str| number(text, i32::MIN..=i32::MAX))]
    exit_code: Option<i32>,
    /// The container's last words.
    #[arg(long, value_name = "TEXT", requires = "exit_code")]
    termination_message: Option<String>,
    /// All of it, in JSON or YAML: exitCode, reason, terminationMessage, attempt, reportedVersion.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["exit_code", "termination_message"])]
    outcome: Option<PathBuf>,
}

impl OutcomeOptions {
    /// Returns the outcome to pass to `judge`; none if `judge` is not called.
    pub fn outcome(&self, request: &Request) -> Result<Option<Outcome>, Failure> {
        let example = |exit_code: i32| Outcome {
            exit_code: Some(exit_code),
            reason: if exit_code == 0 { "Completed".to_owned() } else { "Error".to_owned() },
            termination_message: self.termination_message.clone().unwrap_or_default(),
            attempt: request.attempt,
            reported_version: request.device.reported_version.clone(),
        };
        match (&self.outcome, self.exit_code) {
            (Some(file), _) => completed(file, &json!(example(0))).map(Some),
            (None, exit_code) => Ok(exit_code.map(example)),
        }
    }
}

/// Reads the request in a file.
pub fn request(file: &Path, plugin: &Plugin) -> Result<Request, Failure> {
    let kind = plugin.info().device_types.first();
    completed(file, &json!(example(kind.map_or("example", |types| types.first().as_ref()))))
}

/// Returns an example of a request, as the operator makes it for a device of this type.
pub fn example(device_type: &str) -> Request {
    let properties = [
        ("APPLICATION_TYPE", "example"),
        ("DEVICE", device_type),
        ("HOST_ENDPOINT", "192.0.2.10:80"),
        ("VERSION", "0.1.0"),
    ];
    Request {
        namespace: "default".to_owned(),
        job: "example".to_owned(),
        device: Device {
            uid: "00000000-0000-4000-8000-000000000001".to_owned(),
            name: format!("akri-{device_type}-000001"),
            endpoint: Some("192.0.2.10:80".to_owned()),
            device_type: device_type.to_owned(),
            application_type: Some("example".to_owned()),
            reported_version: Some("0.1.0".to_owned()),
            nodes: vec!["node-1".to_owned()],
            properties: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        },
        firmware: "registry.example/firmware:0.2.0".to_owned(),
        version: "0.2.0".to_owned(),
        image: None,
        settings: "{}".to_owned(),
        attempt: 1,
    }
}

/// Reads a file of YAML or JSON.
pub fn read(file: &Path) -> Result<Value, Failure> {
    serde_saphyr::from_str(&read_file(file)?)
        .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))
}

fn completed<T: DeserializeOwned>(file: &Path, example: &Value) -> Result<T, Failure> {
    let mut document = read(file)?;
    // Settings are one JSON object in a string; a file may have the object itself, which is easier
    // to write.
    if let Some(settings) = document.get_mut("settings").filter(|settings| settings.is_object()) {
        *settings = json!(settings.to_string());
    }
    if let Some(unknown) = unknown(&document, example, "") {
        return Err(Failure::usage(format!(
            "{}: there is no field {unknown}; see the fields with -o json",
            file.display()
        )));
    }
    let mut whole = example.clone();
    merge(&mut whole, document);
    serde_json::from_value(whole)
        .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))
}

/// Returns the path of the first field that the example does not have.
fn unknown(document: &Value, example: &Value, path: &str) -> Option<String> {
    let (Value::Object(document), Value::Object(example)) = (document, example) else {
        return None;
    };
    document.iter().find_map(|(name, value)| {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        example
            .get(name)
            .map_or_else(|| Some(path.clone()), |example| unknown(value, example, &path))
    })
}

/// Merges values into an example. Unlike in a merge patch, null stays: it means that there is no
/// value.
fn merge(whole: &mut Value, patch: Value) {
    match (whole, patch) {
        (Value::Object(whole), Value::Object(patch)) => {
            for (name, value) in patch {
                merge(whole.entry(name).or_insert(Value::Null), value);
            }
        }
        (whole, patch) => *whole = patch,
    }
}
