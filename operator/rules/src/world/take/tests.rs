//! Tests of the changes that the caches take.

use std::time::{Duration, Instant};

use flashjob_api::FlashJobStatus;
use serde_json::{Value, json};

use super::*;
use crate::flashjob::observed::Job;
use crate::flashjob::plan::Step;
use crate::world::change::EndedWrite;

fn job(version: u32, status: &Value) -> Job {
    let uids = ["a", "b"];
    Job::of(
        serde_json::from_value(json!({
            "metadata": {"namespace": "fleet", "name": "job", "uid": "uid",
                "resourceVersion": version.to_string()},
            "spec": {"uuid": uids, "firmware": "r.io/f:1", "version": "1"},
            "status": status,
        }))
        .expect("a FlashJob"),
    )
}

fn status(devices: &[(&str, &str)]) -> Value {
    let device = |(uid, state): &(&str, &str)| json!({"uid": uid, "state": state, "attempt": 1});
    json!({"run": "run", "devices": devices.iter().map(device).collect::<Vec<_>>()})
}

fn key() -> JobKey {
    JobKey { namespace: "fleet".into(), name: "job".into() }
}

fn take(world: &mut World, change: Change) -> Vec<Subject> {
    world.take(change, Timestamp::UNIX_EPOCH)
}

fn updated_job(version: u32) -> Change {
    Change::Updated(Object::Job(Box::new(job(version, &json!({})))))
}

#[test]
fn a_state_that_is_known_already_has_nobody_looked_at() {
    let mut world = World::default();
    assert_eq!(take(&mut world, updated_job(2)), [Subject::Job(key())]);
    for version in [1, 2] {
        assert_eq!(take(&mut world, updated_job(version)), []);
    }
    assert_eq!(take(&mut world, updated_job(3)), [Subject::Job(key())]);
}

#[test]
fn an_outcome_for_a_job_that_is_gone_changes_nothing() {
    let mut world = World::default();
    let written = EndedWrite { at: Instant::now(), took: Duration::ZERO, dropped: None };
    let outcome = || Change::Job(key(), JobOutcome::StepReleased("finalizer".into()));
    assert_eq!(take(&mut world, Change::Job(key(), JobOutcome::Written(written))), []);
    assert_eq!(take(&mut world, outcome()), []);
    assert!(world.memory.is_empty());
    take(&mut world, updated_job(1));
    world.memory.insert(key(), Memory::default());
    assert_eq!(take(&mut world, outcome()), [Subject::Job(key())]);
}

#[test]
fn a_step_that_failed_is_under_way_until_it_is_released_and_counts_its_failures() {
    let mut world = World::default();
    take(&mut world, updated_job(1));
    world.memory.insert(key(), Memory::default());
    let begin = |world: &mut World| {
        world.memory.get_mut(&key()).and_then(|memory| memory.begin(&Step::AddFinalizer))
    };
    let step = || Box::new(Step::AddFinalizer);
    assert_eq!((begin(&mut world), begin(&mut world)), (Some(0), None));
    take(&mut world, Change::Job(key(), JobOutcome::StepFailed(step(), "no".into())));
    assert_eq!(begin(&mut world), None);
    let released = JobOutcome::StepReleased(Step::AddFinalizer.key());
    take(&mut world, Change::Job(key(), released));
    assert_eq!(begin(&mut world), Some(1));
    take(&mut world, Change::Job(key(), JobOutcome::StepDone(step())));
    assert_eq!(begin(&mut world), Some(0));
}

#[test]
fn what_a_fresh_list_lacks_is_gone() {
    let mut world = World::default();
    take(&mut world, updated_job(1));
    let listed = |uids: &[&str]| Change::Listed {
        kind: Kind::Job,
        uids: uids.iter().map(|uid| (*uid).to_owned()).collect(),
    };
    take(&mut world, listed(&["uid", "other"]));
    assert!(world.jobs.contains_key(&key()));
    take(&mut world, listed(&["other"]));
    assert!(world.jobs.is_empty());
}

#[test]
fn an_object_that_the_api_server_does_not_have_is_gone_and_no_late_answer_brings_it_back() {
    let mut world = World::default();
    take(&mut world, updated_job(1));
    let missing =
        |uid: &str| Change::NotFound { subject: Subject::Job(key()), uid: uid.to_owned() };
    take(&mut world, missing("one of before"));
    assert!(world.jobs.contains_key(&key()));
    take(&mut world, missing("uid"));
    assert_eq!(take(&mut world, updated_job(2)), []);
    assert!(world.jobs.is_empty());
}

#[test]
fn a_device_is_timed_from_its_first_attempt_until_its_result_is_stored() {
    let read = |status: &Value| -> FlashJobStatus {
        serde_json::from_value(status.clone()).expect("a status")
    };
    let (begin, second) = (Instant::now(), Duration::from_secs(1));
    let uids = ["a".to_owned(), "b".to_owned()];
    let mut memory = Memory::default();
    let begin_times = |memory: &Memory| memory.begun(uids.iter());
    let (none, first) = (status(&[]), status(&[("a", "Flashing")]));
    let both_flashing = status(&[("a", "Flashing"), ("b", "Flashing")]);
    memory.write_begins(&job(1, &none), &read(&first), begin);
    memory.write_begins(&job(2, &first), &read(&both_flashing), begin + second);
    assert_eq!(begin_times(&memory)["a"], begin, "the second write did not begin it");
    assert_eq!(begin_times(&memory)["b"], begin + second);
    let a_failed = status(&[("a", "Failed"), ("b", "Flashing")]);
    memory.write_begins(&job(3, &both_flashing), &read(&a_failed), begin + 2 * second);
    assert!(begin_times(&memory).contains_key("a"), "its result is not stored yet");
    memory.write_begins(&job(4, &a_failed), &read(&a_failed), begin + 3 * second);
    assert_eq!(begin_times(&memory).keys().collect::<Vec<_>>(), ["b"]);
    let mut other = read(&both_flashing);
    other.run = Some("another run".to_owned());
    memory.write_begins(&job(5, &both_flashing), &other, begin + 4 * second);
    assert_eq!(begin_times(&memory)["b"], begin + 4 * second);
}
