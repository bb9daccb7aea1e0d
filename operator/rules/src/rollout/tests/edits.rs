//! Edits of the rollout, and manual edits of its FlashJobs.

use std::collections::BTreeSet;

use flashjob_api::{RolloutPhase, VerifyMode, VerifySpec};

use super::model::{Cluster, NEW, batch};
use crate::rollout::Step;

fn one_batch(devices: usize, parallelism: i32) -> Cluster {
    let mut cluster = Cluster::new(devices);
    cluster.edit(|spec| {
        spec.batches = Some(vec![batch("only", None)]);
        spec.parallelism = Some(parallelism);
    });
    cluster
}

/// Runs until some devices completed and others did not.
fn until_some_completed(cluster: &mut Cluster) -> usize {
    for _ in 0..20 {
        cluster.round();
        let done =
            cluster.status().members.first().map_or(0, |list| list.results.matches('C').count());
        if done > 0 {
            return done;
        }
    }
    panic!("nobody completes: {:?}", cluster.status());
}

fn first_job(cluster: &Cluster) -> String {
    cluster.jobs.keys().next().expect("a FlashJob").clone()
}

fn edit_job(cluster: &mut Cluster, change: impl FnOnce(&mut flashjob_api::FlashJobSpec)) {
    let name = first_job(cluster);
    let job = cluster.jobs.get_mut(&name).expect("a FlashJob");
    change(&mut job.object.spec);
    *job.object.metadata.generation.get_or_insert(0) += 1;
}

#[test]
fn policy_fields_apply_at_once_and_reshuffle_nobody() {
    let mut cluster = one_batch(10, 2);
    cluster.rounds(3);
    let before = cluster.status().members[0].instances.clone();
    cluster.edit(|spec| {
        spec.parallelism = Some(5);
        spec.batches = Some(vec![batch("first", Some(2)), batch("only", None)]);
        let timeout_seconds = Some(77);
        let verify = Some(VerifySpec { timeout_seconds, ..VerifySpec::default() });
        spec.template.get_or_insert_default().verify = verify;
    });
    cluster.rounds(1);
    let spec = &cluster.jobs[&first_job(&cluster)].object.spec;
    assert_eq!(spec.parallelism, Some(5));
    let verify = spec.verify.clone().expect("verify");
    assert_eq!((verify.mode, verify.timeout_seconds), (Some(VerifyMode::Required), Some(77)));
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    assert_eq!(cluster.status().members[0].instances, before);
}

#[test]
fn settings_of_a_flash_job_that_somebody_edits_are_restored() {
    let mut cluster = one_batch(10, 2);
    cluster.rounds(3);
    edit_job(&mut cluster, |spec| {
        spec.parallelism = Some(400);
        spec.suspend = None;
        spec.max_failed_devices = None;
        spec.device = Some(String::new());
        spec.ttl_seconds_after_finished = Some(1);
    });
    let plan = cluster.decide();
    let [Step::PatchChild { spec, .. }] = plan.steps.as_slice() else { panic!("{plan:?}") };
    assert_eq!(spec["parallelism"], 2);
    assert_eq!(spec["suspend"], false);
    assert_eq!(spec["maxFailedDevices"], 0);
    assert!(spec["ttlSecondsAfterFinished"].is_null() && spec["device"].is_null());
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    assert_eq!(cluster.jobs.len(), 1);
}

#[test]
fn a_flash_job_whose_firmware_was_edited_is_replaced_and_its_results_do_not_count() {
    let mut cluster = one_batch(8, 2);
    until_some_completed(&mut cluster);
    let before = cluster.members();
    edit_job(&mut cluster, |spec| {
        spec.firmware = "r.io/evil:1".to_owned();
        spec.version = "6.6.6".to_owned();
    });
    let edited = first_job(&cluster);
    // The controller of the FlashJob acts before that of the rollout.
    cluster.sync(&edited);
    cluster.work(&edited, 5);
    cluster.work(&edited, 5);
    let plan = cluster.decide();
    cluster.apply(&plan);
    for (name, (_, letter)) in cluster.members() {
        assert!(letter == before[&name].1 || letter == 'R', "{name} {letter}");
    }
    cluster.settle(100);
    // Devices that were flashed with it report another version.
    assert_eq!((cluster.phase(), cluster.reason().as_str()), (RolloutPhase::Paused, "Regressed"));
    assert!(!cluster.jobs.contains_key(&edited));
    cluster.edit(|spec| spec.retry = Some("1".to_owned()));
    cluster.settle(100);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    assert!(cluster.parts.values().all(|part| part.version.as_deref() == Some(NEW)));
}

#[test]
fn a_flash_job_whose_devices_were_edited_is_replaced() {
    for change in [
        (|uuid: &mut Vec<String>| uuid.reverse()) as fn(&mut Vec<String>),
        |uuid| drop(uuid.pop()),
        |uuid| uuid.push("other".to_owned()),
        |uuid| uuid.truncate(1),
    ] {
        let mut cluster = one_batch(8, 2);
        let done = until_some_completed(&mut cluster);
        edit_job(&mut cluster, |spec| change(&mut spec.uuid));
        cluster.settle(100);
        assert_eq!(cluster.phase(), RolloutPhase::Completed);
        assert!(done > 0 && cluster.letters(0).chars().all(|letter| letter == 'C'));
    }
}

#[test]
fn a_deleted_flash_job_is_planned_again_for_who_has_no_result() {
    let mut cluster = one_batch(8, 2);
    let done = until_some_completed(&mut cluster);
    let plan = cluster.decide();
    cluster.apply(&plan);
    let done = done.max(cluster.letters(0).matches('C').count());
    let name = first_job(&cluster);
    cluster.jobs.remove(&name);
    cluster.settle(100);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    assert!(!cluster.jobs.contains_key(&name));
    let job = &cluster.jobs[&format!("{name}-2")];
    assert_eq!(job.object.spec.uuid.len(), 8 - done);
    assert_eq!(cluster.status().counts.expect("counts").completed, 8);
}

#[test]
fn a_flash_job_that_vanished_before_its_first_result_is_created_under_its_name() {
    let mut cluster = one_batch(4, 1);
    while cluster.jobs.is_empty() {
        let plan = cluster.decide();
        cluster.apply(&plan);
    }
    let name = first_job(&cluster);
    cluster.jobs.clear();
    let plan = cluster.decide();
    cluster.apply(&plan);
    assert_eq!(first_job(&cluster), name);
}

#[test]
fn a_name_that_somebody_else_has_is_named() {
    let mut cluster = one_batch(4, 1);
    cluster.rounds(1);
    let name = format!("all-{}-01", cluster.run());
    cluster.foreign.insert(name.clone());
    cluster.settle(20);
    assert_eq!((cluster.phase(), cluster.reason().as_str()), (RolloutPhase::Paused, "NameTaken"));
    assert!(cluster.status().message.expect("a message").contains(&name));
    cluster.foreign.clear();
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
}

#[test]
fn another_firmware_supersedes_the_run_once_devices_in_flight_have_finished() {
    let mut cluster = one_batch(8, 2);
    cluster.rounds(3);
    let (old, flight) = (cluster.run(), cluster.in_flight());
    assert!(flight > 0);
    cluster.edit(|spec| spec.version = "3.0.0".to_owned());
    let plan = cluster.decide();
    cluster.apply(&plan);
    assert_eq!(cluster.run(), old);
    assert_eq!(
        cluster.status().waiting_for,
        Some(format!("devices of run {old} that are in flight"))
    );
    cluster.settle(100);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    let status = cluster.status();
    assert_ne!(status.run.as_ref(), Some(&old));
    let past = &status.history[0];
    assert_eq!(
        (past.run.as_str(), past.version.as_str(), past.phase.as_str()),
        (old.as_str(), NEW, "Superseded")
    );
    assert!(past.counts.completed >= 2, "{:?}", past.counts);
    assert!(cluster.jobs.keys().all(|name| !name.contains(&old)), "what did not end is deleted");
    assert!(cluster.parts.values().all(|part| part.version.as_deref() == Some("3.0.0")));
}

#[test]
fn a_run_of_before_comes_back_under_another_name() {
    let mut cluster = Cluster::new(3);
    cluster.settle(50);
    let first = cluster.run();
    cluster.edit(|spec| spec.run_id = Some("x".to_owned()));
    cluster.settle(50);
    cluster.edit(|spec| {
        spec.run_id = None;
        spec.skip_if_current = Some(false);
    });
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    assert_ne!(cluster.run(), first);
    assert_eq!(cluster.status().history.len(), 2);
}

#[test]
fn only_the_last_five_runs_are_remembered_and_flash_jobs_of_others_go() {
    let mut cluster = Cluster::new(2);
    cluster.edit(|spec| spec.skip_if_current = Some(false));
    for number in 0..8 {
        cluster.edit(|spec| spec.run_id = Some(number.to_string()));
        cluster.settle(100);
        assert_eq!(cluster.phase(), RolloutPhase::Completed, "{:?}", cluster.status().message);
    }
    assert_eq!(cluster.status().history.len(), 5);
    assert_eq!(cluster.jobs.len(), 6 * 2);
}

#[test]
fn a_run_whose_fields_were_those_of_a_forgotten_one_has_a_name_and_flash_jobs_of_its_own() {
    let mut cluster = one_batch(2, 2);
    cluster.edit(|spec| spec.allow_downgrade = Some(true));
    let mut names = BTreeSet::new();
    for run in 0..9 {
        let version = if run % 2 == 0 { "2.0.0" } else { "3.0.0" };
        cluster.edit(|spec| spec.version = version.to_owned());
        cluster.settle(100);
        assert_eq!(cluster.phase(), RolloutPhase::Completed, "{:?}", cluster.status().message);
        assert!(names.insert(cluster.run()), "run {run} has the name of one before");
        assert!(cluster.parts.values().all(|part| part.version.as_deref() == Some(version)));
    }
}

#[test]
fn a_new_run_waits_until_the_flash_jobs_of_the_one_before_have_seen_that_they_are_suspended() {
    let mut cluster = one_batch(4, 2);
    while cluster.jobs.is_empty() {
        let plan = cluster.decide();
        cluster.apply(&plan);
    }
    let (name, old) = (first_job(&cluster), cluster.run());
    cluster.sync(&name);
    cluster.edit(|spec| spec.version = "3.0.0".to_owned());
    for _ in 0..3 {
        let plan = cluster.decide();
        cluster.apply(&plan);
    }
    // The FlashJob may still start devices, as its controller has not observed the change.
    assert_eq!((cluster.run(), cluster.jobs.len()), (old.clone(), 1));
    cluster.work(&name, 0);
    assert_eq!(cluster.in_flight(), 2);
    cluster.settle(50);
    assert_ne!(cluster.run(), old);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
}

#[test]
fn an_edited_flash_job_is_deleted_only_once_its_results_are_stored() {
    let mut cluster = one_batch(4, 2);
    until_some_completed(&mut cluster);
    let name = first_job(&cluster);
    cluster.work(&name, 1);
    edit_job(&mut cluster, |spec| {
        spec.uuid.push("other".to_owned());
        spec.suspend = Some(true);
    });
    let deletes = |cluster: &Cluster| {
        cluster.decide().steps.iter().any(|step| matches!(step, Step::DeleteChild { .. }))
    };
    for _ in 0..4 {
        cluster.sync(&name);
        cluster.work(&name, 1);
    }
    assert_eq!(cluster.in_flight(), 0);
    assert!(cluster.decide().status.is_some() && !deletes(&cluster), "results come first");
    let plan = cluster.decide();
    cluster.store(&plan);
    assert!(deletes(&cluster));
    cluster.settle(50);
    assert_eq!(cluster.letters(0), "CCCC");
}

#[test]
fn devices_in_flight_of_an_edited_flash_job_still_count_toward_parallelism() {
    let mut cluster = one_batch(20, 4);
    cluster.rounds(3);
    let name = first_job(&cluster);
    while cluster.letters(0).matches('C').count() < 7 {
        cluster.work(&name, 1);
        let plan = cluster.decide();
        cluster.store(&plan);
    }
    assert_eq!(cluster.in_flight(), 3);
    edit_job(&mut cluster, |spec| spec.uuid.push("other".to_owned()));
    for _ in 0..3 {
        let plan = cluster.decide();
        cluster.apply(&plan);
        cluster.sync(&name);
        cluster.work(&name, 0);
    }
    let created = cluster.jobs.values().map(|job| job.object.spec.parallelism);
    assert_eq!(created.collect::<Vec<_>>(), [Some(4), Some(1)]);
    cluster.settle(100);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    let counts = cluster.status().counts.expect("counts");
    assert_eq!((counts.completed, counts.planned), (20, 20));
}

/// One device, whose only FlashJob is flashing it, and the next batch.
fn canary_in_flight() -> (Cluster, String, String) {
    let mut cluster = Cluster::new(4);
    cluster.edit(|spec| spec.batches = Some(vec![batch("canary", Some(1)), batch("rest", None)]));
    while cluster.in_flight() == 0 {
        cluster.round();
    }
    let plan = cluster.decide();
    cluster.apply(&plan);
    assert_eq!(cluster.letters(0), ",");
    let device = cluster.status().members[0].instances[0].clone();
    let name = first_job(&cluster);
    (cluster, device, name)
}

#[test]
fn a_device_that_this_run_flashed_completed_though_its_flash_job_was_lost_with_the_result() {
    let losses: [fn(&mut Cluster, &str); 4] = [
        |cluster, name| drop(cluster.jobs.remove(name)),
        |cluster, _| edit_job(cluster, |spec| spec.uuid = vec!["other".to_owned()]),
        |cluster, _| edit_job(cluster, |spec| spec.firmware = "r.io/other:1".to_owned()),
        |cluster, _| edit_job(cluster, |spec| spec.version = "6.6.6".to_owned()),
    ];
    for lose in losses {
        let (mut cluster, device, name) = canary_in_flight();
        lose(&mut cluster, &name);
        cluster.part(&device).version = Some(NEW.to_owned());
        if let Some(job) = cluster.jobs.get_mut(&name) {
            // The devices in flight have ended, and the FlashJob starts again with its edited
            // spec.
            job.object.status = None;
        }
        cluster.settle(100);
        assert_eq!(cluster.phase(), RolloutPhase::Completed, "{:?}", cluster.status().message);
        assert_eq!(cluster.members()[&device], (0, 'C'));
        assert!(cluster.jobs.values().all(|job| job.object.spec.version == NEW), "it is replaced");
    }
}

#[test]
fn a_device_that_was_lost_in_flight_and_stays_away_is_absent_in_the_end() {
    let (mut cluster, device, name) = canary_in_flight();
    cluster.jobs.remove(&name);
    cluster.part(&device).present = false;
    cluster.settle(100);
    assert_eq!(
        (cluster.phase(), cluster.reason()),
        (RolloutPhase::Paused, "NothingProven".into())
    );
    assert_eq!(cluster.members()[&device], (1, ';'));
    cluster.edit(|spec| spec.retry = Some("1".to_owned()));
    cluster.settle(100);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    assert_eq!(cluster.members()[&device], (1, 'A'));
}

#[test]
fn a_device_that_failed_and_reports_the_version_when_it_is_retried_has_completed() {
    let (mut cluster, device, _) = canary_in_flight();
    cluster.part(&device).broken = true;
    cluster.settle(100);
    assert_eq!(cluster.members()[&device], (0, 'F'));
    cluster.part(&device).version = Some(NEW.to_owned());
    cluster.edit(|spec| spec.retry = Some("1".to_owned()));
    cluster.settle(100);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    assert_eq!(cluster.members()[&device], (0, 'C'));
}

#[test]
fn a_device_that_somebody_else_flashed_is_skipped() {
    let mut cluster = one_batch(4, 1);
    cluster.rounds(3);
    let members = cluster.members();
    let waits = members.iter().find(|(_, (_, letter))| *letter == '.').expect("one that waits");
    cluster.part(waits.0).version = Some(NEW.to_owned());
    cluster.settle(100);
    assert_eq!(cluster.members()[waits.0], (0, 'S'));
}

#[test]
fn a_flash_job_that_has_ended_is_not_made_again_when_it_is_edited_or_deleted() {
    let changes: [fn(&mut Cluster, &str); 3] = [
        |cluster, name| drop(cluster.jobs.remove(name)),
        |cluster, _| edit_job(cluster, |spec| spec.uuid.push("other".to_owned())),
        |cluster, _| edit_job(cluster, |spec| spec.firmware = "r.io/other:1".to_owned()),
    ];
    for change in changes {
        let mut cluster = one_batch(3, 3);
        cluster.settle(50);
        let (members, name) = (cluster.members(), first_job(&cluster));
        change(&mut cluster, &name);
        for _ in 0..5 {
            let plan = cluster.decide();
            cluster.apply(&plan);
            cluster.sync(&name);
            cluster.work(&name, 0);
        }
        assert!(cluster.jobs.is_empty(), "{:?}", cluster.jobs.keys());
        assert_eq!((cluster.phase(), cluster.members()), (RolloutPhase::Completed, members));
    }
}

#[test]
fn who_is_at_work_is_no_reason_to_store_the_status_at_once() {
    let mut cluster = one_batch(4, 2);
    cluster.rounds(2);
    while cluster.in_flight() == 0 {
        cluster.round();
    }
    let plan = cluster.decide();
    let status = plan.status.expect("a status");
    assert_eq!(status.members[0].results.matches(',').count(), 2);
    assert!(!plan.urgent || status.waiting_for != cluster.status().waiting_for);
}
