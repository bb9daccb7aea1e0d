//! The operator is killed at each boundary between two of its requests, and at random moments;
//! nothing is lost, nothing is done twice.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flashjob_api::{FINALIZER, FlashRolloutStatus, RolloutPhase};
use flashjob_end_to_end::counted::{Counted, restart};
use flashjob_end_to_end::rollouts::{apply, change, rollout, rollouts, status_where};
use flashjob_end_to_end::{LIMIT, ended, jobs, nothing_left, wait_until_gone};
use flashjob_testbed::proxy::{Action, Call};
use flashjob_testbed::{Options, Proxy, Testbed};
use kube::api::DeleteParams;
use serde_json::{Value, json};

/// Request that the operator sends to the API server during the life of a FlashJob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    AddFinalizer,
    FirstStatus,
    CreateService,
    CreatePod,
    StatusWithResult,
    DeletePod,
    DeleteService,
    RemoveFinalizer,
}

const POINTS: [Point; 8] = [
    Point::AddFinalizer,
    Point::FirstStatus,
    Point::CreateService,
    Point::CreatePod,
    Point::StatusWithResult,
    Point::DeletePod,
    Point::DeleteService,
    Point::RemoveFinalizer,
];

impl Point {
    fn is(self, call: &Call) -> bool {
        let status = &call.body["status"];
        let finalizers = call.body["metadata"]["finalizers"].as_array();
        let has_ours = finalizers
            .is_some_and(|finalizers| finalizers.iter().any(|finalizer| finalizer == FINALIZER));
        let request = (call.method.as_str(), call.resource.as_str());
        match self {
            Self::AddFinalizer => request == ("PATCH", "flashjobs") && has_ours,
            Self::RemoveFinalizer => {
                request == ("PATCH", "flashjobs") && finalizers.is_some() && !has_ours
            }
            Self::FirstStatus => {
                request == ("PATCH", "flashjobs/status") && status["run"].is_string()
            }
            Self::StatusWithResult => {
                request == ("PATCH", "flashjobs/status")
                    && status["completedUUIDs"].as_array().is_some_and(|uids| !uids.is_empty())
            }
            Self::CreateService => request == ("POST", "services"),
            Self::CreatePod => request == ("POST", "pods"),
            Self::DeletePod => request == ("DELETE", "pods"),
            Self::DeleteService => request == ("DELETE", "services"),
        }
    }
}

async fn testbed(devices: usize, addresses: u32) -> anyhow::Result<(Testbed, Proxy)> {
    let options = Options {
        devices: vec![format!("esp32:thermo:0.1.0={devices}")],
        addresses,
        ..Options::default()
    };
    let mut testbed = Testbed::start(&options).await?;
    let proxy = Proxy::start(&mut testbed.control_plane).await?;
    testbed.start_operator().await?;
    Ok((testbed, proxy))
}

#[tokio::test]
async fn an_operator_killed_before_or_after_any_of_its_requests_goes_on_from_what_is_stored()
-> anyhow::Result<()> {
    let (mut testbed, proxy) = testbed(3, 2).await?;
    for point in POINTS {
        for action in [Action::HoldRequest, Action::HoldAnswer] {
            let place = if action == Action::HoldRequest { "before" } else { "after" };
            let killed = killed_at(&mut testbed, &proxy, point, action).await;
            killed.map_err(|error| {
                error.context(format!("the operator was killed {place} {point:?}"))
            })?;
        }
    }
    nothing_left(&testbed).await
}

async fn killed_at(
    testbed: &mut Testbed,
    proxy: &Proxy,
    point: Point,
    action: Action,
) -> anyhow::Result<()> {
    proxy.on(action, 1, move |call| point.is(call));
    let counted = Counted::begin(testbed, json!({})).await?;
    if point == Point::RemoveFinalizer {
        counted.check(testbed, ended(testbed, &counted.name).await?).await?;
        jobs(testbed).delete(&counted.name, &DeleteParams::default()).await?;
    }
    let held = proxy.held(LIMIT).await?;
    testbed.kill_operator().await?;
    drop(held);
    restart(testbed).await?;
    anyhow::ensure!(proxy.clear_rules() == 1, "the rule was applied once");
    if point != Point::RemoveFinalizer {
        return counted.end(testbed).await;
    }
    wait_until_gone(testbed, &counted.name).await?;
    counted.flashed_once(testbed).await
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// A small generator whose whole state is its seed (SplitMix64), so that a run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// Returns the number of kills (FLASHJOB_RANDOM_KILLS) and the seed, and prints both.
fn kills(default: u64) -> anyhow::Result<(u64, u64)> {
    let kills = number("FLASHJOB_RANDOM_KILLS").unwrap_or(default);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let seed = number("FLASHJOB_SEED").unwrap_or(clock);
    println!("FLASHJOB_SEED={seed} FLASHJOB_RANDOM_KILLS={kills}");
    Ok((kills, seed))
}

/// FLASHJOB_RANDOM_KILLS sets the number of kills; FLASHJOB_SEED repeats a run.
#[tokio::test]
async fn an_operator_killed_at_random_moments_flashes_every_device_as_often_as_its_attempts_say()
-> anyhow::Result<()> {
    let (kills, seed) = kills(10)?;
    let mut random = Random(seed);
    let (mut testbed, _proxy) = testbed(6, 3).await?;
    let mut counted = Counted::begin(&testbed, spec(&mut random)).await?;
    for kill in 0..kills {
        let pause = Duration::from_millis(random.below(1500));
        // A random pause, not a wait for a condition.
        tokio::time::sleep(pause).await;
        restart(&mut testbed).await?;
        if jobs(&testbed)
            .get(&counted.name)
            .await?
            .status
            .is_some_and(|status| status.completion_time.is_some())
        {
            let checked = counted.end(&testbed).await;
            checked
                .map_err(|error| error.context(format!("kill {kill}, FLASHJOB_SEED={seed}")))?;
            counted = Counted::begin(&testbed, spec(&mut random)).await?;
        }
    }
    counted.end(&testbed).await.map_err(|error| error.context(format!("FLASHJOB_SEED={seed}")))
}

fn spec(random: &mut Random) -> Value {
    json!({
        "parallelism": 1 + random.below(6),
        "exposure": if random.below(2) == 0 { "PerDevice" } else { "Pooled" },
    })
}

/// Version that a run flashes: different from the previous run's, because only a change proves a
/// flash.
fn version(run: u32) -> &'static str {
    if run.is_multiple_of(2) { "0.3.0" } else { "0.2.0" }
}

/// Fields of a rollout's spec that start a run.
fn run_of(testbed: &Testbed, run: u32) -> Value {
    let firmware = format!("{}/nubificus/firmware:{}", testbed.registry.host, version(run));
    json!({"firmware": firmware, "version": version(run)})
}

/// Fails unless each run so far flashed every device once, at the first attempt.
async fn flashed_once_a_run(testbed: &Testbed, run: u32) -> anyhow::Result<()> {
    for report in testbed.fleet.reports().await? {
        let done = (report.updates, report.flashed, report.conflicts, report.version.as_str());
        anyhow::ensure!(done == (run, run, 0, version(run)), "run {run}: {report:?}");
    }
    Ok(())
}

fn has_ended(status: &FlashRolloutStatus, run: u32) -> bool {
    status.version.as_deref() == Some(version(run)) && status.completion_time.is_some()
}

/// Waits until a run of the rollout has ended, and checks its outcome.
async fn end_run(testbed: &Testbed, run: u32) -> anyhow::Result<()> {
    let status =
        status_where(testbed, "fleet", "it ends", |status| has_ended(status, run)).await?;
    anyhow::ensure!(status.phase == Some(RolloutPhase::Completed), "run {run}: {status:?}");
    let counts = status.counts.unwrap_or_default();
    anyhow::ensure!((counts.planned, counts.completed) == (10, 10), "run {run}: {status:?}");
    flashed_once_a_run(testbed, run).await
}

/// FLASHJOB_RANDOM_KILLS sets the number of kills; FLASHJOB_SEED repeats a run.
#[tokio::test]
async fn a_rollout_whose_operator_is_killed_all_the_time_flashes_each_device_once_a_run()
-> anyhow::Result<()> {
    let (kills, seed) = kills(12)?;
    let mut random = Random(seed);
    let (mut testbed, _proxy) = testbed(10, 5).await?;
    let mut run = 1;
    let batches = json!([{"name": "canary", "size": 1}, {"name": "half", "size": "50%"}]);
    let mut spec = json!({"batches": batches, "parallelism": 3, "allowDowngrade": true});
    merge(&mut spec, run_of(&testbed, run));
    apply(&testbed, &rollout(&testbed, "fleet", spec)).await?;
    let mut reached = String::new();
    for kill in 0..kills {
        if random.below(2) == 0 {
            // A random pause, not a wait for a condition.
            tokio::time::sleep(Duration::from_millis(random.below(1500))).await;
        } else {
            let state = |status: &FlashRolloutStatus| {
                format!("{:?} {:?} {:?}", status.run, status.phase, status.counts)
            };
            let gets_on = |status: &FlashRolloutStatus| state(status) != reached;
            reached = state(&status_where(&testbed, "fleet", "it gets on", gets_on).await?);
        }
        restart(&mut testbed).await?;
        let status = rollouts(&testbed).get("fleet").await?.status.unwrap_or_default();
        if has_ended(&status, run) {
            let checked = end_run(&testbed, run).await;
            checked
                .map_err(|error| error.context(format!("kill {kill}, FLASHJOB_SEED={seed}")))?;
            run += 1;
            change(&testbed, "fleet", run_of(&testbed, run)).await?;
        }
    }
    let checked = end_run(&testbed, run).await;
    checked.map_err(|error| error.context(format!("FLASHJOB_SEED={seed}")))?;
    nothing_left(&testbed).await
}

fn merge(spec: &mut Value, changes: Value) {
    if let (Some(spec), Value::Object(changes)) = (spec.as_object_mut(), changes) {
        spec.extend(changes);
    }
}
