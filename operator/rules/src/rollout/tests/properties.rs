//! Whatever happens, and whatever is lost: a run ends or waits for something that it names, and
//! its invariants hold at every moment.

use std::collections::BTreeMap;

use flashjob_api::{BatchState, OnFailure, RolloutPhase, RolloutWindow, rollout_reason};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;

use super::events::{Event, event, gentle_event};
use super::model::{Cluster, OLD, batch, resolved};
use crate::firmware::FirmwareState;
use crate::rollout::{Plan, Step};

fn device(cluster: &Cluster, number: usize) -> String {
    let names: Vec<&String> = cluster.parts.keys().collect();
    names[number % names.len()].clone()
}

fn job(cluster: &Cluster, number: usize) -> Option<String> {
    let names: Vec<&String> = cluster.jobs.keys().collect();
    (!names.is_empty()).then(|| names[number % names.len()].clone())
}

/// The cluster, and the state against which invariants are checked.
struct Watched {
    cluster: Cluster,
    /// Highest parallelism that was ever requested.
    most: usize,
    /// True once a FlashJob was edited manually: it may then violate limits for a while.
    edited: bool,
    run: Option<String>,
    batches: BTreeMap<String, (usize, char)>,
    retry: Option<String>,
}

impl Watched {
    fn new(devices: usize, sizes: &[i32], approval: bool) -> Self {
        let mut cluster = Cluster::new(devices);
        let mut batches: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(place, size)| batch(&format!("batch-{place}"), Some(*size)))
            .collect();
        if let Some(last) = batches.last_mut() {
            last.approval = Some(approval);
        }
        cluster.edit(|spec| {
            spec.batches = (!batches.is_empty()).then_some(batches);
            spec.parallelism = Some(3);
        });
        Self { cluster, most: 3, edited: false, run: None, batches: BTreeMap::new(), retry: None }
    }

    fn happens(&mut self, event: &Event) {
        let cluster = &mut self.cluster;
        match event {
            Event::Decide(steps, stored) => {
                let plan = cluster.decide();
                self.check_plan(&plan);
                let cluster = &mut self.cluster;
                for (place, step) in plan.steps.iter().enumerate() {
                    if steps >> (place % 8) & 1 == 1 {
                        cluster.carry_out(step);
                    }
                }
                if *stored {
                    cluster.store(&plan);
                }
            }
            Event::Sync(number) => {
                if let Some(name) = job(cluster, *number) {
                    cluster.sync(&name);
                }
            }
            Event::Work(number, ends) => {
                if let Some(name) = job(cluster, *number) {
                    cluster.work(&name, *ends);
                }
            }
            Event::Pass(seconds) => cluster.pass(*seconds),
            Event::Leave(number) => {
                let name = device(cluster, *number);
                cluster.part(&name).present = false;
            }
            Event::Return(number) => {
                let name = device(cluster, *number);
                cluster.returns(&name);
            }
            Event::GoBack(number) => {
                let name = device(cluster, *number);
                cluster.part(&name).version = Some(OLD.to_owned());
            }
            Event::Break(number) => {
                let name = device(cluster, *number);
                cluster.part(&name).broken = true;
            }
            Event::Mend(number) => {
                let name = device(cluster, *number);
                cluster.part(&name).broken = false;
            }
            Event::Suspend(suspend) => cluster.edit(|spec| spec.suspend = Some(*suspend)),
            Event::Approve => self.approve(),
            Event::Retry(value) => cluster.edit(|spec| spec.retry = Some(value.to_string())),
            Event::Parallelism(count) => {
                let count = *count;
                self.most = self.most.max(usize::try_from(count).unwrap_or(1));
                cluster.edit(|spec| spec.parallelism = Some(count));
            }
            Event::MaxFailed(count) => {
                cluster.edit(|spec| spec.max_failed = Some(IntOrString::Int(*count)));
            }
            Event::Soak(seconds) => cluster.edit(|spec| {
                for batch in spec.batches.iter_mut().flatten() {
                    batch.soak_seconds = Some(*seconds);
                }
            }),
            Event::NewRun(number) => cluster.edit(|spec| spec.run_id = Some(number.to_string())),
            Event::Abort => cluster.edit(|spec| spec.abort = Some(true)),
            Event::Deadline(seconds) => {
                cluster.edit(|spec| spec.active_deadline_seconds = Some(*seconds));
            }
            Event::OnFailure(aborts) => {
                let effect = if *aborts { OnFailure::Abort } else { OnFailure::Pause };
                cluster.edit(|spec| spec.on_failure = Some(effect));
            }
            Event::Window(limited) => {
                let (start, duration_seconds) = ("*/10 * * * *".to_owned(), 240);
                let window = RolloutWindow { start, duration_seconds, time_zone: None };
                cluster.edit(|spec| spec.windows = limited.then(|| vec![window]));
            }
            Event::Firmware(is_there) => self.firmware(*is_there),
            Event::Older(is_there) => self.older(*is_there),
            Event::DeleteJob(number) => {
                if let Some(name) = job(cluster, *number) {
                    cluster.jobs.remove(&name);
                    self.edited = true;
                }
            }
            Event::EditSettings(number) => {
                self.edit_job(*number, |spec| spec.parallelism = Some(9))
            }
            Event::EditDevices(number) => {
                self.edit_job(*number, |spec| {
                    if spec.uuid.len() > 1 {
                        spec.uuid.pop();
                    }
                });
            }
            Event::EditFirmware(number) => {
                self.edit_job(*number, |spec| spec.firmware = "r.io/other:1".to_owned());
            }
        }
        self.check();
    }

    fn firmware(&mut self, is_there: bool) {
        self.cluster.firmware = match is_there {
            true => resolved(),
            false => FirmwareState::Failed {
                reason: rollout_reason::FIRMWARE_UNAVAILABLE.name.to_owned(),
                message: "not found".to_owned(),
                permanent: true,
            },
        };
    }

    fn older(&mut self, is_there: bool) {
        let created = self.cluster.now - SignedDuration::from_hours(1);
        let held = self.cluster.parts.keys().take(2).cloned().collect();
        self.cluster.other_rollouts.clear();
        if is_there {
            self.cluster.other_rollouts.push(("older".to_owned(), created, held));
        }
    }

    fn edit_job(&mut self, number: usize, change: impl FnOnce(&mut flashjob_api::FlashJobSpec)) {
        let Some(name) = job(&self.cluster, number) else { return };
        let job = self.cluster.jobs.get_mut(&name).expect("a FlashJob");
        change(&mut job.object.spec);
        *job.object.metadata.generation.get_or_insert(0) += 1;
        self.edited = true;
    }

    fn approve(&mut self) {
        let Some(run) = self.cluster.status().run else { return };
        self.cluster.edit(|spec| {
            let names = spec.batches.iter().flatten().map(|batch| format!("{}@{run}", batch.name));
            spec.approvals = Some(names.collect());
        });
    }

    /// Checks that no batch starts before the earlier ones passed, or before it is stored.
    fn check_plan(&self, plan: &Plan) {
        let status = self.cluster.status();
        for step in &plan.steps {
            let Step::CreateChild(created) = step else { continue };
            let name = created.metadata.name.as_deref().unwrap_or_default();
            let batches = status.members.iter().enumerate();
            let shard = batches.flat_map(|(batch, list)| {
                list.shards.iter().map(move |shard| (batch, *shard, list))
            });
            let run = status.run.as_deref().unwrap_or_default();
            let mut of_name = shard.filter(|(batch, shard, _)| {
                crate::rollout::make::child_name("all", run, *batch, shard.number) == name
            });
            let Some((batch, shard, list)) = of_name.next() else {
                panic!("{name} is created before its shard is stored");
            };
            assert_eq!(created.spec.uuid.len(), shard.count as usize);
            let passed = |batch: &flashjob_api::BatchStatus| batch.state == BatchState::Passed;
            assert!(status.batches[..batch].iter().all(passed), "{name} is too early");
            // A new retry discards the stored failures, and takes effect at once.
            let retry = &self.cluster.rollout.spec.retry;
            if retry.is_none() || *retry == status.retry {
                for earlier in 0..=batch {
                    self.check_budget(earlier, &status);
                }
            }
            let names = &list.instances[shard.first as usize..][..shard.count as usize];
            for (uid, name) in created.spec.uuid.iter().zip(names) {
                let part = &self.cluster.parts[name];
                assert!(*uid == part.uid || !part.present, "{name} is named by {uid}");
            }
        }
    }

    /// Checks that nothing starts while a batch up to that of the new FlashJob exceeds its budget.
    fn check_budget(&self, batch: usize, status: &flashjob_api::FlashRolloutStatus) {
        let list = &status.members[batch];
        let failed = list.results.chars().filter(|letter| matches!(letter, 'F' | 'R')).count();
        let allowed = match self.cluster.rollout.spec.max_failed {
            Some(IntOrString::Int(count)) => usize::try_from(count).expect("a number"),
            _ if batch == 0 => 0,
            _ => list.instances.len() / 10,
        };
        let name = &status.batches[batch].name;
        assert!(failed <= allowed, "{failed} failed in batch {name}, which allows {allowed}");
    }

    fn check(&mut self) {
        let status = self.cluster.status();
        if !self.edited {
            let in_flight = self.cluster.in_flight();
            assert!(in_flight <= self.most, "{in_flight} of {} in flight", self.most);
        }
        let members = self.cluster.members();
        for list in &status.members {
            assert_eq!(list.instances.len(), list.results.chars().count());
        }
        if status.run == self.run && !self.batches.is_empty() {
            assert!(members.keys().eq(self.batches.keys()), "members of a run stay");
            let last = status.members.len() - 1;
            for (name, (batch, letter)) in &members {
                let (was_in, was) = self.batches[name];
                assert!(*batch == was_in || *batch == last, "{name} moved to batch {batch}");
                let stays = match was {
                    'C' => "CR",
                    'U' => "UCR",
                    'S' => "S",
                    _ if status.retry != self.retry => ".:,;CUFSART",
                    'F' => "F",
                    'A' => "A",
                    'R' => "R",
                    ',' | ';' => ",;CUFSART",
                    _ => ".:,;CUFSART",
                };
                // Regressed devices may be retried too.
                let stays = if status.retry == self.retry { stays } else { ".:,;CUFSART" };
                assert!(stays.contains(*letter), "{name}: {was} became {letter}");
            }
        }
        (self.run, self.batches, self.retry) = (status.run, members, status.retry);
    }

    /// Checks that a second decision from the same state is the same.
    fn check_repeatable(&self) {
        let (one, other) = (self.cluster.decide(), self.cluster.decide());
        assert_eq!(
            (one.steps, one.status, one.wake_at),
            (other.steps, other.status, other.wake_at)
        );
    }

    /// Checks that the run ends or waits, when every controller works and nothing interferes.
    fn ends_or_waits(&mut self) {
        let mut before = BTreeMap::new();
        for round in 0..60 {
            self.cluster.settle(400);
            self.check();
            let plan = self.cluster.decide();
            let status = self.cluster.status();
            let phase = status.phase.expect("a phase");
            if phase.is_final() {
                assert!(status.completion_time.is_some());
                assert_eq!(self.cluster.in_flight(), 0);
                assert!(plan.wake_at.is_none());
                return;
            }
            assert!(status.waiting_for.is_some(), "waits for nothing: {status:?}");
            if status.reason.as_deref() == Some("EmptyBatch") {
                // With few devices, none may be left for a later batch: a person has to decide.
                return;
            }
            let Some(at) = plan.wake_at else {
                let waits = matches!(phase, RolloutPhase::Paused | RolloutPhase::Waiting);
                assert!(waits, "{phase:?} without end: {status:?}");
                return;
            };
            // Windows open and close while the run waits for a person.
            if round % 10 == 9 {
                let members = self.cluster.members();
                if members == before {
                    return;
                }
                before = members;
            }
            self.cluster.now = self.cluster.now.max(at);
        }
        panic!("does not end: {:?}", self.cluster.status());
    }
}

proptest! {
    #![proptest_config(crate::tests::config(128, 4000))]

    #[test]
    fn a_run_ends_or_waits_for_something_named_and_keeps_its_promises(
        devices in 4_usize..40,
        sizes in prop::collection::vec(1_i32..3, 0..3),
        approval: bool,
        events in prop::collection::vec(event(), 0..160),
    ) {
        let mut watched = Watched::new(devices, &sizes, approval);
        for event in &events {
            watched.happens(event);
        }
        watched.check_repeatable();
        watched.ends_or_waits();
    }

    #[test]
    fn never_more_devices_are_in_flight_than_parallelism_over_all_flash_jobs(
        devices in 11_usize..60,
        events in prop::collection::vec(gentle_event(), 50..300),
    ) {
        let mut watched = Watched::new(devices, &[], false);
        watched.cluster.edit(|spec| spec.batches = Some(vec![batch("only", None)]));
        for event in &events {
            watched.happens(event);
        }
        watched.ends_or_waits();
    }

    #[test]
    fn a_person_who_gives_in_to_everything_brings_every_run_to_its_end(
        devices in 4_usize..30,
        sizes in prop::collection::vec(1_i32..3, 0..3),
        events in prop::collection::vec(event(), 0..120),
    ) {
        let mut watched = Watched::new(devices, &sizes, true);
        for event in &events {
            watched.happens(event);
        }
        let names: Vec<String> = watched.cluster.parts.keys().cloned().collect();
        for name in &names {
            watched.cluster.returns(name);
            watched.cluster.part(name).broken = false;
        }
        watched.firmware(true);
        watched.older(false);
        let over = |cluster: &Cluster| cluster.status().phase.is_some_and(RolloutPhase::is_final);
        for number in 0..6 {
            watched.cluster.settle(400);
            watched.approve();
            watched.cluster.edit(|spec| {
                spec.suspend = None;
                if number > 2 {
                    spec.batches = None;
                }
                if number > 0 {
                    spec.retry = Some(format!("try-{number}"));
                }
            });
            watched.ends_or_waits();
        }
        prop_assert!(over(&watched.cluster), "{:?}", watched.cluster.status());
    }

    #[test]
    fn kills_between_and_within_decisions_change_no_result(
        devices in 1_usize..30,
        kills in prop::collection::vec((any::<u8>(), any::<bool>()), 0..60),
        broken in prop::collection::vec(0_usize..30, 0..3),
    ) {
        let mut quiet = Watched::new(devices, &[], false);
        for number in &broken {
            quiet.happens(&Event::Break(*number));
        }
        quiet.ends_or_waits();
        let mut disturbed = Watched::new(devices, &[], false);
        for number in &broken {
            disturbed.happens(&Event::Break(*number));
        }
        for (number, (steps, stored)) in kills.iter().enumerate() {
            disturbed.happens(&Event::Decide(*steps, *stored));
            disturbed.happens(&Event::Sync(number));
            disturbed.happens(&Event::Work(number / 2, number % 3));
        }
        disturbed.ends_or_waits();
        let (quiet, disturbed) = (quiet.cluster, disturbed.cluster);
        prop_assert_eq!(quiet.phase(), disturbed.phase());
        if quiet.phase() == RolloutPhase::Completed {
            prop_assert_eq!(quiet.members(), disturbed.members());
        }
    }
}
