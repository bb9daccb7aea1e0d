//! One FlashJob, carried out by a fresh operator and measured from its creation to its Completed
//! status.

use std::time::{Duration, Instant};

use anyhow::Context;
use flashjob_api::{Exposure, FlashJob, Phase};
use flashjob_testbed::process::{Process, eventually};
use flashjob_testbed::testbed::FLASHER_IMAGE;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use crate::audit::Mark;
use crate::case::{Case, Runner};
use crate::stage::{Stage, finish};
use crate::table::{Measured, Resident};
use crate::usage::Usage;

/// Time without a finished device after which a job counts as stuck.
pub const STUCK: Duration = Duration::from_secs(120);
/// Interval at which a job is polled; the exact times come from the audit log.
const LOOK: Duration = Duration::from_secs(1);

/// Returns the API of the bench's FlashJobs.
pub fn jobs(stage: &Stage) -> Api<FlashJob> {
    Api::namespaced(stage.client.clone(), "default")
}

/// Creates a FlashJob for these devices.
pub async fn apply_job(
    stage: &Stage,
    name: &str,
    uids: &[String],
    more: Value,
) -> anyhow::Result<FlashJob> {
    let mut job = json!({
        "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashJob",
        "metadata": {"name": name},
        "spec": {
            "uuid": uids, "firmware": "harbor.nbfc.io/nubificus/firmware:0.2.0",
            "version": "0.2.0", "flashjobPodImage": FLASHER_IMAGE,
            // The devices do not exist: none will report the new version.
            "verify": {"mode": "None"},
        },
    });
    if let (Some(spec), Value::Object(more)) = (job["spec"].as_object_mut(), more) {
        spec.extend(more);
    }
    Ok(jobs(stage).create(&PostParams::default(), &serde_json::from_value(job)?).await?)
}

/// Deletes a FlashJob, and waits until it and all of its objects are gone.
pub async fn delete_job(stage: &Stage, name: &str) -> anyhow::Result<()> {
    nothing_left(stage).await?;
    jobs(stage).delete(name, &DeleteParams::default()).await?;
    eventually("the FlashJob is gone", STUCK, || async {
        Ok(jobs(stage).get_opt(name).await?.is_none().then_some(()))
    })
    .await
}

/// Waits until all flash Pods and Services are gone.
pub async fn nothing_left(stage: &Stage) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::all(stage.client.clone());
    let services: Api<Service> = Api::all(stage.client.clone());
    let flash = ListParams::default().labels("app,uuid");
    eventually("no flash Pod and no flash Service is left", STUCK, || async {
        let (pods, services) =
            tokio::try_join!(pods.list_metadata(&flash), services.list_metadata(&flash))?;
        Ok((pods.items.is_empty() && services.items.is_empty()).then_some(()))
    })
    .await
}

/// Measures the operator in one case.
pub async fn measure(
    stage: &mut Stage,
    case: &Case,
    exposure: Exposure,
) -> anyhow::Result<Measured> {
    stage.set_pod_time(case.pod_ms).await?;
    let (name, uids) = (stage.next_name("job"), stage.instances(case.devices).await?);
    let mut operator = stage.start_operator().await?;
    let mark = Mark::at_end(&stage.control_plane.audit_log)?;
    let before = Usage::of(operator.id())?;
    apply_job(stage, &name, &uids, json!({"parallelism": case.parallelism, "exposure": exposure}))
        .await?;
    completed(stage, &mut operator, &name, case.devices).await?;
    nothing_left(stage).await?;
    // An object is gone some time before the API server has answered and logged the request.
    let log = eventually("all deletes are answered", STUCK, || async {
        let log = mark.read()?;
        Ok(log.deletes_are_answered("operator", "services").then_some(log))
    });
    let log = log.await?;
    let after = Usage::of(operator.id())?;
    let start = log.created("create flashjobs", &name).context("the audit log has no FlashJob")?;
    let writes = log
        .of("operator")
        .filter(|request| request.what() == "patch flashjobs/status" && request.is_ok());
    let end = writes
        .map(|request| request.stage_timestamp)
        .max()
        .context("the audit log has no status")?;
    let usage = Usage { cpu_seconds: after.cpu_seconds - before.cpu_seconds, ..after };
    let measured =
        Measured::new(case, &log, "operator", end.duration_since(start).as_secs_f64(), usage);
    delete_job(stage, &name).await?;
    finish(operator).await?;
    Ok(measured)
}

/// Waits until the job has ended, and fails if a device failed.
async fn completed(
    stage: &Stage,
    operator: &mut Process,
    name: &str,
    devices: usize,
) -> anyhow::Result<()> {
    let (mut done, mut since) = (0, Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        operator.check()?;
        let status = jobs(stage).get(name).await?.status.unwrap_or_default();
        let message = status.message.clone().unwrap_or_default();
        let counts = status.counts.unwrap_or_default();
        match status.phase {
            Some(Phase::Completed) => {
                anyhow::ensure!(
                    status.completed_uuids.len() == devices,
                    "FlashJob {name} completed without all devices: {message}"
                );
                return Ok(());
            }
            Some(Phase::Failed) => anyhow::bail!("FlashJob {name} failed: {message}"),
            _ => {}
        }
        if counts.completed as usize > done {
            (done, since) = (counts.completed as usize, Instant::now());
        }
        anyhow::ensure!(
            since.elapsed() < STUCK,
            "FlashJob {name} got no further than {done} devices: {message}"
        );
    }
}

/// Flashes one device, so that the plugin is compiled and every part has run once. Returns the
/// operator's peak memory, in KiB, including the compilation.
pub async fn warm_up(stage: &mut Stage) -> anyhow::Result<u64> {
    let case = Case { devices: 1, parallelism: 1, pod_ms: 0, runner: Runner::PerDevice };
    Ok(measure(stage, &case, Exposure::PerDevice).await?.usage.peak_kib)
}

/// Measures the resident memory of an idle operator with the existing Instances, and with this
/// many more.
pub async fn memory_of_instances(stage: &mut Stage, more: usize) -> anyhow::Result<Vec<Resident>> {
    let mut resident = Vec::new();
    for instances in [stage.instance_count(), stage.instance_count() + more] {
        stage.other_instances(instances).await?;
        let operator = stage.start_operator().await?;
        let usage = Usage::of(operator.id())?;
        finish(operator).await?;
        resident.push(Resident {
            instances,
            resident_kib: usage.resident_kib,
            peak_kib: usage.peak_kib,
        });
    }
    Ok(resident)
}
