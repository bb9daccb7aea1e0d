//! A run from its plan to its end.

use flashjob_api::{BatchSpec, BatchState, OnFailure, RolloutPhase, condition};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::model::{Cluster, NEW, OLD, batch};
use crate::rollout::Step;

#[test]
fn a_healthy_fleet_is_flashed_in_three_batches_and_then_nothing_moves() {
    let mut cluster = Cluster::new(30);
    cluster.settle(200);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    let status = cluster.status();
    let sizes: Vec<usize> = status.members.iter().map(|list| list.instances.len()).collect();
    assert_eq!(sizes, [1, 3, 26]);
    assert!(cluster.parts.values().all(|part| part.version.as_deref() == Some(NEW)));
    assert!(condition::holds(&status.conditions, condition::READY));
    assert!(!condition::holds(&status.conditions, condition::RECONCILING));
    assert_eq!(status.progress.as_deref(), Some("30/30"));
    let plan = cluster.decide();
    assert!(plan.steps.is_empty() && plan.status.is_none() && plan.wake_at.is_none());
}

#[test]
fn members_are_stored_before_the_first_flash_job_and_it_names_them_in_order() {
    let mut cluster = Cluster::new(10);
    let mut created = false;
    for _ in 0..4 {
        let plan = cluster.decide();
        for step in &plan.steps {
            let Step::CreateChild(job) = step else { panic!("{step:?}") };
            created = true;
            let stored = cluster.status();
            let uids: Vec<String> = stored.members[0]
                .instances
                .iter()
                .map(|name| cluster.parts[name].uid.clone())
                .collect();
            assert_eq!(job.spec.uuid, uids);
            assert_eq!(job.spec.firmware, "r.io/f@sha256:0a0b");
            assert_eq!(job.metadata.name, Some(format!("all-{}-01", cluster.run())));
            let owner = &job.metadata.owner_references.as_ref().expect("an owner")[0];
            assert_eq!((owner.uid.as_str(), owner.controller), ("rollout-uid", Some(true)));
        }
        cluster.apply(&plan);
    }
    assert!(created);
}

#[test]
fn one_failed_canary_pauses_and_a_retry_takes_the_run_up_again() {
    let mut cluster = Cluster::new(20);
    cluster.parts.values_mut().for_each(|part| part.broken = true);
    cluster.settle(100);
    assert_eq!(
        (cluster.phase(), cluster.reason().as_str()),
        (RolloutPhase::Paused, "TooManyFailed")
    );
    assert_eq!(cluster.letters(0), "F");
    assert_eq!(cluster.status().waiting_for.as_deref(), Some("a person: TooManyFailed"));
    assert_eq!(cluster.jobs.len(), 1, "no later batch began");
    cluster.parts.values_mut().for_each(|part| part.broken = false);
    cluster.edit(|spec| spec.retry = Some("1".to_owned()));
    cluster.settle(200);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    let counts = cluster.status().counts.expect("counts");
    assert_eq!((counts.planned, counts.completed, counts.failed), (20, 20, 0));
    assert!(cluster.status().failed.is_empty());
}

#[test]
fn a_raised_budget_lets_a_paused_batch_go_on_with_who_was_never_started() {
    let mut cluster = Cluster::new(40);
    cluster.edit(|spec| {
        spec.batches = Some(vec![batch("only", None)]);
        spec.max_failed = Some(IntOrString::Int(2));
        spec.parallelism = Some(2);
    });
    for part in cluster.parts.values_mut().take(8) {
        part.broken = true;
    }
    cluster.settle(200);
    assert_eq!(cluster.reason(), "TooManyFailed");
    let letters = cluster.letters(0);
    assert!(letters.contains('.'), "{letters}");
    cluster.edit(|spec| spec.max_failed = Some(IntOrString::String("50%".to_owned())));
    cluster.settle(200);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    let counts = cluster.status().counts.expect("counts");
    assert_eq!((counts.completed, counts.failed), (32, 8));
    assert_eq!(cluster.status().reasons["PodFailed"], 8);
}

#[test]
fn on_failure_abort_ends_the_run() {
    let mut cluster = Cluster::new(20);
    cluster.edit(|spec| spec.on_failure = Some(OnFailure::Abort));
    cluster.parts.values_mut().for_each(|part| part.broken = true);
    cluster.settle(100);
    assert_eq!(cluster.phase(), RolloutPhase::Failed);
    assert!(cluster.status().completion_time.is_some());
    assert!(condition::holds(&cluster.status().conditions, condition::STALLED));
    cluster.edit(|spec| spec.retry = Some("1".to_owned()));
    cluster.settle(100);
    assert_eq!(cluster.phase(), RolloutPhase::Failed, "an ended run stays ended");
}

#[test]
fn a_device_that_went_away_moves_to_the_last_batch_and_is_no_failure() {
    let mut cluster = Cluster::new(10);
    cluster.rounds(1);
    let canary = cluster.status().members[0].instances[0].clone();
    cluster.part(&canary).present = false;
    cluster.settle(100);
    assert_eq!(cluster.reason(), "NothingProven");
    assert_eq!(cluster.members()[&canary], (2, ':'));
    // No device in the canary batch can be retried: the person's retry continues without it.
    cluster.edit(|spec| spec.retry = Some("on".to_owned()));
    cluster.settle(200);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    assert_eq!(cluster.members()[&canary], (2, 'A'));
    let counts = cluster.status().counts.expect("counts");
    assert_eq!((counts.completed, counts.absent, counts.failed), (9, 1, 0));
    // The device is back, and is retried.
    cluster.returns(&canary);
    cluster.edit(|spec| spec.retry = Some("again".to_owned()));
    cluster.settle(200);
    assert_eq!(cluster.members()[&canary], (2, 'C'));
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
}

#[test]
fn a_device_that_returns_under_another_uid_keeps_its_place_in_the_flash_job() {
    let mut cluster = Cluster::new(6);
    cluster.edit(|spec| {
        spec.batches = Some(vec![batch("only", None)]);
        spec.parallelism = Some(1);
    });
    while cluster.jobs.is_empty() {
        let plan = cluster.decide();
        cluster.apply(&plan);
    }
    let late = cluster.status().members[0].instances[4].clone();
    cluster.part(&late).present = false;
    let plan = cluster.decide();
    cluster.apply(&plan);
    cluster.returns(&late);
    let plan = cluster.decide();
    cluster.apply(&plan);
    let job = cluster.jobs.values().next().expect("a FlashJob");
    assert_eq!(job.object.spec.uuid[4], cluster.parts[&late].uid);
    cluster.settle(100);
    assert_eq!(cluster.letters(0), "CCCCCC");
}

#[test]
fn a_device_that_goes_back_in_the_soak_stops_the_run_before_the_next_batch() {
    let mut cluster = Cluster::new(10);
    cluster.edit(|spec| {
        let mut first = batch("first", Some(2));
        first.soak_seconds = Some(3600);
        spec.batches = Some(vec![first, batch("others", None)]);
    });
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Soaking);
    assert!(cluster.decide().wake_at.is_some());
    let canary = cluster.status().members[0].instances[0].clone();
    cluster.part(&canary).version = Some(OLD.to_owned());
    cluster.settle(50);
    assert_eq!((cluster.phase(), cluster.reason().as_str()), (RolloutPhase::Paused, "Regressed"));
    assert_eq!(cluster.members()[&canary], (0, 'R'));
    cluster.pass(4000);
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Paused);
    assert_eq!(cluster.letters(1), "........");
    cluster.edit(|spec| spec.retry = Some("1".to_owned()));
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Soaking, "it soaks again");
    cluster.pass(3601);
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
}

#[test]
fn an_edited_soak_counts_from_the_end_of_the_batch() {
    let mut cluster = Cluster::new(10);
    let soaks = |seconds| {
        let mut first = batch("first", Some(2));
        first.soak_seconds = Some(seconds);
        Some(vec![first, batch("others", None)])
    };
    cluster.edit(|spec| spec.batches = soaks(3600));
    cluster.settle(50);
    cluster.pass(100);
    cluster.edit(|spec| spec.batches = soaks(60));
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
}

#[test]
fn a_batch_below_its_threshold_does_not_pass() {
    let mut cluster = Cluster::new(10);
    cluster.edit(|spec| {
        let mut first = batch("first", Some(5));
        first.max_failed = Some(IntOrString::Int(5));
        first.success_threshold = Some("90%".to_owned());
        spec.batches = Some(vec![first, batch("others", None)]);
    });
    cluster.rounds(1);
    let one = cluster.status().members[0].instances[3].clone();
    cluster.part(&one).broken = true;
    cluster.settle(50);
    assert_eq!(cluster.reason(), "BelowSuccessThreshold");
    assert_eq!(cluster.status().batches[0].state, BatchState::Failed);
    cluster.edit(|spec| {
        if let Some(batches) = &mut spec.batches {
            batches[0].success_threshold = Some("80%".to_owned());
        }
    });
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
}

#[test]
fn a_large_batch_is_handed_to_several_flash_jobs_and_the_next_begins_before_one_ends() {
    let mut cluster = Cluster::new(25);
    cluster.edit(|spec| {
        spec.batches = Some(vec![batch("only", None)]);
        spec.parallelism = Some(4);
    });
    let mut open_at_once = 0;
    for _ in 0..100 {
        let plan = cluster.decide();
        cluster.apply(&plan);
        let names: Vec<String> = cluster.jobs.keys().cloned().collect();
        for name in names {
            cluster.sync(&name);
            cluster.work(&name, 1);
        }
        assert!(cluster.in_flight() <= 4, "{}", cluster.in_flight());
        open_at_once = open_at_once.max(cluster.status().members[0].shards.len());
    }
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    let sizes: Vec<usize> = cluster.jobs.values().map(|job| job.object.spec.uuid.len()).collect();
    assert_eq!((sizes, open_at_once), (vec![10, 10, 5], 2));
}

#[test]
fn a_place_goes_to_the_next_flash_job_only_once_the_one_before_is_seen_to_have_given_it_up() {
    let mut cluster = Cluster::new(20);
    cluster.edit(|spec| {
        spec.batches = Some(vec![batch("only", None)]);
        spec.parallelism = Some(4);
    });
    let decide = |cluster: &mut Cluster| {
        let plan = cluster.decide();
        cluster.apply(&plan);
        plan.steps
    };
    for _ in 0..3 {
        decide(&mut cluster);
    }
    let first = cluster.jobs.keys().next().expect("a FlashJob").clone();
    cluster.sync(&first);
    // 7 of 10 have ended, and 3 are in flight.
    while cluster.letters(0).matches('C').count() < 7 {
        cluster.work(&first, 1);
        decide(&mut cluster);
    }
    let steps = decide(&mut cluster);
    assert_eq!(cluster.jobs.len(), 1, "its parallelism of 4 is taken back first: {steps:?}");
    assert_eq!(cluster.jobs[&first].object.spec.parallelism, Some(3));
    assert!(decide(&mut cluster).is_empty(), "until its controller has seen that");
    cluster.sync(&first);
    cluster.work(&first, 0);
    let steps = decide(&mut cluster);
    let [Step::CreateChild(next)] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!(next.spec.parallelism, Some(1));
}

#[test]
fn a_finished_rollout_is_deleted_after_its_time() {
    let mut cluster = Cluster::new(3);
    cluster.edit(|spec| spec.ttl_seconds_after_finished = Some(60));
    cluster.settle(50);
    assert!(!cluster.deleted);
    assert!(cluster.decide().wake_at.is_some());
    cluster.pass(61);
    cluster.round();
    assert!(cluster.deleted);
}

#[test]
fn a_run_past_its_deadline_fails_and_leaves_no_flash_job_behind_that_could_go_on() {
    let mut cluster = Cluster::new(20);
    cluster.edit(|spec| {
        spec.active_deadline_seconds = Some(100);
        spec.batches = Some(vec![batch("only", None)]);
        spec.parallelism = Some(2);
    });
    cluster.rounds(4);
    cluster.pass(101);
    cluster.settle(50);
    assert_eq!(
        (cluster.phase(), cluster.reason().as_str()),
        (RolloutPhase::Failed, "DeadlineExceeded")
    );
    assert_eq!(cluster.in_flight(), 0);
    assert!(cluster.jobs.is_empty());
    assert!(cluster.letters(0).contains('C') && cluster.letters(0).contains('.'));
}

#[test]
fn a_completed_rollout_with_failures_within_budget_is_taken_up_by_a_retry() {
    let mut cluster = Cluster::new(40);
    cluster.rounds(1);
    let bad = cluster.status().members[2].instances[5].clone();
    cluster.part(&bad).broken = true;
    cluster.settle(200);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    assert_eq!(cluster.members()[&bad].1, 'F');
    cluster.part(&bad).broken = false;
    cluster.edit(|spec| spec.retry = Some("1".to_owned()));
    cluster.settle(200);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    assert_eq!(cluster.members()[&bad], (2, 'C'));
}

#[test]
fn a_retry_soaks_the_batch_in_progress_anew_and_opens_no_batch_that_passed() {
    let mut cluster = Cluster::new(12);
    let batches = [("first", Some(4)), ("second", Some(4)), ("third", None)];
    cluster.edit(|spec| {
        let soaks = |(name, size)| {
            let (soak_seconds, max_failed) = (Some(100), Some(IntOrString::Int(1)));
            BatchSpec { soak_seconds, max_failed, ..batch(name, size) }
        };
        spec.batches = Some(batches.map(soaks).into());
    });
    cluster.rounds(1);
    let bad = [0, 1].map(|batch| cluster.status().members[batch].instances[2].clone());
    bad.iter().for_each(|name| cluster.part(name).broken = true);
    cluster.settle(50);
    cluster.pass(100);
    cluster.settle(50);
    cluster.pass(60);
    assert_eq!(cluster.status().batches[1].state, BatchState::Soaking);
    bad.iter().for_each(|name| cluster.part(name).broken = false);
    cluster.edit(|spec| spec.retry = Some("1".to_owned()));
    cluster.settle(50);
    // One device of the batch in progress, one of a batch that has passed.
    assert_eq!(cluster.members()[&bad[1]], (1, 'C'));
    assert_eq!(cluster.members()[&bad[0]], (2, ','));
    let states: Vec<_> = cluster.status().batches.iter().map(|batch| batch.state).collect();
    assert_eq!(states, [BatchState::Passed, BatchState::Soaking, BatchState::Pending]);
    cluster.pass(60);
    cluster.settle(50);
    assert_eq!(cluster.status().batches[1].state, BatchState::Soaking, "its soak began anew");
    cluster.pass(40);
    cluster.settle(50);
    assert_eq!(cluster.members()[&bad[0]], (2, 'C'));
    assert_eq!(cluster.phase(), RolloutPhase::Soaking, "it soaks with the last batch");
    cluster.pass(100);
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
}
