//! A FlashJob whose flashes are counted: whatever happens to the operator and the API server
//! meanwhile, each device is flashed exactly as often as its attempts say, the status is correct,
//! and no object is left behind.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::ensure;
use flashjob_api::{FlashJobStatus, Phase};
use flashjob_simulators::devices::{Behaviour, Report};
use flashjob_testbed::Testbed;
use flashjob_testbed::process::eventually;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::{LIMIT, create, delete, ended, job, nothing_left};

/// Number of runs so far. Each run flashes a different version, because only a change proves a
/// flash.
static RUNS: AtomicU32 = AtomicU32::new(0);

/// Devices under test, with their reports from before the job.
pub struct Counted {
    /// Name of the FlashJob.
    pub name: String,
    /// Uids of the devices.
    pub uids: Vec<String>,
    before: Vec<(String, Report)>,
}

impl Counted {
    /// Creates a FlashJob for all devices of the testbed. The second device breaks the transfer of
    /// its first attempt.
    ///
    /// # Errors
    /// The API server or the simulator does not answer.
    pub async fn begin(testbed: &Testbed, spec: Value) -> anyhow::Result<Self> {
        Self::begin_with(testbed, usize::MAX, spec).await
    }

    /// Like [`Self::begin`], for the first `count` devices; no other device may be flashed
    /// meanwhile.
    ///
    /// # Errors
    /// The API server or the simulator does not answer.
    pub async fn begin_with(testbed: &Testbed, count: usize, spec: Value) -> anyhow::Result<Self> {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let mut before = testbed.devices().await?;
        before.truncate(count);
        let uids: Vec<String> = before.iter().map(|(uid, _)| uid.clone()).collect();
        testbed
            .fleet
            .behave(
                &before[1].1.id,
                &Behaviour { cut_transfer: true, times: Some(1), ..Behaviour::default() },
            )
            .await?;
        let version = if before[0].1.version == "0.2.0" { "0.3.0" } else { "0.2.0" };
        let mut object = job(&format!("counted-{run}"), &uids, spec);
        object["spec"]["version"] = json!(version);
        object["spec"]["firmware"] = json!(format!("harbor.nbfc.io/nubificus/firmware:{version}"));
        create(testbed, &object).await?;
        Ok(Self { name: format!("counted-{run}"), uids, before })
    }

    /// Waits until the job has ended, checks its outcome, and deletes it.
    ///
    /// # Errors
    /// A device was flashed too often or too seldom, the status differs, or an object is left
    /// behind.
    pub async fn end(self, testbed: &Testbed) -> anyhow::Result<()> {
        self.check(testbed, ended(testbed, &self.name).await?).await?;
        // Before the job is deleted: garbage collection would hide what the operator left behind.
        nothing_left(testbed).await?;
        delete(testbed, &self.name).await
    }

    /// Checks the outcome of the job.
    ///
    /// # Errors
    /// A device was flashed too often or too seldom, or the status differs.
    pub async fn check(&self, testbed: &Testbed, status: FlashJobStatus) -> anyhow::Result<()> {
        ensure!(status.phase == Some(Phase::Completed), "{}: {status:?}", self.name);
        ensure!(status.completed_uuids == self.uids, "{}: {status:?}", self.name);
        ensure!(
            status.devices.is_empty(),
            "{}: no device is at work any more: {status:?}",
            self.name
        );
        let counts = status.counts.unwrap_or_default();
        ensure!(
            (counts.completed, counts.unverified) == (counts.total, 0),
            "{}: {counts:?}",
            self.name
        );
        self.flashed_once(testbed).await
    }

    /// Checks the counters that the devices report.
    ///
    /// # Errors
    /// A device was flashed too often or too seldom.
    pub async fn flashed_once(&self, testbed: &Testbed) -> anyhow::Result<()> {
        for (index, (after, (_, before))) in
            testbed.fleet.reports().await?.into_iter().zip(&self.before).enumerate()
        {
            let attempts = if index == 1 { 2 } else { 1 };
            let done = (
                after.updates - before.updates,
                after.flashed - before.flashed,
                after.conflicts - before.conflicts,
            );
            ensure!(
                done == (attempts, 1, 0),
                "{}: expected {attempts} updates, 1 flash and no conflict, not {done:?}: \
                 {after:?}",
                self.name
            );
        }
        Ok(())
    }
}

/// Restarts the operator after a kill. Deletes the Lease of the dead operator, so that the new one
/// need not wait until it expires.
///
/// # Errors
/// The operator does not become ready.
pub async fn restart(testbed: &mut Testbed) -> anyhow::Result<()> {
    testbed.kill_operator().await?;
    let leases: Api<Lease> = Api::namespaced(testbed.client.clone(), "default");
    if let Err(error) = leases.delete("flashjob-operator", &DeleteParams::default()).await
        && !matches!(&error, kube::Error::Api(status) if status.code == 404)
    {
        return Err(error.into());
    }
    testbed.start_operator().await?;
    Ok(())
}

/// Waits until this many updates have begun since the job was created.
///
/// # Errors
/// Fewer updates begin within [`LIMIT`].
pub async fn updates(testbed: &Testbed, counted: &Counted, minimum: u32) -> anyhow::Result<()> {
    eventually("some devices are flashed", LIMIT, || async {
        let sum = |reports: &mut dyn Iterator<Item = u32>| reports.sum::<u32>();
        let now = sum(&mut testbed.fleet.reports().await?.iter().map(|report| report.updates));
        let then = sum(&mut counted.before.iter().map(|(_, report)| report.updates));
        Ok((now - then >= minimum).then_some(()))
    })
    .await
}
