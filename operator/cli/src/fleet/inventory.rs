//! Devices of a cluster as the operator sees them, and the FlashJobs that hold them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use flashjob_api::FlashJob;
use flashjob_api::akri;
use flashjob_rules::flashjob::observed::Instance;
use flashjob_rules::rollout::Device as Selectable;
use kube::api::ListParams;
use kube::core::error_boundary::DeserializeGuard;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use crate::cluster::refused;
use crate::failure::Failure;

/// Maximum number of objects in one list request.
const PAGE: u32 = 500;

/// A device, as shown in one row.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Uid of the Instance, which a FlashJob names.
    pub uid: String,
    /// Name of the Instance.
    pub name: String,
    /// Namespace of the Instance.
    pub namespace: String,
    /// The device's type, as Akri spells it.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The application that runs on it.
    pub application: Option<String>,
    /// The firmware version that it reports.
    pub version: Option<String>,
    /// Endpoint at which it is reached.
    pub endpoint: Option<String>,
    /// The nodes that see it.
    pub nodes: Vec<String>,
    /// Properties that Akri reports for the device.
    pub properties: BTreeMap<String, String>,
    /// True if a node and a way to reach the device are known.
    pub reachable: bool,
    /// Reason why the Instance cannot be used, if it cannot.
    pub fault: Option<String>,
    /// The FlashJob that is flashing it.
    pub held_by: Option<Holder>,
    /// False if the user may not list the FlashJobs that could hold the device.
    #[serde(skip)]
    pub holder_known: bool,
    /// Uid of another Instance of the same device, listed before this one.
    pub duplicate_of: Option<String>,
    #[serde(skip)]
    identity: String,
}

impl Device {
    /// Returns the device in the form that the rules of a rollout use.
    pub fn selectable(&self) -> Selectable<'_> {
        Selectable {
            uid: &self.uid,
            namespace: &self.namespace,
            name: &self.name,
            identity: &self.identity,
            device_type: self.kind.as_deref(),
            application_type: self.application.as_deref(),
            version: self.version.as_deref(),
            nodes: &self.nodes,
            properties: &self.properties,
            reachable: self.reachable,
        }
    }
}

/// The FlashJob that is flashing a device.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// Namespace of the FlashJob.
    pub namespace: String,
    /// Name of the FlashJob.
    pub job: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
}

impl Device {
    fn of(instance: &Instance) -> Self {
        let traits = instance.traits();
        let text = |text: Option<&str>| text.map(str::to_owned);
        Self {
            uid: instance.uid.clone(),
            name: instance.name.clone(),
            namespace: instance.namespace.clone(),
            kind: text(traits.device_type),
            application: text(traits.application_type),
            version: text(traits.version),
            endpoint: text(instance.endpoint()),
            nodes: instance.nodes.clone(),
            properties: instance
                .properties
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            reachable: instance.reachable(instance.endpoint()),
            fault: instance.fault.as_deref().map(str::to_owned),
            held_by: None,
            holder_known: true,
            duplicate_of: None,
            identity: instance.identity.to_string(),
        }
    }
}

/// Lists the Instances of one namespace, or of all namespaces, page by page. An Instance that
/// cannot be decoded is included, with its fault.
///
/// # Errors
/// The Instances cannot be listed.
pub async fn instances(client: &Client, namespace: Option<&str>) -> kube::Result<Vec<Instance>> {
    let api: Api<DeserializeGuard<akri::Instance>> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut instances = Vec::new();
    // By pages, because a cluster may have 100,000 Instances.
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = api.list(&page).await?;
        instances.extend(list.items.into_iter().map(|item| match item.0 {
            Ok(instance) => Instance::of(&instance),
            // One object that cannot be decoded must not hide all others.
            Err(invalid) => Instance::unreadable(&invalid.metadata, &invalid.error),
        }));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(instances),
        }
    }
}

/// Lists the devices of one namespace, or of all namespaces, sorted by namespace and name.
///
/// # Errors
/// The Instances cannot be listed.
pub async fn devices(client: &Client, namespace: Option<&str>) -> kube::Result<Vec<Device>> {
    let instances = instances(client, namespace).await?;
    let mut devices: Vec<Device> = instances.iter().map(Device::of).collect();
    // Sorted first, so that the same one of two Instances is the duplicate in each call.
    devices
        .sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    // Unshared Configurations on several nodes that see one device make an Instance of it for each
    // node.
    let mut first: HashMap<String, String> = HashMap::new();
    for device in &mut devices {
        match first.get(&device.identity) {
            Some(uid) => device.duplicate_of = Some(uid.clone()),
            None => {
                first.insert(device.identity.clone(), device.uid.clone());
            }
        }
    }
    Ok(devices)
}

/// Records for each device the FlashJob that is flashing it. If the user may not list FlashJobs of
/// all namespaces, lists those of the devices' namespaces, and returns a note about it for the
/// user.
///
/// # Errors
/// The API server does not answer.
pub async fn note_holders(
    client: &Client,
    devices: &mut [Device],
) -> Result<Option<String>, Failure> {
    // The operator's configuration can let FlashJobs of one namespace flash devices of another.
    if let Some(jobs) = jobs(&Api::all(client.clone())).await? {
        note(&jobs, devices);
        return Ok(None);
    }
    let namespaces: BTreeSet<String> = devices.iter().map(|one| one.namespace.clone()).collect();
    let mut denied = Vec::new();
    for namespace in namespaces {
        match jobs(&Api::namespaced(client.clone(), &namespace)).await? {
            Some(jobs) => note(&jobs, devices),
            None => denied.push(namespace),
        }
    }
    for device in devices.iter_mut().filter(|device| device.held_by.is_none()) {
        device.holder_known = !denied.contains(&device.namespace);
    }
    let hidden = match denied.as_slice() {
        [] => "FlashJobs of other namespaces may hold devices too".to_owned(),
        _ => format!("HELD BY is not known in namespace {}", denied.join(", ")),
    };
    Ok(Some(format!(
        "no permission to list FlashJobs of all namespaces: {hidden}; ask whoever administers the \
         cluster for the verb list on flashjobs"
    )))
}

/// Lists the FlashJobs of an API; none if the user may not list them.
async fn jobs(api: &Api<FlashJob>) -> Result<Option<Vec<FlashJob>>, Failure> {
    match api.list(&ListParams::default()).await {
        Ok(jobs) => Ok(Some(jobs.items)),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
        // The kind is not installed, so nothing holds a device.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Some(Vec::new())),
        Err(error) => Err(refused("list FlashJobs", &error)),
    }
}

fn note(jobs: &[FlashJob], devices: &mut [Device]) {
    let mut held: HashMap<&str, Holder> = HashMap::new();
    for job in jobs {
        let records = job.status.iter().flat_map(|status| &status.devices);
        for record in records.filter(|record| record.is_locked()) {
            let namespace = job.namespace().unwrap_or_default();
            let holder = Holder { namespace, job: job.name_any(), attempt: record.attempt };
            held.insert(&record.uid, holder);
        }
    }
    for device in devices {
        if let Some(holder) = held.get(device.uid.as_str()) {
            device.held_by = Some(holder.clone());
        }
    }
}
