//! One fleet, flashed by a FlashJob per batch and by a FlashRollout, each with a fresh operator.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use flashjob_api::{FlashRollout, Phase, RolloutPhase};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::runtime::wait::await_condition;
use serde::Serialize;
use serde_json::{Value, json};

use crate::audit::Mark;
use crate::job::{STUCK, apply_job, delete_job, jobs, nothing_left};
use crate::stage::{APPLICATION, Stage, finish};
use crate::usage::Usage;
use flashjob_testbed::process::{Process, eventually};

/// Average time per device after which a run counts as stuck.
const LONGEST_OF_DEVICE: Duration = Duration::from_secs(2);
const USER: &str = "operator";
const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];
const NAME: &str = "fleet";

/// Devices and the batches in which they are flashed.
pub struct Bench {
    pub devices: usize,
    pub parallelism: usize,
    /// Number of devices in each batch.
    pub batches: Vec<usize>,
}

impl Bench {
    /// Returns 12 batches: one device, 5 %, nine times 10 %, the rest.
    pub fn new(devices: usize, parallelism: usize) -> Self {
        let mut batches = vec![1, devices * 5 / 100];
        batches.extend([devices / 10; 9]);
        batches.push(devices - batches.iter().sum::<usize>());
        Self { devices, parallelism, batches }
    }

    fn rollout(&self, stage: &Stage, approval: bool) -> anyhow::Result<FlashRollout> {
        let batches = self.batches.iter().enumerate();
        let batches = batches.map(|(number, size)| {
            json!({
                "name": format!("b{number}"), "size": size, "approval": approval && number == 0,
            })
        });
        let rollout = json!({
            "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashRollout",
            "metadata": {"name": NAME},
            "spec": {
                "firmware": stage.firmware(), "version": "0.2.0", "parallelism": self.parallelism,
                "selector": {"applicationTypes": [APPLICATION], "versions": ["0.1.0"]},
                "batches": batches.collect::<Vec<Value>>(),
                "template": {
                    "flashjobPodImage": flashjob_testbed::testbed::FLASHER_IMAGE,
                    // The devices do not exist: none will report the new version.
                    "verify": {"mode": "None"},
                },
            },
        });
        Ok(serde_json::from_value(rollout)?)
    }

    fn limit(&self) -> Duration {
        STUCK + LONGEST_OF_DEVICE * u32::try_from(self.devices).unwrap_or(u32::MAX)
    }
}

/// Measurements of a flashed fleet.
#[derive(Serialize)]
pub struct Flashed {
    /// From the create of the first object to the end of the last, as observed by a watch.
    pub seconds: f64,
    pub devices_per_second: f64,
    /// Requests of the operator by verb and resource.
    pub requests: BTreeMap<String, usize>,
    /// CPU time and memory of the operator.
    pub usage: Usage,
}

/// Measurements of a planned run.
#[derive(Serialize)]
pub struct Planning {
    pub instances: usize,
    pub members: usize,
    /// From the create of the FlashRollout to its stored members.
    pub seconds: f64,
    /// CPU time of the operator meanwhile.
    pub cpu_seconds: f64,
    /// Size of the status as JSON.
    pub status_bytes: usize,
    pub peak_kib: u64,
}

/// Measurements of a waiting rollout.
#[derive(Serialize)]
pub struct Idle {
    pub seconds: u64,
    /// Write requests, without those for the Lease.
    pub writes: BTreeMap<String, usize>,
    pub cpu_seconds: f64,
}

fn rollouts(stage: &Stage) -> Api<FlashRollout> {
    Api::namespaced(stage.client.clone(), "default")
}

/// Flashes a FlashJob for each batch, each once the previous one has completed.
pub async fn jobs_in_turn(stage: &mut Stage, bench: &Bench) -> anyhow::Result<Flashed> {
    let uids = stage.instances(bench.devices).await?;
    let mut names = Vec::new();
    let flashed = flash(stage, bench, async |stage: &mut Stage| {
        let mut rest = uids.as_slice();
        for size in &bench.batches {
            let (batch, remainder) = rest.split_at(*size);
            rest = remainder;
            let name = stage.next_name("plain");
            let more = json!({"firmware": stage.firmware(), "parallelism": bench.parallelism});
            apply_job(stage, &name, batch, more).await?;
            job_completed(stage, bench, &name, batch.len()).await?;
            names.push(name);
        }
        Ok(())
    });
    let (flashed, operator) = flashed.await?;
    for name in names {
        delete_job(stage, &name).await?;
    }
    finish(operator).await?;
    Ok(flashed)
}

async fn job_completed(
    stage: &Stage,
    bench: &Bench,
    name: &str,
    devices: usize,
) -> anyhow::Result<()> {
    let ended = await_condition(jobs(stage), name, |job: Option<&flashjob_api::FlashJob>| {
        let phase = job.and_then(|job| job.status.as_ref()?.phase);
        matches!(phase, Some(Phase::Completed | Phase::Failed))
    });
    let job =
        tokio::time::timeout(bench.limit(), ended).await.context("a FlashJob is stuck")??;
    let status = job.and_then(|job| job.status).unwrap_or_default();
    ensure!(status.completed_uuids.len() == devices, "FlashJob {name}: {:?}", status.message);
    Ok(())
}

/// Flashes the same devices with a FlashRollout that has the same batches.
pub async fn rolled_out(stage: &mut Stage, bench: &Bench) -> anyhow::Result<Flashed> {
    let flashed = flash(stage, bench, async |stage: &mut Stage| {
        let rollout = bench.rollout(stage, false)?;
        rollouts(stage).create(&PostParams::default(), &rollout).await?;
        let stops = |rollout: Option<&FlashRollout>| {
            let phase = rollout.and_then(|rollout| rollout.status.as_ref()?.phase);
            phase.is_some_and(|phase| phase.is_final() || phase == RolloutPhase::Paused)
        };
        let ended = await_condition(rollouts(stage), NAME, stops);
        let ended = tokio::time::timeout(bench.limit(), ended).await;
        let status =
            ended.context("the FlashRollout is stuck")??.and_then(|rollout| rollout.status);
        let status = status.unwrap_or_default();
        let completed = status.counts.map_or(0, |counts| counts.completed as usize);
        ensure!(completed == bench.devices, "the FlashRollout: {:?}", status.message);
        let batches: Vec<usize> =
            status.batches.iter().map(|batch| batch.planned as usize).collect();
        ensure!(batches == bench.batches, "batches of {batches:?}");
        Ok(())
    });
    let (flashed, operator) = flashed.await?;
    delete_rollout(stage).await?;
    finish(operator).await?;
    Ok(flashed)
}

/// Starts a fresh operator, and measures it while the work is done. The operator keeps running,
/// because nothing else removes finalizers.
async fn flash(
    stage: &mut Stage,
    bench: &Bench,
    work: impl AsyncFnOnce(&mut Stage) -> anyhow::Result<()>,
) -> anyhow::Result<(Flashed, Process)> {
    stage.set_pod_time(0).await?;
    let operator = stage.start_operator().await?;
    let mark = Mark::at_end(&stage.control_plane.audit_log)?;
    let before = Usage::of(operator.id())?;
    let begin = Instant::now();
    work(stage).await?;
    let seconds = begin.elapsed().as_secs_f64();
    let after = Usage::of(operator.id())?;
    nothing_left(stage).await?;
    let requests = mark.read()?.counts(USER);
    let usage = Usage { cpu_seconds: after.cpu_seconds - before.cpu_seconds, ..after };
    let devices_per_second = bench.devices as f64 / seconds;
    Ok((Flashed { seconds, devices_per_second, requests, usage }, operator))
}

async fn delete_rollout(stage: &Stage) -> anyhow::Result<()> {
    rollouts(stage).delete(NAME, &DeleteParams::default()).await?;
    eventually("the FlashRollout and its FlashJobs are gone", STUCK, || async {
        let job_count = jobs(stage).list_metadata(&ListParams::default()).await?.items.len();
        let is_gone = rollouts(stage).get_opt(NAME).await?.is_none() && job_count == 0;
        Ok(is_gone.then_some(()))
    })
    .await
}

/// Measures selecting and planning among all existing Instances: from the create of the
/// FlashRollout to its stored members.
pub async fn planned(stage: &mut Stage, bench: &Bench) -> anyhow::Result<Planning> {
    let operator = stage.start_operator().await?;
    let before = Usage::of(operator.id())?;
    let begin = Instant::now();
    let rollout = bench.rollout(stage, true)?;
    rollouts(stage).create(&PostParams::default(), &rollout).await?;
    let is_planned = |rollout: Option<&FlashRollout>| {
        let status = rollout.and_then(|rollout| rollout.status.as_ref());
        status.is_some_and(|status| !status.members.is_empty())
    };
    let planned_rollout = await_condition(rollouts(stage), NAME, is_planned);
    let planned_rollout =
        tokio::time::timeout(STUCK, planned_rollout).await.context("the run is not planned")??;
    let seconds = begin.elapsed().as_secs_f64();
    let after = Usage::of(operator.id())?;
    finish(operator).await?;
    let status = planned_rollout.and_then(|rollout| rollout.status).unwrap_or_default();
    let members = status.members.iter().map(|batch| batch.instances.len()).sum();
    ensure!(members == bench.devices, "{members} members of {}", bench.devices);
    Ok(Planning {
        instances: stage.instance_count(),
        members,
        seconds,
        cpu_seconds: after.cpu_seconds - before.cpu_seconds,
        status_bytes: serde_json::to_vec(&status)?.len(),
        peak_kib: after.peak_kib,
    })
}

/// Counts an operator's writes while the planned rollout waits for its approval.
pub async fn idle(stage: &mut Stage, bench: &Bench, seconds: u64) -> anyhow::Result<Idle> {
    let operator = stage.start_operator().await?;
    let waits = |rollout: Option<&FlashRollout>| {
        let phase = rollout.and_then(|rollout| rollout.status.as_ref()?.phase);
        phase == Some(RolloutPhase::Waiting)
    };
    let waits = await_condition(rollouts(stage), NAME, waits);
    tokio::time::timeout(bench.limit(), waits).await.context("the rollout does not wait")??;
    // The writes of the start are done by now, or within the same second.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mark = Mark::at_end(&stage.control_plane.audit_log)?;
    let before = Usage::of(operator.id())?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = Usage::of(operator.id())?;
    let mut writes = mark.read()?.counts(USER);
    writes.retain(|what, _| {
        // The Lease is renewed at fixed intervals.
        WRITES.iter().any(|verb| what.starts_with(&format!("{verb} ")))
            && !what.ends_with(" leases")
    });
    delete_rollout(stage).await?;
    finish(operator).await?;
    Ok(Idle { seconds, writes, cpu_seconds: after.cpu_seconds - before.cpu_seconds })
}
