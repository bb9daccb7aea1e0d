//! Carries out steps. Each is idempotent: that an object already exists, or is already gone, is an
//! outcome and not an error.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use flashjob_api::{FINALIZER, FlashJob, FlashJobStatus};
use flashjob_rules::flashjob::observed::{
    Job, JobKey, NodeLease, NodeState, Pod, Refusal, Refused, whole_seconds,
};
use flashjob_rules::flashjob::plan::Step;
use flashjob_rules::world::change::{Change, JobOutcome};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, Request};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::cluster::answer::{by_name, in_one_line};
use crate::cluster::read::{Guarded, Readable};
use crate::cluster::watch::{self, Trim};
use crate::operator::Operator;

/// Interval at which a Pod is polled that still exists but left the watch, because somebody
/// removed its labels.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Interval at which a node is read on which a Pod vanished: half of that at which a kubelet renews
/// its Lease.
const READ_NODE_AGAIN: Duration = Duration::from_secs(5);
/// Namespace of the Leases that kubelets renew, each with the name of its node.
const NODE_LEASES: &str = "kube-node-lease";
/// Taint by which somebody declares that a node is powered off (Kubernetes, "Non-graceful node
/// shutdown handling").
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Longest backoff after consecutive failures of a step; the spread is added to it.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Carries out one step, and sends its outcome to the loop. `failures` is the number of
/// consecutive failures of this step so far.
pub async fn apply(operator: Arc<Operator>, job: Arc<Job>, step: Step, mut failures: u32) {
    let key = step.key();
    let is_pod = matches!(step, Step::CreatePod(_));
    let pod = step.created_name().filter(|_| is_pod).map(str::to_owned);
    let tell = |outcome| operator.tell(Change::Job(job.key.clone(), outcome));
    loop {
        // The semaphore is never closed. The request is created only once a delete has its turn:
        // after a status write hundreds wait, and their requests would take 8 MiB.
        let is_delete = matches!(step, Step::DeletePod { .. } | Step::DeleteService { .. });
        let permit = if is_delete { operator.deletes.acquire().await.ok() } else { None };
        let answer = Box::pin(carry_out(&operator, &job, step.clone())).await;
        drop(permit);
        let error = match answer {
            Ok(pause) => {
                // The step counts as in flight during the pause, so that no plan repeats the
                // request earlier.
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                return tell(JobOutcome::StepDone(Box::new(step)));
            }
            Err(error) => error,
        };
        let unsettled = step.creates() && may_have_worked(&error);
        let error = in_one_line(&error);
        tracing::warn!(job = %job.key, step = key, error, "request failed; retrying");
        // Told before the pause: a fault that lasts has to show in the status while the step still
        // waits.
        tell(JobOutcome::StepFailed(Box::new(step.clone()), error));
        failures += 1;
        tokio::time::sleep(pause_after(failures, LONGEST_PAUSE, &key)).await;
        // A Pod that was created without our knowledge could flash at the same time as the next
        // one, so the create request is retried until its outcome is known. A Pod that was
        // observed meanwhile is not created a second time, even if it is gone since.
        if !unsettled || was_seen(&operator, &job, pod.clone()).await {
            return tell(JobOutcome::StepReleased(key));
        }
    }
}

/// Returns true if the Pod of that name was observed, or the loop has ended.
async fn was_seen(operator: &Operator, job: &Job, pod: Option<String>) -> bool {
    let Some(name) = pod else { return false };
    let job = job.key.clone();
    operator.ask(move |world| world.knows_pod(&job, &name)).await.unwrap_or(true)
}

/// Returns true if a failed request may have taken effect: the response was lost, or the server
/// failed while it processed the request.
fn may_have_worked(error: &kube::Error) -> bool {
    match error {
        // A 4xx is decided before anything is stored. A 5xx may follow a write to etcd whose end
        // the API server did not wait for.
        kube::Error::Api(status) => status.code >= 500,
        _ => true,
    }
}

/// Returns the backoff before the next try. It doubles with each failure up to `longest`; the key
/// of the request spreads the retries of requests that failed together.
pub(crate) fn pause_after(failures: u32, longest: Duration, key: &str) -> Duration {
    // The bound keeps the shift from overflowing.
    let doubled = Duration::from_millis(100).saturating_mul(1 << failures.min(12)).min(longest);
    let spread: u32 = key.bytes().map(u32::from).sum::<u32>() % 50;
    doubled + doubled * spread / 100
}

#[tracing::instrument(
    name = "step",
    level = "debug",
    skip_all,
    err(level = "debug"),
    fields(job = %job.key, step = step.key())
)]
async fn carry_out(operator: &Operator, job: &Job, step: Step) -> kube::Result<Duration> {
    let client = operator.client.clone();
    let namespace = &job.key.namespace;
    match step {
        Step::AddFinalizer => {
            let finalizers = job.finalizers.iter().map(String::as_str).chain([FINALIZER]);
            set_finalizers(operator, job, finalizers.collect()).await?;
        }
        Step::RemoveFinalizer => {
            let finalizers = job
                .finalizers
                .iter()
                .map(String::as_str)
                .filter(|finalizer| *finalizer != FINALIZER);
            set_finalizers(operator, job, finalizers.collect()).await?;
        }
        Step::DeleteJob => {
            let deleted = delete::<FlashJob>(client, namespace, &job.key.name, &job.uid).await?;
            // Without this the request would be repeated until the watch reports the deletion.
            if matches!(deleted, Deleted::Gone) {
                let (subject, uid) = (job.key.clone().into(), job.uid.clone());
                operator.tell(Change::NotFound { subject, uid });
            }
        }
        Step::CreateService(service) => {
            create_object(operator, job, Refused::Service, *service).await?
        }
        Step::CreatePod(pod) => create_object(operator, job, Refused::Pod, *pod).await?,
        Step::DeleteService { name, uid } => {
            let job = job.key.clone();
            if delete_object::<core::Service>(operator, namespace, &name, &uid).await? {
                operator.tell(Change::ServiceNotFound { job, name, uid });
            }
        }
        Step::DeletePod { name, uid } => {
            let job = job.key.clone();
            if delete_object::<core::Pod>(operator, namespace, &name, &uid).await? {
                operator.tell(Change::PodNotFound { job, name, uid });
            }
        }
        Step::Protect(budget) => {
            match create(&client, namespace, &*budget).await {
                Ok(PodDisruptionBudget { .. }) => {}
                // An earlier leader created it.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error),
            }
            operator.tell(Change::Job(job.key.clone(), JobOutcome::Protected(true)));
        }
        Step::Unprotect { name } => {
            let budgets: Api<PodDisruptionBudget> = Api::namespaced(client, namespace);
            // Without a uid: the name contains a hash of the uid of the job, so it is never the
            // budget of another one.
            match budgets.delete(&name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
            operator.tell(Change::Job(job.key.clone(), JobOutcome::Protected(false)));
        }
        Step::ConfirmPod { name, device, delete } => {
            return confirm_pod(operator, job, &name, &device, delete).await;
        }
        Step::ReadNode { name } => return read_node(operator, name).await,
    }
    Ok(Duration::ZERO)
}

/// A namespaced object of a kind that is known at compile time.
pub(crate) trait NamespacedObject:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned
{
}

impl<K> NamespacedObject for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
{
}

/// Result of a delete.
pub(crate) enum Deleted<K> {
    /// The deletion has begun; the state of the object, if the response contains it.
    Going(Option<K>),
    /// The object does not exist any more.
    Gone,
}

/// Deletes the object with this uid, and no later one of the same name. The response, an object or
/// a Status, is decoded in one pass.
pub(crate) async fn delete<K: NamespacedObject + Readable>(
    client: Client,
    namespace: &str,
    name: &str,
    uid: &str,
) -> kube::Result<Deleted<K>> {
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let parameters =
        DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    let request = Request::new(K::url_path(&(), Some(namespace))).delete(name, &parameters);
    let error = match client.request(request.map_err(kube::Error::BuildRequest)?).await {
        // A Status reports nothing but success.
        Ok(Guarded::<K>(answer)) => return Ok(Deleted::Going(answer.ok())),
        Err(error) => error,
    };
    let api: Api<Guarded<K>> = Api::namespaced(client, namespace);
    match &error {
        kube::Error::Api(status) if status.code == 404 => Ok(Deleted::Gone),
        // Another object has this name, or a concurrent write caused the conflict and the object
        // still exists.
        kube::Error::Api(status) if status.code == 409 => {
            let still_there = by_name(&api, name)
                .await?
                .is_some_and(|object| object.meta().uid.as_deref() == Some(uid));
            if still_there { Err(error) } else { Ok(Deleted::Gone) }
        }
        _ => Err(error),
    }
}

async fn set_finalizers(
    operator: &Operator,
    job: &Job,
    finalizers: Vec<&str>,
) -> kube::Result<()> {
    let jobs: Api<Guarded<FlashJob>> =
        Api::namespaced(operator.client.clone(), &job.key.namespace);
    // A merge patch replaces a list as a whole (RFC 7396). The resourceVersion protects finalizers
    // that others have added meanwhile.
    let patch = json!({"metadata": {
        "finalizers": finalizers, "resourceVersion": job.resource_version, "uid": job.uid,
    }});
    match jobs.patch(&job.key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
        // The response goes to the caches, as the watch may lag: the next plan would repeat the
        // step.
        Ok(job) => watch::tell(operator, job),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
            refresh(operator, job).await?;
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Reads the FlashJob again after a conflict or a failure, so that the next plan uses its current
/// state. Returns the stored status, if the job still exists and can be decoded.
pub async fn refresh(operator: &Operator, job: &Job) -> kube::Result<Option<FlashJobStatus>> {
    refresh_by_name(operator, &job.key, Some(&job.uid)).await
}

/// Reads the FlashJob of that name again. If it does not exist and its `uid` is known, reports it
/// as deleted. Returns the status of the FlashJob with that uid.
pub(crate) async fn refresh_by_name(
    operator: &Operator,
    key: &JobKey,
    uid: Option<&str>,
) -> kube::Result<Option<FlashJobStatus>> {
    let jobs: Api<Guarded<FlashJob>> = Api::namespaced(operator.client.clone(), &key.namespace);
    let Some(job) = by_name(&jobs, &key.name).await? else {
        if let Some(uid) = uid {
            operator.tell(Change::NotFound { subject: key.clone().into(), uid: uid.to_owned() });
        }
        return Ok(None);
    };
    let is_same = uid.is_some() && job.meta().uid.as_deref() == uid;
    let status = job.0.as_ref().ok().filter(|_| is_same).and_then(|job| job.status.clone());
    watch::tell(operator, job);
    Ok(status)
}

/// Creates an object, and decodes the response without its managed fields.
pub(crate) async fn create<K>(client: &Client, namespace: &str, object: &K) -> kube::Result<K>
where
    K: Resource<DynamicType = ()> + Readable + Serialize,
{
    let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
    let request =
        Request::new(K::url_path(&(), Some(namespace))).create(&PostParams::default(), body);
    let Guarded(answer) = client.request(request.map_err(kube::Error::BuildRequest)?).await?;
    answer.map_err(|invalid| kube::Error::SerdeError(serde::de::Error::custom(invalid)))
}

/// Creates a Service or a Pod of an attempt.
async fn create_object<K>(
    operator: &Operator,
    job: &Job,
    kind: Refused,
    object: K,
) -> kube::Result<()>
where
    K: NamespacedObject + Readable + Trim + Serialize,
{
    let objects: Api<K> = Api::namespaced(operator.client.clone(), &job.key.namespace);
    let name = object.meta().name.clone().unwrap_or_default();
    let created_object = match create(&operator.client, &job.key.namespace, &object).await {
        Ok(created_object) => created_object,
        Err(error) => {
            let is_conflict = matches!(&error, kube::Error::Api(status) if status.code == 409);
            let existing = if is_conflict { by_name(&objects, &name).await? } else { None };
            match existing {
                // An earlier request whose response was lost created it.
                Some(existing) => existing,
                // Webhooks deny with any code, and a quota that changes at the same time is a
                // conflict too: only an object that exists was accepted.
                None => return refused(operator, job, kind, name, error),
            }
        }
    };
    // The watch may deliver it later; until then the next plan would find its Service or Pod
    // missing.
    if let Some(created_object) = created_object.trim() {
        operator.tell(Change::Updated(created_object));
    }
    operator.tell(Change::Job(job.key.clone(), JobOutcome::Accepted(name)));
    Ok(())
}

/// Deletes a Service or a Pod of an attempt. Returns true if it is already gone, or if no watch
/// reports its removal because somebody removed its labels: it would stay in the cache, and its
/// FlashJob would wait for it. If such a Pod has not ended, it is queried until it is gone.
async fn delete_object<K: NamespacedObject + Readable + Trim>(
    operator: &Operator,
    namespace: &str,
    name: &str,
    uid: &str,
) -> kube::Result<bool> {
    match delete::<K>(operator.client.clone(), namespace, name, uid).await? {
        Deleted::Going(Some(object)) if !watch::is_selected(object.meta()) => Ok(true),
        Deleted::Going(object) => {
            if let Some(object) = object.and_then(Trim::trim) {
                operator.tell(Change::Deleting(object));
            }
            Ok(false)
        }
        Deleted::Gone => Ok(true),
    }
}

/// Sends a refusal to the loop, for the next plan. Any other error is returned, as a retry may
/// succeed.
fn refused(
    operator: &Operator,
    job: &Job,
    kind: Refused,
    name: String,
    error: kube::Error,
) -> kube::Result<()> {
    let kube::Error::Api(status) = &error else { return Err(error) };
    let now = whole_seconds(Timestamp::now());
    let Some(refusal) = Refusal::of(kind, status, now) else { return Err(error) };
    operator.tell(Change::Job(job.key.clone(), JobOutcome::Refused(name, refusal)));
    Ok(())
}

/// Queries whether a Pod that left the watch still exists, and deletes one that is unwanted.
async fn confirm_pod(
    operator: &Operator,
    job: &Job,
    name: &str,
    device: &str,
    is_unwanted: bool,
) -> kube::Result<Duration> {
    let pods: Api<core::Pod> = Api::namespaced(operator.client.clone(), &job.key.namespace);
    let named_pod = by_name(&pods, name).await?;
    // A Pod of this name that somebody else has created says nothing about the device.
    let job_pod = named_pod.filter(|pod| {
        pod.metadata.owner_references.iter().flatten().any(|owner| owner.uid == job.uid)
    });
    let Some(mut pod) = job_pod else {
        let (job, name, device) = (job.key.clone(), name.to_owned(), device.to_owned());
        operator.tell(Change::PodDeletionConfirmed { job, name, device });
        return Ok(Duration::ZERO);
    };
    // The Pod lost its labels; with this one restored in the local copy, it can still be followed.
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(flashjob_rules::flashjob::labels::label::UUID.to_owned(), device.to_owned());
    // The Pod exists and cannot be followed, so its device stays locked until it is gone.
    let Some(mut observed_pod) = Pod::of(&pod) else { return Ok(ASK_AGAIN) };
    if is_unwanted && !observed_pod.deleting {
        let (client, namespace) = (operator.client.clone(), &job.key.namespace);
        // Whether it is in deletion or gone now, the next query shows.
        delete::<core::Pod>(client, namespace, name, &observed_pod.uid).await?;
        observed_pod.deleting = true;
    }
    let pause = if observed_pod.ended.is_some() { Duration::ZERO } else { ASK_AGAIN };
    operator.tell(Change::PodUnlabelled(Box::new(observed_pod)));
    Ok(pause)
}

async fn read_node(operator: &Operator, name: String) -> kube::Result<Duration> {
    let asked_at = Timestamp::now();
    let leases: Api<Lease> = Api::namespaced(operator.client.clone(), NODE_LEASES);
    let nodes: Api<core::Node> = Api::all(operator.client.clone());
    let (lease, node) = tokio::join!(leases.get_opt(&name), nodes.get_opt(&name));
    let node = node?.unwrap_or_default();
    let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    let is_out_of_service = taints.iter().any(|taint| taint.key == OUT_OF_SERVICE);
    // The taint counts also where the right to read the Lease is missing.
    let lease = match lease {
        Err(error) if !is_out_of_service => return Err(error),
        lease => lease.ok().flatten(),
    };
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    let mut conditions = conditions.iter();
    operator.tell(Change::Node(NodeState {
        node: name,
        asked_at,
        created_at: node.metadata.creation_timestamp.map(|time| time.0),
        is_ready: conditions
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        is_out_of_service,
        lease: lease.as_ref().and_then(node_lease),
    }));
    Ok(READ_NODE_AGAIN)
}

fn node_lease(lease: &Lease) -> Option<NodeLease> {
    let duration = lease.spec.as_ref()?.lease_duration_seconds?;
    // Without a version that is a number, no renewal can be told from an earlier one.
    let version = lease.metadata.resource_version.as_ref()?.parse().ok()?;
    Some(NodeLease { version, duration_seconds: duration.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_the_limit_and_is_spread_by_the_key() {
        let pause = |failures, seconds| pause_after(failures, Duration::from_secs(seconds), "");
        let all = [pause(1, 30), pause(2, 30), pause(3, 30)];
        assert_eq!(all, [200, 400, 800].map(Duration::from_millis));
        assert_eq!((pause(9, 30), pause(u32::MAX, 30)), (LONGEST_PAUSE, LONGEST_PAUSE));
        assert_eq!((pause(6, 5), pause(u32::MAX, 5)), (Duration::from_secs(5), pause(7, 5)));
        // The bytes of "a" add up to 97, which is 47 modulo 50.
        let spread = pause_after(u32::MAX, Duration::from_secs(100), "a");
        assert_eq!(spread, Duration::from_secs(147));
    }
}
