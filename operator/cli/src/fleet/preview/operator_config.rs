//! The operator's configuration, from the ConfigMap that its Deployment names.

use std::path::{Path, PathBuf};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, ResourceExt};
use tempfile::TempDir;

use crate::check::of_operator;
use crate::cluster::refused;
use crate::failure::Failure;

/// Name of the configuration file.
const FILE: &str = "config.yaml";

/// Copies of the operator's configuration files.
pub struct Found {
    /// Path of the configuration; files that it names are beside it.
    pub file: PathBuf,
    /// Deleted when this value is dropped.
    _folder: TempDir,
}

/// Result of the search for the configuration.
pub enum Search {
    /// The configuration files.
    Found(Found),
    /// The user may not read it; says what, with the API server's message.
    Denied(String),
    /// It does not exist, or is ambiguous; says what is missing.
    Absent(String),
}

/// Searches for the operator's Deployment, and copies its configuration files.
///
/// # Errors
/// The cluster does not answer, or the files cannot be written.
pub async fn find(client: &Client) -> Result<Search, Failure> {
    let deployments: Api<Deployment> = Api::all(client.clone());
    let deployments = match of_operator(&deployments).await {
        Ok(deployments) => deployments,
        Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
            let words =
                format!("No permission to list the operator's Deployment: {}", status.message);
            return Ok(Search::Denied(words));
        }
        Err(error) => return Err(refused("list Deployments", &error)),
    };
    if deployments.len() > 1 {
        let name = |one: &Deployment| {
            format!("{}/{}", one.namespace().unwrap_or_default(), one.name_any())
        };
        let names: Vec<String> = deployments.iter().map(name).collect();
        return Ok(Search::Absent(format!(
            "It is unknown which operator's configuration applies, as there are several \
             Deployments: {}.",
            names.join(", ")
        )));
    }
    let Some(place) = deployments.first().and_then(mounted) else {
        let words = "No Deployment of the operator was found in the cluster.";
        return Ok(Search::Absent(words.to_owned()));
    };
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &place.namespace);
    let named = format!("ConfigMap {}/{}", place.namespace, place.map);
    match maps.get_opt(&place.map).await {
        Ok(Some(map)) => copy(&map, &place.folder).map(Search::Found),
        Ok(None) => Ok(Search::Absent(format!(
            "{named}, which the operator's Deployment refers to, does not exist."
        ))),
        Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => Ok(Search::Denied(
            format!("No permission to read the operator's configuration: {}", status.message),
        )),
        Err(error) => Err(refused(&format!("read {named}"), &error)),
    }
}

/// ConfigMap with the Deployment's configuration, and the folder where it is mounted.
struct Mounted {
    namespace: String,
    map: String,
    /// Mount path in the Pods.
    folder: String,
}

fn mounted(deployment: &Deployment) -> Option<Mounted> {
    let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
    let volumes = pod.volumes.as_ref()?;
    let (volume, map) = volumes
        .iter()
        .find_map(|volume| Some((&volume.name, volume.config_map.as_ref()?.name.clone())))?;
    let mut mounts =
        pod.containers.iter().flat_map(|container| &container.volume_mounts).flatten();
    let folder = mounts.find(|mount| mount.name == *volume)?.mount_path.clone();
    Some(Mounted { namespace: deployment.namespace()?, map, folder })
}

fn copy(map: &ConfigMap, mounted: &str) -> Result<Found, Failure> {
    let unwritable = |path: &Path, error: &std::io::Error| Failure::unwritable(path, error);
    let folder = tempfile::Builder::new().prefix("flashjob-").tempdir();
    let folder = folder.map_err(|error| unwritable(&std::env::temp_dir(), &error))?;
    for (name, text) in map.data.iter().flatten() {
        // The API server does not allow a slash in keys of a ConfigMap.
        let path = folder.path().join(name);
        let text = match name == FILE {
            // The configuration names files by their paths in the operator's Pod.
            true => text.replace(
                &format!("{}/", mounted.trim_end_matches('/')),
                &format!("{}/", folder.path().display()),
            ),
            false => text.clone(),
        };
        std::fs::write(&path, text).map_err(|error| unwritable(&path, &error))?;
    }
    Ok(Found { file: folder.path().join(FILE), _folder: folder })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::StatusCode;
    use serde_json::json;

    use super::*;
    use crate::fake_api;

    #[tokio::test]
    async fn of_two_operators_neither_configuration_is_taken() {
        let requests = AtomicUsize::new(0);
        let place = fake_api::place(move |_, _, _| {
            // The second request lists what an older version installed.
            let namespace = ["one", "two"].get(requests.fetch_add(1, Ordering::Relaxed))?;
            let list = json!({
                "apiVersion": "apps/v1", "kind": "DeploymentList",
                "metadata": {"resourceVersion": "1"},
                "items": [{
                    "apiVersion": "apps/v1", "kind": "Deployment",
                    "metadata": {"namespace": namespace, "name": "flashjob-operator"},
                }],
            });
            Some((StatusCode::OK, list))
        });
        let Ok(Search::Absent(words)) = find(&place.client).await else { panic!("one is taken") };
        let expected = "several Deployments: one/flashjob-operator, two/flashjob-operator.";
        assert!(words.ends_with(expected), "{words}");
    }
}
