//! Tests of the gates: they hold back devices that have not started, and name what they wait for.

use flashjob_api::{FirmwarePin, FirmwarePolicy, RolloutPhase, RolloutWindow, condition};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::model::{Cluster, Job, batch, resolved};
use crate::firmware::{FirmwareState, ResolvedFirmware};

fn waiting_for(cluster: &Cluster) -> String {
    cluster.status().waiting_for.unwrap_or_default()
}

#[test]
fn a_batch_waits_for_an_approval_of_this_run() {
    let mut cluster = Cluster::new(10);
    cluster.edit(|spec| {
        let mut others = batch("others", None);
        others.approval = Some(true);
        spec.batches = Some(vec![batch("first", Some(1)), others]);
        spec.approvals = Some(vec!["others@000000".to_owned()]);
    });
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Waiting);
    assert_eq!(waiting_for(&cluster), "approval of batch others");
    let message = cluster.status().message.expect("a message");
    let names = format!("its approval names run 000000, but this run is {}", cluster.run());
    assert!(message.ends_with(&names), "{message}");
    assert!(!condition::holds(&cluster.status().conditions, condition::APPROVED));
    assert_eq!(cluster.letters(0), "C");
    // An approval of another batch is none of this one.
    cluster.edit(|spec| spec.approvals = Some(vec!["others-2@000000".to_owned()]));
    cluster.settle(10);
    let message = cluster.status().message.expect("a message");
    assert!(message.ends_with("to spec.approvals"), "{message}");
    let approval = format!("others@{}", cluster.run());
    cluster.edit(|spec| spec.approvals = Some(vec![approval]));
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
}

#[test]
fn suspend_lets_devices_in_flight_finish_and_goes_on_where_it_was() {
    let mut cluster = Cluster::new(10);
    cluster.edit(|spec| {
        spec.batches = Some(vec![batch("only", None)]);
        spec.parallelism = Some(2);
    });
    cluster.rounds(3);
    assert!(cluster.in_flight() > 0);
    cluster.edit(|spec| spec.suspend = Some(true));
    cluster.settle(50);
    assert_eq!((cluster.phase(), cluster.in_flight()), (RolloutPhase::Paused, 0));
    assert!(condition::holds(&cluster.status().conditions, condition::PAUSED));
    assert!(!condition::holds(&cluster.status().conditions, condition::STALLED));
    let before = cluster.members();
    assert!(before.values().any(|(_, letter)| *letter == '.'));
    cluster.edit(|spec| spec.suspend = None);
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    assert!(before.keys().eq(cluster.members().keys()));
    assert_eq!(cluster.jobs.len(), 1, "the FlashJob went on");
}

#[test]
fn abort_is_sticky_and_a_new_run_begins_anew() {
    let mut cluster = Cluster::new(20);
    cluster.edit(|spec| {
        spec.batches = Some(vec![batch("only", None)]);
        spec.parallelism = Some(2);
    });
    cluster.rounds(4);
    cluster.edit(|spec| spec.abort = Some(true));
    cluster.settle(50);
    assert_eq!((cluster.phase(), cluster.in_flight()), (RolloutPhase::Aborted, 0));
    cluster.edit(|spec| {
        spec.abort = None;
        spec.retry = Some("1".to_owned());
    });
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Aborted);
    let run = cluster.run();
    cluster.edit(|spec| spec.run_id = Some("again".to_owned()));
    cluster.settle(100);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    let status = cluster.status();
    assert_eq!(
        (status.history[0].run.as_str(), status.history[0].phase.as_str()),
        (run.as_str(), "Aborted")
    );
    assert!(status.history[0].counts.completed > 0);
}

#[test]
fn a_run_that_ended_stays_what_it_was_while_its_flash_jobs_are_being_deleted() {
    let mut cluster = Cluster::new(20);
    cluster.keeps_deleted = true;
    cluster.edit(|spec| {
        spec.batches = Some(vec![batch("only", None)]);
        spec.parallelism = Some(2);
    });
    cluster.rounds(4);
    cluster.edit(|spec| spec.abort = Some(true));
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Aborted);
    let is_deleted = |job: &Job| job.object.metadata.deletion_timestamp.is_some();
    assert!(cluster.jobs.values().any(is_deleted), "its unfinished FlashJob goes");
    cluster.edit(|spec| (spec.abort, spec.run_id) = (None, Some("again".to_owned())));
    cluster.rounds(5);
    assert_eq!(cluster.status().history[0].phase, "Aborted");
    assert_eq!(cluster.phase(), RolloutPhase::Progressing, "{:?}", cluster.status());
    cluster.jobs.retain(|_, job| !is_deleted(job));
    cluster.settle(100);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
}

#[test]
fn nothing_starts_outside_the_window_and_the_next_one_is_named() {
    let mut cluster = Cluster::new(3);
    cluster.edit(|spec| {
        let start = "0 22 * * *".to_owned();
        spec.windows =
            Some(vec![RolloutWindow { start, duration_seconds: 3600, time_zone: None }]);
    });
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Waiting);
    assert!(waiting_for(&cluster).contains("2026-06-01T22:00:00Z"), "{}", waiting_for(&cluster));
    assert!(cluster.jobs.is_empty());
    let opens: Timestamp = "2026-06-01T22:00:00Z".parse().expect("a time");
    assert_eq!(cluster.decide().wake_at, Some(opens));
    cluster.now = opens;
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
}

#[test]
fn a_window_that_never_opens_is_a_fault_until_it_is_corrected() {
    let window = |start: &str, duration_seconds| RolloutWindow {
        start: start.to_owned(),
        duration_seconds,
        time_zone: None,
    };
    // A date that does not exist; blackouts of every day, hour and minute.
    let never = [
        (Some(window("0 2 30 2 *", 3600)), None),
        (Some(window("0 2 * * *", 3600)), Some(window("0 0 * * *", 86_400))),
        (None, Some(window("0 * * * *", 3600))),
        (None, Some(window("* * * * *", 60))),
    ];
    for (opens, closes) in never {
        let mut cluster = Cluster::new(3);
        cluster.edit(|spec| {
            spec.windows = opens.map(|window| vec![window]);
            spec.blackouts = closes.map(|window| vec![window]);
        });
        cluster.settle(50);
        let state = (cluster.phase(), cluster.reason());
        assert_eq!(state, (RolloutPhase::Waiting, "NoWindow".to_owned()));
        let status = cluster.status();
        assert!(condition::holds(&status.conditions, condition::STALLED));
        assert!(!condition::holds(&status.conditions, condition::RECONCILING));
        assert!(status.waits_for_person() && cluster.jobs.is_empty());
        // A window on a distant day is waited for.
        cluster.edit(|spec| {
            (spec.windows, spec.blackouts) = (Some(vec![window("0 2 29 2 *", 3600)]), None);
        });
        cluster.settle(50);
        assert!(
            waiting_for(&cluster).contains("2028-02-29T02:00:00Z"),
            "{}",
            waiting_for(&cluster)
        );
        assert!(!condition::holds(&cluster.status().conditions, condition::STALLED));
        cluster.edit(|spec| spec.windows = None);
        cluster.settle(50);
        assert_eq!(cluster.phase(), RolloutPhase::Completed);
    }
}

#[test]
fn an_invalid_window_is_a_fault_of_the_spec_and_disturbs_nothing() {
    let mut cluster = Cluster::new(10);
    cluster.edit(|spec| spec.parallelism = Some(1));
    cluster.rounds(3);
    let (members, jobs) = (cluster.members(), cluster.jobs.len());
    cluster.edit(|spec| {
        let start = "at night".to_owned();
        spec.windows =
            Some(vec![RolloutWindow { start, duration_seconds: 3600, time_zone: None }]);
    });
    let plan = cluster.decide();
    assert!(plan.steps.is_empty());
    cluster.apply(&plan);
    let status = cluster.status();
    assert!(status.message.as_ref().is_some_and(|text| text.contains("spec.windows[0].start")));
    assert!(condition::holds(&status.conditions, condition::STALLED));
    assert_eq!((cluster.members(), cluster.jobs.len()), (members, jobs));
    assert!(cluster.decide().status.is_none());
    cluster.edit(|spec| spec.windows = None);
    cluster.settle(100);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
}

#[test]
fn a_run_can_be_held_though_its_spec_is_invalid() {
    for is_abort in [false, true] {
        let mut cluster = Cluster::new(10);
        cluster.edit(|spec| spec.parallelism = Some(1));
        cluster.rounds(3);
        let suspended = |cluster: &Cluster| {
            cluster.jobs.values().all(|job| job.object.spec.suspend == Some(true))
        };
        assert!(!suspended(&cluster));
        cluster.edit(|spec| {
            spec.max_failed = Some(IntOrString::Int(-1));
            match is_abort {
                true => spec.abort = Some(true),
                false => spec.suspend = Some(true),
            }
        });
        cluster.rounds(2);
        assert!(suspended(&cluster));
        let message = cluster.status().message.unwrap_or_default();
        assert!(message.contains("spec.maxFailed") && message.contains("no device starts"));
        cluster.edit(|spec| (spec.max_failed, spec.suspend) = (None, None));
        cluster.settle(100);
        let end = if is_abort { RolloutPhase::Aborted } else { RolloutPhase::Completed };
        assert_eq!(cluster.phase(), end);
    }
}

#[test]
fn an_abort_ends_a_rollout_that_was_never_valid_and_its_first_run_starts_once_it_is_valid() {
    let mut cluster = Cluster::new(2);
    cluster.edit(|spec| spec.max_failed = Some(IntOrString::Int(-1)));
    cluster.settle(10);
    assert_eq!((cluster.status().phase, cluster.reason().as_str()), (None, "InvalidSpec"));
    cluster.edit(|spec| spec.abort = Some(true));
    cluster.settle(10);
    let status = cluster.status();
    assert_eq!(
        (cluster.phase(), cluster.reason().as_str()),
        (RolloutPhase::Aborted, "AbortRequested")
    );
    assert!(status.message.is_some_and(|message| message.contains("spec.maxFailed")));
    assert!(status.completion_time.is_some() && status.waiting_for.is_none());
    assert!(condition::holds(&status.conditions, condition::FAILED));
    assert!(cluster.decide().status.is_none(), "nothing moves");
    cluster.edit(|spec| (spec.abort, spec.max_failed) = (None, None));
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
}

#[test]
fn of_two_rollouts_with_a_device_in_common_the_older_one_goes_first() {
    let mut cluster = Cluster::new(4);
    let name = "device-0002".to_owned();
    let older = cluster.now - jiff::SignedDuration::from_secs(60);
    cluster.other_rollouts.push(("before".to_owned(), older, [name.clone()].into()));
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Waiting);
    assert_eq!(waiting_for(&cluster), "FlashRollout before");
    assert!(!cluster.status().waits_for_person());
    cluster.others_await = Some("a person: TooManyFailed".to_owned());
    cluster.settle(50);
    assert_eq!(
        (cluster.phase(), cluster.reason().as_str()),
        (RolloutPhase::Waiting, "OlderRolloutBlocked")
    );
    assert_eq!(
        waiting_for(&cluster),
        "FlashRollout before, which waits for a person: TooManyFailed"
    );
    assert!(cluster.status().waits_for_person(), "who waits for this one waits for a person too");
    let message = cluster.status().message.expect("a message");
    assert!(message.contains("end it with its spec.abort"), "{message}");
    cluster.other_rollouts[0].1 = cluster.now + jiff::SignedDuration::from_secs(60);
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed, "a younger one waits for this");
}

#[test]
fn firmware_that_a_plugin_cannot_inspect_yet_is_waited_for_and_what_it_refuses_plans_nothing() {
    let mut cluster = Cluster::new(4);
    for (reason, permanent, phase, waits) in [
        ("PluginNotReady", false, RolloutPhase::Planning, "a plugin that inspects the firmware"),
        ("FirmwareMismatch", true, RolloutPhase::Paused, "a person: FirmwareMismatch"),
        ("InspectionFailed", true, RolloutPhase::Paused, "a person: InspectionFailed"),
    ] {
        let (reason, message) = (reason.to_owned(), "it says why".to_owned());
        cluster.firmware =
            FirmwareState::Failed { reason: reason.clone(), message: message.clone(), permanent };
        cluster.settle(10);
        assert_eq!((cluster.phase(), cluster.reason()), (phase, reason));
        assert_eq!(waiting_for(&cluster), waits);
        assert!(cluster.status().message.is_some_and(|text| text.contains(&message)));
        assert!(cluster.status().members.is_empty() && cluster.jobs.is_empty());
    }
    cluster.firmware = resolved();
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
}

#[test]
fn the_run_is_planned_once_its_firmware_is_known_and_pauses_when_it_is_gone() {
    let mut cluster = Cluster::new(4);
    cluster.firmware = FirmwareState::NotAsked;
    cluster.settle(10);
    assert_eq!(cluster.phase(), RolloutPhase::Planning);
    assert_eq!(waiting_for(&cluster), "the firmware's registry");
    assert!(cluster.status().members.is_empty());
    assert!(cluster.decide().question.is_some());
    cluster.firmware = resolved();
    cluster.rounds(1);
    assert_eq!(cluster.members().len(), 4);
    cluster.firmware = FirmwareState::Failed {
        reason: "FirmwareUnavailable".to_owned(),
        message: "503".to_owned(),
        permanent: false,
    };
    cluster.settle(10);
    assert_eq!(cluster.phase(), RolloutPhase::Waiting);
    cluster.firmware = FirmwareState::Failed {
        reason: "FirmwareUnavailable".to_owned(),
        message: "404".to_owned(),
        permanent: true,
    };
    cluster.settle(10);
    assert_eq!(
        (cluster.phase(), cluster.reason().as_str()),
        (RolloutPhase::Paused, "FirmwareUnavailable")
    );
    assert!(cluster.jobs.is_empty());
    assert!(cluster.questions.contains("Some(0) r.io/f@sha256:0a0b"), "{:?}", cluster.questions);
    cluster.firmware = resolved();
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
}

#[test]
fn each_batch_asks_for_the_types_of_all_devices_and_waits_for_the_plugins_that_inspect_it() {
    let mut cluster = Cluster::new(4);
    cluster.edit(|spec| spec.batches = Some(vec![batch("first", Some(1)), batch("rest", None)]));
    for place in [0, 1] {
        cluster.firmware = resolved();
        while cluster.status().batches.get(place).is_none_or(|batch| batch.started_at.is_some()) {
            cluster.rounds(1);
        }
        cluster.firmware = FirmwareState::Failed {
            reason: "PluginNotReady".to_owned(),
            message: "it is being exchanged".to_owned(),
            permanent: false,
        };
        cluster.settle(50);
        let question = cluster.decide().question.expect("a question");
        assert_eq!(
            (question.batch, question.device_types),
            (Some(place), vec!["esp32".to_owned()])
        );
        assert_eq!(cluster.phase(), RolloutPhase::Waiting);
        assert_eq!(waiting_for(&cluster), "a plugin that inspects the firmware");
        assert!(!cluster.letters(place).contains('C'), "{}", cluster.letters(place));
        cluster.firmware = resolved();
        cluster.rounds(2);
    }
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
}

#[test]
fn a_changed_trust_holds_a_batch_in_progress_until_the_firmware_is_proven_again() {
    let mut cluster = Cluster::new(6);
    cluster.trust = Some("sha256:01".to_owned());
    cluster.edit(|spec| {
        spec.batches = Some(vec![batch("only", None)]);
        spec.parallelism = Some(2);
    });
    cluster.rounds(4);
    assert!(cluster.in_flight() > 0);
    let stored = |cluster: &Cluster| cluster.status().firmware.expect("stored");
    let first = stored(&cluster);
    assert_eq!(first.trust, cluster.trust);
    // The registry is unavailable, and no device needs it.
    cluster.firmware = FirmwareState::NotAsked;
    assert!(cluster.decide().question.is_none());
    cluster.trust = Some("sha256:02".to_owned());
    let question = cluster.decide().question.expect("a question");
    assert_eq!((&question.reference, question.batch), (&first.reference, Some(0)));
    assert_eq!((&question.trust, &question.device_types), (&cluster.trust, &first.device_types));
    cluster.firmware = FirmwareState::Failed {
        reason: "FirmwareUntrusted".to_owned(),
        message: "not signed".to_owned(),
        permanent: true,
    };
    cluster.settle(50);
    assert_eq!((cluster.phase(), cluster.in_flight()), (RolloutPhase::Paused, 0));
    assert_eq!(cluster.reason(), "FirmwareUntrusted");
    assert!(cluster.letters(0).contains('.'), "{}", cluster.letters(0));
    cluster.firmware = resolved();
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    let second = stored(&cluster);
    assert_eq!((&second.trust, second.reference), (&cluster.trust, first.reference));
}

#[test]
fn firmware_that_is_not_pinned_is_passed_on_as_written() {
    let mut cluster = Cluster::new(2);
    cluster.edit(|spec| {
        spec.firmware = "http://files/f.bin".to_owned();
        spec.firmware_policy = Some(FirmwarePolicy { pin: Some(FirmwarePin::None), verify: None });
    });
    cluster.firmware = FirmwareState::Resolved(ResolvedFirmware::default());
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
    assert!(cluster.jobs.values().all(|job| job.object.spec.firmware == "http://files/f.bin"));
}

#[test]
fn a_device_type_without_firmware_and_a_missing_signature_stop_the_run_before_the_first_device() {
    use flashjob_api::FirmwareVerification;
    let mut cluster = Cluster::new(2);
    cluster.firmware = FirmwareState::Resolved(ResolvedFirmware {
        digest: Some("sha256:0a".to_owned()),
        platforms: vec!["esp32s3".to_owned()],
        signer: None,
    });
    cluster.settle(10);
    assert_eq!(
        (cluster.phase(), cluster.reason().as_str()),
        (RolloutPhase::Paused, "MissingPlatform")
    );
    assert!(cluster.status().message.expect("a message").contains("esp32"));
    cluster.firmware = resolved();
    cluster.edit(|spec| {
        let verify = Some(FirmwareVerification::Required);
        spec.firmware_policy = Some(FirmwarePolicy { pin: None, verify });
    });
    cluster.settle(10);
    assert_eq!(cluster.reason(), "FirmwareUntrusted");
    assert!(cluster.jobs.is_empty());
}

#[test]
fn flash_jobs_that_the_api_server_refuses_are_named_and_asked_for_again() {
    let mut cluster = Cluster::new(2);
    cluster.refuses = Some("exceeded quota".to_owned());
    cluster.rounds(5);
    assert_eq!(cluster.reason(), "FlashJobRefused");
    assert!(cluster.status().message.expect("a message").contains("exceeded quota"));
    assert!(condition::holds(&cluster.status().conditions, condition::STALLED));
    assert!(!cluster.decide().steps.is_empty());
    cluster.refuses = None;
    cluster.settle(50);
    assert_eq!(cluster.phase(), RolloutPhase::Completed);
}

#[test]
fn a_finished_rollout_whose_spec_was_invalid_for_a_while_says_again_how_it_ended() {
    let mut cluster = Cluster::new(2);
    cluster.settle(50);
    let ended = cluster.status();
    cluster.edit(|spec| spec.max_failed = Some(IntOrString::Int(-1)));
    cluster.settle(10);
    assert_eq!(cluster.reason(), "InvalidSpec");
    cluster.edit(|spec| spec.max_failed = None);
    cluster.settle(10);
    let again = cluster.status();
    assert_eq!(
        (again.phase, again.reason, again.message),
        (ended.phase, ended.reason, ended.message)
    );
    assert!(condition::holds(&again.conditions, condition::READY));
}
