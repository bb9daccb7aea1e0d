//! Results of a FlashJob that is deleted or edited: they stay until the rollout has stored them.

use flashjob_api::{FINALIZER, FlashJob, FlashJobSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube_core::ResourceExt;

use super::model::{Cluster, batch};
use crate::flashjob::observed::{Instance, Job, JobKey};
use crate::flashjob::plan::{Plan, Step, plan};
use crate::world::World;
use crate::world::change::{Change, Object, Subject};
use crate::world::rollouts::CachedRollout;

/// The caches of an operator next to the model cluster.
struct Case {
    cluster: Cluster,
    world: World,
    job: FlashJob,
    version: u64,
}

impl Case {
    /// A rollout of four devices. Two have completed, and the rollout has not stored that yet.
    fn new() -> Self {
        let mut cluster = Cluster::new(4);
        cluster.edit(|spec| {
            (spec.batches, spec.parallelism) = (Some(vec![batch("only", None)]), Some(2));
        });
        while cluster.in_flight() == 0 {
            cluster.round();
        }
        let name = cluster.jobs.keys().next().expect("a FlashJob").clone();
        cluster.work(&name, 2);
        let mut job = cluster.jobs[&name].object.clone();
        job.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        let completed = job.status.as_ref().map_or(0, |status| status.completed_uuids.len());
        assert_eq!((completed, cluster.letters(0).matches('C').count()), (2, 0));
        let mut case = Self { cluster, world: World::default(), job, version: 1 };
        for (name, part) in &case.cluster.parts {
            let version = part.version.as_deref().unwrap_or_default();
            let properties = [("DEVICE", "esp32"), ("HOST_ENDPOINT", name), ("VERSION", version)];
            let nodes = part.nodes.clone();
            let instance =
                Instance::new("fleet", name, &part.uid, nodes, properties.iter().copied());
            case.world.devices.see(instance);
        }
        case.see_rollout();
        case.see_job(|_| ());
        case
    }

    fn take(&mut self, object: Object) -> Vec<Subject> {
        self.world.take(Change::Updated(object), self.cluster.now)
    }

    fn see_rollout(&mut self) -> Vec<Subject> {
        self.version += 1;
        self.cluster.rollout.metadata.resource_version = Some(self.version.to_string());
        let cached = CachedRollout::of(self.cluster.rollout.clone());
        self.take(Object::Rollout(Box::new(cached)))
    }

    fn see_job(&mut self, change: impl FnOnce(&mut FlashJob)) {
        self.version += 1;
        change(&mut self.job);
        self.job.metadata.resource_version = Some(self.version.to_string());
        let job = Job::of(self.job.clone());
        self.take(Object::Job(Box::new(job)));
    }

    fn key(&self) -> JobKey {
        JobKey { namespace: "fleet".into(), name: self.job.name_any() }
    }

    fn plan(&mut self) -> Plan {
        let (key, now) = (self.key(), self.cluster.now);
        plan(&self.world.observe(&key, now).expect("the job"))
    }

    /// Returns true if the FlashJob may lose its results now.
    fn lets_go(&mut self) -> bool {
        let plan = self.plan();
        let loses = plan.status.is_some_and(|status| status.completed_uuids.len() < 2);
        loses || plan.steps.iter().any(|step| matches!(step, Step::RemoveFinalizer))
    }

    /// Plans the rollout from the FlashJob's current state and stores its status. Returns true if
    /// the plan was urgent.
    fn plan_and_store(&mut self) -> bool {
        let name = self.job.name_any();
        self.cluster.jobs.get_mut(&name).expect("the FlashJob").object = self.job.clone();
        let plan = self.cluster.decide();
        self.cluster.store(&plan);
        plan.urgent
    }
}

fn delete(job: &mut FlashJob) {
    let time: jiff::Timestamp = "2026-06-01T12:00:00Z".parse().expect("a time");
    job.metadata.deletion_timestamp = Some(Time(time));
    end_flights(job);
}

fn edit(job: &mut FlashJob, change: impl FnOnce(&mut FlashJobSpec)) {
    change(&mut job.spec);
    *job.metadata.generation.get_or_insert(0) += 1;
    end_flights(job);
}

/// Ends all devices in flight, which the FlashJob would otherwise wait for.
fn end_flights(job: &mut FlashJob) {
    job.status.as_mut().expect("a status").devices.clear();
}

#[test]
fn a_flash_job_keeps_its_results_until_its_rollout_has_stored_them() {
    let losses: [fn(&mut FlashJob); 4] = [
        delete,
        |job| edit(job, |spec| spec.firmware = "r.io/other:1".to_owned()),
        |job| edit(job, |spec| spec.version = "6.6.6".to_owned()),
        |job| edit(job, |spec| spec.uuid = vec!["other".to_owned()]),
    ];
    for (number, lose) in losses.into_iter().enumerate() {
        let mut case = Case::new();
        case.see_job(lose);
        assert!(!case.lets_go(), "loss {number}: the results are nowhere else");
        assert!(case.plan_and_store(), "loss {number}: the FlashJob waits for it");
        assert_eq!(case.cluster.letters(0).matches('C').count(), 2);
        assert_eq!(case.see_rollout(), [Subject::Job(case.key())], "loss {number}");
        assert!(case.lets_go(), "loss {number}: they are stored");
    }
}

#[test]
fn a_rollout_that_stores_nothing_more_keeps_no_flash_job() {
    let ends: [fn(&mut Case); 3] = [
        |case| {
            case.cluster.rollout.metadata.deletion_timestamp = Some(Time(case.cluster.now));
            case.see_rollout();
        },
        |case| {
            case.cluster.edit(|spec| spec.version = "2 0".to_owned());
            let cached = CachedRollout::of(case.cluster.rollout.clone());
            assert!(cached.rollout.spec.is_err(), "it is invalid");
            case.see_rollout();
        },
        |case| {
            let last = CachedRollout::of(case.cluster.rollout.clone());
            let deletion = Change::Deleted {
                last: Object::Rollout(Box::new(last)),
                uid: "rollout-uid".to_owned(),
            };
            let looked_at = case.world.take(deletion, case.cluster.now);
            assert_eq!(looked_at, [Subject::Job(case.key())]);
        },
    ];
    for end in ends {
        let mut case = Case::new();
        case.see_job(delete);
        assert!(!case.lets_go());
        end(&mut case);
        assert!(case.lets_go());
    }
}

#[test]
fn results_alone_are_stored_when_the_status_is_written_next() {
    let mut case = Case::new();
    assert!(!case.plan_and_store(), "the FlashJob has them too");
    assert_eq!(case.cluster.letters(0).matches('C').count(), 2);
}
