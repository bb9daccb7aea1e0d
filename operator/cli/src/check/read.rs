//! Reads the facts for the checks. A missing right or a missing object is a fact too; only a
//! cluster that does not answer ends the command.

use std::collections::BTreeSet;

use flashjob_api::akri::Instance;
use flashjob_api::schema::published_path;
use flashjob_api::{DevicePlugin, GROUP};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cluster::{refused, unreachable};
use crate::failure::Failure;

/// Label of the operator's Deployment and Pods, whatever the Helm release is named.
pub const OPERATOR: &str = "app.kubernetes.io/part-of=flashjob-operator";
/// Selects what was installed before that label existed.
const OLDER_OPERATOR: &str = "app.kubernetes.io/name=flashjob-operator,!app.kubernetes.io/part-of";
/// Name of the Lease of the replica that acts.
pub const LEASE: &str = "flashjob-operator";

/// Reason why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The user may not read it; with the API server's message.
    Denied(String),
    /// It does not exist.
    Absent,
}

/// Result of a read, or the reason why there is none.
pub type Answer<T> = Result<T, Unread>;

/// Facts about the installation.
pub struct Facts {
    /// Namespace in which the operator was searched for; none for all.
    pub namespace: Option<String>,
    /// Schemas of our API group, as OpenAPI 3.0.
    pub schemas: Answer<Value>,
    /// Kinds of our API group that are served.
    pub served: Answer<Vec<String>>,
    /// The operator's Deployments.
    pub deployments: Answer<Vec<Deployment>>,
    /// The operator's Pods.
    pub pods: Answer<Vec<Pod>>,
    /// Events in the namespaces of the operator.
    pub events: Vec<Event>,
    /// The Lease in each of these namespaces.
    pub leases: Vec<(String, Answer<Lease>)>,
    /// All DevicePlugins.
    pub plugins: Answer<Vec<DevicePlugin>>,
    /// Number of Instances.
    pub instances: Answer<i64>,
    /// All Services of type LoadBalancer.
    pub balanced: Answer<Vec<Service>>,
    /// API groups that are served.
    pub groups: Answer<Vec<String>>,
    /// Time at which the facts were read.
    pub now: Timestamp,
}

/// Reads the facts; searches for the operator in one namespace, or in all.
pub async fn facts(client: &Client, namespace: Option<&str>) -> Result<Facts, Failure> {
    let deployments: Answer<Vec<Deployment>> = answer(of_operator(&api(client, namespace)).await)?;
    let pods: Answer<Vec<Pod>> = answer(of_operator(&api(client, namespace)).await)?;
    let namespaces: BTreeSet<String> = deployments
        .iter()
        .flatten()
        .filter_map(ResourceExt::namespace)
        .chain(pods.iter().flatten().filter_map(ResourceExt::namespace))
        .chain(namespace.map(str::to_owned))
        .collect();
    let (mut events, mut leases) = (Vec::new(), Vec::new());
    for namespace in namespaces {
        let namespace_events: Answer<Vec<Event>> =
            list(&api(client, Some(&namespace)), &ListParams::default()).await?;
        // Events only explain other findings, so a missing right to read them is none.
        events.extend(namespace_events.unwrap_or_default());
        let lease: Api<Lease> = Api::namespaced(client.clone(), &namespace);
        leases.push((namespace, answer(lease.get(LEASE).await)?));
    }
    let services: Answer<Vec<Service>> = list(&api(client, None), &ListParams::default()).await?;
    Ok(Facts {
        namespace: namespace.map(str::to_owned),
        schemas: schemas(client).await?,
        served: served(client).await?,
        deployments,
        pods,
        events,
        leases,
        plugins: list(&Api::all(client.clone()), &ListParams::default()).await?,
        instances: count(client).await?,
        balanced: services.map(|services| services.into_iter().filter(is_balanced).collect()),
        groups: groups(client).await?,
        now: Timestamp::now(),
    })
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Lists the operator's objects of a kind.
pub async fn of_operator<K>(api: &Api<K>) -> kube::Result<Vec<K>>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    let mut objects = api.list(&ListParams::default().labels(OPERATOR)).await?.items;
    // Both are present while an upgrade replaces the Pods.
    objects.extend(api.list(&ListParams::default().labels(OLDER_OPERATOR)).await?.items);
    Ok(objects)
}

async fn list<K>(api: &Api<K>, parameters: &ListParams) -> Result<Answer<Vec<K>>, Failure>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    answer(api.list(parameters).await.map(|list| list.items))
}

/// Counts the Instances. Reads one of them and `remainingItemCount`, as there may be 100,000.
async fn count(client: &Client) -> Result<Answer<i64>, Failure> {
    let instances: Api<Instance> = Api::all(client.clone());
    let first = answer(instances.list_metadata(&ListParams::default().limit(1)).await)?;
    Ok(first.map(|first| {
        // The API server may leave the field out, as it does when nothing remains.
        let rest = first.metadata.remaining_item_count.unwrap_or_default();
        i64::try_from(first.items.len()).unwrap_or(i64::MAX).saturating_add(rest)
    }))
}

async fn schemas(client: &Client) -> Result<Answer<Value>, Failure> {
    // Readable by each authenticated user (ClusterRole `system:discovery`), unlike
    // CustomResourceDefinitions.
    let request = http::Request::get(published_path(GROUP, "v1alpha1")).body(Vec::new());
    let request = request.map_err(|error| unreachable(&error.to_string()))?;
    answer(client.request(request).await)
}

async fn served(client: &Client) -> Result<Answer<Vec<String>>, Failure> {
    let list = client.list_api_group_resources(&format!("{GROUP}/v1alpha1")).await;
    let list = answer(list)?;
    Ok(list.map(|list| list.resources.into_iter().map(|resource| resource.kind).collect()))
}

async fn groups(client: &Client) -> Result<Answer<Vec<String>>, Failure> {
    let groups = answer(client.list_api_groups().await)?;
    Ok(groups.map(|groups| groups.groups.into_iter().map(|group| group.name).collect()))
}

fn is_balanced(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
}

fn answer<T>(answer: kube::Result<T>) -> Result<Answer<T>, Failure> {
    match answer {
        Ok(object) => Ok(Ok(object)),
        Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
            Ok(Err(Unread::Denied(status.message)))
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Err(Unread::Absent)),
        Err(error) => Err(refused("inspect the cluster", &error)),
    }
}
