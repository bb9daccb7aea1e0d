//! Input of a preview: the FlashJob, Akri's Instances, and the FlashJobs that may hold their
//! devices.

use std::path::Path;

use flashjob_api::{FINALIZER, FlashJob, akri};
use flashjob_rules::flashjob::observed::Instance;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::Value;

use super::options::Preview;
use crate::cluster::{Place, refused};
use crate::decode::decode;
use crate::failure::Failure;
use crate::fleet::{devices, inventory, manifest};

/// Placeholder for the uid that the API server gives a FlashJob.
const JOB_UID: &str = "00000000-0000-4000-8000-000000000000";

/// Objects that a preview uses.
pub struct Subject {
    /// The FlashJob, as if it started now.
    pub job: FlashJob,
    /// The devices.
    pub instances: Vec<Instance>,
    /// Other FlashJobs of the cluster.
    pub other_jobs: Vec<FlashJob>,
    /// Differences from the operator, as notes for the user.
    pub notes: Vec<String>,
}

/// Reads the input from files or from the cluster.
///
/// # Errors
/// An object is missing or cannot be read.
pub async fn read(command: &Preview, place: Option<&Place>) -> Result<Subject, Failure> {
    let mut notes = Vec::new();
    let mut job = match (&command.file, place) {
        (Some(file), place) => {
            let mut job: FlashJob = manifest::decoded(file, manifest::one(file, "FlashJob")?)?;
            // Before a plugin is fetched and started, which takes much longer.
            let valid = job.spec.check_external_ip().and_then(|()| job.spec.effective());
            valid.map_err(|error| manifest::invalid::<FlashJob>(file, &error.to_string()))?;
            if job.metadata.uid.is_none() {
                job.metadata.uid = Some(JOB_UID.to_owned());
                notes.push(
                    "The FlashJob has no uid yet: names of objects, and values derived from them, \
                     will be different."
                        .to_owned(),
                );
            }
            let namespace = place.map_or("default", |place| &place.namespace);
            job.metadata.namespace.get_or_insert_with(|| namespace.to_owned());
            job
        }
        (None, Some(place)) => {
            let name = command.name.as_deref().unwrap_or_default();
            place.read(name).await?
        }
        (None, None) => return Err(Failure::usage("name a FlashJob, or a file with --file")),
    };
    let other_jobs = match place {
        Some(place) => other_jobs(place, &job, &mut notes).await?,
        None => Vec::new(),
    };
    begin(&mut job, &command.uid)?;
    let instances = match (&command.instances, place) {
        (Some(file), _) => instances_of(file)?,
        (None, Some(place)) => instances(place, &job, &mut notes).await?,
        (None, None) => Vec::new(),
    };
    Ok(Subject { job, instances, other_jobs, notes })
}

/// Resets a FlashJob as if it started now, with these devices only.
fn begin(job: &mut FlashJob, uids: &[String]) -> Result<(), Failure> {
    job.status = None;
    // A paused FlashJob would show nothing but that it is paused.
    job.spec.suspend = None;
    job.metadata.deletion_timestamp = None;
    job.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    job.metadata.generation.get_or_insert(1);
    job.metadata.resource_version = Some("1".to_owned());
    if uids.is_empty() {
        return Ok(());
    }
    let is_asked = |uid: &String, prefix: &String| devices::begins(uid, prefix);
    let unknown =
        uids.iter().find(|prefix| !job.spec.uuid.iter().any(|uid| is_asked(uid, prefix)));
    if let Some(unknown) = unknown {
        return Err(Failure::usage(format!(
            "FlashJob {} names no uid that begins with {unknown}",
            job.name_any()
        )));
    }
    job.spec.uuid.retain(|uid| uids.iter().any(|prefix| is_asked(uid, prefix)));
    Ok(())
}

async fn other_jobs(
    place: &Place,
    job: &FlashJob,
    notes: &mut Vec<String>,
) -> Result<Vec<FlashJob>, Failure> {
    let all: Api<FlashJob> = Api::all(place.client.clone());
    match all.list(&ListParams::default()).await {
        Ok(jobs) => {
            let other = |other: &FlashJob| {
                other.name_any() != job.name_any() || other.namespace() != job.namespace()
            };
            Ok(jobs.items.into_iter().filter(other).collect())
        }
        Err(kube::Error::Api(status)) if status.code == 403 => {
            notes.push(
                "No permission to list all FlashJobs: other FlashJobs may hold devices."
                    .to_owned(),
            );
            Ok(Vec::new())
        }
        Err(error) => Err(refused("list FlashJobs", &error)),
    }
}

async fn instances(
    place: &Place,
    job: &FlashJob,
    notes: &mut Vec<String>,
) -> Result<Vec<Instance>, Failure> {
    let all = inventory::instances(&place.client, None).await;
    let listed = match all {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            let namespace = job.namespace().unwrap_or_default();
            notes.push(format!(
                "No permission to list Instances of all namespaces: only those of {namespace} are \
                 used."
            ));
            inventory::instances(&place.client, Some(&namespace)).await
        }
        all => all,
    };
    listed.map_err(|error| refused("list Akri's Instances", &error))
}

fn instances_of(path: &Path) -> Result<Vec<Instance>, Failure> {
    let objects = manifest::of_kind(path, "Instance")?.into_iter();
    let file = manifest::source_name(path).display();
    let read = |object: Value| {
        let mut instance: akri::Instance = decode(object).map_err(|error| {
            Failure::usage(format!("{file}: an Instance cannot be read: {error}"))
        })?;
        instance.metadata.namespace.get_or_insert_with(|| "default".to_owned());
        Ok::<_, Failure>(Instance::of(&instance))
    };
    let instances: Vec<Instance> = objects.map(read).collect::<Result<_, Failure>>()?;
    if instances.is_empty() {
        return Err(Failure::usage(format!("{file} has no Akri Instance")));
    }
    Ok(instances)
}
