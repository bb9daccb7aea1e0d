//! Watches FlashJobs, FlashRollouts, Instances, flash Pods and flash Services, trims each object
//! to the part that the caches keep, and sends it to the loop. No other code lists all objects of
//! these kinds.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use flashjob_api::akri;
use flashjob_api::{FlashJob, FlashRollout};
use flashjob_rules::flashjob::observed::{Instance, Job, Pod, Service};
use flashjob_rules::world::change::{Change, Kind, Object};
use flashjob_rules::world::rollouts::CachedRollout;
use futures::{Stream, StreamExt};
use hashbrown::HashSet;
use k8s_openapi::api::core::v1 as core;
use kube::api::ObjectMeta;
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event};
use kube::{Api, Client, Resource};
use tokio::task::JoinSet;

use crate::cluster::read::{Guarded, Readable, UnreadableObject};
use crate::operator::Operator;
use crate::telemetry::health::problem::{self, ProblemSource, of_watch};

/// Labels of flash Pods and flash Services, of this operator and of the Go operator alike.
const FLASH_LABELS: &str = "app,uuid";
/// Longest backoff before a failed watch is reopened: without its watches the operator knows
/// nothing of the cluster, so it is to recover soon after an outage of the API server.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The default exponential backoff with jitter, with a lower maximum.
#[derive(Default)]
pub(crate) struct Pauses(DefaultBackoff);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(LONGEST_PAUSE))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// The watches of a cluster, or of one namespace.
pub struct Watches {
    client: Client,
    namespace: Option<String>,
    running: JoinSet<()>,
}

impl Watches {
    /// Returns the watches without starting them.
    #[must_use]
    pub fn new(client: Client, namespace: Option<String>) -> Self {
        Self { client, namespace, running: JoinSet::new() }
    }

    /// Stops all running watches.
    pub async fn stop(&mut self) {
        self.running.shutdown().await;
    }

    /// Starts all watches: each begins with a new list of the current state, and reports when its
    /// list is complete. The caches are kept, and corrected.
    pub fn start(&mut self, operator: &Arc<Operator>) {
        let default_config = watcher::Config::default;
        // The API server filters, so that the many other Pods and Services of a cluster cost
        // neither traffic nor memory here.
        let labelled = || watcher::Config::default().labels(FLASH_LABELS);
        self.spawn::<FlashJob>(default_config(), operator, Kind::Job);
        self.spawn::<FlashRollout>(default_config(), operator, Kind::Rollout);
        self.spawn::<akri::Instance>(default_config(), operator, Kind::Instance);
        self.spawn::<core::Pod>(labelled(), operator, Kind::Pod);
        self.spawn::<core::Service>(labelled(), operator, Kind::Service);
    }

    fn spawn<K>(&mut self, config: watcher::Config, operator: &Arc<Operator>, kind: Kind)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Trim
            + Readable
            + Clone
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let api: Api<Guarded<K>> = match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let tasks = operator.tasks.clone();
        let operator = operator.clone();
        let events = watcher::watcher(api, config).backoff(Pauses::default());
        let watch = async move { follow(events, &operator, kind).await };
        self.running.spawn(tasks.guarded(format!("watch of {}", resource(kind)), watch));
    }
}

async fn follow<K: Trim + Resource<DynamicType = ()>>(
    events: impl Stream<Item = watcher::Result<Event<Guarded<K>>>>,
    operator: &Operator,
    kind: Kind,
) {
    let mut events = std::pin::pin!(events);
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            // A list that failed between two pages begins again; what it had delivered must not
            // count.
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                // Also for an object that cannot be decoded: it exists, and must not be taken for
                // deleted.
                listed.insert(metadata(&object).uid.clone().unwrap_or_default());
                tell(operator, object);
            }
            Ok(Event::InitDone) => {
                // What is not in the list was deleted while no watch was open: no event reports
                // that.
                operator.tell(Change::Listed { kind, uids: std::mem::take(&mut listed) });
            }
            Ok(Event::Apply(object)) => tell(operator, object),
            // A watch with a selector also reports an object as deleted whose labels no longer
            // match. So a Pod is looked up before its device is unlocked.
            Ok(Event::Delete(object)) => {
                let uid = metadata(&object).uid.clone().unwrap_or_default();
                if let Some(last) = trim(object) {
                    operator.tell(Change::Deleted { last, uid });
                }
            }
            Err(error) => {
                let resource = resource(kind);
                // Only at debug level: a problem that lasts is logged by its report, with what to
                // do.
                tracing::debug!(%resource, %error, "watch failed; reconnecting");
                if let Some(problem) = of_watch(&error, resource, &operator.installation) {
                    operator.reports.fails(ProblemSource::Watch(resource), problem);
                }
            }
        }
    }
}

fn metadata<K: Resource>(object: &Guarded<K>) -> &ObjectMeta {
    match &object.0 {
        Ok(object) => object.meta(),
        Err(invalid) => &invalid.metadata,
    }
}

/// Reduction of an object to the part that the caches keep.
pub(crate) trait Trim: Sized {
    /// Returns the part to keep; None if the object is not ours.
    fn trim(self) -> Option<Object>;

    /// Returns the part to keep of an object that cannot be decoded, so that its error can be
    /// reported; None if nothing is kept.
    fn unreadable(_: UnreadableObject) -> Option<Object> {
        None
    }
}

/// Returns true if the watches of Pods and Services select an object with these labels.
pub(crate) fn is_selected(metadata: &ObjectMeta) -> bool {
    let labels = metadata.labels.as_ref();
    let has_label = |name: &str| labels.is_some_and(|labels| labels.contains_key(name));
    FLASH_LABELS.split(',').all(has_label)
}

impl Trim for FlashJob {
    fn trim(self) -> Option<Object> {
        Some(Object::Job(Box::new(Job::of(self))))
    }

    fn unreadable(object: UnreadableObject) -> Option<Object> {
        let status = object.status();
        Some(Object::Job(Box::new(Job::unreadable(object.metadata, status, object.error))))
    }
}

impl Trim for FlashRollout {
    fn trim(self) -> Option<Object> {
        Some(Object::Rollout(Box::new(CachedRollout::of(self))))
    }

    fn unreadable(object: UnreadableObject) -> Option<Object> {
        let status = object.status();
        let rollout = CachedRollout::unreadable(object.metadata, status, object.error);
        Some(Object::Rollout(Box::new(rollout)))
    }
}

impl Trim for akri::Instance {
    fn trim(self) -> Option<Object> {
        Some(Object::Instance(Box::new(Instance::of(&self))))
    }

    fn unreadable(object: UnreadableObject) -> Option<Object> {
        let instance = Instance::unreadable(&object.metadata, &object.error);
        Some(Object::Instance(Box::new(instance)))
    }
}

impl Trim for core::Pod {
    fn trim(self) -> Option<Object> {
        // Other programs use labels such as `app` and `uuid` too: a Pod that no FlashJob owns is
        // not ours.
        Pod::of(&self).map(|pod| Object::Pod(Box::new(pod)))
    }
}

impl Trim for core::Service {
    fn trim(self) -> Option<Object> {
        Service::of(&self).map(|service| Object::Service(Box::new(service)))
    }
}

/// Returns the part of an object to keep. An object that cannot be decoded never stops the watch
/// of the others; for a FlashJob, a FlashRollout and a device, the status reports it.
fn trim<K: Trim + Resource<DynamicType = ()>>(object: Guarded<K>) -> Option<Object> {
    match object.0 {
        Ok(object) => object.trim(),
        Err(invalid) => {
            let ObjectMeta { namespace, name, .. } = &invalid.metadata;
            let (kind, error) = (K::kind(&()), &invalid.error);
            tracing::warn!(%kind, namespace, name, error, "object cannot be decoded");
            K::unreadable(invalid)
        }
    }
}

/// Sends the loop the state of an object from the API server.
pub(crate) fn tell<K: Trim + Resource<DynamicType = ()>>(operator: &Operator, object: Guarded<K>) {
    if let Some(object) = trim(object) {
        operator.tell(Change::Updated(object));
    }
}

/// Returns the API resource of a kind.
fn resource(kind: Kind) -> problem::Resource {
    match kind {
        Kind::Job => problem::FLASH_JOBS,
        Kind::Rollout => problem::FLASH_ROLLOUTS,
        Kind::Instance => problem::INSTANCES,
        Kind::Pod => problem::PODS,
        Kind::Service => problem::SERVICES,
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;
    use tower::BoxError;

    use super::*;

    /// API server whose list expires after the first page (410), as after a compaction of etcd.
    fn answer(request: &Request<Body>, lists: &mut usize) -> (u16, serde_json::Value) {
        let query = request.uri().query().unwrap_or_default();
        *lists += 1;
        let (page, next) = match (*lists, query.contains("continue=second")) {
            (1, false) => ("a", "second"),
            (3, false) => ("b", ""),
            (2, true) => {
                let status = json!({
                    "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 410,
                    "reason": "Expired", "message": "the list expired",
                });
                return (410, status);
            }
            unexpected => panic!("{unexpected:?} {query}"),
        };
        let list = json!({
            "apiVersion": "akri.sh/v0", "kind": "InstanceList",
            "metadata": {"resourceVersion": "7", "continue": next},
            "items": [{"metadata": {"name": page, "uid": page}, "spec": {}}],
        });
        (200, list)
    }

    #[test]
    fn an_object_that_lost_one_of_its_labels_is_not_selected() {
        let is_selected = |labels: serde_json::Value| {
            is_selected(&serde_json::from_value(json!({"labels": labels})).expect("metadata"))
        };
        // A pooled Service has an empty uid.
        assert!(is_selected(json!({"app": "job", "uuid": "", "other": "label"})));
        for labels in [json!({"app": "job"}), json!({"uuid": "a"}), json!(null)] {
            assert!(!is_selected(labels.clone()), "{labels}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_expires_between_two_pages_begins_again_after_a_pause() {
        let mut lists = 0;
        let service = tower::service_fn(move |request: Request<Body>| {
            let (code, text) = answer(&request, &mut lists);
            let body = Body::from(text.to_string().into_bytes());
            let response = Response::builder().status(code).body(body);
            std::future::ready(response.map_err(BoxError::from))
        });
        let api: Api<Guarded<akri::Instance>> = Api::all(Client::new(service, "default"));
        let events = watcher::watcher(api, watcher::Config::default()).backoff(Pauses::default());
        let begin = tokio::time::Instant::now();
        let steps = events.take(6).map(|event| match event {
            Ok(Event::Init) => "begins".to_owned(),
            Ok(Event::InitApply(object)) => metadata(&object).uid.clone().unwrap_or_default(),
            Ok(Event::InitDone) => "complete".to_owned(),
            Ok(_) => "an event".to_owned(),
            Err(_) => "fails".to_owned(),
        });
        let steps: Vec<String> = steps.collect().await;
        assert_eq!(steps, ["begins", "a", "fails", "begins", "b", "complete"]);
        assert!(begin.elapsed() >= Duration::from_millis(100), "{:?}", begin.elapsed());
    }
}
