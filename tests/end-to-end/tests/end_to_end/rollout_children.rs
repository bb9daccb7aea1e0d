//! FlashJobs of a FlashRollout that another client deletes.

use std::collections::HashSet;

use anyhow::{Context, ensure};
use flashjob_api::{FlashJob, RolloutPhase};
use flashjob_end_to_end::rollouts::{apply, behave, ended, rollout};
use flashjob_end_to_end::{LIMIT, jobs};
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::process::eventually;
use flashjob_testbed::{Options, Testbed};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Preconditions};
use serde_json::json;

fn completed(job: &FlashJob) -> HashSet<String> {
    let status = job.status.as_ref();
    status.into_iter().flat_map(|status| status.completed_uuids.iter().cloned()).collect()
}

#[tokio::test]
async fn a_device_with_a_result_keeps_it_when_its_flash_job_is_deleted_in_mid_run()
-> anyhow::Result<()> {
    let devices = vec!["esp32:thermo:0.1.0=16".to_owned()];
    let mut testbed = Testbed::start(&Options { devices, ..Options::default() }).await?;
    testbed.start_operator().await?;
    behave(&testbed, &Behaviour { transfer_ms: 300, ..Behaviour::default() }).await?;
    // No version is requested, so only the stored result keeps a device from the next attempt.
    let spec = json!({
        "batches": [{"name": "all"}], "parallelism": 2, "template": {"verify": {"mode": "None"}},
    });
    apply(&testbed, &rollout(&testbed, "fleet", spec)).await?;
    let mut deleted = HashSet::new();
    let mut results: HashSet<String> = HashSet::new();
    let is_tried_again = |job: &FlashJob, results: &HashSet<String>| {
        job.spec.uuid.iter().any(|uid| results.contains(uid))
    };
    // Deletes a FlashJob as soon as it has a result, most times before the rollout has recorded
    // it.
    for _ in 0..2 {
        let job = eventually("a FlashJob with a result of its own", LIMIT, || async {
            let jobs = jobs(&testbed).list(&ListParams::default()).await?.items;
            Ok(jobs.into_iter().find(|job| {
                let is_new = job.uid().is_some_and(|uid| !deleted.contains(&uid));
                is_new && !completed(job).is_empty()
            }))
        })
        .await?;
        ensure!(!is_tried_again(&job, &results), "{results:?}: {job:?}");
        let uid = job.uid().context("a uid")?;
        let of_this = Preconditions { uid: Some(uid.clone()), resource_version: None };
        let delete = DeleteParams { preconditions: Some(of_this), ..DeleteParams::default() };
        jobs(&testbed).delete(&job.name_any(), &delete).await?;
        results.extend(completed(&job));
        deleted.insert(uid);
    }
    let status = ended(&testbed, "fleet").await?;
    ensure!(status.phase == Some(RolloutPhase::Completed), "{status:?}");
    ensure!(results.len() >= 2, "{results:?}");
    let mut last = jobs(&testbed).list(&ListParams::default()).await?.items;
    // A deleted FlashJob may still exist, with the devices that it completed.
    last.retain(|job| job.uid().is_some_and(|uid| !deleted.contains(&uid)));
    ensure!(!last.iter().any(|job| is_tried_again(job, &results)), "{results:?}: {last:?}");
    let counts = status.counts.context("counts")?;
    ensure!((counts.completed, counts.failed) == (16, 0), "{counts:?}");
    Ok(())
}
