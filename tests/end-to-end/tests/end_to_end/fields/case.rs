//! One FlashJob that tests one field, with devices that no other test uses.

use flashjob_api::{FlashJobStatus, Phase};
use flashjob_end_to_end::{LIMIT, apply, create, ended, job, jobs, reason_of};
use flashjob_simulators::devices::{Behaviour, Report};
use flashjob_testbed::Testbed;
use flashjob_testbed::process::eventually;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

pub type Devices = Vec<(String, Report)>;

/// Separate devices to test one field.
pub struct Case<'a> {
    pub testbed: &'a Testbed,
    pub name: &'static str,
    pub devices: Devices,
}

impl Case<'_> {
    pub fn uids(&self) -> Vec<String> {
        self.devices.iter().map(|(uid, _)| uid.clone()).collect()
    }

    pub async fn start(&self, spec: Value) -> anyhow::Result<()> {
        create(self.testbed, &job(self.name, &self.uids(), spec)).await
    }

    pub async fn change(&self, spec: Value) -> anyhow::Result<()> {
        apply(self.testbed, &job(self.name, &self.uids(), spec)).await
    }

    pub async fn run(&self, spec: Value) -> anyhow::Result<FlashJobStatus> {
        self.start(spec).await?;
        ended(self.testbed, self.name).await
    }

    pub async fn all_behave(&self, behaviour: Behaviour) -> anyhow::Result<()> {
        for (_, report) in &self.devices {
            self.testbed.fleet.behave(&report.id, &behaviour).await?;
        }
        Ok(())
    }

    pub async fn updates(&self) -> anyhow::Result<Vec<u32>> {
        let reports = self.testbed.fleet.reports().await?;
        let of = |id: &str| {
            reports.iter().find(|report| report.id == id).map_or(0, |report| report.updates)
        };
        Ok(self.devices.iter().map(|(_, report)| of(&report.id)).collect())
    }

    /// Checks that the first device failed for this reason, after these numbers of updates.
    pub async fn expect(
        &self,
        status: &FlashJobStatus,
        reason: &str,
        updates: &[u32],
    ) -> anyhow::Result<()> {
        assert_eq!(
            reason_of(status, &self.devices[0].0).as_deref(),
            Some(reason),
            "{}: {status:?}",
            self.name
        );
        assert_eq!(self.updates().await?, updates, "{}: {status:?}", self.name);
        Ok(())
    }

    pub fn completed(&self, status: &FlashJobStatus) {
        assert_eq!(status.phase, Some(Phase::Completed), "{}: {status:?}", self.name);
    }

    /// Checks that the job stops after this many failures, when every device fails. A failed
    /// device frees its place a moment before its failure counts, so one more device may have
    /// begun.
    pub async fn is_stopped(&self, mut spec: Value, failures: usize) -> anyhow::Result<()> {
        self.all_behave(broken()).await?;
        spec["backoffLimitPerDevice"] = json!(0);
        spec["parallelism"] = json!(1);
        let status = self.run(spec).await?;
        let failed = status.failed_uuids.len();
        assert_eq!(failed, failures, "{}: {status:?}", self.name);
        assert_eq!(
            usize::try_from(self.updates().await?.iter().sum::<u32>())?,
            failed,
            "{}: {status:?}",
            self.name
        );
        let stopped = status
            .skipped_uuids
            .iter()
            .all(|uid| reason_of(&status, uid).as_deref() == Some("JobStopped"));
        assert!(
            stopped && status.skipped_uuids.len() == self.devices.len() - failed,
            "{}: {status:?}",
            self.name
        );
        Ok(())
    }

    /// Reads the job's Pods and Services repeatedly until the job has ended.
    pub async fn watch<T>(
        &self,
        look: impl Fn(Vec<Pod>, Vec<Service>) -> T,
    ) -> anyhow::Result<(Vec<T>, FlashJobStatus)> {
        let pods: Api<Pod> = Api::namespaced(self.testbed.client.clone(), "default");
        let services: Api<Service> = Api::namespaced(self.testbed.client.clone(), "default");
        let of_job = ListParams::default().labels(&format!("app={}", self.name));
        let mut looks = Vec::new();
        let jobs = jobs(self.testbed);
        let status = eventually("the job is over", LIMIT, || {
            let all = async {
                anyhow::Ok((
                    pods.list(&of_job).await?.items,
                    services.list(&of_job).await?.items,
                    jobs.get(self.name).await?,
                ))
            };
            async { Ok(Some(all.await?)) }
        });
        let mut snapshot = status.await?;
        loop {
            looks.push(look(snapshot.0, snapshot.1));
            if let Some(status) =
                snapshot.2.status.filter(|status| status.completion_time.is_some())
            {
                return Ok((looks, status));
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            snapshot = (
                pods.list(&of_job).await?.items,
                services.list(&of_job).await?.items,
                jobs.get(self.name).await?,
            );
        }
    }
}

/// Behaviour of a device that cuts every transfer.
pub fn broken() -> Behaviour {
    Behaviour { cut_transfer: true, ..Behaviour::default() }
}
