//! The file of a FlashJob, with the keys and the explicit nulls that users of `kubectl apply`
//! know.

use std::path::Path;

use flashjob_api::FlashJob;
use kube::ResourceExt;
use serde::Serialize;

use crate::failure::Failure;
use crate::report::yaml;
use crate::written::{self, Existing};

/// File to which the dialogue writes the FlashJob.
pub const FILE: &str = "flashjob_operator/config/samples/application_v1alpha1_flashjob.yaml";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: Metadata,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Metadata {
    name: String,
    namespace: Option<String>,
}

/// Spec of the FlashJob, with its fields in alphabetical order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    // Written as null if absent, as the script did. The API server accepts an explicit null,
    // because these fields are `nullable`.
    application_type: &'a Option<String>,
    device: &'a Option<String>,
    #[serde(rename = "externalIP")]
    external_ip: &'a Option<String>,
    firmware: &'a str,
    flashjob_pod_image: &'a Option<String>,
    host_endpoint: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallelism: Option<i32>,
    #[serde(rename = "runID", skip_serializing_if = "Option::is_none")]
    run_id: &'a Option<String>,
    uuid: &'a [String],
    version: &'a str,
}

/// Writes the file, and creates its folders.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, job: &FlashJob) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder).map_err(|error| Failure::unwritable(folder, &error))?;
    }
    written::write(path, text(job)?.as_bytes(), Existing::Replace)
}

fn text(job: &FlashJob) -> Result<String, Failure> {
    let spec = &job.spec;
    yaml(&File {
        api_version: "application.flashjob.nbfc.io/v1alpha1",
        kind: "FlashJob",
        metadata: Metadata { name: job.name_any(), namespace: job.namespace() },
        spec: Spec {
            application_type: &spec.application_type,
            device: &spec.device,
            external_ip: &spec.external_ip,
            firmware: &spec.firmware,
            flashjob_pod_image: &spec.flashjob_pod_image,
            host_endpoint: &spec.host_endpoint,
            parallelism: spec.parallelism,
            run_id: &spec.run_id,
            uuid: &spec.uuid,
            version: &spec.version,
        },
    })
}

#[cfg(test)]
mod tests {
    use flashjob_api::FlashJobSpec;

    use super::*;

    #[test]
    fn the_file_has_the_known_keys_with_nulls_and_reads_back_as_the_same_job() {
        let spec = FlashJobSpec {
            uuid: vec!["1e3".to_owned(), "b".to_owned()],
            firmware: "harbor.nbfc.io/nubificus/esp32:1".to_owned(),
            version: "0.20".to_owned(),
            ..FlashJobSpec::default()
        };
        let mut job = FlashJob::new("flashjob", spec);
        job.metadata.namespace = Some("default".to_owned());
        let text = text(&job).expect("YAML");
        for line in ["externalIP: null", "hostEndpoint: null", "flashjobPodImage: null"] {
            assert!(text.contains(line), "{text}");
        }
        let read: FlashJob = serde_saphyr::from_str(&text).expect("a FlashJob");
        assert_eq!((read.spec, read.metadata.name), (job.spec, job.metadata.name));
    }
}
