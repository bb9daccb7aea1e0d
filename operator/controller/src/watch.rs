//! Keeps the caches: watches FlashJobs, Instances, flash Pods and flash Services, and says which
//! jobs to look at. Nothing else lists.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use flashjob_api::akri;
use flashjob_api::{FlashJob, FlashRollout};
use flashjob_rules::flashjob::observed::{Instance, Job, JobKey, Pod, Service, whole_seconds};
use flashjob_rules::world::rollouts::Known;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::health::problem::{self, Source, of_watch};
use crate::operator::Operator;
use crate::read::Guarded;

/// Objects of a flash Pod carry both labels, ours and the Go operator's alike.
const FLASH_LABELS: &str = "app,uuid";
/// Longest pause before a broken watch is taken up again. Without its watches the operator is
/// blind: after an outage of the API server it is to go on soon.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The usual growing, jittered pauses, but for the longest.
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
    /// None runs yet.
    #[must_use]
    pub fn new(client: Client, namespace: Option<String>) -> Self {
        Self { client, namespace, running: JoinSet::new() }
    }

    /// Starts all watches, in place of those that run: each lists afresh, as of now, and says on
    /// `synced` when its list is in. What is in the caches stays, and is put right.
    pub async fn restart(&mut self, operator: &Arc<Operator>) {
        self.running.shutdown().await;
        operator.forget_synced();
        let plain = watcher::Config::default;
        let labelled = || watcher::Config::default().labels(FLASH_LABELS);
        self.spawn::<FlashJob>(plain(), operator, Kind::Job);
        self.spawn::<FlashRollout>(plain(), operator, Kind::Rollout);
        self.spawn::<akri::Instance>(plain(), operator, Kind::Instance);
        self.spawn::<core::Pod>(labelled(), operator, Kind::Pod);
        self.spawn::<core::Service>(labelled(), operator, Kind::Service);
    }

    fn spawn<K>(&mut self, config: watcher::Config, operator: &Arc<Operator>, kind: Kind)
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope>
            + Trim
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
        K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
    {
        let api: Api<Guarded<K>> = match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let operator = operator.clone();
        let events = watcher::watcher(api, config).backoff(Pauses::default());
        self.running.spawn(async move { follow(events, &operator, kind).await });
    }
}

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// FlashJobs.
    Job,
    /// FlashRollouts.
    Rollout,
    /// Akri's Instances.
    Instance,
    /// Flash Pods.
    Pod,
    /// Flash Services.
    Service,
}

impl Kind {
    /// Kinds without which no FlashJob can be planned. An API server that lacks the definition of
    /// FlashRollouts is to hold up none.
    pub const NEEDED: [Self; 4] = [Self::Job, Self::Instance, Self::Pod, Self::Service];

    /// As rules of access name it.
    #[must_use]
    pub fn resource(self) -> problem::Resource {
        match self {
            Self::Job => problem::FLASH_JOBS,
            Self::Rollout => problem::FLASH_ROLLOUTS,
            Self::Instance => problem::INSTANCES,
            Self::Pod => problem::PODS,
            Self::Service => problem::SERVICES,
        }
    }
}

/// An object as the caches keep it.
enum Trimmed {
    Job(Box<Job>),
    Rollout(Box<Known>),
    Instance(Instance),
    Pod(Box<Pod>),
    Service(Service),
    /// Not ours, or not to be decoded.
    Nothing,
}

async fn follow<K: Trim + Resource>(
    events: impl Stream<Item = watcher::Result<Event<Guarded<K>>>>,
    operator: &Operator,
    kind: Kind,
) {
    let mut events = std::pin::pin!(events);
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.insert(metadata(&object).uid.clone().unwrap_or_default());
                see(operator, trim(object));
            }
            Ok(Event::InitDone) => {
                forget_unlisted(operator, kind, &listed);
                listed = HashSet::new();
                operator.synced(kind);
            }
            Ok(Event::Apply(object)) => see(operator, trim(object)),
            Ok(Event::Delete(object)) => {
                // The last state says whether a Pod's end was seen.
                let uid = metadata(&object).uid.clone().unwrap_or_default();
                let trimmed = trim(object);
                lose(operator, kind, trimmed, &uid);
            }
            Err(error) => {
                let resource = kind.resource();
                tracing::debug!(%resource, %error, "the watch broke and is taken up again");
                if let Some(problem) = of_watch(&error, resource, &operator.installation) {
                    operator.reports.fails(Source::Watch(resource), problem);
                }
            }
        }
    }
}

fn metadata<K: Resource>(object: &Guarded<K>) -> &kube::api::ObjectMeta {
    match &object.0 {
        Ok(object) => object.meta(),
        Err(invalid) => &invalid.metadata,
    }
}

/// Part of an object that the caches keep.
trait Trim: Sized {
    fn trim(self) -> Trimmed;

    /// Returns what is kept of one that cannot be decoded: what somebody is to be told of it.
    fn unreadable(_: InvalidObject) -> Trimmed {
        Trimmed::Nothing
    }
}

impl Trim for FlashJob {
    fn trim(self) -> Trimmed {
        Trimmed::Job(Box::new(Job::of(self)))
    }

    fn unreadable(object: InvalidObject) -> Trimmed {
        Trimmed::Job(Box::new(Job::unreadable(object.metadata, object.error)))
    }
}

impl Trim for FlashRollout {
    fn trim(self) -> Trimmed {
        Trimmed::Rollout(Box::new(Known::of(self)))
    }

    fn unreadable(object: InvalidObject) -> Trimmed {
        Trimmed::Rollout(Box::new(Known::unreadable(object.metadata, object.error)))
    }
}

impl Trim for akri::Instance {
    fn trim(self) -> Trimmed {
        Trimmed::Instance(Instance::of(&self))
    }

    fn unreadable(object: InvalidObject) -> Trimmed {
        Trimmed::Instance(Instance::unreadable(&object.metadata, &object.error))
    }
}

impl Trim for core::Pod {
    fn trim(self) -> Trimmed {
        Pod::of(&self).map_or(Trimmed::Nothing, |pod| Trimmed::Pod(Box::new(pod)))
    }
}

impl Trim for core::Service {
    fn trim(self) -> Trimmed {
        Service::of(&self).map_or(Trimmed::Nothing, Trimmed::Service)
    }
}

/// An object that cannot be decoded never stops the watch of the others; of a FlashJob and of a
/// device it is said in the status.
fn trim<K: Trim + Resource>(object: Guarded<K>) -> Trimmed {
    match object.0 {
        Ok(object) => object.trim(),
        Err(invalid) => {
            let name = invalid.metadata.name.clone().unwrap_or_default();
            tracing::warn!(
                name,
                error = invalid.error,
                "an object cannot be decoded and is passed over"
            );
            K::unreadable(invalid)
        }
    }
}

fn see(operator: &Operator, object: Trimmed) {
    let mut world = operator.world();
    let keys: Vec<JobKey> = match object {
        Trimmed::Job(job) => {
            let key = job.key.clone();
            if world.see_job(*job) { vec![key] } else { Vec::new() }
        }
        Trimmed::Rollout(known) => {
            world.rollouts.see(*known);
            Vec::new()
        }
        Trimmed::Instance(instance) => {
            world.rollouts.devices_changed();
            world.devices.see(instance)
        }
        Trimmed::Pod(pod) => {
            let ended = pod.ended.is_some();
            let mut keys: Vec<JobKey> = world.see_pod(*pod).into_iter().collect();
            if ended {
                keys.extend(world.waiting_jobs());
            }
            keys
        }
        Trimmed::Service(service) => world.see_service(service).into_iter().collect(),
        Trimmed::Nothing => Vec::new(),
    };
    drop(world);
    operator.look_at(keys);
}

fn lose(operator: &Operator, kind: Kind, object: Trimmed, uid: &str) {
    let now = whole_seconds(Timestamp::now());
    let mut world = operator.world();
    let keys = match object {
        Trimmed::Job(job) if kind == Kind::Job => {
            world.note_departure(uid, &job.resource_version);
            if world.jobs.get(&job.key).is_some_and(|known| known.uid == uid) {
                world.forget_job(&job.key);
            }
            world.waiting_jobs()
        }
        Trimmed::Rollout(known) => {
            let key = known.key();
            if world.rollouts.get(&key).is_some_and(|known| known.rollout.uid == uid) {
                world.rollouts.forget(&key);
            }
            Vec::new()
        }
        Trimmed::Instance(_) => {
            world.rollouts.devices_changed();
            world.devices.lose(uid)
        }
        Trimmed::Pod(pod) => {
            let (job, name) = (pod.job.clone(), pod.name.clone());
            world.note_departure(uid, &pod.resource_version);
            world.see_pod(*pod);
            world.lose_pod(&job, &name, uid, now);
            let mut keys = world.waiting_jobs();
            keys.push(job);
            keys
        }
        Trimmed::Service(service) => {
            world.note_departure(uid, &service.resource_version);
            world.lose_service(&service.job, &service.name, uid);
            vec![service.job]
        }
        _ => Vec::new(),
    };
    drop(world);
    operator.look_at(keys);
}

/// Forgets what a fresh list no longer has: it went away while nobody watched.
fn forget_unlisted(operator: &Operator, kind: Kind, listed: &HashSet<String>) {
    let now = whole_seconds(Timestamp::now());
    let mut world = operator.world();
    let mut keys = Vec::new();
    match kind {
        Kind::Job => {
            let gone: Vec<JobKey> = world
                .jobs
                .values()
                .filter(|job| !listed.contains(&job.uid))
                .map(|job| job.key.clone())
                .collect();
            gone.iter().for_each(|key| world.forget_job(key));
            keys.extend(world.waiting_jobs());
        }
        Kind::Rollout => {
            let gone = world.rollouts.all().filter(|known| !listed.contains(&known.rollout.uid));
            let gone: Vec<_> = gone.map(|known| known.key()).collect();
            gone.iter().for_each(|key| world.rollouts.forget(key));
            world.rollouts.all_due();
        }
        Kind::Instance => {
            for uid in world.devices.not_in(listed) {
                keys.extend(world.devices.lose(&uid));
            }
        }
        Kind::Pod => {
            for (job, name, uid) in world.pods_not_in(listed) {
                world.lose_pod(&job, &name, &uid, now);
                keys.push(job);
            }
            keys.extend(world.waiting_jobs());
        }
        Kind::Service => {
            for (job, name, uid) in world.services_not_in(listed) {
                world.lose_service(&job, &name, &uid);
                keys.push(job);
            }
        }
    }
    drop(world);
    operator.look_at(keys);
}
